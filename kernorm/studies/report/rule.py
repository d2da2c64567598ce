"""How verdicts are found, as a study's page says it: by which tests, at how many looks, and what seeds can see."""

from collections.abc import Iterable

from kernorm.reporting.notices import Notice
from kernorm.stats.comparison import ALPHA, pairing_pays
from kernorm.studies.definition import Study
from kernorm.studies.metrics import Metric
from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import StudySummary, counted
from kernorm.studies.wording import compared, listed

_PAIRED = "the t-test of arms paired with their baseline by seed"
# By whether all arms, and whether any, are compared in pairs.
_TESTS = {
    (True, True): _PAIRED,
    (False, True): f"{_PAIRED} where the seeds of other arms correlate, else Welch's t-test",
    (False, False): "Welch's t-test of arms that are not paired, since seeds are few and those of other arms hardly "
    "correlate",
}


def counted_as(metric: Metric) -> str:
    """Says what failed runs do in verdicts."""
    return "count as the worst value" if metric.most else "count as the worst that finished, and speak for no arm"


def rule_notice(study: Study, summary: StudySummary) -> Notice:
    """Says how a verdict of the study is found."""
    families = summary.design.families(study)
    if not families:
        return Notice("note", "Nothing is compared", "The study has no arm but its baseline.")
    first = primary_metric(summary.design)
    margin = first.margin and (
        f" Equivalent, on these images: within ±{first.show(first.margin)} by two one-sided tests, corrected as well."
    )
    if summary.anytime:
        test = "e-processes over the seeds in their order, which stay valid however often one looks"
    else:
        pairs = {found.paired for arm in summary.arms if arm.baseline and (found := compared(arm, summary.metric))}
        # Before there are any, it is open what the seeds of other arms will show.
        test = _TESTS[min(pairs, default=pairing_pays(None, len(summary.seeds))), max(pairs, default=True)]
    new = (
        ", and the interval for new test images excludes 0; else it is better on these images alone."
        if first.mean_over
        else f". That is of these images alone: nothing is claimed of new ones, since {first.why_not}."
    )
    arms = counted(max(map(len, families.values())), "arm")
    chance = (
        "The spread of a difference is taken to be at least what chance over the images implies. "
        if first.mean_over
        else ""
    )
    return Notice(
        "note",
        "How a verdict is found",
        f"By {first.label}, the primary metric; others are described. Better or worse: p ≤ {ALPHA:g} by {test}, after "
        f"Holm's correction over {arms} with the same baseline{new}{margin or ''} Else not resolved, which is never "
        f"evidence of no difference. {chance}Runs that failed {counted_as(first)}.",
    )


def look_notices(summary: StudySummary) -> Iterable[Notice]:
    """Says that verdicts are looked at more than once, where they are."""
    design = summary.design
    if design.until_resolved:
        text = (
            f"Seeds are added to the baseline and the open arms, round by round, up to {design.most} of an arm. Every "
            "round is a look, and the verdicts allow for it."
        )
        yield Notice("good", "It runs until it is resolved", text)
    elif summary.anytime:
        now = {arm.name: arm.failures.runs for arm in summary.arms}
        before = [
            (count, look.study)
            for look in design.looks
            for arm, count in look.seeds.items()
            if 2 <= count < now.get(arm, 0)
        ]
        seeds, studies = (sorted(set(found)) for found in zip(*before, strict=True))
        seen = f"{', '.join(map(str, seeds))} seeds"
        if "" not in studies:
            seen += f", in {listed(f'`{name}`' for name in studies)}, whose runs were taken"
        text = (
            f"Verdicts were seen with {seen}, and seeds were added after that. So the "
            "tests are those that stay valid however often one looks; they need more seeds than a single look. The "
            "first look had a test of its own: that it or any later look finds a difference that is not there has a "
            "chance of up to 7 % (by simulation)."
        )
        yield Notice("warning", "It was looked at before", text)


def visible_notices(summary: StudySummary) -> Iterable[Notice]:
    """Says which differences the seeds can see."""
    if summary.visible and any(arm.baseline for arm in summary.arms):
        yield Notice("note", "What so many seeds can see", summary.visible)
