import dataclasses
import math

import numpy as np
import pytest
from sklearn import metrics

from kernorm.stats.intervals import wilson
from kernorm.stats.scores import (
    BINS,
    BY_CLASS,
    balanced_accuracy,
    calibration_bins,
    class_accuracies,
    evaluate,
    expected_calibration_error,
    frequent_confusions,
    is_uneven,
    macro_f1,
    never_predicted,
    resolution,
    worst_recall,
    worst_recall_interval,
)


def sample(count=400, classes=7, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(0, 2, (count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 2
    return logits, labels


def wilson_formula(successes, count, z=1.959963984540054):
    share = successes / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - half, centre + half


def test_accuracy_and_mistakes_of_a_case_counted_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.25, 0.25, 0.5], [0.4, 0.4, 0.2]], np.float32))
    scores = evaluate(logits, np.array([0, 0, 2, 1]), "test")
    assert (scores.split, scores.count, scores.errors, scores.accuracy) == ("test", 4, 2, 0.5)
    assert scores.confusion == ((1, 1, 0), (1, 0, 0), (0, 0, 1))
    assert [(m.index, m.target, m.prediction) for m in scores.mistakes] == [(1, 0, 1), (3, 1, 0)]
    assert [m.confidence for m in scores.mistakes] == pytest.approx([0.6, 0.4], abs=1e-6)
    assert scores.cross_entropy == pytest.approx(-np.log([0.7, 0.3, 0.5, 0.4]).mean(), abs=1e-6)
    # Squared distances to the one-hot target, by hand: 0.14, 0.86, 0.375, 0.56.
    assert scores.brier == pytest.approx((0.14 + 0.86 + 0.375 + 0.56) / 4, abs=1e-6)


def test_mistakes_are_counted_when_they_are_not_kept():
    logits, labels = sample()
    kept, counted = (evaluate(logits, labels, "train", keep_mistakes=keep) for keep in (True, False))
    assert kept.errors == len(kept.mistakes) == (logits.argmax(1) != labels).sum() > 0
    assert counted.mistakes == ()
    assert dataclasses.replace(counted, mistakes=kept.mistakes) == kept


@pytest.mark.extra
def test_likelihood_and_brier_are_pytorchs():
    torch = pytest.importorskip("torch")
    logits, labels = sample()
    scores = evaluate(logits, labels, "test")
    tensor, target = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    probabilities = torch.softmax(tensor, 1)
    one_hot = torch.nn.functional.one_hot(target, 7)
    assert scores.cross_entropy == pytest.approx(torch.nn.functional.cross_entropy(tensor, target).item(), rel=1e-12)
    assert scores.brier == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean().item(), rel=1e-12)
    assert scores.accuracy == (tensor.argmax(1) == target).double().mean().item()


def test_huge_logits_stay_exact():
    scores = evaluate(np.array([[3e4, -3e4], [-3e4, 3e4]], np.float32), np.array([0, 0]), "test")
    assert scores.cross_entropy == 3e4
    assert scores.brier == 1.0
    assert scores.mistakes[0].confidence == 1.0


def test_intervals_of_split_and_classes():
    logits, labels = sample()
    scores = evaluate(logits, labels, "validation")
    assert scores.interval == pytest.approx(wilson_formula(round(scores.accuracy * 400), 400), abs=1e-12)
    for label, interval in enumerate(scores.class_intervals):
        right = int((logits[labels == label].argmax(1) == label).sum())
        assert interval == pytest.approx(wilson_formula(right, int((labels == label).sum())), abs=1e-12)


def test_confusion_counts_targets_in_rows():
    logits, labels = sample()
    confusion = np.array(evaluate(logits, labels, "test").confusion)
    expected = np.zeros((7, 7), int)
    for target, prediction in zip(labels, logits.argmax(1), strict=True):
        expected[target, prediction] += 1
    np.testing.assert_array_equal(confusion, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_type_count_the_same(dtype):
    logits, labels = sample(500, 47)
    assert evaluate(logits, labels.astype(dtype), "test") == evaluate(logits, labels, "test")


def test_ece_of_a_case_counted_by_hand():
    # Two predictions at 0.95 (one right) and two at 0.55 (both right): gaps 0.45 and 0.45, half the weight each.
    bins = calibration_bins(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True]))
    assert expected_calibration_error(bins) == pytest.approx(0.45)
    assert [bin_.count for bin_ in bins] == [0] * 8 + [2] + [0] * 5 + [2]
    assert (bins[14].confidence, bins[14].accuracy) == (0.95, 0.5)


def test_ece_is_a_plain_loop_over_the_bins():
    logits, labels = sample(1000, 4, seed=3)
    scores = evaluate(logits, labels, "test")
    exponents = np.exp(logits.astype(np.float64))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    confidences, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for index in range(BINS):
        inside = (confidences > index / BINS) & (confidences <= (index + 1) / BINS)
        assert scores.bins[index].count == inside.sum()
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    assert scores.ece == pytest.approx(total, rel=1e-12)


def test_an_edge_belongs_to_the_bin_below_it():
    bins = calibration_bins(np.array([1 / 3, 1.0]), np.array([True, True]))
    assert [index for index, bin_ in enumerate(bins) if bin_.count] == [4, 14]
    assert bins[4].high == pytest.approx(1 / 3)
    assert (bins[0].low, bins[-1].high) == (0.0, 1.0)


def test_class_without_images_knows_nothing():
    scores = evaluate(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1]), "test")
    assert scores.class_intervals[2] == (0.0, 1.0)
    assert class_accuracies(scores.confusion) == (1.0, 1.0, None)


@pytest.mark.parametrize("classes", [2, 6, 30])
def test_scores_by_class_are_scikit_learns(classes):
    generator = np.random.default_rng(classes)
    # Uneven; of thirty classes some have no images, and some of these are predicted.
    targets = generator.choice(classes, 400, p=generator.dirichlet(np.full(classes, 0.4 if classes == 30 else 3)))
    predictions = np.where(generator.random(400) < 0.6, targets, generator.choice(classes, 400))
    confusion = np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)
    # scikit-learn warns of predictions whose class has no images.
    recalls = metrics.recall_score(targets, predictions, labels=np.unique(targets), average=None)
    assert balanced_accuracy(confusion) == pytest.approx(recalls.mean())
    if len(recalls) == classes:
        assert balanced_accuracy(confusion) == pytest.approx(metrics.balanced_accuracy_score(targets, predictions))
    f1 = metrics.f1_score(targets, predictions, average="macro", zero_division=0)
    assert macro_f1(confusion) == pytest.approx(f1)
    assert worst_recall(confusion) == recalls.min()
    assert classes < 30 or len(recalls) < classes
    for of in BY_CLASS.values():
        np.testing.assert_allclose(of(np.stack([confusion, confusion.T + 1])), [of(confusion), of(confusion.T + 1)])
        assert float(of(tuple(map(tuple, confusion.tolist())))) == of(confusion)


def test_the_interval_of_the_worst_recall_covers_and_knows_its_one_class():
    assert worst_recall_interval(((30, 10), (2, 98))) == (wilson(30, 40)[0], wilson(30, 40, alpha=0.025)[1])
    generator, truth, sizes = np.random.default_rng(4), np.array([0.9, 0.9, 0.92, 0.9, 0.95]), [40, 60, 80, 50, 30]
    held = 0
    for right in generator.binomial(sizes, truth, (80, 5)):
        confusion = np.diag(right)
        confusion[:, 0] += sizes - right
        confusion[0] = [right[0], sizes[0] - right[0], 0, 0, 0]
        low, high = worst_recall_interval(confusion)
        held += low <= 0.9 <= high
    # The percentiles of a bootstrap, less their bias, hold it in two of three cases.
    assert held >= 0.93 * 80


def test_classes_that_are_never_predicted_or_uneven():
    assert never_predicted(((8, 0, 0, 0), (4, 0, 0, 0), (3, 0, 1, 0), (0, 0, 0, 0))) == (1,)
    assert never_predicted(((3, 1), (1, 3))) == ()
    assert is_uneven((10, 15, 0))
    assert not is_uneven((10, 14, 0))
    assert not is_uneven((980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009))  # MNIST's test split


def test_frequent_confusions_are_sorted_and_off_the_diagonal():
    confusion = ((90, 2, 0), (5, 80, 2), (0, 1, 70))
    assert frequent_confusions(confusion, 3) == [(1, 0, 5), (0, 1, 2), (1, 2, 2)]
    assert frequent_confusions(((3, 0), (0, 4)), 5) == []


def test_resolution_at_the_accuracy_of_mnist():
    # 9,941 of 10,002 after the added success and failure.
    share = 9_941 / 10_002
    assert resolution(0.994, 10_000) == pytest.approx(1.959964 * math.sqrt(2 * share * (1 - share) / 10_002), rel=1e-6)
    assert resolution(0.994, 10_000) == pytest.approx(0.00214, abs=4e-5)
    assert resolution(1.0, 300) == pytest.approx(resolution(0.0, 300)) == pytest.approx(0.0092, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "must hold an image.*N=0, split='test'"),
        (np.array([[0, np.nan]]), np.array([0]), "must be finite.*Received: 1 that"),
        (np.array([[0, np.inf]]), np.array([0]), "must be finite"),
        (np.zeros((2, 3)), np.array([0]), r"one label an image|Received: logits \(2, 3\), labels \(1,\)"),
        (np.zeros(3), np.array([0]), r"Logits are \(N, K\)"),
        (np.zeros((1, 3)), np.array([3]), "whole numbers from 0 to 2. Received: int64 from 3 to 3"),
        (np.zeros((1, 3)), np.array([-1]), "whole numbers from 0 to 2"),
        (np.zeros((1, 3)), np.array([0.5]), "whole numbers from 0 to 2. Received: float64"),
    ],
)
def test_refuses_what_cannot_be_scored(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(logits.astype(np.float32), labels, "test")
