"""The machine and software a run is computed with: chosen before Keras is imported, described after."""

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

from kernorm import record
from kernorm.config import TrainConfig
from kernorm.errors import UsageError

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_PACKAGES = ("kernorm", "keras", "tensorflow", "jax", "numpy", "tensorflow-datasets")


def choose_backend() -> str:
    """Makes TensorFlow the backend unless KERAS_BACKEND says otherwise, and quietens its start; returns the name.

    Raises:
        UsageError: the backend is not one that kernorm trains with, or is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
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
    if backend == "tensorflow":
        _import_quietly(backend)
    return backend


def require_jax() -> None:
    """Makes sure that Keras runs on JAX, without importing either.

    Raises:
        UsageError: another backend was chosen, or JAX is not installed.
    """
    if (backend := os.environ.get("KERAS_BACKEND", "tensorflow")) != "jax":
        raise UsageError(
            "A population needs Keras on JAX.",
            f"KERAS_BACKEND={backend}",
            "Set KERAS_BACKEND=jax (extra jax), or leave --population away.",
        )
    choose_backend()


def _import_quietly(module: str) -> None:
    """Imports TensorFlow without the lines that its native code prints before it reads any log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            importlib.import_module(module)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def prepare(config: TrainConfig) -> None:
    """Seeds every generator, makes TensorFlow deterministic and sets its threads, before the first op.

    Raises:
        UsageError: TensorFlow already runs in this process with another number of threads.
    """
    import keras

    _keep_freed_memory()
    keras.utils.set_random_seed(config.seed)
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    threads = config.threads or 0
    # With a single inter-op thread a step can wait for ever for the batch that it is itself to make
    # (tensorflow/tensorflow issues 38969 and 48418); 0 is one a core.
    between = max(2, threads) if threads or len(os.sched_getaffinity(0)) == 1 else 0
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(between)
        except RuntimeError:
            raise UsageError(
                "The number of threads is fixed at the first operation of a process.",
                f"threads={config.threads} after TensorFlow had begun with another",
                "Start a new process for it.",
            ) from None


def _keep_freed_memory() -> None:
    """Tells glibc to keep what a training step frees for the next one, where that is the allocator.

    Else it gives every large activation back to the system and takes zeroed pages anew, a tenth of a step's CPU time.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20)):
            mallopt(parameter, value)


def describe(config: TrainConfig) -> record.Environment:
    """Describes the environment of a run."""
    import keras

    backend = keras.backend.backend()
    return record.Environment(
        backend=backend,
        device=_device(),
        threads=config.threads or _cores(),
        versions={"python": platform.python_version(), **_versions()},
        commit=_commit(),
    )


def peak_memory() -> int:
    """Returns the most memory this process has held so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cores() -> int:
    """Returns the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _device() -> str:
    import keras

    accelerators = [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return ", ".join([*accelerators, f"{model}, {os.cpu_count()} cores"])


def _commit() -> str | None:
    """Returns the commit of the checkout that kernorm runs from, if it runs from one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(
            ["git", "-C", root, "rev-parse", "--verify", "--quiet", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
