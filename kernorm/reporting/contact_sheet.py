"""The contact sheet of own images: what a set holds, on one page that opens offline, with a few images of each class.

Shows training images alone: the test split stays sealed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kernorm.datasets.arrays import Arrays
from kernorm.datasets.dataset import pixel_moments
from kernorm.datasets.splits import stratified_order
from kernorm.reporting.page import mistakes_as_uris, page_renderer
from kernorm.stats.scores import is_uneven
from kernorm.system.files import write_atomically

# Images of a class, classes with images, and the longest side of an image on the page.
EACH, CLASSES, SIDE = 6, 40, 64


@dataclass(frozen=True)
class ClassRow:
    """A class: its name, images by split, and a few of its training images as data: addresses."""

    name: str
    train: int
    test: int
    uris: tuple[str, ...]


def write_contact_sheet(arrays: Arrays, folder: Path, sizes: Mapping[tuple[int, int], int], *, pictures: bool) -> Path:
    """Writes folder/<name of the set>.html and returns its path.

    Args:
        arrays: the set.
        folder: where the page goes.
        sizes: how many files have which height and width; empty where that is not known.
        pictures: show images; else the page has counts alone.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    mean, std = pixel_moments(arrays.train_images)
    common = Counter(dict(sizes)).most_common(8)
    page = (
        page_renderer()
        .get_template("contact_sheet.html.j2")
        .render(
            arrays=arrays,
            rows=class_rows(arrays, pictures=pictures),
            pictures=pictures,
            most=CLASSES,
            uneven=is_uneven(np.bincount(arrays.test_labels, minlength=len(arrays.labels)).tolist()),
            shape="×".join(map(str, arrays.train_images.shape[1:])),
            moments=list(zip(mean, std, strict=True)),
            sizes=common,
            other_sizes=len(sizes) - len(common),
            files=sum(sizes.values()),
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{arrays.name}.html"
    write_atomically(path, page.encode())
    return path


def class_rows(arrays: Arrays, *, pictures: bool) -> list[ClassRow]:
    """Returns a row a class; its images are drawn by a hash of their place, the same ones each time."""
    train, test = (
        np.bincount(labels, minlength=len(arrays.labels)) for labels in (arrays.train_labels, arrays.test_labels)
    )
    rows = []
    for label, name in enumerate(arrays.labels):
        shown: Sequence[int] = []
        if pictures and label < CLASSES:
            members = np.flatnonzero(arrays.train_labels == label)
            order = stratified_order(np.zeros(len(members), np.int64), ids=members.astype(np.uint64))
            shown = members[order[:EACH]].tolist()
        uris = mistakes_as_uris(_small(arrays.train_images[index]) for index in shown)
        rows.append(ClassRow(name, int(train[label]), int(test[label]), tuple(uris)))
    return rows


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image (H, W, C) with no side above SIDE."""
    if max(image.shape[:2]) <= SIDE:
        return image
    small = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    small.thumbnail((SIDE, SIDE))
    return np.asarray(small).reshape(small.height, small.width, -1)
