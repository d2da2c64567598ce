"""Gives every test the same surroundings, whoever starts the suite and however; ends what tests leave behind."""

import atexit
import contextlib
import gzip
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from importlib import resources
from pathlib import Path

import numpy as np
import psutil
import pytest

from kernorm.records import record
from kernorm.system.backend import choose_backend, claim_process
from kernorm.system.machine import cores
from tests.processes import ON_JAX, RUN, Processes, living
from tests.progress_by_file import ProgressByFile

# What a shell, a CI system or a user's own settings would change: none of it reaches a test or its child processes.
FOREIGN = ("JAX_", "KERAS", "LC_", "MLFLOW_", "MPL", "PYTHONWARNINGS", "RAY_", "TF_", "TFDS_", "WANDB_", "XDG_", "XLA_")
OTHERS = (
    "COLUMNS",
    "FORCE_COLOR",
    "LANGUAGE",
    "LINES",
    "NO_COLOR",
    "PYTEST_ADDOPTS",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
    "PYTEST_PLUGINS",
    "PYTHONDONTWRITEBYTECODE",
    "PY_COLORS",
    "TZ",
    "KERNORM_CACHE_DIR",
    "KERNORM_SERVING_ENDPOINT",
)

# Files that take longest, under tests/: begun first, so that none is left at the end for one worker alone.
LONGEST = (
    "training/test_run.py",
    "tuner/test_search.py",
    "studies/test_runner.py",
    "test_own_images.py",
    "datasets/test_own.py",
    "training/test_whole_runs.py",
    "api/test_notebook.py",
    "nets/test_resnet.py",
    "parallel/test_grouping.py",
    "test_bad_input.py",
    "nets/test_brought.py",
    "training/test_own_net.py",
    "saved_model/test_export.py",
    "studies/test_tuning.py",
    "reporting/test_browser.py",
    "serving/test_publish.py",
)

# Seconds that processes which are about to end have at the end of a test run; waited for if one is left, and only then.
GRACE = 600


def set_surroundings() -> None:
    """Sets signals, umask, locale, home and environment variables; once, before Keras is imported."""
    # A shell lets background jobs ignore Ctrl-C, and nohup the end of its terminal; children inherit what is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    if RUN not in os.environ:  # else this is a worker of pytest-xdist, which has inherited all that follows
        for name in [name for name in os.environ if name.startswith(FOREIGN) or name in OTHERS]:
            del os.environ[name]
        home = tempfile.mkdtemp(prefix="kernorm-tests-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        # The tests of populations need a process of their own, with JAX on two devices:
        # KERNORM_TEST_BACKEND=jax python -m pytest tests/parallel/test_vmap.py tests/parallel/test_population.py
        backend = os.environ.get("KERNORM_TEST_BACKEND", "tensorflow")
        os.environ |= {
            RUN: uuid.uuid4().hex,
            "HOME": home,
            # Child processes run the code of this checkout, wherever they are started and whatever else is installed.
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "LANG": "C.UTF-8",
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        if backend == "jax":
            os.environ |= ON_JAX
            os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    # A process of several that run tests at once has its share of the cores, as the workers of a study have.
    if beside := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, cores() // beside))


set_surroundings()


def pytest_configure(config):
    """Tells the progress by file; `-v` lists every test. Keras is imported once and as in a command of kernorm's."""
    runs_tests = "PYTEST_XDIST_WORKER" in os.environ or not getattr(config.option, "numprocesses", None)
    if runs_tests:
        claim_process()
        choose_backend()
    if "PYTEST_XDIST_WORKER" not in os.environ and config.option.verbose <= 0 and not config.option.collectonly:
        config.pluginmanager.register(ProgressByFile(config))


def pytest_collection_modifyitems(config, items):
    """Puts the longest files first, unless files were named."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        place = {config.rootpath / "tests" / file: number for number, file in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Fails a test that a missing package skips and no mark leads CI to: it would run nowhere."""
    report = yield
    led = {"slow", "extra"} & {mark.name for mark in item.iter_markers()}
    if report.skipped and not led and "could not import" in str(report.longrepr):
        report.outcome, report.longrepr = "failed", f"{report.longrepr}: mark it as extra, so that CI runs it"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fails the test run if a process of it is left; pytest-xdist has ended its workers by now."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    _, left = psutil.wait_procs(_left(), timeout=GRACE)
    for process in left:
        with contextlib.suppress(psutil.Error):
            print(f"\nleft behind by a test: {process.pid} {' '.join(process.cmdline())[:200]}", file=sys.stderr)
            process.kill()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _left() -> list[psutil.Process]:
    """Returns the other processes of this test run, also those whose parents have ended."""
    found = []
    for process in living(RUN, os.environ[RUN]):
        with contextlib.suppress(psutil.Error):
            # It serves this process, and ends with it.
            if process.ppid() != os.getpid() or "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(autouse=True)
def quiet_log():
    """Takes back after every test what a command does with the log of its process."""
    yield
    logger = logging.getLogger("kernorm")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def start():
    """Starts child processes that end with the test."""
    with Processes() as processes:
        yield processes


@pytest.fixture
def homeless(monkeypatch):
    """A user id that the system does not know, as a container may be started with, and no variable that helps."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "KERNORM_CACHE_DIR", "TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def mnist_info():
    """What a run knows of MNIST, without reading it."""
    return record.Data(
        name="mnist",
        version="3.0.1",
        sha256="0" * 64,
        labels=tuple("0123456789"),
        image_shape=(28, 28, 1),
        mean=(33.3,),
        std=(78.6,),
        train=50_000,
        validation=10_000,
        test=10_000,
    )


def read_idx(name, header):
    """Returns the bytes of one of the package's own files of MNIST, without its header of so many bytes."""
    return np.frombuffer(
        gzip.decompress((resources.files("kernorm.datasets") / "mnist" / name).read_bytes()), np.uint8
    )[header:]


@pytest.fixture(scope="session")
def digits():
    """The first 512 training digits, uint8 (N, 28, 28, 1), and their labels."""
    images = read_idx("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return images[:512], read_idx("train-labels-idx1-ubyte.gz", 8)[:512]


def _shared(factory, name):
    """Makes a folder that all processes of this test run have in common."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


def _cached(folder, name, version, train, test):
    """Writes a set of digits into a cache folder, as if tensorflow-datasets had prepared it there."""
    from kernorm.datasets.arrays import Arrays, content_sha256
    from kernorm.datasets.cache import write

    values = {
        "train_images": train[0],
        "train_labels": train[1].astype(np.int32),
        "test_images": test[0],
        "test_labels": test[1].astype(np.int32),
    }
    names = tuple("0123456789")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder))
        write(Arrays(name=name, version=version, labels=names, sha256=content_sha256(names, values), **values))
    return folder


def _cut_mnist(folder, train, test):
    """Makes a cache folder in which MNIST has its first `train` training and `test` test digits."""
    images = [read_idx(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1) for part in ("train", "t10k")]
    labels = [read_idx(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    parts = ((images[part][:count], labels[part][:count]) for part, count in ((0, train), (1, test)))
    return _cached(folder, "mnist", "3.0.1", *parts)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """A cache folder in which MNIST has 1,200 training and 500 test digits: what a test needs that trains."""
    return _cut_mnist(_shared(tmp_path_factory, "mnist"), 1200, 500)


@pytest.fixture
def mnist_cache(mnist, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(mnist))
    return mnist


@pytest.fixture
def mnist_of_the_tour(tmp_path, monkeypatch):
    """A cache folder in which MNIST has as many training digits as README's notebook takes, and 1,000 test digits."""
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(_cut_mnist(tmp_path / "mnist", 3000, 1000)))


@pytest.fixture(scope="session")
def whole_mnist(tmp_path_factory):
    """The cache folder that holds all of MNIST, prepared once a session by tensorflow-datasets; about 30 s."""
    from kernorm.datasets.dataset import load_arrays

    # Of several processes that run the tests, one prepares it and the others wait.
    folder = _shared(tmp_path_factory, "whole_mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder / "cache"))
        load_arrays(data_dir=folder / "tfds")
    return folder / "cache"


@pytest.fixture
def whole_mnist_cache(whole_mnist, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(whole_mnist))
    return whole_mnist


@pytest.fixture(scope="session")
def boxes(digits, tmp_path_factory):
    """A cache folder with the set `boxes`: 192 training and 64 test digits, cut to their box of 20x20."""
    images, labels = digits[0][:, 4:24, 4:24], digits[1]
    train, test = (images[:192], labels[:192]), (images[192:256], labels[192:256])
    return _cached(_shared(tmp_path_factory, "boxes"), "boxes", "1.0.0", train, test)


@pytest.fixture
def boxes_cache(boxes, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(boxes))
    return boxes


@contextlib.contextmanager
def _small_eva6():
    """In this process `eva6` has four layers meanwhile, traced and compiled in less time."""
    from functools import partial

    from kernorm.nets import blocks

    layers = (blocks.Conv(8), blocks.Pool(), blocks.Conv(16), blocks.Conv(16), blocks.GlobalPool())
    small = partial(blocks._chain, blocks=layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.NETS, "eva6", small)
        yield


@pytest.fixture(scope="module")
def small_net():
    """A small `eva6` for all tests of a module, of what is done with a net."""
    with _small_eva6():
        yield


@pytest.fixture
def small_eva6():
    """A small `eva6` for one test, of what is done with a net."""
    with _small_eva6():
        yield
