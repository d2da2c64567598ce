"""Times to a target over runs, of which some never reached it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kernorm.stats.intervals import ROUNDING, finite_values


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
    from statsmodels.duration.survfunc import SurvfuncRight  # a second to import

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
