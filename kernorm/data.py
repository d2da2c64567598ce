"""The data of a run: training and validation split, and the test split held shut; `python -m kernorm.data`.

tensorflow-datasets is the loader, by name (kernorm.source); what it decodes is kept in kernorm's cache, from which a
set comes in a fraction of a second and without TensorFlow. The first use of MNIST takes about 30 s and no network.
"""

import datetime
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from kernorm import cache, preparation
from kernorm.cache import Arrays
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.record import Data, Opening
from kernorm.splits import split_indices


class Split(NamedTuple):
    """Images uint8 (N, H, W, C) and labels int32 (N,)."""

    images: np.ndarray
    labels: np.ndarray


class TestSplit:
    """The test split, held shut: images and labels come out through `open`, and each opening is entered."""

    __test__ = False  # pytest takes a class of this name for tests

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.openings: list[Opening] = []
        self.__split = Split(images, labels)

    def __len__(self) -> int:
        return len(self.__split.labels)

    def open(self, purpose: str, epoch: int) -> Split:
        """Returns the images and labels, and enters when, after which epoch and for what into `openings`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.openings.append(Opening(time=now, epoch=epoch, purpose=purpose))
        return self.__split

    def shut_again(self) -> "TestSplit":
        """Returns the same split for another run, with no opening entered."""
        return TestSplit(*self.__split)


class Dataset(NamedTuple):
    """What a run trains, validates and tests on; `validation` is None for validation_size 0."""

    info: Data
    train: Split
    validation: Split | None
    test: TestSplit


def load(config: TrainConfig) -> Dataset:
    """Loads the data of a run.

    Raises:
        UsageError: the set, a size or the batch size cannot be had; see `load_arrays` and `split_indices`.
    """
    arrays = load_arrays(config.dataset, manual_dir=config.manual_dir, data_dir=config.data_dir)
    train_indices, validation_indices = split_indices(
        arrays.train_labels, validation_size=config.validation_size, train_size=config.train_size
    )
    if config.batch_size > len(train_indices):
        raise UsageError(
            "--batch-size must not be larger than the training split.",
            f"batch_size={config.batch_size} for {len(train_indices)} images",
            f"Give at most {len(train_indices)}.",
        )
    train, validation = _take(arrays, train_indices), _take(arrays, validation_indices)
    mean, std = pixel_moments(train.images)
    info = Data(
        name=arrays.name,
        version=arrays.version,
        sha256=arrays.sha256,
        labels=arrays.labels,
        image_shape=train.images.shape[1:],
        mean=mean,
        std=std,
        train=len(train.labels),
        validation=len(validation.labels),
        test=len(arrays.test_labels),
    )
    test = TestSplit(arrays.test_images, arrays.test_labels)
    return Dataset(info, train, validation if len(validation.labels) else None, test)


def load_arrays(name: str = "mnist", *, manual_dir: Path | None = None, data_dir: Path | None = None) -> Arrays:
    """Loads a whole set: from the cache, else through tensorflow-datasets into the cache.

    A cached set is taken whatever `manual_dir` and `data_dir` say. A damaged one is prepared again.

    Raises:
        UsageError: the name, a folder, the files or the set are not usable; see `source.prepare`.
    """
    cache.parse_name(name)
    for flag, folder in (("--manual-dir", manual_dir), ("--data-dir", data_dir)):
        if folder is not None and not folder.is_dir() and (folder.exists() or flag == "--manual-dir"):
            raise UsageError(
                f"{flag} takes a folder.",
                f"{folder}, which is {'a file' if folder.exists() else 'not there'}",
                "Give an existing folder.",
            )
    try:
        if path := cache.cached_path(name):
            return cache.read(path)
    except cache.DamagedError:
        pass  # told and repaired below, by one process alone
    with cache.exclusive(name):
        while path := cache.cached_path(name):
            try:
                return cache.read(path)
            except cache.DamagedError as error:
                print(f"The prepared set {path} is damaged ({error}); it is prepared again.", file=sys.stderr)
                path.unlink()
        preparation.prepare_in_child(name, manual_dir, data_dir)
        path = cache.cached_path(name)
        if path is None:
            raise RuntimeError(f"{name} was prepared, but is not in {cache.cache_dir()}")
        return cache.read(path)


def pixel_moments(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel of uint8 images (N, H, W, C), to 6 significant digits.

    They are summed as integers, so they are exact before rounding. A constant channel has the deviation 1, by which
    a net can divide.
    """
    count = images[..., 0].size
    total = images.sum(axis=(0, 1, 2), dtype=np.int64)
    squares = np.zeros_like(total)
    for start in range(0, len(images), _CHUNK):
        squares += np.square(images[start : start + _CHUNK], dtype=np.uint32).sum(axis=(0, 1, 2), dtype=np.int64)
    variances = [(count * int(s) - int(t) ** 2) / count**2 for t, s in zip(total, squares, strict=True)]
    mean = tuple(float(f"{int(t) / count:.6g}") for t in total)
    return mean, tuple(float(f"{variance**0.5:.6g}") or 1.0 for variance in variances)


def _take(arrays: Arrays, indices: np.ndarray) -> Split:
    return Split(arrays.train_images[indices], arrays.train_labels[indices])


_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Lists the prepared data sets, or prepares those that are named.

    Without network, from the official files in a folder:
        python -m kernorm.data fashion_mnist --manual-dir ~/fashion-mnist
    """

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """tensorflow-datasets image classification sets to prepare, for example mnist emnist/balanced."""

    manual_dir: Path | None = None
    """Folder with a set's original files, for a machine without network."""

    data_dir: Path | None = None
    """tensorflow-datasets' own folder. None: its default, ~/tensorflow_datasets."""


def main(config: DataConfig) -> None:
    """Prepares the named sets, then lists them; without names lists all, each checked byte by byte.

    Raises:
        UsageError: a set cannot be prepared.
    """
    for name in config.names:
        load_arrays(name, manual_dir=config.manual_dir, data_dir=config.data_dir)
    paths = [cache.cached_path(name) for name in config.names] if config.names else cache.cached_paths()
    for path in paths:
        if path is not None:
            print(describe(path))
    if not config.names:
        print(
            f"{'Others are' if paths else 'No set is prepared yet. Sets are'} prepared by "
            "python -m kernorm.data NAME: mnist (without network), fashion_mnist, kmnist, emnist/balanced, cifar10 "
            "and more (from the net, or with --manual-dir from a folder)."
        )


def describe(path: Path) -> str:
    """Returns one line on a cached set: sizes, shape, classes, where it lies, whether it is whole."""
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    try:
        arrays = cache.read(path)
    except cache.DamagedError as error:
        return f"{path.stem}: DAMAGED, {error}; its next use prepares it again; {size}, {path}"
    shape = "x".join(map(str, arrays.train_images.shape[1:]))
    return (
        f"{arrays.name} {arrays.version}: {len(arrays.train_labels):,} training and {len(arrays.test_labels):,} "
        f"test images of {shape}, {len(arrays.labels)} classes; checked, sha256 {arrays.sha256[:12]}…; "
        f"{size}, {path}"
    )


if __name__ == "__main__":
    from kernorm.cli import run

    sys.exit(run(DataConfig, main, prog="python -m kernorm.data"))
