"""The gate: metrics against independent libraries, intervals that cover, and decisions that noise does not make."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, log_loss, recall_score

from kernorm.evaluation import gate
from kernorm.evaluation.gate import decide, measure, scored
from kernorm.evaluation.thresholds import Threshold
from kernorm.stats.scores import BY_CLASS, evaluate

NAMES = tuple("0123456789")


def answers(rng, labels, accuracy):
    """Logits that recognize each image with that chance, and are sure of it or less so."""
    logits = rng.normal(size=(len(labels), 10)).astype(np.float32)
    wrong = rng.random(len(labels)) > accuracy
    logits[np.arange(len(labels)), np.where(wrong, (labels + 1) % 10, labels)] += rng.uniform(5, 12, len(labels))
    return logits


def found(measures, metric, slice_="overall"):
    return next(item for item in measures if (item.metric, item.slice) == (metric, slice_))


@pytest.fixture
def labels(rng):
    return rng.integers(10, size=1500)


def test_values_are_those_of_other_libraries(rng, labels):
    logits = answers(rng, labels, 0.9)
    measures, changes = measure(scored(logits, labels), NAMES)
    probabilities = np.exp(logits.astype(float) - np.logaddexp.reduce(logits.astype(float), axis=1, keepdims=True))
    reference = evaluate(logits, labels, "test")
    assert changes == ()
    assert found(measures, "accuracy").value == (logits.argmax(1) == labels).mean()
    assert found(measures, "accuracy").interval == reference.interval
    assert found(measures, "cross_entropy").value == pytest.approx(log_loss(labels, probabilities))
    assert found(measures, "brier").value == pytest.approx(
        brier_score_loss(labels, probabilities, labels=range(10), scale_by_half=False)
    )
    assert found(measures, "ece").value == pytest.approx(reference.ece)
    predicted = logits.argmax(1)
    assert found(measures, "balanced_accuracy").value == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found(measures, "macro_f1").value == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found(measures, "worst_recall").value == pytest.approx(recall_score(labels, predicted, average=None).min())
    sevens = labels == 7
    assert found(measures, "cross_entropy", "7").value == pytest.approx(
        log_loss(labels[sevens], probabilities[sevens], labels=range(10))
    )
    assert found(measures, "accuracy", "7").count == sevens.sum()


@pytest.mark.slow
def test_intervals_cover_the_truth_at_about_their_rate(rng, monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 300)
    population = rng.integers(10, size=200_000)
    truth = scored(answers(rng, population, 0.95), population)
    values = {metric: float(statistic(truth.columns.mean(axis=0))) for metric, statistic in gate.STATISTICS.items()}
    confusion = np.bincount(truth.labels * 10 + truth.predictions, minlength=100).reshape(10, 10)
    values |= {metric: float(of(confusion)) for metric, of in BY_CLASS.items()}
    hits = dict.fromkeys(values, 0)
    for _ in range(150):
        rows = rng.integers(len(population), size=600)
        measures, _ = measure(gate.Scored(truth.labels[rows], truth.columns[rows], truth.predictions[rows], 10), ())
        for metric, value in values.items():
            low, high = found(measures, metric).interval
            hits[metric] += low <= value <= high
    assert hits.pop("ece") >= 0.8 * 150, hits
    assert min(hits.values()) >= 0.88 * 150, hits


def all_right(sizes, wrong=0):
    """Answers to so many images of each class, the first of them wrong."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    logits = 9 * np.eye(len(sizes), dtype=np.float32)[labels]
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    return scored(logits, labels)


@pytest.mark.parametrize(("sizes", "wrong"), [((3, 3), 0), ((10, 10), 0), ((100, 3), 2), ((2,) * 10, 0)])
def test_a_score_by_class_is_not_shown_by_a_few_images(sizes, wrong):
    measures, _ = measure(all_right(sizes, wrong), ())
    for metric in ("balanced_accuracy", "macro_f1"):
        bound = Threshold(metric=metric, slice="overall", kind="value", side="least", bound=0.95)
        (decision,) = decide([bound], measures, ())
        assert not decision.passed, decision.sentence
        low, high = found(measures, metric).interval
        assert low < found(measures, metric).value <= high
    # A thousand images of each class show it.
    measures, _ = measure(all_right((1000,) * len(sizes)), ())
    assert found(measures, "balanced_accuracy").interval[0] > 0.995


@pytest.mark.parametrize(("size", "recall"), [(3, 0.8), (5, 0.85), (10, 0.88), (100, 0.88)])
def test_a_model_below_the_bound_is_rarely_blessed_by_a_score_by_class(rng, monkeypatch, size, recall):
    """Of two classes; 2.5 % is what the level allows."""
    monkeypatch.setattr(gate, "RESAMPLES", 500)
    blessed = dict.fromkeys(("balanced_accuracy", "macro_f1"), 0)
    for first, second in rng.binomial(size, recall, (400, 2)):
        intervals = gate._credible(np.array([[first, size - first], [size - second, second]]))
        for metric in blessed:
            blessed[metric] += intervals[metric][0] >= 0.9
    assert max(blessed.values()) <= 0.04 * 400, blessed


def test_samples_of_many_classes_are_drawn_a_few_at_a_time_and_are_the_same(rng, monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 60)
    labels = rng.integers(400, size=1000)
    parts = list(gate._drawn_by_class(labels, 400))
    assert max(map(len, parts)) * 400**2 <= 2_000_000
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(list(gate._drawn_by_class(labels, 2))))


def test_an_equal_model_is_not_refused_by_noise_and_a_worse_one_is(rng, monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 300)
    bound = [Threshold(metric="accuracy", slice="overall", kind="change", side="least", bound=-0.0005)]
    labels = rng.integers(10, size=5000)

    def passed(mine, theirs):
        pair = [scored(answers(rng, labels, accuracy), labels) for accuracy in (mine, theirs)]
        measures, changes = measure(pair[0], (), pair[1])
        return decide(bound, measures, changes)[0].passed

    assert sum(passed(0.994, 0.994) for _ in range(60)) >= 57
    assert not any(passed(0.98, 0.994) for _ in range(20))


def test_the_same_answers_have_no_change(rng, labels):
    mine = scored(answers(rng, labels, 0.9), labels)
    _, changes = measure(mine, NAMES, mine)
    assert {(change.value, change.interval) for change in changes} == {(0.0, (0.0, 0.0))}
    bound = [Threshold(metric="accuracy", slice="overall", kind="change", side="least", bound=-0.0005)]
    measures, changes = measure(mine, (), mine)
    (decision,) = decide(bound, measures, changes)
    assert decision.sentence == (
        "accuracy overall against the baseline +0.0000 [+0.0000, +0.0000]: not shown to be below −0.0005"
    )


def test_one_bad_digit_is_found_by_its_slice(rng):
    labels = rng.integers(10, size=10_000)
    logits = answers(rng, labels, 0.995)
    sevens = np.flatnonzero(labels == 7)
    logits[sevens[::8], 7] -= 30
    measures, _ = measure(scored(logits, labels), NAMES)
    bounds = [
        Threshold(metric="accuracy", slice=name, kind="value", side="least", bound=0.95) for name in ("overall", *NAMES)
    ]
    refused = [decision for decision in decide(bounds, measures, ()) if not decision.passed]
    assert [decision.slice for decision in refused] == ["7"]
    assert "at least 0.95 is not shown" in refused[0].sentence


def test_a_value_must_be_shown_not_only_be_seen(rng):
    labels = np.zeros(100, int)
    logits = np.zeros((100, 10), np.float32)
    logits[:, 0] = 9
    measures, _ = measure(scored(logits, labels), ("0",))
    (decision,) = decide(
        [Threshold(metric="accuracy", slice="0", kind="value", side="least", bound=0.99)], measures, ()
    )
    assert found(measures, "accuracy").value == 1
    assert not decision.passed


def test_a_relative_change_counts_from_the_baseline_and_needs_one(rng, labels):
    mine, theirs = (scored(answers(rng, labels, accuracy), labels) for accuracy in (0.80, 0.95))
    measures, changes = measure(mine, NAMES, theirs)

    def bound(value):
        return [
            Threshold(metric="cross_entropy", slice="overall", kind="change", side="most", bound=value, relative=True)
        ]

    change = next(item for item in changes if (item.metric, item.slice) == ("cross_entropy", "overall"))
    share = change.interval[0] / change.baseline
    assert not decide(bound(0.9 * share), measures, changes)[0].passed
    assert decide(bound(1.1 * share), measures, changes)[0].passed
    (without,) = decide(bound(0.0), measures, ())
    assert without.passed
    assert without.sentence == "cross_entropy overall: no baseline to compare with"
    (missing,) = decide([Threshold(metric="ece", slice="ten", kind="value", side="most", bound=1)], measures, ())
    assert (missing.passed, missing.sentence) == (False, "ece of ten: not judged, no test images of it")


def test_a_class_without_test_images_blocks_nothing(rng):
    labels = rng.integers(0, 2, 200)  # of the third class none
    measures, changes = measure(scored(answers(rng, labels, 0.95), labels), NAMES)
    limits = [
        Threshold(metric="accuracy", slice=name, kind="value", side="least", bound=0.5) for name in (*NAMES, "overall")
    ]
    decisions = decide(limits, measures, changes)
    assert all(decision.passed for decision in decisions)
    sentences = [decision.sentence for decision in decisions if "not judged" in decision.sentence]
    assert sentences == [f"accuracy of {name}: not judged, no test images of it" for name in NAMES[2:]]
    assert not decide(limits[2:3], measures, changes)[0].passed  # nothing was judged
