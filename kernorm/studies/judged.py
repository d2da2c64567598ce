"""Arms as verdicts see them: a value and the wrong images by seed, runs that failed with the worst value."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median

from kernorm.records.record import Evaluation, Record
from kernorm.stats import intervals
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Result
from kernorm.studies.summary import Failures, Metric


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An arm as verdicts see it: its value and wrong images by seed; a failed run has the worst value, all wrong."""

    values: dict[int, float]
    wrong: dict[int, Collection[int]]
    count: int


def judged_evaluation(record: Record) -> Evaluation | None:
    """Returns the scores that a verdict may use: of the last epoch, where the epoch was selected on test."""
    return record.test_last if record.config.select == "test" else record.test


def failures_of(results: Mapping[int, Result]) -> Failures:
    """Counts the runs that diverged, failed or collapsed.

    A finished run has collapsed if its accuracy is below half of the arm's median, or no more than chance.
    """
    tested = {
        seed: result.record.test
        for seed, result in results.items()
        if result.status == "finished" and result.record and result.record.test
    }
    middle = median(test.accuracy for test in tested.values()) if tested else 0.0
    collapsed = sum(test.accuracy < middle / 2 or test.accuracy <= chance(test) for test in tested.values())
    lost = {state: sum(result.status == state for result in results.values()) for state in ("diverged", "failed")}
    failed = collapsed + sum(lost.values())
    return Failures(
        runs=len(results),
        failed=failed,
        collapsed=collapsed,
        interval=intervals.clopper_pearson(failed, len(results)) if results else None,
    )


def chance(test: Evaluation) -> float:
    """Returns the most accuracy that may come from naming one class always: its share, and 2 sd of that."""
    share = max(sum(row) for row in test.confusion) / test.count if test.count else 0.0
    return share + 2 * math.sqrt(share * (1 - share) / test.count) if test.count else 0.0


def judge(results: Mapping[int, Result], metric: Metric, like: Evaluation | None = None) -> Judged:
    """Returns an arm as verdicts see it, over the runs that have ended.

    `like` tells of the test split where all of them failed.
    """
    tests = {
        seed: (judged_evaluation(result.record) if result.record and result.status == "finished" else None)
        for seed, result in sorted(results.items())
    }
    known = next((test for test in tests.values() if test), like)
    if known is None:
        return Judged(values={}, wrong={}, count=0)
    count, classes = known.count, len(known.confusion)
    values: dict[int, float] = {}
    wrong: dict[int, Collection[int]] = {}
    for seed, test in tests.items():
        if test is None and results[seed].status == "finished":
            continue  # of an older kernorm, which kept no evaluation of the last epoch
        values[seed] = metric.of(test) if test else metric.worst(classes)
        wrong[seed] = {mistake.index for mistake in test.mistakes} if test else range(count)
    return Judged(values=values, wrong=wrong, count=count)


def judge_all(study: Study, results: Mapping[str, Mapping[int, Result]], metric: Metric) -> dict[str, Judged]:
    """Returns every arm of a study as verdicts see it."""
    every = (result.record for by_seed in results.values() for result in by_seed.values())
    like = next((test for record in every if record and (test := judged_evaluation(record))), None)
    return {arm: judge(results.get(arm, {}), metric, like) for arm in study.arms}


def ended_runs(results: Mapping[str, Mapping[int, Result]]) -> dict[str, int]:
    """Counts the runs that have ended, by arm."""
    return {arm: len(by_seed) for arm, by_seed in results.items()}
