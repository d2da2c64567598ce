"""The programs of a population, each against NumPy or Keras; see conftest.py for how they are run."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("needs KERNORM_TEST_BACKEND=jax", allow_module_level=True)

import jax

from kernorm.config import TrainConfig
from kernorm.datasets import augment
from kernorm.datasets.augment import VALUES, Augmentation, displacements, maps_of, tones_of
from kernorm.nets.layers import StandardizedConv2D
from kernorm.nets.model import build_model_for
from kernorm.parallel import lowering
from kernorm.parallel.lowering import lowered, patches_convolution
from kernorm.parallel.vmap import Programs, State, stack
from kernorm.training.averages import averaged
from kernorm.training.diagnostics import Watch
from kernorm.training.optimizers import build_optimizer

MAPS = {"rotation": 12, "shift": 0.1, "zoom": 0.1, "shear": 8}
KINDS = {
    "maps": MAPS,
    "nearest pixel": MAPS | {"interpolation": "nearest"},
    "far outside, mirrored at the edge": {"rotation": 180, "shift": 0.9, "zoom": 0.7, "fill": "reflect"},
    "edge, flipped": MAPS | {"flip": "both", "fill": "nearest"},
    "elastic": {"elastic": 34, "fill": "reflect", "flip": "horizontal", "interpolation": "nearest"},
    "tones": {"brightness": 0.4, "contrast": 0.9},
    "all": MAPS | {"flip": "both", "fill": "reflect", "elastic": 34, "brightness": 0.4, "contrast": 0.9},
    "none": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_augmentation_on_the_device_is_that_of_numpy(rng, kind):
    images = rng.integers(0, 256, (64, 28, 24, 2), dtype=np.uint8)
    ranges, generator = Augmentation(**KINDS[kind]), np.random.default_rng(5)
    drawn = generator.random(VALUES * len(images))
    displaced = displacements(ranges, len(images), (28, 24), generator)
    ours = jax.jit(lowering.augment, static_argnums=4)(
        images, maps_of(ranges, drawn, (28, 24)), tones_of(ranges, drawn), displaced, ranges
    )
    np.testing.assert_array_equal(ours, augment.augment(images, ranges, np.random.default_rng(5)))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 4)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
def test_a_convolution_by_patches_is_keras_own(rng, padding, size, strides):
    inputs, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 9, 8, 5), (*size, 5, 7)))
    theirs = keras.ops.conv(inputs, kernel, padding=padding, strides=strides)
    np.testing.assert_allclose(patches_convolution(inputs, kernel, padding, strides), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [keras.layers.Conv2D, StandardizedConv2D])
def test_a_model_is_lowered_to_patches_and_back(rng, kind):
    image = keras.Input((9, 8, 3))
    model = keras.Model(image, kind(4, 3, padding="same", use_bias=False)(image))
    images = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)

    def trace(lowering):
        def answer(x):
            return model.stateless_call(model.trainable_variables, model.non_trainable_variables, x)[0]

        with lowered(model, lowering):
            return str(jax.make_jaxpr(answer)(images)), np.asarray(jax.jit(answer)(images))

    plain, expected = trace("grouped")
    patched, found = trace("patches")
    assert "conv_general_dilated" in plain
    assert "conv_general_dilated" not in patched
    assert "dot_general" in patched
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert trace("grouped")[0] == plain


def test_convolutions_in_nested_models_are_lowered_and_others_left(rng):
    """With groups or dilation a product of patches would be another one."""
    part = keras.Sequential([keras.Input((9, 8, 4)), keras.layers.Conv2D(4, 3, strides=2)])
    image = keras.Input((9, 8, 4))
    left = [keras.layers.Conv2D(4, 2, groups=2), keras.layers.Conv2D(4, 2, dilation_rate=2)]
    model = keras.Model(image, [part(image), *(layer(image) for layer in left)])
    images = rng.normal(size=(2, 9, 8, 4)).astype(np.float32)
    expected = [np.asarray(answer) for answer in model(images)]
    with lowered(model, "patches"):
        traced = str(jax.make_jaxpr(lambda x: model.stateless_call(model.variables, [], x)[0])(images))
        found = model(images)
    assert traced.count("conv_general_dilated[") == 2
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_members_are_spread_evenly_over_devices(mnist_info):
    config = TrainConfig(net="eva6", batch_size=4)
    model = build_model_for(config, mnist_info)
    model.compile(optimizer=build_optimizer(config, np.full(4, 0.1), np.full(4, 0.9)))
    images, labels = np.zeros((8, 28, 28, 1), np.uint8), np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="Members are spread evenly. Received: width=3 over 2 devices"):
        Programs(model, Watch(model, config, images), images, labels, augmentation=Augmentation(), width=3)


def test_averages_of_members_keep_to_constraints_each_by_itself():
    """A kernel of unit norm: what a single run has, for each of two members."""
    constraint = keras.constraints.UnitNorm(axis=0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False, kernel_constraint=constraint)])
    model.compile(build_optimizer(TrainConfig(ema=0.5), np.full(9, 0.5, np.float32), np.zeros(9, np.float32)))
    model.optimizer.build(model.trainable_variables)
    generator, states, alone = np.random.default_rng(2), [], []
    for _ in range(2):
        for _ in range(3):
            model.optimizer.apply([keras.ops.convert_to_tensor(generator.normal(size=(3, 2)).astype(np.float32))])
        groups = model.trainable_variables, [], model.optimizer.variables
        states.append(State(*([np.array(one) for one in variables] for variables in groups)))
        with averaged(model):
            alone.append(np.array(model.trainable_variables[0]))
    found = Programs.averaged(SimpleNamespace(model=model), stack(states)).trainable[0]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.ones((2, 2)), rtol=1e-5)
