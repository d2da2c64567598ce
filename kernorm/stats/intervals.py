"""Intervals: of proportions, of means by bootstrap, of times to a target."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Interval = tuple[float, float]
ANYWHERE: Interval = (-math.inf, math.inf)
Values = NDArray[np.float64]

RESAMPLES = 2000
# What rounding leaves of the difference of equal numbers, relative to them.
ROUNDING = 1e-9


def wilson(successes: int, count: int, alpha: float = 0.05) -> Interval:
    """Returns Wilson's score interval of a proportion (Wilson 1927), by default 95 %; (0, 1) if nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, count).proportion_ci(confidence_level=1 - alpha, method="wilson")
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


def bootstrap_interval(statistic: Callable[..., Any], *samples: Values) -> Interval:
    """Returns the percentile bootstrap interval of a statistic of the samples."""
    result = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, batch=200, vectorized=True, method="percentile", rng=0
    )
    return as_interval(result.confidence_interval)


def as_interval(limits: Any, within: Interval = ANYWHERE) -> Interval:
    """Returns two limits of any library as an interval, cut to what is possible."""
    low, high = (min(max(float(end), within[0]), within[1]) for end in limits)
    return low, high


def finite_values(values: Mapping[Any, float], what: str) -> Values:
    """Returns the values as an array, (N,).

    Raises:
        ValueError: one is not finite; `what` says what the keys are.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"Numbers must be finite. Received: {what} {name}: {value!r}. Name a diverged run apart.")
    return np.array(list(values.values()), dtype=np.float64)
