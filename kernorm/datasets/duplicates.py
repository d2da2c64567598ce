"""Images that stand in a data set more than once, by their decoded pixels."""

import hashlib

import numpy as np

from kernorm.records.data import Duplicates


def image_digests(images: np.ndarray) -> np.ndarray:
    """Returns a 128-bit digest of each of the uint8 images (N, H, W, C), as bytes of shape (N,)."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array([hashlib.blake2b(row.data, digest_size=16).hexdigest() for row in rows], "S32")


def count_duplicates(train: np.ndarray, test: np.ndarray) -> Duplicates:
    """Counts exact duplicates among uint8 images (N, H, W, C) of the two splits; labels do not matter.

    Repeated images within a split are counted without their first one; across the splits, test images that also stand
    in training.
    """
    first, second = image_digests(train), image_digests(test)
    return Duplicates(
        train=len(first) - len(np.unique(first)),
        test=len(second) - len(np.unique(second)),
        across=int(np.isin(second, first).sum()),
    )
