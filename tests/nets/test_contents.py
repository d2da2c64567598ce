"""What a model holds, nested models and layers made of layers included, against what Keras itself computes."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

from kernorm.nets.contents import kernels, trained_layers, up_to


class Pair(L.Layer):
    """A layer made of layers, as users write them."""

    def __init__(self, **words):
        super().__init__(**words)
        self.first, self.second = L.Dense(3, name="dense"), L.PReLU(name="slope")

    def call(self, x):
        return self.second(self.first(x))


def stage(name, filters):
    x = image = keras.Input((8, 8, filters))
    for layer in (L.Conv2D(filters, 3, padding="same", name="conv"), L.BatchNormalization(name="norm"), L.ReLU()):
        x = layer(x)
    return keras.Model(image, x, name=name)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    shared = stage("shared", 4)
    x = L.SeparableConv2D(4, 3, padding="same", name="separable")(image)
    x = shared(shared(x))
    x = keras.Sequential([keras.Input((8, 8, 4)), stage("inner", 4)], name="outer")(x)
    x = Pair(name="pair")(L.GlobalAveragePooling2D()(x))
    return keras.Model(image, L.Dense(2, name="dense")(x))


def test_layers_of_every_depth_come_once_under_the_shortest_name_that_is_theirs(model):
    found = trained_layers(model)
    assert list(found) == [
        *("separable", "shared/conv", "shared/norm", "inner/conv", "inner/norm"),
        *("pair/dense", "slope", "dense"),
    ]
    variables = [variable for _, weights in found.values() for variable in weights]
    assert [id(variable) for variable in variables] == [id(variable) for variable in model.trainable_variables]
    assert [(name, str(kernel.name)) for name, kernel in kernels(model)] == [
        ("separable", "depthwise_kernel"),
        ("separable", "pointwise_kernel"),
        *((name, "kernel") for name in ("shared/conv", "inner/conv", "pair/dense", "dense")),
    ]


def test_what_is_frozen_is_not_trained(model):
    model.get_layer("outer").trainable = False
    assert not [name for name in trained_layers(model) if name.startswith("inner")]
    assert "conv" in trained_layers(model)


def test_a_model_up_to_a_nested_layer_answers_as_its_layers_one_after_another(model, rng):
    images = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    norm = model.get_layer("shared").get_layer("norm")
    norm.moving_mean.assign(rng.normal(size=4))
    first = model.get_layer("separable")(images)
    convolution = model.get_layer("shared").get_layer("conv")
    np.testing.assert_allclose(up_to(model, convolution)(images), convolution(first), rtol=1e-5, atol=1e-6)
    inner = model.get_layer("outer").layers[0].get_layer("conv")
    x = model.get_layer("shared")(model.get_layer("shared")(first))
    np.testing.assert_allclose(up_to(model, inner)(images), inner(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(up_to(model, model.layers[-1])(images), model(images), rtol=1e-5, atol=1e-6)
    assert up_to(model, model.get_layer("pair").first) is None


def test_a_model_that_is_called_by_name_of_its_argument(rng):
    image = keras.Input((8, 8, 4))
    inner = stage("inner", 4)
    model = keras.Model(image, inner(inputs=image))
    images = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    convolution = inner.get_layer("conv")
    np.testing.assert_allclose(up_to(model, convolution)(images), convolution(images), rtol=1e-5, atol=1e-6)
