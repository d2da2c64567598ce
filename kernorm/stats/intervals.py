"""Intervals: of proportions, of means by bootstrap, of accuracies on new images, of times to a target."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]
Values = NDArray[np.float64]

RESAMPLES = 2000
# What rounding leaves of the difference of equal numbers, relative to them.
ROUNDING = 1e-9


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval of a proportion (Wilson 1927); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, count).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a proportion (Clopper and Pearson 1934); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, count).proportion_ci(confidence_level=0.95, method="exact")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True, kw_only=True)
class TimeTo:
    """Time to a target over runs: `median`, by Kaplan and Meier, is the first by which half of them had reached it.

    None if they never did. `interval` of the median lies between two order statistics and covers with probability
    `level`, at least 95 %; below six runs there is none. An upper limit of None lies beyond what was run.
    """

    n: int
    reached: int
    median: float | None
    interval: tuple[float, float | None] | None
    level: float | None = None


def two_level_difference(
    wrong_a: Sequence[Collection[int]],
    wrong_b: Sequence[Collection[int]],
    count: int,
    *,
    paired: bool,
    alpha: float = 0.05,
) -> Interval | None:
    """Returns the interval of the accuracy difference a − b on new images and new seeds; None below two runs an arm.

    A run is given by the images, of `count`, that it has wrong; `paired` runs stand in the same order of seeds. The
    level is 1 − `alpha`; see `_two_levels` for the method.

    Raises:
        ValueError: an image lies outside the split, or paired arms differ in their number of runs.
    """
    a, b = _misses(count, wrong_a, wrong_b)
    if paired and len(a) != len(b):
        raise ValueError(f"Paired arms have the same seeds. Received: {len(a)} and {len(b)} runs. Drop the others.")
    return _two_levels([b - a] if paired else [-a, b], count, 0.0, alpha)


def two_level_interval(wrong: Sequence[Collection[int]], count: int) -> Interval | None:
    """Returns the 95 % interval of one arm's accuracy on new images and new seeds, as `two_level_difference` does."""
    (misses,) = _misses(count, wrong)
    interval = _two_levels([-misses], count, 1.0, 0.05)
    return interval and (max(0.0, interval[0]), min(1.0, interval[1]))


def chance_variance(
    wrong: Sequence[Collection[int]], count: int, baseline: Sequence[Collection[int]] | None = None
) -> float:
    """Returns the variance of a run's accuracy that independent errors over the images imply; with one run 0.

    Args:
        wrong: the images that each run has wrong.
        count: images of the split, N.
        baseline: runs of the same seeds, in the same order; then it is the variance of the difference of a pair.

    Returns:
        The residual mean square of the two-way analysis of variance, runs by images, over N.

    Raises:
        ValueError: as `two_level_difference`.
    """
    mine, other = _misses(count, wrong, baseline or ())
    return _chance(mine if baseline is None else mine - other, count) / count if len(mine) > 1 else 0.0


def chance_variances(
    wrong: Sequence[Collection[int]], count: int, baseline: Sequence[Collection[int]]
) -> tuple[float, ...]:
    """Returns `chance_variance` of the differences of the first run, the first two, … of all runs."""
    mine, other = _misses(count, wrong, baseline)
    part = mine - other
    rows, runs = part.sum(axis=1) / count, np.arange(1, len(part) + 1)
    # The sums of `_residual`, over the first run, the first two, …
    squares = np.cumsum((part * part).sum(axis=1))
    columns = np.square(np.cumsum(part, axis=0)).sum(axis=1)
    left = squares - columns / runs - count * np.cumsum(rows * rows) + count * np.cumsum(rows) ** 2 / runs
    found = np.maximum(0.0, left) / np.maximum(runs - 1, 1) / (count - 1) / count
    return (0.0, *found[1:].tolist()) if len(part) else ()


@dataclass(frozen=True, kw_only=True)
class VarianceParts:
    """Variance of a mean accuracy difference: `images`, over the choice of images, and `seeds`, of a pair of seeds."""

    images: float
    seeds: float


def variance_parts(wrong: Sequence[Collection[int]], count: int, baseline: Sequence[Collection[int]]) -> VarianceParts:
    """Splits the variance of an arm's difference to its baseline, paired by seed; needs two runs."""
    mine, other = _misses(count, wrong, baseline)
    images, runs = (mine - other).mean(axis=0), (mine - other).sum(axis=1) / count
    squares = float(images @ images) - count * float(images.sum() / count) ** 2
    return VarianceParts(images=squares / (count - 1) / count, seeds=float(runs.var(ddof=1)))


def time_to(values: Sequence[float | None], budgets: Sequence[float]) -> TimeTo:
    """Summarizes when runs reached a target; None had not when its budget ended, and is censored there.

    Raises:
        ValueError: there is not one budget a run, or a time is not finite.
    """
    from statsmodels.duration.survfunc import SurvfuncRight  # a second to import, and training asks for wilson alone

    if len(values) != len(budgets):
        raise ValueError(f"Each run has a budget. Received: {len(values)} runs, {len(budgets)} budgets. Give one each.")
    met = [value is not None for value in values]
    times = [budget if value is None else value for value, budget in zip(values, budgets, strict=True)]
    sample = finite_values(dict(enumerate(times)), "run")
    survival = SurvfuncRight(sample, np.array(met, dtype=np.int64))
    # statsmodels asks for S < 1/2; slightly more includes S = 1/2, whichever way its logarithms have rounded it.
    median = float(survival.quantile(0.5 - ROUNDING))
    interval, level = _median_interval([math.inf if value is None else value for value in values])
    return TimeTo(
        n=len(met),
        reached=sum(met),
        median=median if math.isfinite(median) else None,
        interval=interval,
        level=level,
    )


def _median_interval(times: Sequence[float]) -> tuple[tuple[float, float | None] | None, float | None]:
    """Returns the narrowest interval of the median between order statistics that covers at least 95 %, and its level.

    A run that never reached the target counts as later than all others; where the lower end is such a run, there is
    no interval.
    """
    n, ordered = len(times), sorted(times)
    places = [k for k in range(1, n // 2 + 1) if 1 - 2 * stats.binom.cdf(k - 1, n, 0.5) >= 0.95]
    if not places or not math.isfinite(ordered[places[-1] - 1]):
        return None, None
    k = places[-1]
    low, high = ordered[k - 1], ordered[n - k]
    return (low, high if math.isfinite(high) else None), float(1 - 2 * stats.binom.cdf(k - 1, n, 0.5))


def _two_levels(parts: Sequence[Values], count: int, offset: float, alpha: float) -> Interval | None:
    """Returns the interval of `offset` and the means of the parts, each (runs, images), for new runs and new images.

    The parts are 0 on all images of the `count` that they do not hold.

    The variance over images, of each image's share in the runs, holds each run's chance on each image too, which the
    variance over runs would count again (Owen 2007, doi:10.1214/07-AOAS122). So runs add only what their accuracies
    vary beyond that chance, by the two-way analysis of variance. The interval is by Student's t with the degrees of
    freedom of the sum (Satterthwaite 1946): often a few images alone make a difference, and a spread that is of few is
    hardly known. Where no image distinguishes the runs, the interval is a point.
    """
    if min(map(len, parts)) < 2:
        return None
    known = sum(part.mean(axis=0) for part in parts)
    mean = float(known.sum()) / count
    terms = [((float(known @ known) - count * mean**2) / (count - 1) / count, _spread_df(known, count))]
    for part in parts:
        runs, rows = len(part), part.sum(axis=1) / count
        terms.append((max(0.0, float(rows.var(ddof=1)) - _chance(part, count) / count) / runs, runs - 1.0))
    total = sum(variance for variance, _ in terms)
    if total <= 0:
        return offset + mean, offset + mean
    df = total**2 / sum(variance**2 / df for variance, df in terms)
    half = float(stats.t.isf(alpha / 2, df)) * math.sqrt(total)
    return offset + mean - half, offset + mean + half


def _spread_df(known: Values, count: int) -> float:
    """Returns the degrees of freedom of the variance of images, some of which are held and all others 0.

    By Satterthwaite 1946, 2·σ⁴/Var(s²) with Var(s²) = (μ₄ − σ⁴)/N: twice their number where few images count alike.
    """
    mean, others = float(known.sum()) / count, count - len(known)
    second, fourth = (float(((known - mean) ** power).sum() + others * mean**power) / count for power in (2, 4))
    return 2 * count * second**2 / (fourth - second**2) if fourth > second**2 else math.inf


def _chance(part: Values, count: int) -> float:
    """Returns what a run's hit on an image varies by chance, from misses or their differences, (runs, images)."""
    return _residual(float((part * part).sum()), part.sum(axis=0), part.sum(axis=1) / count, count)


def _residual(squares: float, columns: Values, rows: Values, count: int) -> float:
    """Returns the residual mean square of runs by images, from sums of squares and of images, and means of runs.

    What neither the means of the images nor those of the runs explain; images that are not held are 0 everywhere.
    """
    runs, middle = len(rows), float(rows.mean())
    left = squares - float(columns @ columns) / runs - count * float(rows @ rows) + runs * count * middle**2
    return max(0.0, left) / (runs - 1) / (count - 1)


def _misses(count: int, *arms: Sequence[Collection[int]]) -> list[Values]:
    """Returns for each arm 1 where a run is wrong, (runs, images), over the images that any run has wrong."""
    held = sorted({image for runs in arms for images in runs for image in images})
    if held and (held[0] < 0 or held[-1] >= count):
        received = f"{held[0]} to {held[-1]}"
        raise ValueError(f"Images count from 0 to {count - 1}. Received: {received}. Give their split's size.")
    place = {image: column for column, image in enumerate(held)}
    found = []
    for runs in arms:
        misses = np.zeros((len(runs), len(held)))
        for row, images in zip(misses, runs, strict=True):
            row[[*map(place.__getitem__, images)]] = 1.0
        found.append(misses)
    return found


def bootstrap_interval(statistic: Callable[..., Any], *samples: Values) -> Interval:
    """Returns the percentile bootstrap interval of a statistic of the samples."""
    result = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, batch=200, vectorized=True, method="percentile", rng=0
    )
    return as_interval(result.confidence_interval)


def as_interval(limits: Any) -> Interval:
    """Returns two limits of any library as an interval."""
    low, high = limits
    return float(low), float(high)


def finite_values(values: Mapping[Any, float], what: str) -> Values:
    """Returns the values as an array, (N,).

    Raises:
        ValueError: one is not finite; `what` says what the keys are.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"Numbers must be finite. Received: {what} {name}: {value!r}. Name a diverged run apart.")
    return np.array(list(values.values()), dtype=np.float64)
