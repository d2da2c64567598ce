"""What a publication concludes of its arms, answered by the runs of a study: yes, no, or not resolved.

Between verdicts and the summary. Arms are compared as verdicts compare them: by the last epoch, on the primary metric,
corrected for the number of arms, and a difference counts only if it holds for new images too. A statement that an arm
reaches an accuracy is answered by the accuracies as they were selected there.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from kernorm.stats import comparison
from kernorm.stats.anytime import FIRST, confidence_sequence
from kernorm.stats.intervals import Interval, as_interval
from kernorm.stats.new_images import chance_variance
from kernorm.stats.strata import Strata
from kernorm.studies.definition import Study
from kernorm.studies.design import Design
from kernorm.studies.judged import ended_runs, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS
from kernorm.studies.plans import least_visible, pooled_variance, typical_arms
from kernorm.studies.primary import primary_metric
from kernorm.studies.published import Statement
from kernorm.studies.summary import Answer, counted
from kernorm.studies.verdicts import decide
from kernorm.studies.wording import unit

Said = Literal["yes", "no", "not resolved"]


def answer_statements(
    study: Study, design: Design, results: Mapping[str, Mapping[int, Result]], scores: Mapping[str, comparison.Summary]
) -> tuple[Answer, ...]:
    """Answers what a publication concludes; runs of fewer epochs than it speaks of answer nothing.

    Args:
        study: its arms and statements.
        design: how verdicts are found.
        results: by arm and seed.
        scores: the accuracy of each arm that has finished runs, as it was selected.
    """
    if study.shortened:
        text = f"these runs are of other lengths, {format_lengths(study)}"
        return tuple(_answer(one, "not resolved", text) for one in study.statements)
    anytime = design.anytime(ended_runs(results))
    return tuple(
        _compares(one, study, design, results)
        if one.reaches is None
        else _reaches(one, scores.get(one.arm), anytime_interval(results.get(one.arm, {}), design) if anytime else None)
        for one in study.statements
    )


def format_lengths(study: Study) -> str:
    """Says how many epochs the arms of a shortened study have, and how many they would have."""
    pairs = sorted({(study.arms[arm].epochs, epochs) for arm, epochs in study.shortened.items()})
    return ", ".join(f"{counted(now, 'epoch')} in place of {before}" for now, before in pairs)


def anytime_interval(results: Mapping[int, Result], design: Design) -> Interval:
    """Returns the interval of an arm's accuracy, as it was selected, that holds at every look at its runs."""
    tests = [
        result.record.test
        for _, result in sorted(results.items())
        if result.status == "finished" and result.record and result.record.test
    ]
    if len(tests) < FIRST:
        return (0.0, 1.0)
    metric = METRICS["accuracy"]
    split = Strata.whole(tests[0].count)
    wrong = [{mistake.index for mistake in test.mistakes} for test in tests]
    floors = [max(split.rounding / 2, chance_variance(wrong[:n], split)) for n in range(1, len(tests) + 1)]
    found = confidence_sequence([metric.of(test) for test in tests], floors=floors, alpha=design.alpha, c=design.c)
    return as_interval(found or (0.0, 1.0), (0.0, 1.0))


def _reaches(statement: Statement, score: comparison.Summary | None, anytime: Interval | None) -> Answer:
    """Answers by the interval of a single look, or by one that holds at every look."""
    target = (statement.reaches or 0.0) / 100
    if score is None or score.interval is None:
        runs = score.n if score else 0
        return _answer(statement, "not resolved", f"{counted(runs, 'run')}; an interval needs two")
    low, high = anytime or score.interval
    found = f"a mean of {100 * score.mean:.2f} % [{100 * low:.2f}, {100 * high:.2f}], n = {score.n}"
    found += ", valid at every look" if anytime else ""
    # Accuracies in percent are printed with two decimals.
    name: Said = "yes" if low >= target - 5e-5 else "no" if high < target - 5e-5 else "not resolved"
    best = f"the best of {counted(score.n, 'run')} has {100 * score.maximum:.2f} %"
    return _answer(statement, name, f"{found}; {best}")


def _compares(
    statement: Statement, study: Study, design: Design, results: Mapping[str, Mapping[int, Result]]
) -> Answer:
    """Compares the others with the arm of the statement, as their baseline."""
    others, said = statement.better_than or statement.worse_than, "worse" if statement.better_than else "better"
    arms = {arm: study.arms[arm] for arm in (statement.arm, *others)}
    family = replace(study, arms=arms, baselines=dict.fromkeys(arms, statement.arm), published={}, statements=())
    metric = primary_metric(design)
    found = decide(family, design, {arm: results.get(arm, {}) for arm in arms})
    verdicts = {arm: one.verdict.name for arm, one in found.items()}
    told = []
    for arm, one in found.items():
        difference = one.comparison.difference
        if difference is not None:
            told.append(f"against {arm}: {unit(-difference, design.metric)}, {_turned(one.verdict.name)}")
    text = "; ".join(told)
    if set(verdicts.values()) == {said}:
        if statement.no_arm_for:
            return _answer(statement, "not resolved", f"{text}; there is no arm for {statement.no_arm_for}")
        return _answer(statement, "yes", text)
    opposite = "better" if said == "worse" else "worse"
    if any(name in (opposite, "equivalent") for name in verdicts.values()):
        return _answer(statement, "no", text)
    seeds = min((one.comparison.pairs for one in found.values()), default=0)
    pooled = pooled_variance(typical_arms(judge_all(family, results, metric), results))
    if pooled is None or seeds < 2:
        return _answer(statement, "not resolved", f"with {counted(seeds, 'seed')} nothing can be seen")
    least = least_visible(pooled[0], seeds, len(others), design, anytime=design.anytime(ended_runs(results)))
    if math.isinf(least):
        return _answer(statement, "not resolved", f"{text}; with {counted(seeds, 'seed')} nothing can be seen")
    seen = f"with {counted(seeds, 'seed')}, differences from {metric.show(least)} would have been seen"
    return _answer(statement, "not resolved", f"{text}; {seen}")


def _answer(statement: Statement, name: Said, text: str) -> Answer:
    return Answer(statement=statement, name=name, text=text)


def _turned(name: str) -> str:
    """Turns the verdict of the other arm into that of the arm of the statement."""
    swap = {"better": "worse", "worse": "better"}
    first, _, rest = name.partition(" ")
    return f"{swap.get(first, first)} {rest}".strip()
