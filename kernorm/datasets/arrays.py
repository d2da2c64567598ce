"""A whole data set in memory, and the hash of its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernorm.config import Resize
from kernorm.datasets.origin import Origin
from kernorm.records.data import Duplicates

DTYPES = {"train_images": "|u1", "train_labels": "<i4", "test_images": "|u1", "test_labels": "<i4"}


class DamagedError(Exception):
    """A cached file that is not what was written; the text says in what."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """A whole data set in memory.

    Images are uint8 (N, H, W, C), labels int32 (N,) from 0 to len(labels) - 1, in the order tensorflow-datasets
    keeps them. `sha256` is over class names, shapes and values, the same on every machine; see `content_sha256`.
    `origin` is None for a set that tensorflow-datasets did not prepare; `write` counts the `duplicates`. `resize` is
    how own images were brought to one size, and the last `given_validation` training images are a validation split
    that came with the set.
    """

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    origin: Origin | None = None
    duplicates: Duplicates | None = None
    resize: Resize | None = None
    given_validation: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        version: str,
        labels: tuple[str, ...],
        values: Mapping[str, np.ndarray],
        origin: Origin | None = None,
        **more: Any,
    ) -> "Arrays":
        """Makes a set of its four arrays by name, with their hash."""
        parts: dict[str, Any] = {key: values[key] for key in DTYPES}
        digest = content_sha256(labels, values)
        return cls(name=name, version=version, sha256=digest, labels=labels, origin=origin, **parts, **more)

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The four arrays by name."""
        return {key: getattr(self, key) for key in DTYPES}


def content_sha256(labels: tuple[str, ...], arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 over one line of JSON with class names, dtypes and shapes, then the arrays' bytes in order."""
    layout = [[key, dtype, list(arrays[key].shape)] for key, dtype in DTYPES.items()]
    total = hashlib.sha256(json.dumps([list(labels), layout]).encode() + b"\n")
    for key, dtype in DTYPES.items():
        total.update(np.ascontiguousarray(arrays[key], dtype).data)
    return total.hexdigest()


def pixels_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns `content_sha256` without class names: the same for two sets of the same images and labels."""
    return content_sha256((), arrays)


def check_layout(labels: tuple[str, ...], values: Mapping[str, np.ndarray]) -> None:
    """Checks that four arrays are an image classification set.

    Raises:
        DamagedError: a shape, a dtype or a label is wrong.
    """
    for part in ("train", "test"):
        images, targets = values[f"{part}_images"], values[f"{part}_labels"]
        if images.ndim != 4 or images.shape[1:] != values["train_images"].shape[1:] or not images.size:
            raise DamagedError(f"{part} images have the shape {images.shape}")
        if images.dtype.str != "|u1" or targets.dtype.str != "<i4" or targets.shape != images.shape[:1]:
            raise DamagedError(f"{part} images are {images.dtype}, labels {targets.dtype} {targets.shape}")
        if targets.min() < 0 or targets.max() >= len(labels):
            raise DamagedError(f"{part} labels go from {targets.min()} to {targets.max()} in {len(labels)} classes")
