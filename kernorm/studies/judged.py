"""Arms as verdicts see them: a value and the wrong images by seed, runs that failed with the worst value."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from kernorm.records.record import Evaluation, Record
from kernorm.stats import intervals
from kernorm.stats.scores import balanced_accuracy
from kernorm.stats.strata import Strata
from kernorm.studies.definition import Study
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import Metric
from kernorm.studies.summary import Failures


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An arm as verdicts see it: its value and wrong images by seed; a failed run has the worst value, all wrong.

    `strata` say what a value is made of, None where it is no mean over images; `rounding` is the variance of a
    difference of two values that whole images round; `failed` holds the seeds whose runs failed.
    """

    values: dict[int, float]
    wrong: dict[int, Collection[int]]
    strata: Strata | None = None
    rounding: float = 0.0
    failed: frozenset[int] = frozenset()


def judged_evaluation(record: Record) -> Evaluation | None:
    """Returns the scores that a verdict may use: of the last epoch, where the epoch was selected on test."""
    return record.test_last if record.config.select == "test" else record.test


def collapsed_runs(results: Mapping[int, Result]) -> set[int]:
    """Returns the seeds of an arm's finished runs that collapsed.

    A run has collapsed if its accuracy is below half of the arm's median, or its balanced accuracy is no more than
    that of answers that ignore the image.
    """
    tested = {
        seed: result.record.test
        for seed, result in results.items()
        if result.status == "finished" and result.record and result.record.test
    }
    middle = median(test.accuracy for test in tested.values()) if tested else 0.0
    return {seed for seed, test in tested.items() if test.accuracy < middle / 2 or _knows_nothing(test)}


def failures_of(results: Mapping[int, Result]) -> Failures:
    """Counts the runs that diverged, failed or collapsed."""
    collapsed = len(collapsed_runs(results))
    lost = {state: sum(result.status == state for result in results.values()) for state in ("diverged", "failed")}
    failed = collapsed + sum(lost.values())
    return Failures(
        runs=len(results),
        failed=failed,
        collapsed=collapsed,
        interval=intervals.clopper_pearson(failed, len(results)) if results else None,
    )


def _knows_nothing(test: Evaluation) -> bool:
    classes = sum(any(row) for row in test.confusion)
    return classes > 1 and float(balanced_accuracy(test.confusion)) <= chance(test)


def chance(test: Evaluation) -> float:
    """Returns the most balanced accuracy of answers that ignore the image: 1/K, and 2 sd of that.

    Of such answers a share p_k is class k. The recall of a class of n_k images is p_k on average, with the
    variance p_k(1 − p_k)/n_k; over the K classes that have images it is 1/K at most. Where few images make that
    variance large, it is at most half of the way from 1/K to 1: a run that gets most images right knows something.
    """
    confusion = np.array(test.confusion)
    sizes, share = confusion.sum(axis=1), confusion.sum(axis=0) / test.count
    held = sizes > 0
    even = 1 / int(held.sum())
    sd = even * math.sqrt(float((share * (1 - share))[held] @ (1 / sizes[held])))
    return even + min(2 * sd, (1 - even) / 2)


def judge_all(study: Study, results: Mapping[str, Mapping[int, Result]], metric: Metric) -> dict[str, Judged]:
    """Returns every arm of a study as verdicts see it, over the runs that have ended.

    The runs of other arms tell of the test split where all runs of an arm failed, and what a failed run has.
    """
    by_data: dict[str, list[tuple[int, Evaluation]]] = {}
    for result in (result for by_seed in results.values() for result in by_seed.values()):
        if result.record and result.status == "finished" and (test := judged_evaluation(result.record)):
            by_data.setdefault(result.record.data.sha256, []).append((result.seed, test))
    splits = {data: _Split.of(metric, tests) for data, tests in by_data.items()}
    found = {}
    for arm in study.arms:
        mine = results.get(arm, {})
        data = next((one.record.data.sha256 for one in mine.values() if one.record), "")
        found[arm] = _judge(mine, metric, splits.get(data) or next(iter(splits.values()), None))
    return found


@dataclass(frozen=True)
class _Split:
    """A test split as a metric sees it: what the score is made of, the variance of rounding, what failed runs have.

    `worst` holds the worst value of finished runs by seed, of that seed and those before it: a later run does not
    change what an earlier one counted as, which tests that are valid at every look rely on.
    """

    strata: Strata | None
    rounding: float
    count: int
    least: float
    worst: dict[int, float]

    @classmethod
    def of(cls, metric: Metric, found: Sequence[tuple[int, Evaluation]]) -> "_Split":
        tests = [test for _, test in found]
        least = value = metric.worst(len(tests[0].confusion))
        worst = {}
        for seed, test in sorted(found, key=lambda one: one[0]):
            value = (min if metric.higher_is_better else max)(value, metric.of(test))
            worst[seed] = value
        return cls(
            strata=strata_of(metric, tests),
            rounding=metric.rounding(tuple(map(sum, tests[0].confusion))),
            count=tests[0].count,
            least=least,
            worst=worst,
        )

    def failed(self, seed: int) -> float:
        """Returns what a failed run of this seed has."""
        before = [one for one in self.worst if one <= seed]
        return self.worst[max(before)] if before else self.least


def strata_of(metric: Metric, tests: Sequence[Evaluation]) -> Strata | None:
    """Returns what a score is made of on the test split of these evaluations; None if it is no mean over images."""
    if metric.mean_over is None:
        return None
    return Strata.whole(tests[0].count) if metric.mean_over == "images" else Strata.by_class(image_classes(tests))


def image_classes(tests: Sequence[Evaluation]) -> NDArray[np.int64]:
    """Returns the class of each test image, (N,), of evaluations on one split.

    Mistakes tell the class of their image. All other images are right in every run; which of them is of which class
    changes no estimate, so they get what the class counts leave.
    """
    sizes = np.array(list(map(sum, tests[0].confusion)))
    classes = np.full(tests[0].count, -1)
    for mistake in (mistake for test in tests for mistake in test.mistakes):
        classes[mistake.index] = mistake.target
    left = sizes - np.bincount(classes[classes >= 0], minlength=len(sizes))
    classes[classes < 0] = np.repeat(np.arange(len(sizes)), left)
    return classes


def _judge(results: Mapping[int, Result], metric: Metric, split: _Split | None) -> Judged:
    """Returns an arm as verdicts see it."""
    if split is None:
        return Judged(values={}, wrong={})
    values: dict[int, float] = {}
    wrong: dict[int, Collection[int]] = {}
    for seed, result in sorted(results.items()):
        test = judged_evaluation(result.record) if result.record and result.status == "finished" else None
        if test is None and result.status == "finished":
            continue  # of an older kernorm, which kept no evaluation of the last epoch
        values[seed] = metric.of(test) if test else split.failed(seed)
        wrong[seed] = {mistake.index for mistake in test.mistakes} if test else range(split.count)
    failed = frozenset(seed for seed in values if results[seed].status != "finished")
    return Judged(values=values, wrong=wrong, strata=split.strata, rounding=split.rounding, failed=failed)


def ended_runs(results: Mapping[str, Mapping[int, Result]]) -> dict[str, int]:
    """Counts the runs that have ended, by arm."""
    return {arm: len(by_seed) for arm, by_seed in results.items()}
