"""The data of a run: splits in memory, the test split sealed."""

import datetime
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernorm.config import TrainConfig
from kernorm.datasets import cache, prepare
from kernorm.datasets.arrays import Arrays, DamagedError
from kernorm.datasets.origin import Origin
from kernorm.datasets.splits import split_indices
from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.records.record import Opening

_LOG = logging.getLogger("kernorm")
_SAID: set[str] = set()


class Split(NamedTuple):
    """Images uint8 (N, H, W, C) and labels int32 (N,)."""

    images: np.ndarray
    labels: np.ndarray


class HeldOutSplit:
    """The sealed test split: images and labels come out through `open` alone, and every access is logged."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.openings: list[Opening] = []
        self.__split = Split(images, labels)

    def __len__(self) -> int:
        return len(self.__split.labels)

    def open(self, purpose: str, epoch: int) -> Split:
        """Returns the images and labels, and logs in `openings` when, after which epoch and for what."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.openings.append(Opening(time=now, epoch=epoch, purpose=purpose))
        return self.__split

    def sealed_again(self) -> "HeldOutSplit":
        """Returns the same split for another run, with no access logged."""
        return HeldOutSplit(*self.__split)


class Dataset(NamedTuple):
    """What a run trains, validates and tests on; `validation` is None for validation_size 0."""

    info: Data
    train: Split
    validation: Split | None
    test: HeldOutSplit


def load(config: TrainConfig) -> Dataset:
    """Loads the data of a run.

    Raises:
        UsageError: the set, a size or the batch size cannot be had; see `load_arrays` and `split_indices`.
    """
    arrays = load_arrays(config.dataset, manual_dir=config.manual_dir, data_dir=config.data_dir)
    train_indices, validation_indices = split_indices(
        arrays.train_labels,
        validation_size=config.validation_size,
        train_size=config.train_size,
        given_validation=arrays.given_validation,
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
        duplicates=arrays.duplicates,
        resize=arrays.resize,
    )
    test = HeldOutSplit(arrays.test_images, arrays.test_labels)
    return Dataset(info, train, validation if len(validation.labels) else None, test)


def load_arrays(
    name: str = "mnist", *, manual_dir: Path | None = None, data_dir: Path | None = None, again: bool = False
) -> Arrays:
    """Loads a whole set: from the cache, else through tensorflow-datasets into the cache.

    A cached set is prepared again with `again`, when it is damaged, or when the files that it was read from have
    changed. Else it is taken, and a folder that is named but was not its source gets a line in the log.

    Raises:
        UsageError: the name, a folder, the files or the set are not usable; see `tfds.prepare`.
    """
    cache.parse_name(name)
    for flag, folder in (("--manual-dir", manual_dir), ("--data-dir", data_dir)):
        if folder is not None and not folder.is_dir() and (folder.exists() or flag == "--manual-dir"):
            raise UsageError(
                f"{flag} takes a folder.",
                f"{folder}, which is {'a file' if folder.exists() else 'not there'}",
                "Give an existing folder.",
            )
    if not again and (arrays := _cached(name, manual_dir, data_dir)):
        return arrays
    if "@" in name:
        damaged = cache.cached_path(name) is not None
        with cache.exclusive(name):
            if arrays := _cached(name, manual_dir, data_dir, report=True):
                return arrays
        raise UsageError(
            "Own images are prepared from their folder.",
            f"dataset={name!r}, which {'was damaged' if damaged else 'is not'} in {cache.cache_dir()}",
            f"Give {'once more ' if damaged else ''}the path as --dataset, or run python -m kernorm.data PATH, or "
            "copy the file from another machine.",
        )
    with cache.exclusive(name):
        # Another process may have prepared it meanwhile.
        if not again and (arrays := _cached(name, manual_dir, data_dir, report=True)):
            return arrays
        before = cache.origin(cache.cached_path(name))
        if before and not again:
            manual_dir, data_dir = before.folders(manual_dir, data_dir)
        prepare.prepare_in_child(name, manual_dir, data_dir)
        path = cache.cached_path(name)
        if path is None:
            raise RuntimeError(f"{name} was prepared, but is not in {cache.cache_dir()}")
        return cache.read(path)


def prepared_sha256(name: str, *, manual_dir: Path | None = None, data_dir: Path | None = None) -> str | None:
    """Returns the sha256 of a set's arrays as they are today; None if it is not prepared.

    As `load_arrays`, but without reading the arrays: a set whose source has changed is prepared again first, and a
    named folder that was not its source gets a line.

    Raises:
        UsageError: as `load_arrays`.
    """
    origin = cache.origin(cache.cached_path(name))
    if origin and origin.has_changed():
        return load_arrays(name, manual_dir=manual_dir, data_dir=data_dir).sha256
    if origin and (unused := origin.unused(manual_dir, data_dir)):
        _say_unused(name, origin, unused)
    return cache.prepared_sha256(name)


def _cached(name: str, manual_dir: Path | None, data_dir: Path | None, *, report: bool = False) -> Arrays | None:
    """Returns a prepared set; None if it is not there, damaged or no longer what its source holds.

    With `report`, says which; a damaged file is removed.
    """
    path = cache.cached_path(name)
    if path is None:
        return None
    try:
        arrays = cache.read(path)
    except DamagedError as error:
        if report:
            _LOG.warning("The prepared set %s cannot be used: %s. It is removed.", path, error)
            path.unlink()
            return _cached(name, manual_dir, data_dir, report=True)  # an older version
        return None
    if arrays.origin is None:
        return arrays
    if arrays.origin.has_changed():
        if report:
            _LOG.warning(
                "%s has changed since %s was prepared on %s; it is prepared again.",
                arrays.origin.folder,
                name,
                arrays.origin.day,
            )
        return None
    if unused := arrays.origin.unused(manual_dir, data_dir):
        _say_unused(name, arrays.origin, unused)
    return arrays


def _say_unused(name: str, origin: Origin, folder: Path) -> None:
    """Says once a process that a named folder is not looked at, since the set is prepared."""
    line = (
        f"{name} was prepared on {origin.day} from {origin.manual_dir or origin.folder}; {folder} is not looked at. "
        f"python -m kernorm.data {name} --again prepares it anew."
    )
    if line not in _SAID:
        _SAID.add(line)
        _LOG.info(line)


def load_test_split(data: Data, *, manual_dir: Path | None = None, data_dir: Path | None = None) -> HeldOutSplit:
    """Loads the sealed test split of the very set that `data` describes.

    Raises:
        UsageError: the set cannot be had, see `load_arrays`, or has other images by now.
    """
    arrays = load_arrays(data.name, manual_dir=manual_dir, data_dir=data_dir)
    if arrays.sha256 != data.sha256:
        raise UsageError(
            "A model is measured on the set that it was trained on.",
            f"{arrays.name} with the hash {arrays.sha256[:12]}…, trained on {data.sha256[:12]}…",
            "Give its --data-dir.",
        )
    return HeldOutSplit(arrays.test_images, arrays.test_labels)


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
