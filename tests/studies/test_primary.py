"""The metric, the margin and the targets of a study that leaves them to kernorm."""

from dataclasses import replace

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.errors import UsageError
from kernorm.stats.scores import evaluate
from kernorm.studies.analysis import analyse, results_by_arm
from kernorm.studies.choices import AUTO, margin_of, targets_of_text
from kernorm.studies.definition import study_of, with_overrides
from kernorm.studies.design import Design, settled
from kernorm.studies.judged import image_classes, judge_all
from kernorm.studies.ledger import Result
from kernorm.studies.metrics import METRICS
from kernorm.studies.primary import class_sizes, primary_metric, resolved, targets_of
from kernorm.studies.report.cautions import cautions
from kernorm.studies.verdicts import decide
from kernorm.studies.wording import headline_interval, plus_minus
from tests.builders import a_study, make_history, make_record

UNEVEN = (100, 60, 40, 30, 20, 10)
ASKED = Design(metric=AUTO, margin=AUTO)
CLASSES = np.repeat(np.arange(6), UNEVEN)


def test_uneven_classes_are_judged_by_the_balanced_accuracy():
    found = resolved(ASKED, [UNEVEN])
    # Five of 153 images that would count alike, since 36 / Σ 1/n = 153.2, are more than a point.
    assert (found.metric, found.margin) == ("balanced_accuracy", 0.01)
    assert primary_metric(found).margin == 0.01
    # Five of 1,532 are less.
    assert resolved(ASKED, [tuple(10 * size for size in UNEVEN)]).margin == 0.0033
    even = resolved(ASKED, [(260,) * 10])
    assert (even.metric, even.margin) == ("accuracy", 0.0019)
    assert resolved(ASKED, [(20,) * 3]).margin == 0.01
    # One uneven set of several is enough; the margin is that of the least precise one.
    assert resolved(ASKED, [(1000,) * 10, UNEVEN]) == found
    mnist = resolved(ASKED, [(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)])
    assert (mnist.metric, mnist.margin) == ("accuracy", 0.0005)
    assert resolved(ASKED, []) == mnist
    # What is given stays; a metric that is no mean over images has no margin of its own.
    assert resolved(replace(ASKED, metric="accuracy"), [UNEVEN]).metric == "accuracy"
    assert resolved(replace(ASKED, margin=0.01), [UNEVEN]).margin == 0.01
    assert resolved(replace(ASKED, metric="macro_f1"), [UNEVEN]).margin is None
    assert primary_metric(Design()).margin == 0.0005  # of before margins were kept


def test_what_a_study_began_with_stays():
    kept = resolved(ASKED, [UNEVEN])
    assert settled(kept, ASKED, begun=True, train=True) == kept
    told = replace(ASKED, metric="balanced_accuracy", margin=0.01, targets=(0.5,))
    assert settled(kept, told, begun=True, train=True) == replace(kept, targets=(0.5,))
    with pytest.raises(UsageError, match=r"keeps its primary metric\. Received: accuracy, and balanced_accuracy when"):
        settled(kept, replace(ASKED, metric="accuracy"), begun=True, train=True)
    with pytest.raises(UsageError, match=r"A study keeps its margin\. Received: 0\.02, and 0\.01 when it was begun"):
        settled(kept, replace(ASKED, margin=0.02), begun=True, train=True)
    with pytest.raises(UsageError, match=r"Received: 0\.01, and none when it was begun"):
        settled(Design(metric="ece"), replace(ASKED, margin=0.01), begun=True, train=False)
    assert settled(Design(), replace(ASKED, margin=0.0005), begun=True, train=True) == Design()


def test_class_counts_come_from_records_or_the_prepared_set(boxes_cache):
    study = a_study({"bn": TrainConfig(dataset="boxes"), "ln": TrainConfig(dataset="boxes", norm="ln")})
    (boxes,) = class_sizes(study, {}, prepare=False)
    assert boxes == tuple(np.bincount(cache.read(cache.cached_path("boxes")).test_labels).tolist())
    record = make_record(config=study.arms["bn"])
    name = next(run.config.run_id for run in study.runs())
    results = {name: Result(arm="bn", seed=0, run_id=name, status="finished", record=record)}
    assert class_sizes(study, results, prepare=False) == [(100,) * 10]
    assert class_sizes(a_study({"bn": TrainConfig(dataset="nowhere")}), {}, prepare=False) == []


@pytest.mark.parametrize(
    ("text", "number"), [("1pp", 0.01), ("0.5 pp", 0.005), ("0.02", 0.02), (0.02, 0.02), ("auto", "auto")]
)
def test_a_margin_is_in_points_or_a_number(text, number):
    assert margin_of(text, "--margin") == (number if number == "auto" else pytest.approx(number))


@pytest.mark.parametrize("text", ["", "0", "1", "-1pp", "200pp", "nan", "five", True, None])
def test_refuses_what_is_no_margin(text):
    with pytest.raises(UsageError, match=r"--margin is a difference above 0 and below 1, or in points, or auto\. Rec"):
        margin_of(text, "--margin")


@pytest.mark.parametrize("text", ["", "101", "90,", "0", "high", 12.5j])
def test_refuses_what_is_no_target(text):
    with pytest.raises(UsageError, match=r"--targets takes accuracies in percent, or auto\. Received: .*90,95\."):
        targets_of_text(text, "--targets")


def test_targets_fit_the_set():
    mnist, leaves = make_record(), make_record(config=TrainConfig(dataset="leaves"))
    assert targets_of(Design(), [mnist]) == (0.99, 0.994)
    assert targets_of(Design(targets=(0.9, 0.95)), [leaves]) == (0.9, 0.95)
    histories = [make_history(epochs) for epochs in (1, 2, 4)]  # which end at 95, 97.5 and 98.75 %
    runs = [replace(leaves, history=history) for history in histories]
    assert targets_of(Design(), runs) == pytest.approx((1 - 0.042, 0.975))
    assert targets_of(Design(targets=AUTO), [mnist]) == pytest.approx((1 - 0.012, 0.993))  # 99.375 % are reached
    assert targets_of(Design(), [replace(leaves, history=make_history(watched=False)[1:])]) == ()
    for reached, targets in ((1.0, (1.0,)), (0.444, (0.444,)), (0.66, (0.433, 0.66))):
        rows = tuple(replace(row, val_accuracy=reached) for row in make_history(2))
        assert targets_of(Design(), [replace(leaves, history=rows)]) == pytest.approx(targets)


def test_a_study_says_how_it_judges():
    arms = {"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}
    study = study_of("mine", arms, text="Which?", metric="macro_f1", margin="1pp", targets="80,90")
    assert (study.metric, study.margin, study.targets) == ("macro_f1", 0.01, (0.8, 0.9))
    other = with_overrides(study, metric="worst_recall", margin=0.02, targets="auto")
    assert (other.metric, other.margin, other.targets) == ("worst_recall", 0.02, "auto")
    with pytest.raises(UsageError, match="MARGIN of mine.py is a difference"):
        study_of("mine", arms, text="Which?", margin="much", source="mine.py")
    with pytest.raises(UsageError, match="TARGETS of mine.py takes accuracies"):
        study_of("mine", arms, text="Which?", targets="all", source="mine.py")


def uneven_results(study, wrong):
    """Results whose runs have these images of the uneven split wrong, by arm and seed; None: it diverged."""
    found = {}
    for run in study.runs():
        images, name = wrong[run.arm][run.seed], run.config.run_id
        record = make_record(count=260, classes=6, config=run.config, run_id=name)
        if images is None:
            record, status = replace(record, status="diverged", test=None), "diverged"
        else:
            logits = np.zeros((260, 6), np.float32)
            logits[np.arange(260), CLASSES] = 4
            logits[list(images), (CLASSES[list(images)] + 1) % 6] = 5
            record, status = replace(record, test=evaluate(logits, CLASSES, "test")), "finished"
        found[name] = Result(arm=run.arm, seed=run.seed, run_id=name, status=status, record=record)
    return found


# An arm that has eight images of the largest class wrong and none of the smallest, against one that has it reversed.
WRONG = {
    "bn": [range(250, 258 - seed % 2) for seed in range(6)],
    "ln": [[*range(8 + seed % 2), 100] for seed in range(6)],
}


def test_a_rare_class_decides_by_the_balanced_accuracy():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6, margin=AUTO, metric=AUTO)
    results = uneven_results(study, WRONG)
    summary = analyse(study, results)
    arm = summary.arms[1]
    assert (summary.metric, summary.design.margin) == ("balanced_accuracy", 0.01)
    assert (arm.verdict.name, arm.verdict.of) == ("better", "new images")
    # By accuracy it is a little worse: nine or ten images against eight or seven.
    assert arm.comparisons["accuracy"].difference == pytest.approx(-2 / 260)
    assert arm.comparisons["balanced_accuracy"].difference == pytest.approx((0.75 - 8.5 / 100 - 1 / 60) / 6)
    assert arm.scores["worst_recall"].mean == pytest.approx(1 - 8.5 / 100)
    by_accuracy = analyse(replace(study, metric="accuracy"), results).arms[1]
    assert by_accuracy.decided.name != "better"
    assert arm.generalization_interval != by_accuracy.generalization_interval
    assert arm.generalization_difference[0] < arm.comparisons["balanced_accuracy"].difference


def test_images_that_no_run_has_wrong_get_the_classes_that_are_left():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6)
    tests = [result.record.test for result in uneven_results(study, WRONG).values()]
    classes = image_classes(tests)
    assert np.bincount(classes).tolist() == list(UNEVEN)
    known = sorted({image for runs in WRONG.values() for run in runs for image in run})
    assert classes[known].tolist() == CLASSES[known].tolist()


def test_a_failed_run_has_every_image_of_every_class_wrong():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6, metric="balanced_accuracy")
    results = uneven_results(study, WRONG | {"ln": [None] * 6})
    design = Design(metric="balanced_accuracy", margin=0.03)
    judged = judge_all(study, results_by_arm(study, results), METRICS["balanced_accuracy"])["ln"]
    assert set(judged.values.values()) == {0.0}
    assert [len(wrong) for wrong in judged.wrong.values()] == [260] * 6
    found = decide(study, design, results_by_arm(study, results))["ln"]
    assert found.verdict.name == "worse"
    assert found.new_images[1] == pytest.approx(-1 + 0.75 / 6, abs=0.15)


@pytest.mark.parametrize(
    ("classes", "of"), [(CLASSES, "new seeds and new test images"), (None, "over seeds, on these")]
)
def test_plus_minus_says_what_it_is_of(classes, of):
    """A class of one image says nothing of new ones, so that what stands behind ± is of seeds alone."""
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6, metric="balanced_accuracy")
    results = uneven_results(study, WRONG)
    if classes is None:
        one = np.array([[2, 1], [0, 1]]).tolist()
        for name, result in results.items():
            test = replace(result.record.test, confusion=one, count=4, accuracy=0.75, mistakes=())
            results[name] = replace(result, record=replace(result.record, test=test))
    summary = analyse(study, results, design=Design(metric="balanced_accuracy", margin=0.03))
    assert all((arm.generalization_interval is None) == (classes is None) for arm in summary.arms)
    assert of in plus_minus(summary)
    for arm in summary.arms:
        seeds = arm.scores["balanced_accuracy"].interval
        assert (headline_interval(arm, "balanced_accuracy") == seeds) == (classes is None)


@pytest.mark.parametrize("metric", ["macro_f1", "worst_recall", "cross_entropy"])
def test_what_is_no_mean_over_images_is_judged_on_these_alone(metric):
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=6, metric=metric, margin=AUTO)
    results = uneven_results(study, WRONG)
    design = Design(metric=metric, until_resolved=True)
    found = decide(study, design, results_by_arm(study, results))["ln"]
    if metric == "cross_entropy":
        assert found.comparison.floor == 0
        return
    assert (found.verdict.name, found.verdict.of) == ("better on these images", "these images")
    assert found.new_images is None
    assert found.exhausted  # seeds cannot tell of new images, so that the arm gets no more
    rounding = {"macro_f1": sum(1 / (6 * size) ** 2 for size in UNEVEN) / 6, "worst_recall": 1 / 10**2 / 6}
    assert found.comparison.floor == pytest.approx(rounding[metric])
    summary = analyse(study, results)
    (rule,) = [one for one in cautions(study, summary, type("", (), {"damaged": ()}), 0) if "verdict is" in one.title]
    assert "nothing is claimed of new ones, since it is no mean over images" in rule.text
    assert not [one for one in cautions(study, summary, type("", (), {"damaged": ()}), 0) if "More seeds" in one.title]


def test_classes_that_were_never_predicted_are_named_by_arm():
    study = a_study({"bn": TrainConfig(), "ln": TrainConfig(norm="ln")}, seeds=2)
    results = uneven_results(study, {"bn": [range(250, 260), []], "ln": [[], []]})
    labels = ("ash", "birch", "elm", "fir", "oak", "yew")
    results = {
        name: replace(one, record=replace(one.record, data=replace(one.record.data, labels=labels)))
        for name, one in results.items()
    }
    summary = analyse(study, results)
    assert [arm.unpredicted for arm in summary.arms] == ["1 of 6 classes was never predicted: yew; in 1 of 2 runs", ""]
    (found,) = [one for one in cautions(study, summary, type("", (), {"damaged": ()}), 0) if "never" in one.title]
    assert (found.kind, found.title) == ("bad", "1 arm with classes that were never predicted")
    assert found.text == "`bn`: 1 of 6 classes was never predicted: yew; in 1 of 2 runs."
