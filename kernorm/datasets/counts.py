"""What a set holds, counted without reading its images: how many there are, of which size, how many of each class."""

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from kernorm.datasets import cache
from kernorm.datasets.dataset import load_arrays
from kernorm.datasets.decode import ORIENTATION
from kernorm.datasets.layout import scan


def count_test_classes(
    name: str, *, manual_dir: Path | None = None, data_dir: Path | None = None, prepare: bool = True
) -> tuple[int, ...] | None:
    """Counts the test images of each class, from their labels alone: the images stay sealed.

    Args:
        name: of the set.
        manual_dir: folder with its original files.
        data_dir: folder of tensorflow-datasets.
        prepare: prepares a set that is not; else it has no counts.

    Raises:
        UsageError: the set cannot be prepared; see `load_arrays`.
    """
    path = cache.cached_path(name)
    metadata = cache.read_metadata(path)
    if path is not None and metadata:
        with np.load(path, allow_pickle=False) as archive:
            labels = archive["test_labels"]
        return _counted(labels, len(metadata["labels"]))
    if not prepare:
        return None
    arrays = load_arrays(name, manual_dir=manual_dir, data_dir=data_dir)
    return _counted(arrays.test_labels, len(arrays.labels))


def train_shape(name: str) -> tuple[int, ...] | None:
    """Returns the shape (N, H, W, C) of the training images of a prepared set; None if it is not prepared."""
    path = cache.cached_path(name)
    if path is None or cache.read_metadata(path) is None:
        return None
    with zipfile.ZipFile(path) as archive, archive.open("train_images.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        return read(file)[0]


def file_sizes(root: Path) -> Counter[tuple[int, int]]:
    """Counts the image files of a folder of own images by height and width, as they are to be looked at.

    Of their headers alone; an .npz file has none.
    """
    from PIL import Image  # as preparation, which has read them

    found: Counter[tuple[int, int]] = Counter()
    for path in scan(root).files() if root.is_dir() else ():
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) >= 5
            found[(image.width, image.height) if turned else (image.height, image.width)] += 1
    return found


def _counted(labels: np.ndarray, classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=classes).tolist())
