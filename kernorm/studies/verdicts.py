"""Verdicts of a study's arms on its primary metric: what holds for new images, and however often one looks.

Between the runs of a study and its summary. Runs that failed count as the worst value, so that no recipe is better for
the seeds that survived it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kernorm.stats import comparison, new_images
from kernorm.stats.anytime import FIRST, anytime_p, confidence_sequence
from kernorm.stats.comparison import Comparison
from kernorm.stats.intervals import Interval, as_interval
from kernorm.stats.verdict import Verdict, verdict
from kernorm.studies.definition import Study
from kernorm.studies.design import Design, Family
from kernorm.studies.judged import Judged, ended_runs, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import Metric
from kernorm.studies.plans import plan_of, typical_arms
from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import Plan

# Of α, what the interval for new images may be wrong by where verdicts are looked at again and again (by simulation).
LOOKING = 5
# Once a seed more changes the interval for new images less than this share of what the images leave open, none is run.
IMAGES_DECIDE = 0.25
_FAILED = "of an arm with failed runs this metric shows nothing good"


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
    planned = _correlation(pair for pair in pairs.values() if pair[0] in typical and pair[1] in typical)
    anytime = design.anytime(ended_runs(results))
    found: dict[str, Decision] = {}
    for family in families.values():
        tested = {}
        for arm in family.arms:
            mine, base = pairs[arm]
            others = _correlation(pair for other, pair in pairs.items() if other != arm)
            paired = comparison.pairing_pays(others, len(mine.values.keys() & base.values.keys()))
            one = (_test_anytime if anytime else _test_once)(mine, base, metric, c=design.c, paired=paired)
            tested[arm] = _without_gain_by_failures(one, mine, base, metric)
        plan = plan_of(typical, family, metric, design, planned)
        found |= _decide_family(tested, family, pairs, metric, design, anytime, plan)
    return found


def _correlation(pairs: Iterable[tuple[Judged, Judged]]) -> float | None:
    return comparison.pooled_correlation([(mine.values, base.values) for mine, base in pairs])


@dataclass(frozen=True, kw_only=True)
class _Tested:
    comparison: Comparison
    p: float | None
    p_equivalent: float | None
    differences: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()
    dropped: bool = False


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


def _without_gain_by_failures(tested: _Tested, mine: Judged, base: Judged, metric: Metric) -> _Tested:
    """Drops what a test finds in favour of an arm with failed runs, where a metric has no worst value.

    Failed runs count as bad as the worst that finished, which may be better than they deserve.
    """
    difference = tested.comparison.difference
    if metric.most is not None or difference is None or not (mine.failed or base.failed):
        return tested
    better = (difference > 0) == metric.higher_is_better
    favoured = mine.failed if better else base.failed
    p, one = (None if value is None or not favoured else 1.0 for value in (tested.p, tested.comparison.p))
    equivalent = None if tested.p_equivalent is None else 1.0
    found = replace(tested.comparison, p=one or tested.comparison.p, tost_p=equivalent)
    return replace(tested, comparison=found, p=p or tested.p, p_equivalent=equivalent, dropped=bool(favoured))


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
            exhausted = _images_decide(mine, base, common, alpha / LOOKING if anytime else alpha)
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
            plan=_FAILED if one.dropped else plan.sentence(metric.show) if plan else "",
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


def _images_decide(mine: Judged, base: Judged, common: Sequence[int], alpha: float) -> bool:
    """Tells whether more seeds cannot help, since the variance over seeds is small against that over images.

    The variance over images is at least what the interval at 1 − `alpha` allows for images unlike any at hand. Seeds do
    not help either where nothing is known of new images: the metric is no mean over them, or a class has a single one.
    """
    if mine.strata is None or min(mine.strata.sizes) < 2:
        return True
    parts = new_images.variance_parts(
        [mine.wrong[seed] for seed in common], mine.strata, [base.wrong[seed] for seed in common], alpha=alpha
    )
    return parts.seeds / len(common) < IMAGES_DECIDE * parts.images
