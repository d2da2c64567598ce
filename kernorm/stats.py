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
from numpy.typing import NDArray
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import ttest_power
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

Interval = tuple[float, float]
Values = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 2000
# A difference that needs more seeds is out of reach.
MOST_SEEDS = 1000
# What rounding leaves of the difference of equal numbers, relative to them.
ROUNDING = 1e-9


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


@dataclass(frozen=True, kw_only=True)
class TimeTo:
    """Time to a target over runs: `median`, by Kaplan and Meier, is the first by which half of them had reached it.

    None if they never did; an upper limit of None lies beyond what was run.
    """

    n: int
    reached: int
    median: float | None
    interval: tuple[float, float | None] | None


def summarize(values: Sequence[float]) -> Summary:
    """Returns mean, spread and intervals of a metric over the runs of an arm.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    sample = _finite(dict(enumerate(values)), "run")
    if not len(sample):
        raise ValueError("A summary needs a value. Received: none. Leave the arm away.")
    described, several = DescrStatsW(sample), len(sample) > 1
    return Summary(
        n=len(sample),
        mean=float(described.mean),
        sd=float(described.std_ddof(1)) if several else None,
        interval=_interval(described.tconfint_mean()) if several else None,
        bootstrap=_bootstrap(np.mean, sample) if several else None,
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
    a, b = (_finite(dict(sorted(values.items())), "seed") for values in (arm, baseline))
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
        interval=_interval(described.tconfint_mean()),
        bootstrap=_bootstrap(np.mean, described.data),
        p_paired=float(p_paired),
        p_welch=float(means.ttest_ind(usevar="unequal")[1]) if means else None,
        welch=_interval(means.tconfint_diff(usevar="unequal")) if means else None,
        probability_better=float(_share_above(*sides)),
        probability_interval=_bootstrap(_share_above, *sides),
        tost_p=tost,
        planned_difference=planned,
        seeds_needed=needed,
    )


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Returns p-values adjusted for being one of several (Holm 1979); None, no test made, stays and does not count."""
    made = {name: p for name, p in p_values.items() if p is not None}
    adjusted = multipletests(_finite(made, "p of"), method="holm")[1].tolist() if made else []
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


def points(share: float) -> str:
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
    if len(values) != len(budgets):
        raise ValueError(f"Each run has a budget. Received: {len(values)} runs, {len(budgets)} budgets. Give one each.")
    met = [value is not None for value in values]
    times = [budget if value is None else value for value, budget in zip(values, budgets, strict=True)]
    sample = _finite(dict(enumerate(times)), "run")
    survival = SurvfuncRight(sample, np.array(met, dtype=np.int64))
    # statsmodels asks for S < 1/2; a hair more lets in S = 1/2, whichever way its logarithms have rounded it.
    median = float(survival.quantile(0.5 - ROUNDING))
    with np.errstate(all="ignore"):  # its transform is infinite where S = 0
        low, high = _interval(survival.quantile_ci(0.5))
    return TimeTo(
        n=len(met),
        reached=sum(met),
        median=median if math.isfinite(median) else None,
        interval=None if math.isnan(low) else (low, high if math.isfinite(high) else None),
    )


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


def _two_levels(parts: Sequence[Values], resamples: int, seed: int) -> Interval | None:
    """Returns the percentile interval of the sum of the means of the parts, each (runs, images), both drawn anew.

    Images are resampled for all runs at once. That holds each run's chance on each image too, which seeds resampled
    beside them would count three times (Owen 2007, doi:10.1214/07-AOAS122): nearly every interval would cover. So the
    seeds add only what their accuracies vary beyond that chance, by the two-way analysis of variance, and as Student's
    t, since three seeds resampled cover too little. Where no image tells the runs apart, the interval is a point.
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
    return _interval(np.percentile(means, (2.5, 97.5)))


def _hits(wrong: Sequence[Collection[int]], count: int) -> Values:
    hits = np.ones((len(wrong), count))
    for row, images in zip(hits, wrong, strict=True):
        if images and (min(images) < 0 or max(images) >= count):
            received = f"{min(images)} to {max(images)}"
            raise ValueError(f"Images count from 0 to {count - 1}. Received: {received}. Give their split's size.")
        row[list(images)] = 0.0
    return hits


def _share_above(a: Values, b: Values, axis: int = -1) -> Any:
    """Returns P(A > B) + ½ P(A = B) over all cross pairs of the last axis: Mann and Whitney's U as a share."""
    return (1 + np.sign(a[..., :, None] - b[..., None, :]).mean(axis=(-2, -1))) / 2


def _bootstrap(statistic: Callable[..., Any], *samples: Values) -> Interval:
    result = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, batch=200, vectorized=True, method="percentile", rng=0
    )
    return _interval(result.confidence_interval)


def _interval(limits: Any) -> Interval:
    low, high = limits
    return float(low), float(high)


def _finite(values: Mapping[Any, float], what: str) -> Values:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"Numbers must be finite. Received: {what} {name}: {value!r}. Name a diverged run apart.")
    return np.array(list(values.values()), dtype=np.float64)
