"""Own images in an .npz file, with the keys of keras.datasets or of MedMNIST."""

import zipfile
from pathlib import Path

import numpy as np

from kernorm.datasets.arrays import Arrays, DamagedError, check_layout
from kernorm.datasets.folder import short_reason
from kernorm.datasets.layout import require_classes
from kernorm.errors import UsageError

_KEYS = (
    ("x_train", "y_train", "x_test", "y_test", "x_val", "y_val"),
    ("train_images", "train_labels", "test_images", "test_labels", "val_images", "val_labels"),
)


def read_npz(path: Path, name: str) -> Arrays:
    """Reads an .npz file with the arrays of keras.datasets (`x_train`, …) or of MedMNIST (`train_images`, …).

    Raises:
        UsageError: the file is damaged, lacks arrays, or holds others than uint8 images and whole labels from 0.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile and NumPy raise a dozen types on damaged bytes
        # Of bytes that are no archive NumPy says that they are pickled objects.
        whole = zipfile.is_zipfile(path)
        raise UsageError(
            "An .npz file holds arrays.",
            f"{path}: {short_reason(error)}" if whole else f"{path}, which is no .npz file, or a damaged one",
            "Write it by numpy.savez without objects.",
        ) from None
    keys = next((keys for keys in _KEYS if set(keys[:4]) <= held.keys()), None)
    if keys is None:
        raise UsageError(
            "An .npz file of images has x_train, y_train, x_test and y_test, or train_images, train_labels, …",
            f"{path} with {', '.join(sorted(held)) or 'nothing'}",
            "Rename its arrays.",
        )
    parts = {keys[place]: keys[place + 1] for place in (0, 2, 4) if set(keys[place : place + 2]) <= held.keys()}
    read = [(_images(held[first], first, path), _labels(held[second], second, path)) for first, second in parts.items()]
    for (values, targets), key in zip(read, parts, strict=True):
        if len(values) != len(targets):
            raise UsageError(
                "Images and labels are as many.", f"{len(values)} and {len(targets)} of {key} in {path}", "Fix it."
            )
        if values.shape[1:] != read[0][0].shape[1:]:
            raise UsageError(
                "Images of a set have one size.", f"{path}, whose {key} are of the shape {values.shape}", "Resize them."
            )
    images, labels = ({"train": values[0], "test": values[1]} for values in zip(*read, strict=True))
    given = 0
    if len(read) > 2:
        given = len(read[2][1])
        images["train"], labels["train"] = (np.concatenate([read[0][place], read[2][place]]) for place in (0, 1))
    most = max(int(values.max()) for values in labels.values()) + 1
    names = tuple(map(str, range(most)))
    require_classes(names, path)
    for part, values in labels.items():
        if missing := sorted(set(range(most)) - set(values.tolist())):
            raise UsageError(
                "Every class has images in train and test.",
                f"label {missing[0]} of {most} without one in {part} of {path}",
                "Number the labels from 0 without a gap.",
            )
    arrays = {f"{part}_images": images[part] for part in images} | {f"{part}_labels": labels[part] for part in labels}
    try:
        check_layout(names, arrays)
    except DamagedError as error:
        raise UsageError("Images of a set have one size.", f"{path}, whose {error}", "Resize them.") from None
    return Arrays.of(name, "1.0.0", names, arrays, given_validation=given)


def _images(values: np.ndarray, key: str, path: Path) -> np.ndarray:
    if values.ndim == 3:
        values = values[..., None]
    if values.dtype != np.uint8:
        whole = values.size and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255
        if not (whole and np.array_equal(values, np.round(values)) and (values.max() > 1 or not values.any())):
            raise UsageError(
                "Images are whole numbers from 0 to 255.",
                f"{key} of {path}, {values.dtype}"
                + (f" from {values.min():g} to {values.max():g}" if values.size else ""),
                "Save them as uint8.",
            )
        values = values.astype(np.uint8)
    if values.ndim != 4 or not values.size or values.shape[-1] not in (1, 3):
        raise UsageError(
            "Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3).", f"{key} of {path}, {values.shape}", "Fix it."
        )
    return values


def _labels(values: np.ndarray, key: str, path: Path) -> np.ndarray:
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    right = flat.ndim == 1 and flat.size and flat.dtype.kind in "iu" and flat.min() >= 0 and flat.max() < 10_000
    if not right:
        raise UsageError(
            "Labels are whole numbers from 0, one an image.",
            f"{key} of {path}, {values.dtype} {values.shape}",
            "Fix it.",
        )
    return flat.astype(np.int32)
