"""Plans: how many seeds would show a difference, and which difference so many seeds can see."""

import math
from bisect import bisect_left

from scipy import special, stats
from statsmodels.stats.power import ttest_power

from kernorm.stats.comparison import ALPHA

POWER = 0.8


# A difference that needs more seeds is out of reach.
MOST_SEEDS = 1000


def seeds_needed(sd_of_difference: float, effect: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """Returns the fewest pairs with which the paired t-test finds a true difference `effect`, MOST_SEEDS at most.

    Without spread it is the sign test of `compare` that must be significant.

    Raises:
        ValueError: the spread is negative, or a number is not finite.
    """
    if not (0 <= sd_of_difference < math.inf and math.isfinite(effect)):
        received = f"sd_of_difference={sd_of_difference!r}, effect={effect!r}"
        raise ValueError(f"Seeds are planned from a spread and a difference. Received: {received}. Give finite ones.")
    if effect == 0:
        return MOST_SEEDS
    if sd_of_difference == 0:
        return 1 + math.ceil(-math.log2(alpha))
    # Without the far tail, and with at most 1e5 sd: beyond, statsmodels' power is NaN.
    size = min(abs(effect) / sd_of_difference, 1e5)
    return 2 + bisect_left(range(2, MOST_SEEDS), power, key=lambda n: ttest_power(size, n, alpha / 2, None, "larger"))


def plan_seeds(
    variance: float, df: float, effect: float, *, paired: bool, correlation: float = 0.0, alpha: float = ALPHA
) -> tuple[int, int]:
    """Returns the range of seeds that show a true difference of `effect` with power POWER, in one look at new seeds.

    Args:
        variance: of a run within its arm, pooled over the arms of a study.
        df: degrees of freedom of that.
        effect: the difference to be seen; the margin.
        paired: whether arms will be compared in pairs.
        correlation: of the pairs, if they are.
        alpha: the level of one arm.

    Returns:
        The seeds of each arm by the ends of the 80 % interval of the variance; MOST_SEEDS stands for any more.
    """
    share = 2 * (1 - correlation) if paired else 2.0
    ends = [math.sqrt(share * variance * df / float(stats.chi2.isf(tail, df))) for tail in (0.1, 0.9)]
    low, high = (seeds_needed(sd, effect, alpha) for sd in ends)
    return low, high


def visible_difference(variance: float, seeds: int, alpha: float, *, paired: bool = False) -> float:
    """Returns the least true difference that so many seeds an arm show with power POWER, where nothing correlates."""
    if seeds < 2:
        return math.inf
    df = (1.0 if paired else 2.0) * (seeds - 1)
    # The noncentrality at which the statistic, which is noncentral t then, exceeds its bound with that power.
    shift = float(special.nctdtrinc(df, 1 - POWER, stats.t.isf(alpha / 2, df)))
    return math.sqrt(2 * variance / seeds) * shift
