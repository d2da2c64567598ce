"""Each norm against its formula in double precision, written with NumPy alone."""

from typing import get_args

import keras
import numpy as np
import pytest

from kernorm.config import NormName, TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.layers import StandardizedConv2D
from kernorm.nets.norms import EPSILON, NORMS, Place, build_norm, resolve_groups

SHAPE = (12, 6, 5, 8)
GAMMA = np.linspace(0.5, 1.5, 8).astype(np.float32)
BETA = np.linspace(-1, 1, 8).astype(np.float32)


def layer_of(name, *, shape=SHAPE, **settings):
    config = TrainConfig(norm=name, **settings)
    batch, height, width, channels = shape
    layer = build_norm(name, Place("conv1", height, width, channels, batch, groups=settings.get("groups", 4)), config)
    layer.build((None, *shape[1:]))
    for variable in layer.trainable_variables:
        if "gamma" in variable.name or "scale" in variable.name:
            variable.assign(GAMMA)
        elif "beta" in variable.name:
            variable.assign(BETA)
    return layer


def standardized(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


def grouped(x, groups):
    split = x.reshape(*x.shape[:3], groups, -1)
    return standardized(split, (1, 2, 4)).reshape(x.shape)


def ghosts(x, size):
    return np.concatenate([standardized(x[i : i + size], (0, 1, 2)) for i in range(0, len(x), size)])


FORMULAS = {
    "bn": lambda x: standardized(x, (0, 1, 2)) * GAMMA + BETA,
    "gbn": lambda x: ghosts(x, 5) * GAMMA + BETA,
    "ln": lambda x: standardized(x, (1, 2, 3)) * GAMMA + BETA,
    "cln": lambda x: standardized(x, (3,)) * GAMMA + BETA,
    "gn": lambda x: grouped(x, 4) * GAMMA + BETA,
    "in": lambda x: standardized(x, (1, 2)) * GAMMA + BETA,
    "rms": lambda x: x / np.sqrt(np.square(x).mean(3, keepdims=True) + EPSILON) * GAMMA,
    "frn": lambda x: np.maximum(x / np.sqrt(np.square(x).mean((1, 2), keepdims=True) + EPSILON) * GAMMA + BETA, 0),
}


@pytest.fixture
def x(rng):
    return (rng.normal(size=SHAPE) * 3 + 1.5).astype(np.float32)


def test_every_name_has_a_row():
    assert {*NORMS, "none"} == set(get_args(NormName))
    assert {*FORMULAS, "brn"} == set(NORMS)


@pytest.mark.parametrize("name", FORMULAS)
def test_training_output_equals_formula(name, x):
    layer = layer_of(name, ghost_batch_size=5)
    arguments = {"training": True} if name in ("bn", "gbn") else {}
    np.testing.assert_allclose(layer(x, **arguments), FORMULAS[name](x.astype(np.float64)), atol=2e-5)


@pytest.mark.parametrize("name", ["ln", "cln", "gn", "in", "rms", "frn"])
def test_batch_independent_norms_do_not_look_at_other_images(name, x):
    layer = layer_of(name)
    np.testing.assert_allclose(layer(x)[3:4], layer(x[3:4]), atol=1e-6)


@pytest.mark.parametrize("name", ["bn", "gbn"])
def test_inference_uses_the_moving_statistics_at_any_batch_size(name, x):
    layer = layer_of(name, ghost_batch_size=5)
    layer(x, training=True)
    mean, variance = 0.1 * x.mean((0, 1, 2)), 0.9 + 0.1 * x.var((0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)
    expected = (x - mean) / np.sqrt(variance + EPSILON) * GAMMA + BETA
    for count in (1, 12):
        np.testing.assert_allclose(layer(x[:count], training=False), expected[:count], atol=2e-5)


def test_brn_with_agreeing_statistics_is_bn_and_its_correction_is_clipped(x):
    layer = layer_of("brn")
    mean, deviation = x.mean((0, 1, 2)), np.sqrt(x.var((0, 1, 2)) + EPSILON)
    layer.renorm_mean.assign(mean)
    layer.renorm_stddev.assign(deviation)
    np.testing.assert_allclose(layer(x, training=True), FORMULAS["bn"](x.astype(np.float64)), atol=1e-4)
    layer.renorm_mean.assign(mean - 100 * deviation)
    layer.renorm_stddev.assign(deviation / 100)
    # Ioffe 2017, equation 2: r and d at their bounds, 3 and 5.
    clipped = (standardized(x.astype(np.float64), (0, 1, 2)) * 3 + 5) * GAMMA + BETA
    np.testing.assert_allclose(layer(x, training=True), clipped, atol=1e-4)


def test_ln_is_a_layer_normalization_and_equals_one_group(x):
    layer, one_group = layer_of("ln"), layer_of("gn", groups=1)
    assert isinstance(layer, keras.layers.LayerNormalization)
    assert layer.count_params() == 16
    np.testing.assert_allclose(layer(x), one_group(x), atol=1e-5)


@pytest.mark.parametrize("name", ["bn", "gbn", "ln", "gn", "in", "frn"])
def test_gradient_equals_finite_differences_of_the_formula(name, rng):
    import tensorflow as tf

    x = (rng.normal(size=(4, 3, 3, 8)) * 2 + 0.5).astype(np.float32)
    weights = rng.normal(size=x.shape)
    layer = layer_of(name, shape=x.shape, ghost_batch_size=2)
    formula = (lambda v: ghosts(v, 2) * GAMMA + BETA) if name == "gbn" else FORMULAS[name]
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs, training=True) if name in ("bn", "gbn") else layer(inputs)
        total = tf.reduce_sum(output * weights.astype(np.float32))
    gradient, d_gamma, d_beta = tape.gradient(total, [inputs, layer.gamma, layer.beta])
    for index in [(0, 0, 0, 0), (1, 2, 1, 3), (3, 1, 2, 7), (2, 0, 2, 4)]:
        step = np.zeros(x.shape)
        step[index] = 1e-5
        change = (formula(x + step) - formula(x - step)) * weights
        assert float(gradient[index]) == pytest.approx(change.sum() / 2e-5, rel=2e-3, abs=2e-3)
    if name != "frn":
        np.testing.assert_allclose(d_beta, weights.sum((0, 1, 2)), rtol=1e-3, atol=1e-3)
        slopes = ((formula(x.astype(np.float64)) - BETA) / GAMMA * weights).sum((0, 1, 2))
        np.testing.assert_allclose(d_gamma, slopes, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "values"),
    [
        ("in", (12, 1, 1, 8), "1x1x8"),
        ("frn", (12, 1, 1, 8), "1x1x8"),
        ("bn", (1, 1, 1, 8), "batch size 1"),
        ("gbn", (1, 1, 1, 8), "batch size 1"),
        ("cln", (12, 6, 5, 1), "6x5x1"),
        ("rms", (12, 6, 5, 1), "6x5x1"),
    ],
)
def test_degenerate_norms_are_refused_with_the_layer_and_a_way_out(name, shape, values):
    batch, height, width, channels = shape
    with pytest.raises(UsageError, match=rf"at conv7, a map of .*{values}.*--norm-at conv7=none"):
        build_norm(name, Place("conv7", height, width, channels, batch), TrainConfig(norm=name))


def test_group_norm_with_one_value_a_group_is_refused():
    with pytest.raises(UsageError, match="two values a statistic"):
        build_norm("gn", Place("conv7", 1, 1, 8, 12, groups=8), TrainConfig(norm="gn"))


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (14, 2), (30, 3), (15, 3), (7, 1), (16, 4)])
def test_auto_groups_are_the_largest_divisor_up_to_four(channels, groups):
    assert resolve_groups("auto", channels, "conv1") == groups


def test_groups_must_divide():
    with pytest.raises(UsageError, match=r"groups=4, conv2 has 30 channels\. Give auto, or one of 1, 2, 3, 5, 6"):
        resolve_groups(4, 30, "conv2")


def test_standardized_kernel_has_mean_0_and_variance_1(rng):
    layer = StandardizedConv2D(4, 3, use_bias=False)
    layer.build((None, 3, 3, 5))
    kernel = rng.normal(2, 3, size=(3, 3, 5, 4)).astype(np.float32)
    layer.kernel.assign(kernel)
    x = rng.normal(size=(2, 3, 3, 5)).astype(np.float32)
    expected = np.einsum("nhwc,hwck->nk", x, (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2)))
    np.testing.assert_allclose(layer(x)[:, 0, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_config_round_trips(name, x):
    layer = layer_of(name, ghost_batch_size=5)
    again = type(layer).from_config(layer.get_config())
    again.build((None, *SHAPE[1:]))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), again(x))
    assert again.get_config() == layer.get_config()
