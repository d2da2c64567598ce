import os

# Before the first import of Keras by any test module. The tests of populations need a process of their own, with JAX on
# two devices: KERNORM_TEST_BACKEND=jax python -m pytest tests/test_device.py tests/test_population.py
os.environ["KERAS_BACKEND"] = os.environ.get("KERNORM_TEST_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ["KERAS_BACKEND"] == "jax":
    # Compiled without optimization, which takes half the time, and kept for the other tests.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"

import gzip
from importlib import resources

import numpy as np
import pytest

from kernorm import record


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


@pytest.fixture(scope="session")
def digits():
    """The first 512 training digits, uint8 (N, 28, 28, 1), and their labels, read from the package's own files."""
    files = resources.files("kernorm") / "mnist"
    images = gzip.decompress((files / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((files / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28, 1)[:512], np.frombuffer(labels, np.uint8)[:512]


def _shared(factory, name):
    """Makes a folder that all processes of this test run have in common."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The cache folder that holds MNIST, prepared once a session from the package's own files; about 30 s."""
    from kernorm.data import load_arrays

    # Of several processes that run the tests, one prepares it and the others wait.
    folder = _shared(tmp_path_factory, "mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder / "cache"))
        load_arrays(data_dir=folder / "tfds")
    return folder / "cache"


@pytest.fixture
def mnist_cache(mnist, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(mnist))
    return mnist


@pytest.fixture(scope="session")
def boxes(digits, tmp_path_factory):
    """A cache folder with the set `boxes`: 192 training and 64 test digits, cut to their box of 20x20."""
    from kernorm.cache import Arrays, content_sha256, write

    images, labels = digits[0][:, 4:24, 4:24], digits[1].astype(np.int32)
    values = {
        "train_images": images[:192], "train_labels": labels[:192],
        "test_images": images[192:256], "test_labels": labels[192:256],
    }  # fmt: skip
    names = tuple("0123456789")
    base = _shared(tmp_path_factory, "boxes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(base))
        write(Arrays(name="boxes", version="1.0.0", labels=names, sha256=content_sha256(names, values), **values))
    return base


@pytest.fixture
def boxes_cache(boxes, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(boxes))
    return boxes
