import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from kernorm.config import TrainConfig
from kernorm.nets.model import build_model_for
from kernorm.nets.penalties import layer_penalties, measure, prove, regularizer
from kernorm.training.losses import build_loss


def compiled(config, info):
    model = build_model_for(config, info)
    model.compile("sgd", build_loss(config))
    return model


def batch(rng):
    return rng.integers(0, 256, (8, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, 8)


@pytest.mark.parametrize("net", ["eva4", "eva6"])
def test_penalties_equal_their_formula_and_are_in_the_loss(mnist_info, rng, net):
    config = TrainConfig(net=net, l1=5e-4, l2=2e-3)
    model = compiled(config, mnist_info)
    kernels = [to_numpy(layer.kernel).astype(np.float64) for layer in model.layers if hasattr(layer, "kernel")]
    l1 = 5e-4 * sum(np.abs(kernel).sum() for kernel in kernels)
    l2 = 2e-3 * sum(np.square(kernel).sum() for kernel in kernels)
    penalty = measure(model, config)
    assert (penalty.l1, penalty.l2) == (pytest.approx(l1, rel=1e-6), pytest.approx(l2, rel=1e-6))
    found, expected = prove(model, config, *batch(rng))
    assert expected == pytest.approx(l1 + l2, rel=1e-6)
    assert found == pytest.approx(l1 + l2, rel=1e-4)


def test_all_adds_scales_and_offsets(mnist_info, rng):
    kernels, everything = (TrainConfig(net="eva6", l1=1e-3, penalize=what) for what in ("kernels", "all"))
    # 72 scales of 1 and 72 offsets of 0.
    model = compiled(everything, mnist_info)
    added = measure(model, everything).l1 - measure(compiled(kernels, mnist_info), kernels).l1
    assert added == pytest.approx(72e-3, rel=1e-5)
    found, expected = prove(model, everything, *batch(rng))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("norm", ["rms", "frn", "gbn", "cln"])
def test_all_reaches_norms_whose_keras_layer_takes_no_regularizer(mnist_info, rng, norm):
    config = TrainConfig(net="eva6", norm=norm, l2=1e-3, penalize="all")
    model = compiled(config, mnist_info)
    assert all(variable.regularizer for variable in model.trainable_variables)
    found, expected = prove(model, config, *batch(rng))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_initial_sum_of_eva4_is_the_published_one(mnist_info):
    """PyTorch's initializer gives Σ|w| near 606, of which 103 are the norms' scales."""
    config = TrainConfig(net="eva4", l1=1.0, penalize="all", initializer="torch")
    assert measure(build_model_for(config, mnist_info), config).l1 == pytest.approx(605.9, rel=0.02)


@pytest.mark.parametrize("wrong", ["missing", "other"])
def test_a_penalty_that_is_not_in_the_loss_stops_the_run(mnist_info, rng, wrong):
    """What both published studies would have met: λ set, and nothing, or something else, added to the loss."""
    built = TrainConfig(net="eva6", l1=0.0 if wrong == "missing" else 5e-3)
    with pytest.raises(RuntimeError, match=r"must be in the loss as configured.*by formula \(l1=0.0005"):
        prove(compiled(built, mnist_info), TrainConfig(net="eva6", l1=5e-4), *batch(rng))


def test_smoothed_targets_are_no_penalty_and_hide_none(mnist_info, rng):
    smoothed = TrainConfig(net="eva6", l2=1e-3, label_smoothing=0.2)
    found, expected = prove(compiled(smoothed, mnist_info), smoothed, *batch(rng))
    assert found == pytest.approx(expected, rel=1e-4)
    plain = TrainConfig(net="eva6", label_smoothing=0.2)
    assert prove(compiled(plain, mnist_info), plain, *batch(rng)) == (0, 0)
    with pytest.raises(RuntimeError, match="must be in the loss as configured"):
        prove(compiled(plain, mnist_info), smoothed, *batch(rng))


def test_a_penalty_that_measures_zero_stops_the_run(mnist_info, rng):
    config = TrainConfig(net="eva6", l2=1e-3)
    model = compiled(config, mnist_info)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    with pytest.raises(RuntimeError, match="Received: 0 in the loss, 0 by formula"):
        prove(model, config, *batch(rng))


def test_no_penalty_has_no_regularizer(mnist_info, rng):
    assert regularizer((0.0, 0.0)) is None
    config = TrainConfig()
    model = compiled(config, mnist_info)
    assert model.losses == []
    assert prove(model, config, *batch(rng))[1] == 0


def test_single_layers_have_their_own():
    config = TrainConfig(net="eva6", l1=1e-4, penalty_at=("conv2=0,0.5",))
    assert layer_penalties(config, ["conv1", "conv2"]) == {"conv1": (1e-4, 0.0), "conv2": (0.0, 0.5)}


def test_l2_is_half_of_pytorchs_weight_decay(mnist_info):
    """PyTorch adds λ·w to the gradient; the gradient of l2·Σw² is 2·l2·w."""
    import tensorflow as tf

    decay = 5e-3
    model = compiled(TrainConfig(net="eva4", l2=decay / 2), mnist_info)
    kernel = model.get_layer("conv2").kernel
    with tf.GradientTape() as tape:
        penalty = sum(model.losses)
    np.testing.assert_allclose(tape.gradient(penalty, kernel.value), decay * to_numpy(kernel), rtol=1e-5)
