"""Which differences between arms are real: intervals, tests, the seeds still needed, and a verdict in words.

Between the records of a study and its report: SciPy and statsmodels on plain numbers, in each metric's own unit.
Intervals hold 95 %. With few seeds trust those of Student's t: a percentile bootstrap of five values covers about 83 %
(as Colas et al. 2018, arXiv:1806.08295, warn). Fix the number of seeds before looking: adding seeds until a difference
is significant finds differences that are not there.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import ttest_power
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

from kernorm.stats.intervals import ROUNDING, Interval, Values, as_interval, bootstrap_interval, finite_values

ALPHA = 0.05
POWER = 0.8
# A difference that needs more seeds is out of reach.
MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric of one arm over its seeds; a single run has neither `sd` nor interval.

    `interval` is of the mean, by Student's t; `bootstrap` by percentiles of its resampled means.
    """

    n: int
    mean: float
    sd: float | None
    interval: Interval | None
    bootstrap: Interval | None
    minimum: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of an arm against the baseline; with fewer than two common seeds nothing but `pairs` is known.

    `difference` is arm − baseline, the mean over the common seeds; `sd`, `interval`, `bootstrap` and `p_paired` are of
    it. `p_welch` and the interval `welch` take the arms as unpaired, with all their seeds; None where neither varies.
    `probability_better` is the share of all cross pairs in which the arm's value is the better one, ties one half; its
    bootstrap interval is a point where every pair agrees. `tost_p` is of the claim that the difference lies within
    ±`margin`. `seeds_needed` counts all seeds of an arm, those already run among them, that show a true difference of
    `planned_difference` with power POWER; MOST_SEEDS stands for itself and for any more.
    """

    pairs: int
    higher_is_better: bool
    margin: float | None
    difference: float | None = None
    sd: float | None = None
    interval: Interval | None = None
    bootstrap: Interval | None = None
    p_paired: float | None = None
    p_welch: float | None = None
    welch: Interval | None = None
    probability_better: float | None = None
    probability_interval: Interval | None = None
    tost_p: float | None = None
    planned_difference: float | None = None
    seeds_needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of an arm, as one of five names and as words for the report."""

    name: Literal["better", "worse", "equivalent", "not resolved", "no verdict"]
    sentence: str


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two runs on the same images: how many only the one, only the other has wrong, and the exact test's p."""

    only_a: int
    only_b: int
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Returns mean, spread and intervals of a metric over the runs of an arm.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = finite_values(dict(enumerate(values)), "run")
    if not len(sample):
        raise ValueError("A summary needs a value. Received: none. Leave the arm away.")
    described, several = DescrStatsW(sample), len(sample) > 1
    return Summary(
        n=len(sample),
        mean=float(described.mean),
        sd=float(described.std_ddof(1)) if several else None,
        interval=as_interval(described.tconfint_mean()) if several else None,
        bootstrap=bootstrap_interval(np.mean, sample) if several else None,
        minimum=float(sample.min()),
        maximum=float(sample.max()),
    )


def compare(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    higher_is_better: bool,
    margin: float | None,
    alpha: float = ALPHA,
) -> Comparison:
    """Compares two arms, given as seed → value, paired by the seeds they have in common.

    `alpha` is the level the seeds are planned for: under Holm's correction over k arms, ALPHA / k is safe. Differences
    that are all the same have no t; both tests of them are sign tests, so that two equal pairs prove nothing.

    Raises:
        ValueError: a value is not finite, or the margin is not positive.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"A margin is positive. Received: margin={margin!r}. Give None for no equivalence test.")
    a, b = (finite_values(dict(sorted(values.items())), "seed") for values in (arm, baseline))
    common = sorted(arm.keys() & baseline.keys())
    pairs = len(common)
    if pairs < 2:
        return Comparison(pairs=pairs, higher_is_better=higher_is_better, margin=margin)
    paired = np.array([(arm[seed], baseline[seed]) for seed in common], dtype=np.float64).T
    described = DescrStatsW(paired[0] - paired[1])
    difference, sd, tost = float(described.mean), float(described.std_ddof(1)), None
    rounding = ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    if np.ptp(described.data) <= rounding:
        sd = 0.0
        p_paired = stats.binomtest(pairs, pairs).pvalue if abs(difference) > rounding else 1.0
        if margin is not None:
            within = pairs if abs(difference) < margin - rounding else 0
            tost = float(stats.binomtest(within, pairs, alternative="greater").pvalue)
    else:
        p_paired = described.ttest_mean(0.0)[1]
        if margin is not None:
            tost = float(ttost_paired(*paired, -margin, margin)[0])
    means = CompareMeans(DescrStatsW(a), DescrStatsW(b)) if max(np.ptp(a), np.ptp(b)) > rounding else None
    sides = (a, b) if higher_is_better else (b, a)
    planned, needed = _plan(difference, sd, pairs, margin, alpha)
    return Comparison(
        pairs=pairs,
        higher_is_better=higher_is_better,
        margin=margin,
        difference=difference,
        sd=sd,
        interval=as_interval(described.tconfint_mean()),
        bootstrap=bootstrap_interval(np.mean, described.data),
        p_paired=float(p_paired),
        p_welch=float(means.ttest_ind(usevar="unequal")[1]) if means else None,
        welch=as_interval(means.tconfint_diff(usevar="unequal")) if means else None,
        probability_better=float(_share_above(*sides)),
        probability_interval=bootstrap_interval(_share_above, *sides),
        tost_p=tost,
        planned_difference=planned,
        seeds_needed=needed,
    )


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns p-values adjusted for being one of several (Holm 1979); None, no test made, stays and does not count."""
    made = {name: p for name, p in p_values.items() if p is not None}
    adjusted = multipletests(finite_values(made, "p of"), method="holm")[1].tolist() if made else []
    return dict.fromkeys(p_values) | dict(zip(made, adjusted, strict=True))


def verdict(
    comparison: Comparison,
    p_adjusted: float | None,
    tost_adjusted: float | None = None,
    alpha: float = ALPHA,
    show: Callable[[float], str] = "{:.3g}".format,
) -> Verdict:
    """Says what a comparison allows to be said, from its p_paired and tost_p as `holm` has adjusted them over the arms.

    A significant difference goes first: it is real, however small, and where the equivalence test holds too the
    sentence says that it is smaller than the margin. Then equivalence. Without either the question is open, which is
    no evidence of "no difference". `show` writes a difference with its unit, as `points` does for shares.
    """
    if p_adjusted is None or comparison.difference is None:
        return Verdict(name="no verdict", sentence="no verdict: fewer than 2 seeds in common with the baseline")
    equivalent = tost_adjusted is not None and tost_adjusted <= alpha
    margin = show(comparison.margin or 0.0)
    if p_adjusted <= alpha:
        better = (comparison.difference > 0) == comparison.higher_is_better
        name: Literal["better", "worse"] = "better" if better else "worse"
        return Verdict(name=name, sentence=f"{name}, though by less than {margin}" if equivalent else name)
    if equivalent:
        return Verdict(name="equivalent", sentence=f"equivalent within {margin}")
    if not comparison.planned_difference or not comparison.seeds_needed:
        return Verdict(name="not resolved", sentence="not resolved: no difference seen, and no margin to plan for")
    needed = max(comparison.seeds_needed, comparison.pairs + 1)
    seeds = f"about {needed} seeds" if needed < MOST_SEEDS else f"{MOST_SEEDS} seeds or more"
    sentence = f"not resolved: {seeds} needed to see {show(comparison.planned_difference)}"
    return Verdict(name="not resolved", sentence=sentence)


def percentage_points(share: float) -> str:
    """Writes a share, or a difference of two, in percentage points."""
    return f"{100 * share:.2g} pp"


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


def mcnemar(wrong_a: Collection[int], wrong_b: Collection[int]) -> McNemar:
    """Tests whether two runs differ, from the images each has wrong; it speaks of these weights, not of the recipes."""
    only_a, only_b = len(set(wrong_a) - set(wrong_b)), len(set(wrong_b) - set(wrong_a))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a=only_a, only_b=only_b, p=float(p))


def _plan(difference: float, sd: float, pairs: int, margin: float | None, alpha: float) -> tuple[float, int]:
    """Returns the difference to plan for and its seeds.

    That is the margin, the least that matters, or what was observed if that is more: an observed difference near 0
    would ask for any number of seeds. If the margin would have been seen by now, the truth lies between it and 0, and
    the plan is for the nearest verdict, from the observed difference. A spread known from few pairs is raised until
    the power, averaged over such pilots, is the promised one (Julious and Owen 2006, their noncentral t).
    """
    z = stats.norm.isf(alpha / 2)
    raised = sd * float(stats.nct.ppf(POWER, pairs - 1, z) / (z + stats.norm.ppf(POWER)))
    observed, least = abs(difference), margin or 0.0
    planned = max(observed, least)
    needed = seeds_needed(raised, planned, alpha)
    if needed <= pairs:
        planned = max(observed, least - observed)
        needed = seeds_needed(raised, planned, alpha)
    return planned, needed


def _share_above(a: Values, b: Values, axis: int = -1) -> Any:
    """Returns P(A > B) + ½ P(A = B) over all cross pairs of the last axis: Mann and Whitney's U as a share."""
    return (1 + np.sign(a[..., :, None] - b[..., None, :]).mean(axis=(-2, -1))) / 2
