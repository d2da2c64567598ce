"""Ten models that others would bring: their norms swapped and their penalties proven, or a refusal that says why."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

from kernorm.errors import UsageError
from kernorm.nets.contents import is_kernel
from kernorm.nets.proof import prove_penalty
from kernorm.nets.swap import SWAPPED, add_penalties, swap_norm

R = keras.regularizers
CLASSES = 4


def block(x, filters, **words):
    x = L.Conv2D(filters, 3, padding="same", use_bias=False, **words)(x)
    return L.ReLU()(L.BatchNormalization()(x))


def head(image, x):
    return keras.Model(image, L.Dense(CLASSES)(L.GlobalAveragePooling2D()(x)))


def mobilenet():
    return keras.applications.MobileNetV3Small((32, 32, 3), weights=None, classes=CLASSES, classifier_activation=None)


def efficientnet():
    return keras.applications.EfficientNetV2B0(
        input_shape=(32, 32, 3), weights=None, classes=CLASSES, classifier_activation=None
    )


def transfer():
    """A frozen backbone as a nested model, called in inference mode, and a head."""
    body = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    body.trainable = False
    image = keras.Input((32, 32, 3))
    x = block(body(image, training=False), 16)
    return head(image, x)


def shared():
    image = keras.Input((32, 32, 3))
    convolution, norm = L.Conv2D(3, 3, padding="same"), L.BatchNormalization()
    x = image
    for _ in range(3):
        x = norm(convolution(x))
    return head(image, x)


def residual():
    image = keras.Input((32, 32, 3))
    x = block(image, 8, strides=2)
    x = L.Add()([x, block(x, 8)])
    return head(image, L.Add()([L.Conv2D(16, 1, strides=2)(L.AveragePooling2D(1)(x)), block(x, 16, strides=2)]))


def mixed():
    image = keras.Input((32, 32, 3))
    x = block(image, 8, kernel_regularizer=R.L1(1e-4))
    x = block(x, 8, kernel_regularizer=R.L2(1e-3), activity_regularizer=R.L2(1e-5))
    x = block(x, 8, kernel_regularizer=R.L1L2(1e-5, 1e-4), bias_regularizer=None)
    return head(image, x)


def sequential():
    stages = [L.SeparableConv2D(8, 3, strides=2), L.BatchNormalization(), L.ReLU(), L.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((32, 32, 3)), L.Rescaling(1 / 255), *stages, L.Dense(CLASSES)])


def attention():
    """Convolutions, then self-attention with layer normalization of sequences, which is no norm of maps."""
    image = keras.Input((32, 32, 3))
    x = L.Reshape((64, 16))(block(L.AveragePooling2D(4)(image), 16))
    x = L.Add()([x, L.MultiHeadAttention(2, 8)(x, x)])
    return keras.Model(image, L.Dense(CLASSES)(L.GlobalAveragePooling1D()(L.LayerNormalization()(x))))


class OwnLayer(L.Layer):
    def __init__(self, **words):
        super().__init__(**words)
        self.convolution, self.norm = L.Conv2D(8, 3), L.BatchNormalization(name="inside")

    def call(self, x):
        return self.norm(self.convolution(x))


def own_layer():
    image = keras.Input((32, 32, 3))
    return head(image, OwnLayer(name="own")(image))


class OwnModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.body, self.top = OwnLayer(), L.Dense(CLASSES)

    def call(self, x):
        return self.top(L.GlobalAveragePooling2D()(self.body(x)))


def own_model():
    model = OwnModel()
    model(np.zeros((1, 32, 32, 3), np.float32))
    return model


BROUGHT = (mobilenet, efficientnet, transfer, shared, residual, mixed, sequential, attention, own_layer, own_model)
REFUSED = {
    attention: r"maps \(N, H, W, C\) or vectors \(N, C\), channels last\. Received: .* of inputs \(None, 64, 16\)",
    own_layer: r"Received: inside inside another layer of ",
    own_model: r"built by the functional or the sequential API\. Received: own_model, a OwnModel\.",
}


@pytest.mark.slow
@pytest.mark.parametrize("build", BROUGHT, ids=lambda build: build.__name__)
def test_a_model_that_somebody_brings(build):
    generator = np.random.default_rng(0)
    x, y = generator.uniform(0, 255, (4, 32, 32, 3)).astype(np.float32), generator.integers(0, CLASSES, 4)
    keras.utils.set_random_seed(0)
    model = build()
    own = {variable.path for variable in model.trainable_variables if variable.regularizer is not None}
    if own:
        with pytest.raises(UsageError, match=r"^A kernel has one regularizer\."):
            add_penalties(model, l1=1e-3, l2=1e-2)
    else:
        add_penalties(model, l1=1e-3, l2=1e-2)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    proof = prove_penalty(model, x, y)
    assert proof.holds, proof.problems
    penalized = [v for v in model.trainable_variables if v.regularizer is not None]
    assert [row.variable for row in proof.rows if row.regularizer and row.trainable] == [v.path for v in penalized]
    assert own or {v.path for v in penalized} == {v.path for v in model.trainable_variables if is_kernel(v)}
    wanted = sum(float(v.regularizer(v)) for v in penalized)
    assert proof.by_regularizers == pytest.approx(wanted, rel=1e-5)
    if build in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[build]):
            swap_norm(model, "gn")
        return
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, SWAPPED)]
    swapped = swap_norm(model, "gn")
    made = [layer for layer in swapped._flatten_layers() if isinstance(layer, SWAPPED)]
    assert [layer.name for layer in made] == [layer.name for layer in norms]
    assert {type(layer).__name__ for layer in made} == {"GroupNormalization"}
    assert swapped.count_params() == model.count_params() - sum(
        2 * int(layer.gamma.shape[0]) for layer in norms
    )  # the moving statistics
    assert np.isfinite(swapped(x)).all()
    assert sum(float(v.regularizer(v)) for v in swapped.trainable_variables if v.regularizer) == pytest.approx(wanted)
    for old, new in zip(model.weights, swap_norm(swapped, "bn").weights, strict=True):
        assert old.path.split("/")[-2:] == new.path.split("/")[-2:]
        np.testing.assert_array_equal(old, new)
