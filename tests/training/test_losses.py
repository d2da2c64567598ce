import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.training.losses import SmoothedCrossEntropy, build_loss


@pytest.fixture
def answers(rng):
    return rng.integers(0, 5, 12), rng.normal(0, 3, (12, 5)).astype(np.float32)


def test_smoothed_targets_equal_keras_on_one_hot_ones(answers):
    labels, logits = answers
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = float(theirs(np.eye(5, dtype=np.float32)[labels], logits))
    assert float(SmoothedCrossEntropy(0.2)(labels, logits)) == pytest.approx(expected, rel=1e-5)


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
