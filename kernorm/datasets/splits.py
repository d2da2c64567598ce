"""Which training images train and which validate: stratified, exact in size, the same for every run."""

import numpy as np

from kernorm.errors import UsageError


def images_of(size: int | float | str | None, count: int) -> int | None:
    """Returns a number of images of `count`: of a share, of `auto`, or as it is; None stays.

    `auto` is 10,000 or 20 %, whichever is less.
    """
    if size == "auto":
        return min(10_000, round(0.2 * count))
    if isinstance(size, float):
        return round(size * count)
    return None if size is None else int(size)


def split_indices(
    labels: np.ndarray,
    *,
    validation_size: int | float | str,
    train_size: int | float | None = None,
    given_validation: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted indices of the training and of the validation images.

    They depend on labels (N,) and sizes only, not on a run's seed. The validation split is the start of a stratified
    order of all images; the training split is the start of a stratified order of the rest, so that a smaller
    train_size is contained in a larger one, and holds every class of the rest. Sizes may be shares, below 1; see
    `images_of`. With `auto`, the last `given_validation` images are the validation split where the set has one.

    Raises:
        UsageError: a size that the labels cannot give.
    """
    count, classes = len(labels), len(np.unique(labels))
    given = given_validation if validation_size == "auto" else 0
    validation_size = given or images_of(validation_size, count) or 0
    if count - validation_size < classes:
        raise UsageError(
            "--validation-size must leave at least one training image a class.",
            f"validation_size={validation_size} of {count} images in {classes} classes",
            f"Give at most {max(count - classes, 0)}.",
        )
    order = np.roll(np.arange(count), given) if given else stratified_order(labels)
    validation, rest = order[:validation_size], np.sort(order[validation_size:])
    train_size = images_of(train_size, len(rest))
    if train_size is not None and not classes <= train_size <= len(rest):
        raise UsageError(
            "--train-size must be at least the number of classes and at most what validation leaves.",
            f"train_size={train_size}",
            f"Give a value from {classes} to {len(rest)}.",
        )
    train = rest if train_size is None else rest[stratified_order(labels[rest], whole=True)[:train_size]]
    return np.sort(train), np.sort(validation)


def stratified_order(labels: np.ndarray, *, whole: bool = False, ids: np.ndarray | None = None) -> np.ndarray:
    """Returns an order of indices (N,) of which every beginning is stratified.

    Within a class images come by a hash of their `ids`, by default of their index. The k-th image (from 0) of a class
    of n gets the key (2k + 1) / n; by these keys classes share each beginning as seats are shared by Sainte-Laguë's
    method: to within about one image of their proportion, and without the paradoxes of largest remainders, whose shares
    may shrink when the total grows. `whole` puts one image of each class in front.
    """
    hashed = _hash(np.arange(len(labels), dtype=np.uint64) if ids is None else ids)
    keys = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(hashed[members], kind="stable")]
        keys[members] = (2.0 * np.arange(len(members)) + 1) / len(members)
        if whole:
            keys[members[0]] = 0
    return np.lexsort((hashed, keys))


def _hash(values: np.ndarray) -> np.ndarray:
    """Mixes uint64 values by the finalizer of SplitMix64 (Steele et al. 2014): the same in every NumPy."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
