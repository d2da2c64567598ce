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


@dataclass(frozen=True, kw_only=True)
class TimeTo:
    """Time to a target over runs: `median`, by Kaplan and Meier, is the first by which half of them had reached it.

    None if they never did; an upper limit of None lies beyond what was run.
    """

    n: int
    reached: int
    median: float | None
    interval: tuple[float, float | None] | None


def two_level_bootstrap(
    wrong_a: Sequence[Collection[int]],
    wrong_b: Sequence[Collection[int]],
    count: int,
    *,
    paired: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Returns the interval of the accuracy difference a − b on new images and new seeds; None below two runs an arm.

    A run is given by the images, of `count`, that it has wrong; `paired` runs stand in the same order of seeds.

    Raises:
        ValueError: an image lies outside the split, or paired arms differ in their number of runs.
    """
    a, b = _hits(wrong_a, count), _hits(wrong_b, count)
    if paired and len(a) != len(b):
        raise ValueError(f"Paired arms have the same seeds. Received: {len(a)} and {len(b)} runs. Drop the others.")
    return _two_levels([a - b] if paired else [a, -b], resamples, seed)


def two_level_interval(
    wrong: Sequence[Collection[int]], count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Returns the interval of one arm's accuracy on new images and new seeds, as `two_level_bootstrap` does."""
    return _two_levels([_hits(wrong, count)], resamples, seed)


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
    with np.errstate(all="ignore"):  # its transform is infinite where S = 0
        low, high = as_interval(survival.quantile_ci(0.5))
    return TimeTo(
        n=len(met),
        reached=sum(met),
        median=median if math.isfinite(median) else None,
        interval=None if math.isnan(low) else (low, high if math.isfinite(high) else None),
    )


def _two_levels(parts: Sequence[Values], resamples: int, seed: int) -> Interval | None:
    """Returns the percentile interval of the sum of the means of the parts, each (runs, images), both resampled.

    Images are resampled for all runs at once. That holds each run's chance on each image too, which seeds resampled
    as well would count three times (Owen 2007, doi:10.1214/07-AOAS122): nearly every interval would cover. So the
    seeds add only what their accuracies vary beyond that chance, by the two-way analysis of variance, and as Student's
    t, since three seeds resampled cover too little. Where no image distinguishes the runs, the interval is a point.
    """
    if min(map(len, parts)) < 2:
        return None
    generator = np.random.default_rng(seed)
    values, images = np.unique(sum(part.mean(axis=0) for part in parts), return_counts=True)
    count = int(images.sum())
    means = generator.multinomial(count, images / count, resamples) @ values / count
    for part in parts:
        runs, rows = len(part), part.mean(axis=1)
        chance = np.square(part - part.mean(axis=0) - rows[:, None] + rows.mean()).sum() / (runs - 1) / (count - 1)
        variance = max(0.0, rows.var(ddof=1) - chance / count)
        means += math.sqrt(variance / runs) * generator.standard_t(runs - 1, resamples)
    return as_interval(np.percentile(means, (2.5, 97.5)))


def _hits(wrong: Sequence[Collection[int]], count: int) -> Values:
    hits = np.ones((len(wrong), count))
    for row, images in zip(hits, wrong, strict=True):
        if images and (min(images) < 0 or max(images) >= count):
            received = f"{min(images)} to {max(images)}"
            raise ValueError(f"Images count from 0 to {count - 1}. Received: {received}. Give their split's size.")
        row[list(images)] = 0.0
    return hits


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
