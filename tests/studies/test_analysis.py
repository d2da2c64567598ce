from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kernorm.config import TrainConfig
from kernorm.records.record import Epoch
from kernorm.stats import new_images
from kernorm.studies.analysis import analyse
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS
from kernorm.studies.published import Published
from tests.builders import COUNT, a_study, evaluation, make_history, make_record


def results_of(study, wrong, **changes):
    """A finished result for each run whose arm and seed are in `wrong`."""
    found = {}
    for run in study.runs():
        if run.seed in wrong.get(run.arm, {}):
            record = make_record(
                count=COUNT,
                config=run.config,
                run_id=run.config.run_id,
                test=evaluation(wrong[run.arm][run.seed]),
                **changes,
            )
            found[run.config.run_id] = Result(
                arm=run.arm, seed=run.seed, run_id=run.config.run_id, status="finished", record=record
            )
    return found


ARMS = {"bn": TrainConfig(), "ln": TrainConfig(norm="ln"), "gn": TrainConfig(norm="gn")}
WRONG = {
    "bn": {0: [1, 2, 3, 4], 1: [1, 2, 3, 5, 6], 2: [1, 2, 7]},
    "ln": {0: [1, 2, 3, 4, 8, 9], 1: [1, 5, 6, 7, 8, 9, 10], 2: [2, 7, 8, 9, 10, 11]},
    "gn": {0: [1, 2, 3], 1: [1, 2, 3, 5, 6, 7], 2: [4]},
}


def test_scores_and_differences_are_those_of_the_runs():
    study = a_study(ARMS)
    summary = analyse(study, results_of(study, WRONG))
    bn, ln, gn = summary.arms
    assert [arm.name for arm in summary.arms] == list(ARMS)
    accuracy = {arm: np.array([1 - len(wrong[seed]) / COUNT for seed in range(3)]) for arm, wrong in WRONG.items()}
    assert ln.scores["accuracy"].mean == pytest.approx(accuracy["ln"].mean())
    assert ln.scores["accuracy"].sd == pytest.approx(accuracy["ln"].std(ddof=1))
    assert ln.scores["brier"].n == 3
    assert (bn.baseline, bn.comparisons, bn.verdict) == (None, {}, None)
    # Seeds of arms and baseline correlate over the study, so that they are compared in pairs.
    centred = {arm: values - values.mean() for arm, values in accuracy.items()}
    both = np.concatenate([centred["ln"], centred["gn"]]), np.concatenate([centred["bn"]] * 2)
    assert both[0] @ both[1] / np.sqrt((both[0] @ both[0]) * (both[1] @ both[1])) > 0.3
    p = {}
    for arm in (ln, gn):
        comparison = arm.comparisons["accuracy"]
        assert comparison.difference == pytest.approx((accuracy[arm.name] - accuracy["bn"]).mean())
        wrong = [[WRONG[name][seed] for seed in range(3)] for name in (arm.name, "bn")]
        floor = max(new_images.chance_variance(wrong[0], COUNT, wrong[1]), 1 / 6 / COUNT**2)
        assert comparison.floor == pytest.approx(floor)
        spread = (accuracy[arm.name] - accuracy["bn"]).var(ddof=1)
        p[arm.name] = 2 * scipy_stats.t.sf(abs(comparison.difference) / np.sqrt(max(spread, floor) / 3), 2)
        assert comparison.p == pytest.approx(p[arm.name])
    # Holm over the two compared arms: the smaller p is doubled, the greater one is at least that.
    assert p["ln"] < p["gn"]
    assert ln.p_adjusted == pytest.approx(2 * p["ln"])
    assert gn.p_adjusted == pytest.approx(max(p["gn"], 2 * p["ln"]))
    assert ln.verdict.name == ("worse on these images" if 2 * p["ln"] <= 0.05 else "not resolved")
    assert set(ln.scores) == set(ln.comparisons) == set(METRICS)


def test_median_runs_hard_images_and_new_digits():
    study = a_study(ARMS)
    bn, ln, _ = analyse(study, results_of(study, WRONG)).arms
    # Median accuracies: seed 0 of both, with 4 and 6 wrong.
    assert (ln.mcnemar.only_a, ln.mcnemar.only_b) == (2, 0)
    assert ln.mcnemar.p == pytest.approx(0.5)
    counted = {image.index: image.wrong for image in ln.hard}
    assert counted == {8: 3, 9: 3, 1: 2, 2: 2, 7: 2, 10: 2, 3: 1, 4: 1, 5: 1, 6: 1, 11: 1}
    assert [image.index for image in ln.hard][:3] == [8, 9, 1]
    assert (ln.hard[0].target, ln.hard[0].prediction, ln.hard[0].runs) == (8, 9, 3)
    low, high = ln.generalization_difference
    assert low < ln.comparisons["accuracy"].difference < high
    assert bn.generalization_interval[0] < bn.scores["accuracy"].mean < bn.generalization_interval[1]


def test_what_is_missing_or_did_not_finish_is_counted_and_told():
    study = a_study(ARMS)
    results = results_of(study, {"bn": WRONG["bn"], "ln": {0: [1]}})
    runs = {(run.arm, run.seed): run.config.run_id for run in study.runs()}
    diverged = make_record(status="diverged", message="diverged at step 3", test=None)
    for seed, status, record, message in ((0, "diverged", diverged, diverged.message), (1, "failed", None, "no room")):
        name = runs["gn", seed]
        results[name] = Result(arm="gn", seed=seed, run_id=name, status=status, message=message, record=record)
    results["of another config"] = results[runs["bn", 0]]
    summary = analyse(study, results)
    bn, ln, gn = summary.arms
    assert gn.states == {"finished": 0, "diverged": 1, "failed": 1, "missing": 1}
    assert gn.troubles == ("seed 0: diverged at step 3", "seed 1: no room")
    assert gn.scores == {}
    assert gn.generalization_interval is None
    # Both failed runs have no image right, against a seed each of the baseline, which differ greatly.
    assert gn.comparisons["accuracy"].difference == pytest.approx(-(1 - (4 + 5) / 2 / COUNT), abs=0.001)
    assert (gn.failures.failed, gn.failures.collapsed, gn.failures.runs) == (2, 0, 2)
    assert gn.failures.interval == pytest.approx((0.025**0.5, 1))
    assert ln.states["missing"] == 2
    assert ln.scores["accuracy"].interval is None
    assert ln.verdict.sentence.startswith("no verdict")
    assert (summary.finished, summary.missing) == (4, 3)
    # Five finished or diverged records with an opening each; the one of another config is not this study's.
    assert summary.openings == 5


def test_nothing_has_run_yet():
    summary = analyse(a_study(ARMS), {})
    assert (summary.finished, summary.missing) == (0, 9)
    assert {arm.verdict.name for arm in summary.arms[1:]} == {"no verdict"}


def test_a_stated_penalty_that_was_not_on_is_told():
    arms = {
        "none": TrainConfig(),
        "l1": TrainConfig(seed=100),
        "both": TrainConfig(l1=5e-3, l2=2.5e-3),
        "right": TrainConfig(l2=0.0033),
    }
    published = {
        "none": Published(accuracy=99.47),
        "l1": Published(accuracy=99.44, l1=5e-4),
        "both": Published(accuracy=98.76, l1=5e-4, weight_decay=5e-3),
        "right": Published(accuracy=99.43, weight_decay=0.0066),
    }
    study = a_study(arms, seeds=1, published=published)
    off = tuple(Epoch(epoch=epoch, l1_penalty=0.0, l2_penalty=0.0) for epoch in range(3))
    on = tuple(Epoch(epoch=epoch, l1_penalty=3.0 - epoch, l2_penalty=0.5) for epoch in range(3))
    l2 = tuple(replace(row, l1_penalty=0.0) for row in on)
    results = {}
    for arm, history in (("none", off), ("l1", off), ("both", on), ("right", l2)):
        results |= results_of(study, {arm: {0: [1]}}, history=history)
    none, l1, both, right = analyse(study, results).arms
    assert none.claims == ()
    (claim,) = l1.claims
    assert not claim.kept
    assert claim.sentence == "λ1 = 0.0005 is stated, but no such penalty was on: it measured 0 at every epoch."
    first, second = both.claims
    assert not first.kept
    assert first.sentence == "λ1 = 0.0005 is stated, 0.005 was on, 10 times that; measured at step 0: 3."
    assert second.kept
    assert second.sentence == "λ2 = 0.0025 as stated; measured at step 0: 0.5."
    assert [claim.kept for claim in right.claims] == [True]
    assert both.penalties == ((3.0, 0.5), (1.0, 0.5))


def test_penalties_of_runs_that_stopped_at_different_epochs_are_those_of_the_runs_that_came_so_far():
    study = a_study({"l1": TrainConfig(l1=1e-3)}, seeds=2, published={"l1": Published(accuracy=99.0, l1=1e-3)})
    rows = tuple(Epoch(epoch=epoch, l1_penalty=[1.0, 2.0, 5.0][epoch], l2_penalty=0.0) for epoch in range(3))
    results = results_of(study, {"l1": {0: [1]}}, history=rows) | results_of(study, {"l1": {1: [1]}}, history=rows[:2])
    (arm,) = analyse(study, results).arms
    (claim,) = arm.claims
    assert claim.most == 5.0
    assert arm.penalties == ((1.0, 0.0), (3.5, 0.0))


def test_times_to_a_target_know_runs_that_never_reached_it():
    study = a_study({"bn": TrainConfig()}, seeds=2)
    # A validation accuracy of 1 − 0.05 / epoch: 99 % at epoch 5; not within the three epochs of the other run.
    results = results_of(study, {"bn": {0: [1]}}, history=make_history(8))
    results |= results_of(study, {"bn": {1: [1]}}, history=make_history(3))
    (bn,) = analyse(study, results).arms
    epochs, seconds = bn.times["epochs to 99.0 %"], bn.times["CPU-seconds to 99.0 %"]
    assert (epochs.n, epochs.reached, epochs.median) == (2, 1, 5.0)
    assert seconds.median == 5 * 20.0
    assert bn.times["epochs to 99.4 %"].reached == 0


def test_sparsity_is_the_mean_over_runs():
    study = a_study({"bn": TrainConfig()}, seeds=2)
    (bn,) = analyse(study, results_of(study, {"bn": {0: [1], 1: [2]}})).arms
    assert [(row.threshold, row.share, row.accuracy, row.split) for row in bn.sparsity] == [
        (threshold, pytest.approx(10 * threshold), pytest.approx(0.95), "validation")
        for threshold in (1e-4, 1e-3, 1e-2)
    ]
