"""The scores of one split, from logits: accuracy with its interval, likelihood, calibration, confusion, mistakes.

Between training and the record: NumPy and SciPy only, so that any backend, an exported model and a serving answer are
scored by the same lines.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from kernorm.records.record import Bin, Evaluation, Mistake
from kernorm.stats.intervals import Interval, wilson

BINS = 15
# Times the smallest class, from which classes are uneven: accuracy is then mostly that of the largest ones.
UNEVEN = 1.5


class ImageScores(NamedTuple):
    """What is scored of each image, (N,) each; every score of a split is a mean of these, or a function of means.

    `cross_entropy` is −log p of the target in nats, `brier` Σ_k (p_k − y_k)², `confidence` the largest probability.
    """

    prediction: NDArray[np.int64]
    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    cross_entropy: NDArray[np.float64]
    brier: NDArray[np.float64]


def score_images(logits: NDArray[np.float32], labels: NDArray[np.integer]) -> ImageScores:
    """Scores the logits (N, K) of each image against its label (N,), in float64."""
    targets, rows = labels.astype(np.int64), np.arange(len(labels))
    log_probabilities = special.log_softmax(logits.astype(np.float64), axis=1)
    probabilities = np.exp(log_probabilities)
    one_hot = np.zeros_like(probabilities)
    one_hot[rows, targets] = 1.0
    predictions = logits.argmax(axis=1)
    return ImageScores(
        prediction=predictions,
        right=predictions == targets,
        confidence=probabilities.max(axis=1),
        cross_entropy=-log_probabilities[rows, targets],
        brier=np.square(probabilities - one_hot).sum(axis=1),
    )


def evaluate(
    logits: NDArray[np.float32], labels: NDArray[np.integer], split: str, *, keep_mistakes: bool = True
) -> Evaluation:
    """Scores the logits (N, K) of a split against its labels (N,), in float64.

    A tie between classes goes to the lower one, as argmax does everywhere. A class without images has the interval
    (0, 1), which is what is known of it. Without `keep_mistakes` the misclassified images are counted but not listed:
    in a record, those of 50,000 training images would outweigh everything else.

    Raises:
        ValueError: there is no image, a logit is not finite, or the shapes or labels do not fit.
    """
    _check(logits, labels, split)
    count, classes = logits.shape
    labels = labels.astype(np.int64)  # uint8 labels would wrap around in the confusion's index below
    predictions, right, confidences, cross_entropy, brier = score_images(logits, labels)
    wrong = np.flatnonzero(~right)
    confusion = np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)
    bins = calibration_bins(confidences, right)
    return Evaluation(
        split=split,
        count=count,
        errors=len(wrong),
        accuracy=(count - len(wrong)) / count,
        interval=wilson(count - len(wrong), count),
        cross_entropy=float(cross_entropy.mean()),
        brier=float(brier.mean()),
        ece=expected_calibration_error(bins),
        bins=bins,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        class_intervals=tuple(
            wilson(int(right), int(total))
            for right, total in zip(confusion.diagonal(), confusion.sum(axis=1), strict=True)
        ),
        mistakes=tuple(
            Mistake(
                index=int(index),
                target=int(labels[index]),
                prediction=int(predictions[index]),
                confidence=round(float(confidences[index]), 6),
            )
            for index in (wrong if keep_mistakes else ())
        ),
    )


def calibration_bins(confidences: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """Sorts predictions by confidence into BINS equal intervals (low, high]; the means of an empty one are 0."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    places = np.digitize(confidences, edges[1:-1], right=True)
    counts = np.bincount(places, minlength=BINS)
    filled = np.maximum(counts, 1)
    mean_confidences = np.bincount(places, weights=confidences, minlength=BINS) / filled
    accuracies = np.bincount(places, weights=correct, minlength=BINS) / filled
    return tuple(
        Bin(low=low, high=high, count=count, confidence=confidence, accuracy=accuracy)
        for low, high, count, confidence, accuracy in zip(
            edges[:-1].tolist(),
            edges[1:].tolist(),
            counts.tolist(),
            mean_confidences.tolist(),
            accuracies.tolist(),
            strict=True,
        )
    )


def expected_calibration_error(bins: Iterable[Bin]) -> float:
    """Returns Σ n_b/n · |accuracy_b − confidence_b| (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599)."""
    bins = tuple(bins)
    total = sum(bin_.count for bin_ in bins)
    return sum(bin_.count * abs(bin_.accuracy - bin_.confidence) for bin_ in bins) / total


def class_accuracies(confusion: Sequence[Sequence[int]]) -> tuple[float | None, ...]:
    """Returns the share of each class that was recognized; None for a class without images."""
    return tuple(row[index] / sum(row) if sum(row) else None for index, row in enumerate(confusion))


def balanced_accuracy(confusion: ArrayLike) -> Any:
    """Returns the mean of the recalls of all classes that have images (Brodersen et al. 2010).

    Of one confusion matrix, (K, K), or of several, (…, K, K), as the others here.
    """
    return np.nanmean(_recalls(confusion), axis=-1)


def worst_recall(confusion: ArrayLike) -> Any:
    """Returns the least recall of a class that has images."""
    return np.nanmin(_recalls(confusion), axis=-1)


def worst_recall_interval(confusion: ArrayLike) -> Interval:
    """Returns a 95 % interval of the least recall, over the choice of the images.

    A bootstrap of a minimum covers far too little. The lower end is the least of the classes' lower ends, since the
    class that is worst holds its own with that level; the upper end is the least of the upper ones, at 1/K of the level
    each, since it must hold for all K classes.
    """
    counts = np.asarray(confusion)
    pairs = [(int(row[place]), int(row.sum())) for place, row in enumerate(counts) if row.sum()]
    low = min(wilson(right, count)[0] for right, count in pairs)
    high = min(wilson(right, count, alpha=0.05 / len(pairs))[1] for right, count in pairs)
    return low, max(low, high)


def macro_f1(confusion: ArrayLike) -> Any:
    """Returns the mean over classes of F1, 2·TP / (2·TP + FP + FN), of those with images or predictions."""
    counts = np.asarray(confusion, np.float64)
    named = counts.sum(axis=-2) + counts.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(2 * counts.diagonal(axis1=-2, axis2=-1) / named, axis=-1)


# Scores by class, by name, which the confusion matrix of a split gives.
BY_CLASS: dict[str, Callable[[ArrayLike], Any]] = {
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "worst_recall": worst_recall,
}


def never_predicted(confusion: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Returns the classes that have images, and that no image was taken for."""
    return tuple(place for place, row in enumerate(confusion) if sum(row) and not any(row[place] for row in confusion))


def is_uneven(sizes: Iterable[int]) -> bool:
    """Tells whether the largest class has UNEVEN times the images of the smallest, classes without any left out."""
    there = [size for size in sizes if size]
    return max(there, default=0) >= UNEVEN * min(there, default=1)


def _recalls(confusion: ArrayLike) -> NDArray[np.float64]:
    """Returns the recall of each class; NaN for one without images."""
    counts = np.asarray(confusion, np.float64)
    with np.errstate(invalid="ignore"):
        return counts.diagonal(axis1=-2, axis2=-1) / counts.sum(axis=-1)


def frequent_confusions(confusion: Sequence[Sequence[int]], most: int) -> list[tuple[int, int, int]]:
    """Returns up to `most` pairs (target, prediction, images) off the diagonal, the most frequent first."""
    pairs = [
        (target, prediction, images)
        for target, row in enumerate(confusion)
        for prediction, images in enumerate(row)
        if images and target != prediction
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:most]


def resolution(accuracy: float, count: int) -> float:
    """Returns how far a second run's accuracy, on as many other images, must be from this one to lie outside chance.

    The 95 % limit of the difference of two equal proportions, one success and one failure added to each so that it
    holds near 0 and 1 too (Agresti and Caffo 2000). It knows nothing of the spread between seeds, so it is the least
    that a comparison of single runs needs.
    """
    adjusted = (accuracy * count + 1) / (count + 2)
    return float(special.ndtri(0.975) * np.sqrt(2 * adjusted * (1 - adjusted) / (count + 2)))


def _check(logits: NDArray[np.float32], labels: NDArray[np.integer], split: str) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"Logits are (N, K) and labels (N,). Received: logits {logits.shape}, labels {labels.shape}, "
            f"split={split!r}. Give one label an image."
        )
    if not len(labels):
        raise ValueError(f"A split must hold an image to be scored. Received: N=0, split={split!r}. Remove it.")
    if not np.isfinite(logits).all():
        raise ValueError(
            f"Logits must be finite. Received: {np.count_nonzero(~np.isfinite(logits))} that are not, "
            f"split={split!r}. The weights have diverged."
        )
    if not (np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(
            f"Labels must be whole numbers from 0 to {logits.shape[1] - 1}. Received: {labels.dtype} from "
            f"{labels.min()} to {labels.max()}, split={split!r}."
        )
