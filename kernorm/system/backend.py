"""Keras' backend: chosen before Keras is imported, seeded and made deterministic before the first operation."""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.system.machine import cores, require_posix, visible_cores
from kernorm.system.processes import silenced_stderr

# What TensorFlow and Keras import where it is installed, for uses that kernorm's own processes do not have: wrappers
# for scikit-learn, data frames as input, LiteRT's converter of JAX functions, plots of images, notebooks. It takes a
# third of the time that a process needs to start.
_UNUSED = ("sklearn", "pandas", "jax", "matplotlib", "IPython")
# Held while the backend is chosen and imported: TensorFlow must not be used while another thread imports it.
_importing = threading.RLock()
# Whether claim_process was called.
_claimed = False
# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

# Keras' global settings in their order, with the values that nets, losses, metrics and loops are made for. The dtype
# policy comes last, since one that is not set follows floatx.
_KERAS_SETTINGS: dict[str, Any] = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
    "max_epochs": None,
    "max_steps_per_epoch": None,
    "dtype_policy": "float32",
}


def choose_backend() -> str:
    """Chooses Keras' backend before it is imported and quietens TensorFlow's start; returns the backend's name.

    That is the one of KERAS_BACKEND, else of a Keras that is imported already, as in a notebook, else TensorFlow.

    Raises:
        UsageError: the backend is not one that kernorm trains with, is not installed, or Keras runs on another one; or
            the system is Windows.
    """
    require_posix()
    with _importing:
        # An import that another thread has begun is waited for.
        imported = importlib.import_module("keras").config.backend() if "keras" in sys.modules else None
        backend = _checked(os.environ.get("KERAS_BACKEND", imported or "tensorflow"))
        os.environ["KERAS_BACKEND"] = backend
        if imported not in (None, backend):
            raise UsageError(
                "Keras keeps the backend that it was imported with.",
                f"KERAS_BACKEND={backend} with Keras on {imported}",
                "Start a new process, or set KERAS_BACKEND before Keras is imported.",
            )
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if backend == "tensorflow":
            import_tensorflow()
        elif imported is None:
            with _quick_import(backend):
                importlib.import_module("keras")
    return backend


def import_tensorflow() -> None:
    """Imports TensorFlow without what its native code prints before it reads any log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _importing:
        if "tensorflow" not in sys.modules:
            with silenced_stderr(), _quick_import("tensorflow"):
                importlib.import_module("tensorflow")


def claim_process() -> None:
    """Says that this process is kernorm's own whatever its main module is, as a worker of an engine is."""
    global _claimed
    _claimed = True


@contextlib.contextmanager
def _quick_import(backend: str) -> Iterator[None]:
    """Imports TensorFlow or Keras faster inside the context, in a process of kernorm's.

    Hides what both would import and never use there. The garbage collector does not go through their half a million
    objects again and again, neither while they are imported nor later: a sixth of the time of the import, and some of
    every tracing. Which objects live is not changed by it.

    A process is kernorm's if its main module is one of its commands, or if it was claimed. In any other, a notebook
    say, Keras may be asked for all that it can do, and nothing is changed.
    """
    if not _is_own_process():
        yield
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        with _hidden(*(name for name in _UNUSED if name != backend)):
            yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Inside the context, what would import TensorFlow wherever it is installed does without it.

    Only in a process of kernorm's, where TensorFlow is not imported yet: one whose Keras runs on JAX, or that has no
    Keras. The import takes seconds and 500 MB.
    """
    with _hidden("tensorflow") if _is_own_process() else contextlib.nullcontext():
        yield


def _is_own_process() -> bool:
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    return _claimed or (main is not None and main.name.partition(".")[0] in ("kernorm", "tuner"))


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Inside the context, packages that are not yet imported cannot be, as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)


def _checked(backend: str) -> str:
    if backend not in ("tensorflow", "jax"):
        raise UsageError(
            "KERAS_BACKEND must be tensorflow or jax.", f"KERAS_BACKEND={backend}", "Set one of them, or unset it."
        )
    if importlib.util.find_spec(backend) is None:
        raise UsageError(
            "The backend must be installed.",
            f"KERAS_BACKEND={backend}, which is not",
            f"pip install {backend}, or choose the other one of tensorflow and jax.",
        )
    return backend


@contextlib.contextmanager
def keras_settings() -> Iterator[None]:
    """Sets Keras' global settings to its own defaults inside the context, or while a decorated function runs.

    A notebook or ~/.keras/keras.json may hold others, such as channels_first or a policy of mixed precision; what they
    say is put back. Imports Keras, whose backend must be chosen.
    """
    import keras

    before = {name: getattr(keras.config, name)() for name in _KERAS_SETTINGS}
    try:
        for name, value in _KERAS_SETTINGS.items():
            getattr(keras.config, f"set_{name}")(value)
        with keras_warnings_ignored():
            yield
    finally:
        for name, value in before.items():
            getattr(keras.config, f"set_{name}")(value)


@contextlib.contextmanager
def keras_warnings_ignored() -> Iterator[None]:
    """Leaves out what Keras warns of by itself, for users whose filters make errors of warnings."""
    with warnings.catch_warnings():
        # Keras 3.15 converts its variables without NumPy 2's copy keyword.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield


def use_tensorflow_on_cpu(*, load: bool = True) -> None:
    """Chooses TensorFlow on the CPU for this process and its children, before Keras is imported.

    Exported models are written, measured and validated there, whatever trained them.

    Args:
        load: import it, quietly; without, it is imported where it is needed.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if load and importlib.util.find_spec("tensorflow"):
        import_tensorflow()


def require_jax() -> None:
    """Makes sure that Keras runs on JAX, without importing either.

    Raises:
        UsageError: another backend was chosen, or JAX is not installed.
    """
    if (backend := os.environ.get("KERAS_BACKEND", "tensorflow")) != "jax":
        raise UsageError(
            "A population needs Keras on JAX.",
            f"KERAS_BACKEND={backend}",
            "Set KERAS_BACKEND=jax (pip install jax), or remove --population.",
        )
    _checked(backend)


def prepare_backend(config: TrainConfig) -> None:
    """Seeds every generator, makes TensorFlow deterministic and sets its threads, before the first op.

    Raises:
        UsageError: TensorFlow already runs in this process with another number of threads.
    """
    import keras

    _keep_freed_memory()
    with without_tensorflow():
        keras.utils.set_random_seed(config.seed)
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    # A thread for every core of the machine would wait for a container's quota.
    threads = config.threads or (cores() if cores() < visible_cores() else 0)
    # With a single inter-op thread a step can wait for ever for the batch that it is itself to make
    # (tensorflow/tensorflow issues 38969 and 48418); 0 is one a core.
    between = max(2, threads) if threads or cores() == 1 else 0
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(between)
        except RuntimeError:
            if config.threads is None:
                return
            raise UsageError(
                "The number of threads is fixed at the first operation of a process.",
                f"threads={config.threads} after TensorFlow had begun with another",
                "Start a new process for it.",
            ) from None


def _keep_freed_memory() -> None:
    """Tells glibc to keep what a training step frees for the next one, where that is the allocator.

    Else it gives every large activation back to the system and takes zeroed pages again, a tenth of a step's CPU time.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20)):
            mallopt(parameter, value)
