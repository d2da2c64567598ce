import os

# Before the first import of Keras by any test module.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The cache folder that holds MNIST, prepared once a session from the package's own files; about 30 s."""
    from kernorm.data import load_arrays

    # Of several processes that run the tests, one prepares it and the others wait.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "mnist"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(folder / "cache"))
        load_arrays(data_dir=folder / "tfds")
    return folder / "cache"


@pytest.fixture
def mnist_cache(mnist, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(mnist))
    return mnist
