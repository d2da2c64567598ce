"""What a study answers, in words: in a few lines, and in a sentence an arm.

Between the analysis and the study's report.
"""

from kernorm.studies.primary import primary_metric
from kernorm.studies.summary import ArmSummary, LastEpoch, StudySummary, counted
from kernorm.studies.wording import compared, decided_interval, failure_rate, listed, score, unit

_ANSWERS = {
    "better": "Better than",
    "worse": "Worse than",
    "better on these images": "On these test images better, not resolved for new ones, than",
    "worse on these images": "On these test images worse, not resolved for new ones, than",
    "equivalent": "On these test images equivalent to",
    "not resolved": "Not resolved against",
    "as selected": "Selected on test, without a verdict against",
    "no verdict": "Not yet compared with",
}


def answers(summary: StudySummary) -> list[tuple[str, str, str]]:
    """Returns the study's answer in a few lines: a verdict, what it says, the arms it says it of.

    What stands between backticks, here and below, is a name.
    """
    baselines = {arm.baseline for arm in summary.arms if arm.baseline}
    against = f"`{baselines.pop()}`" if len(baselines) == 1 else "their baselines"
    found = []
    told = {arm.name: arm.decided.name for arm in summary.arms if arm.scores and arm.decided}
    for name, words in _ANSWERS.items():
        if arms := [arm for arm, verdict in told.items() if verdict == name]:
            metric = primary_metric(summary.design)
            within = f" within {metric.show(metric.margin)}" if name == "equivalent" and metric.margin else ""
            found.append((name, f"{words} {against}{within}", listed(arms)))
    if summary.chosen:
        found.append(("no verdict", "No verdict", "these runs were chosen when their results could be seen"))
    if summary.provisional:
        total = sum(sum(arm.states.values()) for arm in summary.arms)
        words = f"{total - summary.missing:,} of {counted(total, 'run')} have ended"
        found.append(("no verdict", "No verdict before all runs have", words))
    if unfinished := [arm.name for arm in summary.arms if not arm.scores]:
        found.append(("no verdict", "Without a finished run", listed(unfinished)))
    return found


def sentence(arm: ArmSummary, metric: str = "accuracy") -> str:
    """Says in one sentence how an arm compares with its baseline by the study's primary metric."""
    parts = []
    verdict, found = arm.decided, compared(arm, metric)
    if found and verdict and arm.scores:
        if arm.last:
            parts.append(_last_epoch(arm.last, metric))
        if found.difference is not None:
            interval = decided_interval(verdict, metric)
            parts.append(f"{unit(found.difference, metric)} against `{arm.baseline}`, {interval}")
        parts.append(verdict.sentence.removeprefix(verdict.name).lstrip(":;, "))
    elif found and found.difference is not None and found.interval:
        low, high = (unit(end, metric) for end in found.interval)
        parts.append(f"{unit(found.difference, metric)} against `{arm.baseline}`, 95 % {low} to {high}")
    elif arm.scores:
        parts += [_last_epoch(arm.last, metric)] if arm.last else []
        parts.append(f"mean of {counted(arm.scores['accuracy'].n, 'seed')}")
    if arm.failures.failed:
        parts.append(failure_rate(arm))
    if arm.states["finished"] < sum(arm.states.values()):
        parts.append(", ".join(f"{count} {state}" for state, count in arm.states.items() if count))
    return "; ".join(part for part in parts if part)


def _last_epoch(last: LastEpoch, metric: str) -> str:
    return f"last epoch {score(last.score.mean, metric)}, selecting on test added {unit(last.gain, metric)}"


def narrower(summary: StudySummary) -> str:
    """Explains why the interval for new images can be narrower than the one over seeds, where it is; else nothing."""
    pairs = [(arm.generalization_interval, arm.scores["accuracy"].interval) for arm in summary.arms if arm.scores]
    known = [(new, seeds) for new, seeds in pairs if new and seeds]
    many = sum(new[1] - new[0] < seeds[1] - seeds[0] for new, seeds in known)
    if not many:
        return ""
    return (
        f"In {many} of {counted(len(known), 'arm')} it is narrower than the one over seeds: that one takes the spread "
        "of few runs alone, which Student's t stretches; this one takes of that spread only what exceeds chance over "
        "the images, and knows the chance from all images."
    )
