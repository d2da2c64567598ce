"""The layers that stand in for Keras': its arguments by position, and its results whatever they are."""

import keras
import numpy as np
import pytest

from kernorm.nets import layers

# Arguments as Keras takes them by position, with another value than the default in each.
POSITIONAL = {
    "BatchNormalization": (-1, 0.9, 1e-5, False, False),
    "GroupNormalization": (2, -1, 1e-5, False, False),
    "Dropout": (0.5, (None, 1, 1, 4), 7),
}
SETTINGS = {
    "BatchNormalization": [{"center": False}, {"scale": False}, {"trainable": False}, {"renorm": True}, {"axis": 1}],
    "GroupNormalization": [{"groups": 2, "scale": False}, {"groups": 2, "center": False}, {"groups": 2, "axis": 1}],
    "Dropout": [{"rate": 0.5, "noise_shape": (None, 1, 1, 4), "seed": 7}, {"rate": 1.0}, {"rate": 0.0}],
}


@pytest.fixture
def images(rng):
    return (2 * rng.normal(size=(4, 12, 12, 4)) + 1).astype(np.float32)


@pytest.mark.parametrize("name", POSITIONAL)
def test_arguments_are_taken_by_position_as_keras_takes_them(name):
    given = POSITIONAL[name]
    ours, theirs = getattr(layers, name)(*given, name="x"), getattr(keras.layers, name)(*given, name="x")
    config = ours.get_config()
    assert config.pop("fused") is False
    assert config == theirs.get_config()
    again = type(ours).from_config(ours.get_config())
    assert again.get_config() == ours.get_config()


@pytest.mark.parametrize("name", ["GhostBatchNormalization", "LayerNormalization"])
def test_norms_with_other_axes_take_them_too(name):
    assert getattr(layers, name)(-1, epsilon=1e-4).epsilon == 1e-4
    assert layers.GhostBatchNormalization(-1, 0.9, 1e-4, ghost_batch_size=8).get_config()["ghost_batch_size"] == 8
    assert layers.LayerNormalization(-1, 1e-4, False).center is False
    assert layers.FilterResponseNormalization(1e-4).epsilon == 1e-4
    assert layers.StandardizedConv2D(8, 3, 1, "same").padding == "same"


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name, found in SETTINGS.items() for settings in found]
)
def test_compiled_blocks_leave_to_keras_what_they_do_not_compute(images, name, settings):
    ours, theirs = getattr(layers, name)(**settings, fused=True), getattr(keras.layers, name)(**settings)
    for _ in range(2):
        np.testing.assert_allclose(ours(images, training=True), theirs(images, training=True), atol=1e-5)
    for found, wanted in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("words", [{"scale": False}, {"center": False}, {"scale": False, "center": False}])
@pytest.mark.parametrize("make", [layers.LayerNormalization, layers.GhostBatchNormalization])
def test_a_norm_without_scale_or_offset_normalizes(images, make, words):
    found = np.asarray(make(**words)(images, training=True))
    wanted = np.asarray(make()(images, training=True))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_frozen_ghost_norm_uses_its_moving_statistics(images):
    layer = layers.GhostBatchNormalization(trainable=False)
    np.testing.assert_allclose(layer(images, training=True), images / np.sqrt(1 + layer.epsilon), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))
