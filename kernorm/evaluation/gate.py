"""Measures a model's answers on one split, overall and by class, and decides each threshold on an interval's bound.

Between evaluate and its report: NumPy and SciPy only. Two models are compared on the same images, pair by pair. What a
value must be has to be shown: the interval's worse end decides. A change is refused when it is shown: only if the whole
interval of the difference lies beyond the bound, so that equal models are not refused by noise.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, with_config
from scipy import stats

from kernorm.evaluation.thresholds import Threshold
from kernorm.records.data import OVERALL
from kernorm.stats.intervals import Interval, wilson
from kernorm.stats.scores import BINS, BY_CLASS, score_images, worst_recall_interval

RESAMPLES = 2000
# Images, or pairs of classes, of the samples that are in memory at once.
_FEW = 2_000_000
Columns = NDArray[np.float64]

_strict = with_config(ConfigDict(extra="forbid"))


@_strict
@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric in one slice of `count` images, with its 95 % interval over the choice of the images."""

    metric: str
    slice: str
    count: int
    value: float
    interval: Interval


@_strict
@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric of the candidate minus the baseline's, on the same images; 95 % interval, paired."""

    metric: str
    slice: str
    value: float
    interval: Interval
    baseline: float


@_strict
@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a threshold was decided; a change without baseline is passed, and says so."""

    metric: str
    slice: str
    kind: Literal["value", "change"]
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Scored:
    """A model's answers to labelled images.

    Metrics by image are functions of the means of `columns` (N, M); scores by class are of labels and predictions (N,),
    of so many `classes`.
    """

    labels: NDArray[np.int64]
    columns: Columns
    predictions: NDArray[np.int64]
    classes: int

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were recognized (N,)."""
        return self.columns[:, 0] == 1


def scored(logits: NDArray[np.float32], labels: NDArray[np.integer]) -> Scored:
    """Returns the answers (N, K) to images with labels (N,) as columns: right, −log p, Brier, calibration's bins."""
    found = score_images(logits, labels)
    bins = np.digitize(found.confidence, np.linspace(0.0, 1.0, BINS + 1)[1:-1], right=True)
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bins] = found.right - found.confidence
    columns = [found.right.astype(np.float64), found.cross_entropy, found.brier, gaps]
    return Scored(labels.astype(np.int64), np.column_stack(columns), found.prediction, logits.shape[1])


# Each takes means (…, M) of columns; the last is Σ_b |mean of bin b's gaps| (Guo et al. 2017, arXiv:1706.04599).
STATISTICS: dict[str, Callable[[Columns], Columns]] = {
    "accuracy": lambda means: means[..., 0],
    "cross_entropy": lambda means: means[..., 1],
    "brier": lambda means: means[..., 2],
    "ece": lambda means: np.abs(means[..., 3:]).sum(axis=-1),
}


def measure(
    candidate: Scored, names: Sequence[str], baseline: Scored | None = None
) -> tuple[tuple[Measure, ...], tuple[Change, ...]]:
    """Returns every metric in every slice, and its change against a baseline that saw the same images.

    Scores by class are of the whole split. Accuracies have Wilson's interval; all others the percentiles of RESAMPLES
    bootstrap samples of the images (Efron 1979), for a change of pairs, less their bias: a resampled ECE is too large
    by about as much as the ECE itself. The worst recall has that of `worst_recall_interval`, the other scores by class
    that of `_credible`: where no image of a class is wrong, no resampled one is either.

    Args:
        candidate: the model's answers.
        names: of the classes, by label; slices without images are left out.
        baseline: another model's answers to the same images in the same order.
    """
    measures, changes = [], []
    for name, rows in [(OVERALL, slice(None)), *((name, candidate.labels == i) for i, name in enumerate(names))]:
        mine = candidate.columns[rows]
        if not len(mine):
            continue
        both = mine if baseline is None else np.hstack([mine, baseline.columns[rows]])
        point, resampled = both.mean(axis=0), _resampled(both)
        width = mine.shape[1]
        for metric, statistic in STATISTICS.items():
            value, values = float(statistic(point[:width])), statistic(resampled[:, :width])
            interval = _percentiles(values, value)
            if metric == "accuracy":
                interval = wilson(round(value * len(mine)), len(mine))
            elif interval[0] < 0:  # none of them can be
                interval = (0.0, interval[1])
            measures.append(Measure(metric=metric, slice=name, count=len(mine), value=value, interval=interval))
            if baseline is not None:
                before = float(statistic(point[width:]))
                difference = _percentiles(values - statistic(resampled[:, width:]), value - before)
                changes.append(
                    Change(metric=metric, slice=name, value=value - before, interval=difference, baseline=before)
                )
    by_class, its_changes = _measure_by_class(candidate, baseline)
    return (*measures, *by_class), (*changes, *its_changes)


def _measure_by_class(candidate: Scored, baseline: Scored | None) -> tuple[list[Measure], list[Change]]:
    """Returns the scores by class of the whole split, and their changes, but for the worst recall, a minimum.

    Bootstrap samples are drawn within the classes, so that each has its images, as many as there are.
    """
    models = [candidate] if baseline is None else [candidate, baseline]
    point = [_confusions(model, np.arange(len(model.labels))[None])[0] for model in models]
    resampled: dict[str, list[list[float]]] = {metric: [[] for _ in models] for metric in BY_CLASS}
    for rows in _drawn_by_class(candidate.labels, candidate.classes) if baseline else ():
        for place, model in enumerate(models):
            confusions = _confusions(model, rows)
            for metric, of in BY_CLASS.items():
                resampled[metric][place] += of(confusions).tolist()
    measures, changes = [], []
    credible = _credible(point[0])
    for metric, of in BY_CLASS.items():
        value, values = float(of(point[0])), np.array(resampled[metric])
        interval = worst_recall_interval(point[0]) if metric == "worst_recall" else credible[metric]
        count = len(candidate.labels)
        measures.append(Measure(metric=metric, slice=OVERALL, count=count, value=value, interval=interval))
        if baseline is not None and metric != "worst_recall":
            before = float(of(point[1]))
            difference = _percentiles(values[0] - values[1], value - before)
            changes.append(
                Change(metric=metric, slice=OVERALL, value=value - before, interval=difference, baseline=before)
            )
    return measures, changes


def decide(
    thresholds: Sequence[Threshold], measures: Sequence[Measure], changes: Sequence[Change]
) -> tuple[Decision, ...]:
    """Decides every threshold. One of a class without test images is passed, unless none could be judged."""
    values = {(found.metric, found.slice): found for found in measures}
    differences = {(found.metric, found.slice): found for found in changes}
    judged = any((threshold.metric, threshold.slice) in values for threshold in thresholds)
    return tuple(_decided(threshold, values, differences, missing=judged) for threshold in thresholds)


def _decided(
    threshold: Threshold,
    values: Mapping[tuple[str, str], Measure],
    differences: Mapping[tuple[str, str], Change],
    *,
    missing: bool,
) -> Decision:
    key = (threshold.metric, threshold.slice)
    what = f"{threshold.metric} {threshold.slice if threshold.slice == OVERALL else 'of ' + threshold.slice}"
    least = threshold.side == "least"

    def decision(passed: bool, sentence: str) -> Decision:
        return Decision(metric=key[0], slice=key[1], kind=threshold.kind, passed=passed, sentence=sentence)

    if key not in values:
        return decision(missing, f"{what}: not judged, no test images of it")
    if threshold.kind == "value":
        found = values[key]
        low, high = found.interval
        passed = low >= threshold.bound if least else high <= threshold.bound
        return decision(
            passed,
            f"{what} {_shown(found.value, found.interval)}: {'at least' if least else 'at most'} "
            f"{threshold.bound:g} is {'shown' if passed else 'not shown'}",
        )
    if key not in differences:
        return decision(True, f"{what}: no baseline to compare with")
    change = differences[key]
    bound = threshold.bound * abs(change.baseline) if threshold.relative else threshold.bound
    low, high = change.interval
    passed = high >= bound if least else low <= bound
    return decision(
        passed,
        f"{what} against the baseline {_shown(change.value, change.interval, sign='+')}: "
        f"{'not shown to be' if passed else 'shown to be'} {'below' if least else 'above'} "
        f"{_signed(f'{bound:+g}')}",
    )


def _shown(value: float, interval: Interval, sign: str = "") -> str:
    return _signed(f"{value:{sign}.4f} [{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]")


def _signed(numbers: str) -> str:
    return numbers.replace("-", "−")


def _resampled(columns: Columns) -> Columns:
    """Returns the means (RESAMPLES, M) of columns (N, M) over images drawn with replacement, the same at every call."""
    rng, count = np.random.default_rng(0), len(columns)
    means = np.empty((RESAMPLES, columns.shape[1]))
    for row in range(RESAMPLES):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        means[row] = drawn @ columns / count
    return means


def _credible(confusion: NDArray[np.int64]) -> dict[str, Interval]:
    """Returns the 95 % interval of each score of a confusion matrix (K, K), by what its classes may be taken for.

    Scores are those of matrices drawn from a posterior (Goutte and Gaussier 2005, for F-scores). Its prior counts, over
    all classes together, are z²/2 right answers and as many wrong ones, those of any class alike: what Agresti and
    Coull (1998) add for an interval close to Wilson's. As many for each class would draw a mean over many to 1/2.
    """
    classes = len(confusion)
    each = stats.norm.isf(0.025) ** 2 / 2 / classes
    prior = np.full((classes, classes), each / (classes - 1))
    np.fill_diagonal(prior, each)
    rng, drawn = np.random.default_rng(0), {metric: list[float]() for metric in BY_CLASS}
    few = max(1, _FEW // classes**2)
    for start in range(0, RESAMPLES, few):
        shares = rng.standard_gamma(confusion + prior, (min(few, RESAMPLES - start), classes, classes))
        matrices = shares / shares.sum(axis=-1, keepdims=True) * confusion.sum(axis=1, keepdims=True)
        for metric, of in BY_CLASS.items():
            drawn[metric] += of(matrices).tolist()
    found = {}
    for metric, of in BY_CLASS.items():
        value, (low, high) = float(of(confusion)), np.percentile(drawn[metric], (2.5, 97.5))
        found[metric] = min(float(low), value), max(float(high), value)
    return found


def _drawn_by_class(labels: NDArray[np.int64], classes: int) -> Iterator[NDArray[np.int64]]:
    """Yields RESAMPLES rows of images (R, N), drawn with replacement within their classes, a few rows at a time."""
    rng, order = np.random.default_rng(0), np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    size, first = (np.repeat(values, sizes) for values in (sizes, np.cumsum(sizes) - sizes))
    few = max(1, _FEW // max(len(labels), classes**2))
    for start in range(0, RESAMPLES, few):
        drawn = rng.random((min(few, RESAMPLES - start), len(labels)))
        yield order[first + (drawn * size).astype(np.int64)]


def _confusions(model: Scored, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the confusion matrices (R, K, K) of rows of images (R, N)."""
    classes = model.classes
    pairs = (model.labels * classes + model.predictions)[rows]
    return np.stack([np.bincount(row, minlength=classes**2).reshape(classes, classes) for row in pairs])


def _percentiles(values: Columns, value: float) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5)) - (values.mean() - value)
    return float(low), float(high)
