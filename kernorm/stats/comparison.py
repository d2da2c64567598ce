"""Which differences between arms are real: intervals, tests, the seeds still needed, and a verdict in words.

Between the records of a study and its report: plain numbers, in each metric's own unit. Intervals hold 95 % unless they
say otherwise. With few seeds trust those of Student's t: a percentile bootstrap of five values covers about 83 % (as
Colas et al. 2018, arXiv:1806.08295, warn). The tests here are for one look at a number of seeds that was fixed before;
those of `kernorm.stats.anytime` are for any number of looks.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from kernorm.stats.intervals import ANYWHERE, ROUNDING, Interval, Values, as_interval, finite_values

ALPHA = 0.05
RESAMPLES = 2000
# Above this correlation of arm and baseline over seeds, pairs find more than two samples do.
PAIRING = 0.3
# From so many seeds on they lose next to nothing, whatever the correlation.
PAIRS = 10


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric of one arm over its seeds; a single run has neither `sd` nor interval.

    `interval` is of the mean, by Student's t, cut to what is possible; `bootstrap` by percentiles of resampled means.
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

    `difference` is arm − baseline. Where the arms are `paired`, it is the mean over the common seeds, with the standard
    error `error` of that and `df` = pairs − 1; else the difference of the means of all seeds, by Welch 1947. `floor` is
    the least variance that a difference of two runs was taken to have; `spread` is the sd of one that the tests took,
    `spread_seen` what the runs show of it, less where the floor decides. `p` is of no difference, `tost_p` of one
    outside ±`margin` (two one-sided tests), `interval` of the difference, all by Student's t with these. `sd`,
    `bootstrap` and `p_paired` are of the differences by seed as they are, `p_welch` and `welch` of the arms unpaired;
    None where neither varies. `probability_better` is the share of all cross pairs in which the arm's value is the
    better one, ties one half; its bootstrap interval is a point where every pair agrees. `most` is the greatest
    difference that is possible, to which intervals by Student's t are cut.
    """

    pairs: int
    higher_is_better: bool
    margin: float | None
    paired: bool = True
    floor: float = 0.0
    difference: float | None = None
    error: float | None = None
    df: float | None = None
    spread: float | None = None
    spread_seen: float | None = None
    p: float | None = None
    tost_p: float | None = None
    interval: Interval | None = None
    sd: float | None = None
    bootstrap: Interval | None = None
    p_paired: float | None = None
    p_welch: float | None = None
    welch: Interval | None = None
    probability_better: float | None = None
    probability_interval: Interval | None = None
    most: float | None = None

    def interval_at(self, alpha: float) -> Interval | None:
        """Returns the interval of the difference at the level 1 − `alpha`."""
        if self.difference is None or self.error is None or self.df is None:
            return None
        half = self.error * float(stats.t.isf(alpha / 2, self.df)) if self.error else 0.0
        most = math.inf if self.most is None else self.most
        return as_interval((self.difference - half, self.difference + half), (-most, most))


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two runs on the same images: how many only the one, only the other has wrong, and the exact test's p."""

    only_a: int
    only_b: int
    p: float


def summarize(values: Sequence[float], within: Interval = ANYWHERE) -> Summary:
    """Returns mean, spread and intervals of a metric over the runs of an arm; `within` is what is possible at all.

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
        interval=as_interval(described.tconfint_mean(), within) if several else None,
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
    paired: bool = True,
    floor: float = 0.0,
    most: float | None = None,
) -> Comparison:
    """Compares two arms, given as seed → value.

    Args:
        arm: value by seed.
        baseline: value by seed.
        higher_is_better: which direction is better.
        margin: what counts as no difference; None makes no equivalence test.
        paired: by the seeds in common, see `pairing_pays`.
        floor: the least variance of a difference of two runs.
        most: the greatest difference that is possible; None: there is none.

    Without a floor, differences that are all the same have no t; both tests of them are sign tests, so that two equal
    pairs prove nothing.

    Raises:
        ValueError: a value is not finite, or the margin is not positive.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"A margin is positive. Received: margin={margin!r}. Give None for no equivalence test.")
    a, b = (finite_values(dict(sorted(values.items())), "seed") for values in (arm, baseline))
    common = sorted(arm.keys() & baseline.keys())
    pairs = len(common)
    if pairs < 2:
        return Comparison(
            pairs=pairs, higher_is_better=higher_is_better, margin=margin, paired=paired, floor=floor, most=most
        )
    differences = np.array([arm[seed] - baseline[seed] for seed in common], dtype=np.float64)
    described = DescrStatsW(differences)
    rounding = ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    constant = np.ptp(differences) <= rounding
    means = CompareMeans(DescrStatsW(a), DescrStatsW(b)) if max(np.ptp(a), np.ptp(b)) > rounding else None
    sides = (a, b) if higher_is_better else (b, a)
    sd = 0.0 if constant else float(described.std_ddof(1))
    if paired:
        difference, seen, spread, df = float(described.mean), sd, max(sd, math.sqrt(floor)), pairs - 1.0
        error = spread / math.sqrt(pairs)
    else:
        difference = float(a.mean() - b.mean())
        variances = [0.0 if np.ptp(values) <= rounding else float(values.var(ddof=1)) for values in (a, b)]
        seen, spread = math.sqrt(sum(variances)), math.sqrt(sum(max(one, floor / 2) for one in variances))
        error, df = _welch(variances, (len(a), len(b)), floor)
    limit = math.inf if most is None else most
    found = Comparison(
        pairs=pairs,
        higher_is_better=higher_is_better,
        margin=margin,
        paired=paired,
        floor=floor,
        difference=difference,
        error=error,
        df=df,
        spread=spread,
        spread_seen=seen,
        sd=sd,
        bootstrap=bootstrap_interval(np.mean, differences),
        p_paired=_sign_test(differences, rounding) if constant else float(described.ttest_mean(0.0)[1]),
        p_welch=float(means.ttest_ind(usevar="unequal")[1]) if means else None,
        welch=as_interval(means.tconfint_diff(usevar="unequal"), (-limit, limit)) if means else None,
        probability_better=float(_share_above(*sides)),
        probability_interval=bootstrap_interval(_share_above, *sides),
        most=most,
    )
    if error <= rounding:
        within = pairs if margin is not None and abs(difference) < margin - rounding else 0
        p, tost = _sign_test(differences, rounding), float(stats.binomtest(within, pairs, alternative="greater").pvalue)
    else:
        p = float(2 * stats.t.sf(abs(difference) / error, df))
        tost = float(stats.t.sf(((margin or 0.0) - abs(difference)) / error, df))
    return replace(found, p=p, tost_p=None if margin is None else tost, interval=found.interval_at(ALPHA))


def pooled_correlation(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> float | None:
    """Returns the correlation over seeds of arms and their baselines, pooled over a study; None if nothing varies.

    Args:
        pairs: of each comparison the arm's and the baseline's value by seed.

    Returns:
        Σ cov / √(Σ var · Σ var) over the comparisons, of the seeds in common.
    """
    covariance = first = second = 0.0
    for arm, baseline in pairs:
        common = sorted(arm.keys() & baseline.keys())
        if len(common) > 1:
            a, b = (np.array([values[seed] for seed in common]) for values in (arm, baseline))
            a, b = a - a.mean(), b - b.mean()
            covariance, first, second = covariance + a @ b, first + a @ a, second + b @ b
    if not (first > 0 and second > 0):
        return None
    # Two seeds are always correlated by ±1, which rounding can pass.
    return min(1.0, max(-1.0, float(covariance / math.sqrt(first * second))))


def pairing_pays(correlation: float | None, seeds: int = 0) -> bool:
    """Decides whether an arm is compared with its baseline in pairs by seed.

    Args:
        correlation: over seeds, of other arms and their baselines. If the runs that are tested decided themselves,
            equal arms of few seeds would come out as different in 6.5 % of studies, not 5 (by simulation).
        seeds: that both have.
    """
    return seeds >= PAIRS or (correlation is not None and correlation > PAIRING)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns p-values adjusted for being one of several (Holm 1979); None, no test made, stays and does not count.

    The k-th smallest of m is multiplied by m − k + 1, is no less than the one before it, and at most 1.
    """
    made = {name: p for name, p in p_values.items() if p is not None}
    ordered = sorted(made, key=lambda name: made[name])
    factors = np.arange(len(made), 0, -1)
    adjusted = np.minimum(1.0, np.maximum.accumulate(factors * finite_values({n: made[n] for n in ordered}, "p of")))
    return dict.fromkeys(p_values) | dict(zip(ordered, adjusted.tolist(), strict=True))


def holm_levels(p_values: Mapping[str, float | None], alpha: float = ALPHA) -> dict[str, float]:
    """Returns the level at which Holm's procedure (1979) tests each of several p-values, step by step.

    A claim is refuted at α divided by the number of those that were not refuted before it; from the first that is not
    refuted on, all have its level. None, no test made, has the strictest one.
    """
    made = sorted((p, name) for name, p in p_values.items() if p is not None)
    levels, left = {}, max(1, len(made))
    for p, name in made:
        levels[name] = alpha / left
        if p <= alpha / left:
            left = max(1, left - 1)
    return dict.fromkeys(p_values, alpha / max(1, len(made))) | levels


def mcnemar(wrong_a: Collection[int], wrong_b: Collection[int]) -> McNemar:
    """Tests whether two runs differ, from the images each has wrong; it speaks of these weights, not of the recipes."""
    only_a, only_b = len(set(wrong_a) - set(wrong_b)), len(set(wrong_b) - set(wrong_a))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a=only_a, only_b=only_b, p=float(p))


def _welch(variances: Sequence[float], sizes: Sequence[int], floor: float) -> tuple[float, float]:
    """Returns the standard error of a difference of means and its degrees of freedom, by Welch and Satterthwaite."""
    parts = [(max(one, floor / 2) / size, size - 1) for one, size in zip(variances, sizes, strict=True)]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0, float(sum(sizes) - 2)
    return math.sqrt(total), total**2 / sum(part**2 / df for part, df in parts)


def bootstrap_interval(statistic: Callable[..., Any], *samples: Values) -> Interval:
    """Returns the percentile bootstrap interval of a statistic of the samples."""
    result = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, batch=200, vectorized=True, method="percentile", rng=0
    )
    return as_interval(result.confidence_interval)


def _sign_test(differences: Values, rounding: float) -> float:
    """Returns the p of differences that are all the same; 1 if they are 0."""
    n = len(differences)
    return float(stats.binomtest(n, n).pvalue) if abs(differences.mean()) > rounding else 1.0


def _share_above(a: Values, b: Values, axis: int = -1) -> Any:
    """Returns P(A > B) + ½ P(A = B) over all cross pairs of the last axis: Mann and Whitney's U as a share."""
    return (1 + np.sign(a[..., :, None] - b[..., None, :]).mean(axis=(-2, -1))) / 2
