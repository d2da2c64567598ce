"""The archives of MNIST and its kin: what stands in them, read without tensorflow-datasets.

Format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8: uint8), the number of axes, the length of each
axis as a big-endian int32, the values.
"""

import gzip
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kernorm.datasets.duplicates import image_digests


def read_idx(path: Path) -> np.ndarray | None:
    """Returns the uint8 array of an IDX file, gzip-compressed or not; None if it is no whole one."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        zeros, kind, axes = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{axes}I", content, 4)
        if (zeros, kind) != (0, 8):
            return None
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error):
        return None


def pairs(paths: Iterable[Path]) -> Counter[tuple[bytes, int]]:
    """Counts the examples, image digest and label, of the IDX files among some files.

    Images and labels belong together whose names differ in `images` and `labels` alone, but for the number of axes in
    the name (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz).
    """
    named = {path.name.replace("idx3", "idx").replace("idx1", "idx"): path for path in paths}
    found: Counter[tuple[bytes, int]] = Counter()
    for name, path in named.items():
        other = named.get(name.replace("images", "labels"))
        if "images" not in name or other is None:
            continue
        images, labels = read_idx(path), read_idx(other)
        if images is not None and labels is not None and images.ndim == 3 and len(images) == len(labels):
            found.update(_examples(images, labels))
    return found


def difference(archive: Counter[tuple[bytes, int]], values: Mapping[str, np.ndarray]) -> int:
    """Returns how many of a prepared set's examples, of both splits, are not those of its archives."""
    prepared: Counter[tuple[bytes, int]] = Counter()
    for part in ("train", "test"):
        prepared.update(_examples(values[f"{part}_images"], values[f"{part}_labels"]))
    return (prepared - archive).total()


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterable[tuple[bytes, int]]:
    return zip(image_digests(images).tolist(), labels.tolist(), strict=True)
