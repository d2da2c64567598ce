"""The compiled training blocks against Keras' own layers and formulas in double precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from kernorm.nets import layers
from kernorm.nets.fused import can_fuse, dropout

SHAPE = (5, 12, 6, 8)


def by_formula(x, dy, gamma, beta, axes, groups=None):
    """The normalized output and its three gradients, by automatic differentiation in double precision."""
    x, dy, gamma, beta = (tf.constant(value, tf.float64) for value in (x, dy, gamma, beta))
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        split = tf.reshape(x, (*x.shape[:3], groups, -1)) if groups else x
        mean, variance = tf.nn.moments(split, axes, keepdims=True)
        normalized = tf.reshape((split - mean) / tf.sqrt(variance + 1e-5), x.shape)
        y = normalized * gamma + beta
        total = tf.reduce_sum(y * dy)
    return [y, *tape.gradient(total, [x, gamma, beta])]


CASES = {
    "bn": (lambda: layers.BatchNormalization(momentum=0.9, epsilon=1e-5, fused=True), (0, 1, 2), None),
    "ln": (lambda: layers.LayerNormalization(epsilon=1e-5, fused=True), (1, 2, 3), None),
    "gn": (lambda: layers.GroupNormalization(groups=4, epsilon=1e-5, fused=True), (1, 2, 4), 4),
    "in": (lambda: layers.GroupNormalization(groups=-1, epsilon=1e-5, fused=True), (1, 2), None),
}


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_equal_the_formula(rng, name, offset):
    make, axes, groups = CASES[name]
    x = (rng.normal(size=SHAPE) * 2 + offset).astype(np.float32)
    dy = rng.normal(size=SHAPE).astype(np.float32)
    layer = make()
    layer.build((None, *SHAPE[1:]))
    layer.gamma.assign(rng.uniform(0.5, 1.5, 8))
    layer.beta.assign(rng.uniform(-1, 1, 8))
    expected = by_formula(x, dy, to_numpy(layer.gamma), to_numpy(layer.beta), axes, groups)
    inputs = tf.constant(x)
    assert layer._fuses(inputs, True)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs, training=True)
        total = tf.reduce_sum(y * dy)
    found = [y, *tape.gradient(total, [inputs, layer.gamma, layer.beta])]
    for ours, exact in zip(found, expected, strict=True):
        scale = np.abs(exact).max()
        np.testing.assert_allclose(ours, exact, atol=(1e-5 if offset == 0 else 1e-4) * scale)


def test_moving_statistics_equal_those_of_keras(rng):
    ours = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, fused=True)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    for _ in range(3):
        x = (rng.normal(size=SHAPE) + 2).astype(np.float32)
        ours(x, training=True)
        theirs(x, training=True)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-5)


def test_sums_stay_exact_where_tensorflow_loses_digits(rng):
    """A channel of a batch of 128 maps of 28x28: 100,352 values far from 0, as behind a ReLU."""
    x = (np.abs(rng.normal(size=(128, 28, 28, 2))) + 3).astype(np.float32)
    layer = layers.BatchNormalization(epsilon=1e-5, fused=True)
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(layer(x, training=True), exact, atol=1e-5)


def test_dropout_drops_its_share_scales_the_rest_and_repeats_its_mask_backwards(rng):
    x = tf.constant(rng.uniform(1, 2, (64, 12, 12, 8)).astype(np.float32))
    seed = tf.constant([3, 9], tf.uint32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = dropout(x, seed, 0.1)
        total = tf.reduce_sum(y)
    kept = y.numpy() != 0
    # Five standard deviations of a binomial share.
    assert kept.mean() == pytest.approx(0.9, abs=5 * np.sqrt(0.09 / kept.size))
    np.testing.assert_allclose(y.numpy()[kept], x.numpy()[kept] / 0.9, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(total, x), kept / 0.9, rtol=1e-6)


def test_dropout_masks_are_independent_of_one_another_and_of_their_neighbours():
    x = tf.ones((32, 16, 16, 8))
    masks = [dropout(x, tf.constant(seed, tf.uint32), 0.5).numpy().ravel() > 0 for seed in ((1, 0), (1, 1), (2, 0))]
    bound = 5 / np.sqrt(masks[0].size)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(masks[first], masks[second])[0, 1]) < bound
    for lag in (1, 8, 128, 2048):
        assert abs(np.corrcoef(masks[0][:-lag], masks[0][lag:])[0, 1]) < bound


def test_dropout_layer_is_seeded_moves_on_and_does_nothing_in_inference():
    x = np.ones((4, 8, 8, 8), np.float32)
    first, second = (layers.Dropout(rate=0.3, seed=5, fused=True) for _ in range(2))
    drawn = first(x, training=True)
    np.testing.assert_array_equal(drawn, second(x, training=True))
    assert (to_numpy(drawn) != to_numpy(first(x, training=True))).any()
    np.testing.assert_array_equal(first(x, training=False), x)


@pytest.mark.parametrize("shape", [(4, 1, 1, 15), (4, 300), (4, None, 28, 8)])
def test_small_or_unknown_maps_stay_with_keras(shape):
    assert not can_fuse(keras.KerasTensor(shape))
    assert can_fuse(keras.KerasTensor((None, 28, 28, 8)))


def compiled_blocks(layer, training):
    """How many functions of the traced layer XLA must compile."""
    traced = tf.function(lambda x: layer(x, training=training)).get_concrete_function(tf.TensorSpec((None, *SHAPE[1:])))
    functions = traced.graph.as_graph_def().library.function
    return sum("_XlaMustCompile" in function.attr for function in functions)


@pytest.mark.parametrize("name", [*CASES, "dropout"])
def test_training_uses_a_block_and_inference_does_not(name):
    layer = layers.Dropout(rate=0.3, seed=1, fused=True) if name == "dropout" else CASES[name][0]()
    layer.build((None, *SHAPE[1:]))
    assert compiled_blocks(layer, training=True) == 1
    assert compiled_blocks(layer, training=False) == 0
