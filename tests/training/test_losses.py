from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from kernorm.config import TrainConfig
from kernorm.nets.model import build_model_for
from kernorm.nets.penalties import prove
from kernorm.training.losses import SmoothedCrossEntropy, WeightedCrossEntropy, build_loss, class_weights

BALANCED = TrainConfig(net="eva6", class_weight="balanced", l1=1e-4, l2=1e-3)


@pytest.fixture
def answers(rng):
    return rng.integers(0, 5, 12), rng.normal(0, 3, (12, 5)).astype(np.float32)


def test_smoothed_targets_equal_keras_on_one_hot_ones(answers):
    labels, logits = answers
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = float(theirs(np.eye(5, dtype=np.float32)[labels], logits))
    assert float(SmoothedCrossEntropy(0.2)(labels, logits)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.extra
def test_smoothed_targets_equal_pytorch_in_value_and_gradient(answers):
    torch = pytest.importorskip("torch")
    import tensorflow as tf

    labels, logits = answers
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(theirs, torch.tensor(labels))
    expected.backward()
    ours = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = build_loss(TrainConfig(label_smoothing=0.1))(labels, ours)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(tape.gradient(found, ours), theirs.grad.numpy(), atol=1e-6)


def test_without_smoothing_it_is_keras_own_and_the_config_round_trips():
    assert type(build_loss(TrainConfig())) is keras.losses.SparseCategoricalCrossentropy
    again = SmoothedCrossEntropy.from_config(SmoothedCrossEntropy(0.3).get_config())
    assert again.smoothing == 0.3


def test_balanced_weights_are_scikit_learns(rng):
    labels = rng.choice(6, 500, p=[0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
    weights = class_weights(BALANCED, labels, 6)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(6), y=labels), rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)
    assert class_weights(TrainConfig(), labels, 6) is None
    # A class without training images has none; the others are scikit-learn's without it.
    assert class_weights(BALANCED, np.array([0, 0, 0, 2]), 3).tolist() == pytest.approx([4 / 6, 0, 2])
    assert class_weights(BALANCED, np.arange(40) % 4, 4).tolist() == [1.0] * 4


@pytest.mark.extra
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_weighted_loss_is_pytorchs(answers, smoothing):
    torch = pytest.importorskip("torch")
    labels, logits = answers
    weights = np.array([0.3, 2.5, 1.0, 0.7, 4.0], np.float32)
    # PyTorch's own weights would weigh the evenly spread part of a target class by class.
    each = torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=smoothing)
    expected = (each(torch.tensor(logits), torch.tensor(labels)) * torch.tensor(weights)[labels]).mean().item()
    loss = build_loss(TrainConfig(class_weight="balanced", label_smoothing=smoothing), weights)
    for given in (labels, labels.astype(np.uint8), labels[:, None].astype(np.float32)):
        assert float(loss(given, logits)) == pytest.approx(expected, rel=1e-5)
    if not smoothing:
        theirs = torch.nn.CrossEntropyLoss(torch.tensor(weights), reduction="none")
        assert float(theirs(torch.tensor(logits), torch.tensor(labels)).mean()) == pytest.approx(expected, rel=1e-5)
    again = WeightedCrossEntropy.from_config(loss.get_config())
    assert float(again(labels, logits)) == pytest.approx(expected, rel=1e-5)
    metric = keras.metrics.MeanMetricWrapper(loss.call, name="weighted_cross_entropy")
    for start, stop in ((0, 8), (8, 12)):  # of batches of any size
        metric.update_state(labels[start:stop], logits[start:stop])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("smoothing", "wrong"), [(0.0, False), (0.1, False), (0.0, True)])
def test_the_penalty_is_proven_in_a_weighted_loss(mnist_info, rng, smoothing, wrong):
    images, labels = rng.integers(0, 256, (8, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, 8)
    weights = rng.uniform(0.2, 4, 10).astype(np.float32)
    config = replace(BALANCED, label_smoothing=smoothing)
    model = build_model_for(config, mnist_info)
    model.compile("sgd", build_loss(config, None if wrong else weights))
    if wrong:  # the weights that were asked for are not in the loss
        with pytest.raises(RuntimeError, match="A penalty must be in the loss as configured"):
            prove(model, config, images, labels, weights=weights)
        return
    found, expected = prove(model, config, images, labels, weights=weights)
    assert expected > 0
    assert found == pytest.approx(expected, rel=1e-4)
