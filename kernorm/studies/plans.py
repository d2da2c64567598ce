"""What seeds can see: the least difference that a study shows, and the seeds that would show its margin.

Below the verdicts, which name the plan of an arm that is not resolved.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kernorm.stats import new_images
from kernorm.stats.anytime import visible_anytime
from kernorm.stats.comparison import pairing_pays
from kernorm.stats.planning import plan_seeds, visible_difference
from kernorm.studies.definition import Study
from kernorm.studies.design import Design, Family
from kernorm.studies.judged import Judged, ended_runs, failures_of, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import Metric
from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import Plan, counted

# Standard deviation of the accuracy of MNIST runs over seeds, where nothing else is known.
TYPICAL_SD = 0.0005


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
        anytime: see `Design.anytime`.
    """
    alpha = design.alpha / max(1, arms)
    if anytime:
        return visible_anytime(math.sqrt(2 * variance), seeds, alpha, design.c)
    return visible_difference(variance, seeds, alpha, paired=pairing_pays(None, seeds))


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
    anytime = design.anytime(ended_runs(results))
    least = least_visible(variance, len(study.seeds), family, design, anytime=anytime)
    seeds, arms = counted(len(study.seeds), "seed"), counted(family, "arm")
    if math.isinf(least):
        fewest = "more, since these were looked at before" if anytime else "two or more, or --until-resolved"
        return f"With {seeds} there is no verdict: give {fewest}."
    return f"With {seeds}, and {arms} to a baseline, it can see differences from {metric.show(least)} ({source})."


def typical_arms(judged: Mapping[str, Judged], results: Mapping[str, Mapping[int, Result]]) -> list[Judged]:
    """Returns the arms none of whose runs failed, or all if there is none: the spread of others tells of no plan."""
    return [one for arm, one in judged.items() if not failures_of(results.get(arm, {})).failed] or list(judged.values())


def plan_of(
    judged: Sequence[Judged], family: Family, metric: Metric, design: Design, correlation: float | None
) -> Plan | None:
    """Plans the seeds that would see the margin, where the metric has one.

    Args:
        judged: the arms whose spread tells of the others'.
        family: the arms that share α.
        metric: the primary one.
        design: how verdicts are found.
        correlation: over seeds, of arms and their baselines.
    """
    pooled = None if design.until_resolved else pooled_variance(judged)
    if metric.margin is None or pooled is None:
        return None
    alpha, rho = design.alpha / len(family), correlation or 0.0
    seeds = plan_seeds(*pooled, metric.margin, paired=pairing_pays(correlation), correlation=rho, alpha=alpha)
    if pairing_pays(None, seeds[0]):
        seeds = plan_seeds(*pooled, metric.margin, paired=True, correlation=rho, alpha=alpha)
    return Plan(difference=metric.margin, seeds=seeds)
