"""Verdicts of a study's arms on its primary metric: what holds for new images, and however often one looks.

Between the runs of a study and its summary. Runs that failed count as the worst value, so that no recipe is better for
the seeds that survived it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kernorm.stats import comparison, new_images
from kernorm.stats.anytime import FIRST, anytime_p, confidence_sequence, visible_anytime
from kernorm.stats.comparison import Comparison
from kernorm.stats.intervals import Interval, as_interval
from kernorm.stats.planning import plan_seeds, visible_difference
from kernorm.stats.verdict import Verdict, verdict
from kernorm.studies.definition import Study
from kernorm.studies.design import Design, Family
from kernorm.studies.judged import Judged, ended_runs, failures_of, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import Metric
from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import Plan, counted

# Of α, what the interval for new images may be wrong by where verdicts are looked at again and again (by simulation).
LOOKING = 5
# Once a seed more changes the interval for new images less than this share of what the images leave open, none is run.
IMAGES_DECIDE = 0.25
# Standard deviation of the accuracy of MNIST runs over seeds, where nothing else is known.
TYPICAL_SD = 0.0005


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is decided of an arm: the comparison behind it, Holm's p-values, the verdict.

    `new_images` is the interval for images that were never seen, which is asked for once the seeds show a difference.
    `exhausted` says that more seeds cannot help then: more images would, or the metric tells nothing of new ones.
    """

    comparison: Comparison
    p_adjusted: float | None
    verdict: Verdict
    new_images: Interval | None = None
    exhausted: bool = False


def judged_anytime(design: Design, results: Mapping[str, Mapping[int, Result]]) -> bool:
    """Tells whether verdicts need tests that are valid however often one looks."""
    return design.until_resolved or design.looked_before(ended_runs(results))


def decide(study: Study, design: Design, results: Mapping[str, Mapping[int, Result]]) -> dict[str, Decision]:
    """Decides about every arm that has a baseline, by the study's primary metric.

    Args:
        study: its arms and baselines.
        design: how it decides.
        results: by arm and seed.
    """
    metric = primary_metric(design)
    families = design.families(study)
    judged = judge_all(study, results, metric)
    pairs = {arm: (judged[arm], judged[base]) for base, family in families.items() for arm in family.arms}
    typical = typical_arms(judged, results)
    correlation, planned = (
        comparison.pooled_correlation([(a.values, b.values) for a, b in pairs.values() if a in among and b in among])
        for among in (list(judged.values()), typical)
    )
    anytime = judged_anytime(design, results)
    found: dict[str, Decision] = {}
    for family in families.values():
        test, paired = _test_anytime if anytime else _test_once, _in_pairs(metric, correlation)
        tested = {arm: test(*pairs[arm], metric, c=design.c, paired=paired) for arm in family.arms}
        plan = _plan(typical, family, metric, design, planned)
        found |= _decide_family(tested, family, pairs, metric, design, anytime, plan)
    return found


def _in_pairs(metric: Metric, correlation: float | None) -> bool:
    """Tells whether arms are compared in pairs by seed.

    The correlation that decides is that of the runs which are tested then. Where chance over the images sets a least
    spread, that does no harm. Elsewhere two arms of few seeds would be told apart too often (by simulation in 6.8 % of
    studies in place of 5), so all are compared in pairs.
    """
    return metric.mean_over is None or comparison.pairing_pays(correlation)


@dataclass(frozen=True, kw_only=True)
class _Tested:
    comparison: Comparison
    p: float | None
    p_equivalent: float | None
    differences: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()


def _test_once(mine: Judged, base: Judged, metric: Metric, *, c: float, paired: bool) -> _Tested:
    """Tests an arm as if these were the first runs that anybody saw."""
    common = sorted(mine.values.keys() & base.values.keys())
    floor = mine.rounding
    if mine.strata:
        if paired:
            implied = new_images.chance_variance(
                [mine.wrong[seed] for seed in common], mine.strata, [base.wrong[seed] for seed in common]
            )
        else:
            implied = sum(
                new_images.chance_variance(list(one.wrong.values()), one.strata) for one in (mine, base) if one.strata
            )
        floor = max(floor, implied)
    found = comparison.compare(
        mine.values,
        base.values,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        paired=paired,
        floor=floor,
        most=metric.most,
    )
    return _Tested(comparison=found, p=found.p, p_equivalent=found.tost_p)


def _test_anytime(mine: Judged, base: Judged, metric: Metric, *, c: float, paired: bool) -> _Tested:
    """Tests an arm by e-processes of the differences in the order of their seeds."""
    common = sorted(mine.values.keys() & base.values.keys())
    differences = tuple(mine.values[seed] - base.values[seed] for seed in common)
    floors = (mine.rounding,) * len(common)
    if mine.strata:
        implied = new_images.chance_variances(
            [mine.wrong[seed] for seed in common], mine.strata, [base.wrong[seed] for seed in common]
        )
        floors = tuple(max(mine.rounding, one) for one in implied)
    found = comparison.compare(
        mine.values,
        base.values,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        floor=floors[-1] if floors else 0.0,
        most=metric.most,
    )
    p = anytime_p(differences, floors=floors, c=c)
    equivalent = None
    if metric.margin is not None and p is not None:
        below = anytime_p(differences, metric.margin, floors=floors, c=c, side="less")
        above = anytime_p(differences, -metric.margin, floors=floors, c=c, side="greater")
        equivalent = max(below or 0.0, above or 0.0)
    return _Tested(comparison=found, p=p, p_equivalent=equivalent, differences=differences, floors=floors)


def _decide_family(
    tested: Mapping[str, _Tested],
    family: Family,
    pairs: Mapping[str, tuple[Judged, Judged]],
    metric: Metric,
    design: Design,
    anytime: bool,
    plan: Plan | None,
) -> dict[str, Decision]:
    """Corrects the tests of the arms with one baseline, and finds their verdicts."""
    # Of an arm that is left out nothing is claimed any more; it takes its part of α.
    p_values = {arm: one.p for arm, one in tested.items()} | dict.fromkeys(family.left_out, 1.0)
    equivalences = {arm: one.p_equivalent for arm, one in tested.items()} | dict.fromkeys(family.left_out, 1.0)
    adjusted, tost = comparison.holm(p_values), comparison.holm(equivalences)
    levels, tost_levels = (comparison.holm_levels(values, design.alpha) for values in (p_values, equivalences))
    found = {}
    for arm, one in tested.items():
        mine, base = pairs[arm]
        common = sorted(mine.values.keys() & base.values.keys())
        alpha = levels[arm]
        new, exhausted = None, False
        p = adjusted[arm]
        if p is not None and p <= design.alpha:
            exhausted = _images_decide(mine, base, common)
        if mine.strata and p is not None and p <= design.alpha:
            new = new_images.two_level_difference(
                [mine.wrong[seed] for seed in common],
                [base.wrong[seed] for seed in common],
                mine.strata,
                paired=True,
                alpha=alpha / LOOKING if anytime else alpha,
            )
        said = verdict(
            one.comparison,
            adjusted[arm],
            tost[arm],
            new_images=new,
            alpha=alpha,
            equivalence_alpha=tost_levels[arm],
            show=metric.show,
            plan=plan.sentence(metric.show) if plan else "",
            needed=FIRST if anytime else 2,
        )
        if anytime and said.of == "these images":
            here = confidence_sequence(one.differences, floors=one.floors, alpha=said.alpha or alpha, c=design.c)
            most = metric.most or math.inf
            said = replace(said, interval=here and as_interval(here, (-most, most)))
        found[arm] = Decision(
            comparison=one.comparison,
            p_adjusted=adjusted[arm],
            verdict=said,
            new_images=new,
            exhausted=exhausted,
        )
    return found


def _images_decide(mine: Judged, base: Judged, common: Sequence[int]) -> bool:
    """Tells whether the variance over seeds is so small against that over images that more seeds cannot help.

    Nor can they where nothing is known of new images: the metric is no mean over them, or a class has a single one.
    """
    if mine.strata is None or min(mine.strata.sizes) < 2:
        return True
    parts = new_images.variance_parts(
        [mine.wrong[seed] for seed in common], mine.strata, [base.wrong[seed] for seed in common]
    )
    return parts.seeds / len(common) < IMAGES_DECIDE * parts.images


def pooled_variance(arms: Sequence[Judged]) -> tuple[float, float] | None:
    """Returns the variance of a run within its arm, pooled over arms, and its degrees of freedom; None below two runs.

    It is at least what independent errors over the images imply.
    """
    several = [one for one in arms if len(one.values) > 1]
    df = sum(len(one.values) - 1 for one in several)
    if not df:
        return None
    squares = 0.0
    for one in several:
        values = np.array(list(one.values.values()))
        floor = one.rounding / 2
        if one.strata:
            floor = max(floor, new_images.chance_variance(list(one.wrong.values()), one.strata))
        squares += (len(values) - 1) * max(float(values.var(ddof=1)), floor)
    return squares / df, float(df)


def least_visible(variance: float, seeds: int, arms: int, design: Design, *, anytime: bool) -> float:
    """Returns the least true difference that so many seeds show, by the test that will judge `arms` of a baseline.

    Args:
        variance: of a run within its arm.
        seeds: of each arm, which are taken not to be correlated.
        arms: that share α.
        design: how verdicts are found.
        anytime: see `judged_anytime`.
    """
    alpha = design.alpha / max(1, arms)
    if anytime:
        return visible_anytime(math.sqrt(2 * variance), seeds, alpha, design.c)
    return visible_difference(variance, seeds, alpha, paired=_in_pairs(primary_metric(design), None))


def format_visible(study: Study, design: Design, results: Mapping[str, Mapping[int, Result]]) -> str:
    """Says which true difference the study's seeds show with power POWER, by how much its runs vary.

    Without two runs of an arm, runs on MNIST are taken to vary as such runs do.
    """
    metric = primary_metric(design)
    families = design.families(study)
    if not families:
        return "Nothing is compared."
    pooled = pooled_variance(typical_arms(judge_all(study, results, metric), results))
    on_mnist = all(config.dataset == "mnist" for config in study.arms.values())
    if pooled is None and not (on_mnist and design.metric == "accuracy"):
        return "Which difference these seeds can see is known once two runs of an arm have finished."
    variance, source = (pooled[0], "by the runs there are") if pooled else (TYPICAL_SD**2, "as runs on MNIST vary")
    family = max(map(len, families.values()))
    anytime = judged_anytime(design, results)
    least = least_visible(variance, len(study.seeds), family, design, anytime=anytime)
    seeds, arms = counted(len(study.seeds), "seed"), counted(family, "arm")
    if math.isinf(least):
        fewest = "more, since these were looked at before" if anytime else "two or more, or --until-resolved"
        return f"With {seeds} there is no verdict: give {fewest}."
    return f"With {seeds}, and {arms} to a baseline, it can see differences from {metric.show(least)} ({source})."


def typical_arms(judged: Mapping[str, Judged], results: Mapping[str, Mapping[int, Result]]) -> list[Judged]:
    """Returns the arms none of whose runs failed, or all if there is none: the spread of others tells of no plan."""
    return [one for arm, one in judged.items() if not failures_of(results.get(arm, {})).failed] or list(judged.values())


def _plan(
    judged: Sequence[Judged], family: Family, metric: Metric, design: Design, correlation: float | None
) -> Plan | None:
    """Plans the seeds that would see the margin, where the metric has one."""
    pooled = None if design.until_resolved else pooled_variance(judged)
    if metric.margin is None or pooled is None:
        return None
    paired = _in_pairs(metric, correlation)
    alpha = design.alpha / len(family)
    low, high = plan_seeds(*pooled, metric.margin, paired=paired, correlation=correlation or 0.0, alpha=alpha)
    return Plan(difference=metric.margin, seeds=(low, high))
