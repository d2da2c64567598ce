"""Which runs the next round of a study needs that runs until it is resolved, and what it says after each.

A round gives one seed more to every open arm and to its baseline, in the order of the seeds: the tests count on that
order. An arm that is resolved keeps its runs and its p-value and gets no more.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from kernorm.errors import UsageError
from kernorm.reporting.format import duration
from kernorm.stats.anytime import FIRST
from kernorm.stats.verdict import Verdict
from kernorm.studies.definition import Study
from kernorm.studies.design import Design
from kernorm.studies.ledger import Result
from kernorm.studies.summary import ArmSummary, StudySummary, counted
from kernorm.studies.wording import compared, decided_interval, listed, unit


def open_arms(summary: StudySummary) -> list[ArmSummary]:
    """Returns the arms that seeds may still resolve.

    An arm that differs on these images only is open for as long as seeds can tell more of new ones.
    """
    return [arm for arm in summary.arms if arm.baseline and not is_closed(arm.decided, arm.exhausted)]


def arms_that_go_on(summary: StudySummary) -> list[ArmSummary]:
    """Returns the open arms that the next round of a study that runs until it is resolved gives one seed more."""
    if not summary.design.until_resolved or len(summary.seeds) >= summary.design.most:
        return []
    return open_arms(summary)


def is_closed(verdict: Verdict | None, exhausted: bool) -> bool:
    """Tells whether an arm gets no more seeds."""
    if verdict is None:
        return False
    if verdict.name in ("better on these images", "worse on these images"):
        return exhausted
    return verdict.name in ("better", "worse", "equivalent")


def require_order(study: Study, results: Mapping[str, Mapping[int, Result]]) -> None:
    """Refuses results that do not come in the order of the seeds.

    Raises:
        UsageError: an arm has a later seed and lacks an earlier one.
    """
    for arm in study.arms:
        seeds = sorted(results.get(arm, {}))
        if seeds != list(range(len(seeds))):
            raise UsageError(
                "--until-resolved takes seeds in order, from 0.",
                f"seeds {', '.join(map(str, seeds))} of {arm!r}",
                "Give --name another name.",
            )


def next_round(study: Study, design: Design, going: Collection[str], ended: Mapping[str, int]) -> dict[str, int]:
    """Returns how many seeds each arm is to have after the next round; empty where the study is at its end.

    A round that was interrupted is completed first.

    Args:
        study: its arms and baselines.
        design: how it decides.
        going: the arms that are open.
        ended: how many of each arm's runs have ended.
    """
    if not going:
        return {}
    going = {*going, *(study.baselines[arm] for arm in going)}
    counts = {arm: ended.get(arm, 0) for arm in study.arms}
    reached = {counts[arm] for arm in going}
    target = max(FIRST, max(reached) + (len(reached) == 1))
    if target > design.most:
        if len(reached) == 1:
            return {}
        target = max(reached)
    return counts | dict.fromkeys(going, target)


def with_counts(study: Study, counts: Mapping[str, int]) -> Study:
    """Returns the study with so many seeds of each arm."""
    most = max(counts.values(), default=0)
    return replace(study, seeds=tuple(range(most)), counts=dict(counts))


def format_round(summary: StudySummary, design: Design, counts: Mapping[str, int], seconds: float) -> str:
    """Says after a round what is open and why, and when it ends at the latest; `seconds` is a round's, 0 if unknown."""
    going = open_arms(summary)
    seeds = max(counts.values(), default=0)
    closed = [arm for arm in summary.arms if arm.baseline and arm not in going]
    lines = [f"{seeds} seeds: {len(going)} open, {len(closed)} resolved"]
    for arm in going:
        found, verdict = compared(arm, summary.metric), arm.decided
        difference = (
            unit(found.difference, summary.metric) if found and found.difference is not None else "no difference yet"
        )
        interval = decided_interval(verdict, summary.metric) if verdict else ""
        lines.append(f"  {arm.name}: {verdict.name if verdict else 'no verdict'}, {difference}, {interval}")
    if closed:
        told = listed(f"{arm.name} {arm.decided.name}" for arm in closed if arm.decided)
        lines.append(f"  resolved: {told}")
    left = design.most - seeds
    if going and left <= 0:
        lines.append("  the most seeds are reached")
    elif going:
        time = f", about {duration(left * seconds)} at {duration(seconds)} each" if seconds else ""
        lines.append(f"  at most {counted(left, 'round')} more{time}")
    return "\n".join(lines)
