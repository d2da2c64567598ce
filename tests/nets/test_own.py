"""A user's own net: what conv makes, what is swapped, what is penalized, and whatever such a function can get wrong."""

import random

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.contents import kernels, trained_layers
from kernorm.nets.model import build_model
from kernorm.nets.own_losses import OwnLosses
from kernorm.nets.penalties import measure, prove
from kernorm.training.diagnostics import Watch, layer_table
from tests.builders import RESIDUAL_NET, own_net

SHAPE, CLASSES = (8, 8, 3), 5
SWAPPED_NET = """
import keras
from keras import layers as L


def net(image_shape, num_classes):
    image = keras.Input(image_shape)
    x = L.Conv2D(4, 3, name="first")(image)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    layers = [L.DepthwiseConv2D(3, name="deep"), L.LayerNormalization(name="ln")]
    part = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    return L.Dense(num_classes, name="head")(L.GlobalAveragePooling2D()(part(x)))
"""


def build(text, shape=SHAPE, classes=CLASSES, **settings):
    config = own_net(text, **{"norm": "ln", "batch_size": 4, **settings})
    return build_model(config, image_shape=shape, num_classes=classes), config


def residual(**settings):
    """The net with losses of its own, which stand alone in its layer `hidden`."""
    return build(RESIDUAL_NET, **{"penalty_at": ("hidden=0,0",), **settings})


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, *SHAPE), np.uint8)


def test_conv_makes_convolutions_with_norm_and_relu_as_configured(images):
    model, _ = residual(norm="gn", norm_at=("conv2=none",), dropout=0.2, standardize_kernels=True)
    inner = model.get_layer("net")
    stage = inner.get_layer("stage")
    names = [layer.name for layer in inner.layers]
    assert {"conv1", "conv1_norm", "conv1_relu", "conv1_dropout", "conv3", "conv3_norm"} <= set(names)
    assert not {"conv3_relu", "conv3_dropout"} & set(names)  # activation=False
    assert [layer.name for layer in stage.layers[1:]] == ["conv2", "conv2_relu", "conv2_dropout"]
    assert inner.get_layer("conv1").strides == (2, 2)
    kinds = {name: type(trained_layers(model)[name][0]).__name__ for name in ("conv1", "conv2", "conv1_norm")}
    assert kinds == {"conv1": "StandardizedConv2D", "conv2": "Conv2D", "conv1_norm": "GroupNormalization"}
    scaled = images / np.float32(255)
    np.testing.assert_allclose(model(images), inner(scaled), rtol=1e-5, atol=1e-5)
    assert (model.input.dtype, model.output_shape) == ("uint8", (None, CLASSES))


def test_every_kernel_is_penalized_dense_ones_and_nested_ones_too():
    model, config = residual(l1=1e-3, l2=2e-3, penalty_at=("hidden=0,0", "conv2=0,0.5"))
    found = {name: to_numpy(kernel).astype(np.float64) for name, kernel in kernels(model)}
    assert set(found) == {"conv1", "conv2", "conv3", "hidden", "head"}
    wanted = {name: (1e-3, 2e-3) for name in found} | {"hidden": (0, 0), "conv2": (0, 0.5)}
    l1, l2 = (
        sum(wanted[name][which] * term(kernel) for name, kernel in found.items())
        for which, term in enumerate((lambda k: np.abs(k).sum(), lambda k: np.square(k).sum()))
    )
    penalty = measure(model, config)
    assert (penalty.l1, penalty.l2) == (pytest.approx(l1, rel=1e-6), pytest.approx(l2, rel=1e-6))
    rows = {row.name: row for row in layer_table(model, config)}
    assert {name: (row.l1, row.l2) for name, row in rows.items() if row.kernel_norm} == wanted
    assert rows["hidden"].note == "own L1"
    assert rows["conv2"].output_shape == (4, 4, 4)
    assert list(rows)[-1] == "head"


def test_losses_of_the_nets_own_are_apart_from_the_penalty_and_both_are_in_the_loss(images, rng):
    model, config = residual(l2=1e-2)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    own = OwnLosses(model, config, images)
    inner = model.get_layer("net")
    hidden = inner.get_layer("hidden")
    before = keras.Model(inner.input, hidden.output)(images / np.float32(255))
    formula = 1e-3 * np.abs(to_numpy(hidden.kernel)).sum() + 1e-4 * np.square(before).sum() / 4
    assert own.exist
    assert own.measure() == pytest.approx(formula, rel=1e-4)
    found, expected = prove(model, config, images, rng.integers(0, CLASSES, 4), own=own.of(images))
    assert expected == pytest.approx(measure(model, config).total)
    assert expected > 0
    assert found == pytest.approx(expected, rel=1e-3)
    with pytest.raises(RuntimeError, match="must be in the loss as configured"):
        prove(model, config, images, rng.integers(0, CLASSES, 4))
    assert model.get_layer("net").get_layer("conv1").kernel.regularizer is not None


def test_a_net_without_losses_of_its_own_has_none(images):
    model, config = build(SWAPPED_NET)
    assert OwnLosses(model, config, images).measure() is None
    own = TrainConfig(net="resnet8", l2=1e-3, batch_size=4)
    assert OwnLosses(build_model(own, image_shape=SHAPE, num_classes=2), own, images).measure() is None


@pytest.mark.parametrize(("norm", "kind"), [("gn", "GroupNormalization"), ("bn", "BatchNormalization")])
def test_norms_are_swapped_without_conv_nested_ones_too_and_the_table_says_so(norm, kind):
    model, config = build(SWAPPED_NET, norm=norm, l2=1e-3)
    rows = {row.name: row for row in layer_table(model, config)}
    assert list(rows) == ["first", "norm", "deep", "ln", "head"]
    assert [(rows[name].kind, rows[name].norm) for name in ("norm", "ln")] == [(kind, norm)] * 2
    assert rows["norm"].note == ("" if norm == "bn" else "was BatchNormalization")
    assert rows["ln"].note == "was LayerNormalization"
    assert [rows[name].l2 for name in ("first", "deep", "head")] == [1e-3] * 3
    assert rows["deep"].kernel_norm == pytest.approx(
        np.linalg.norm(trained_layers(model)["deep"][0].kernel.numpy().ravel())
    )


def test_norms_of_maps_of_one_pixel_are_refused_by_the_batch_size():
    text = SWAPPED_NET.replace("L.Conv2D(4, 3", "L.Conv2D(4, 6")
    build(text, norm="bn", batch_size=2)
    with pytest.raises(UsageError, match=r"at least two values a statistic\. .*bn .* map of 1x1x4 at batch size 1"):
        build(text, norm="bn", batch_size=1)


@pytest.mark.parametrize("text", [RESIDUAL_NET, SWAPPED_NET], ids=["conv", "swapped"])
def test_arms_start_from_the_same_kernels_whatever_was_built_before(text):
    settings = {"penalty_at": ("hidden=0,0",)} if text == RESIDUAL_NET else {}
    state = random.getstate()
    first, _ = build(text, norm="gn", seed=3, **settings)
    assert random.getstate() == state  # a notebook's own
    keras.layers.Dense(3)
    other, _ = build(text, norm="none", seed=3, **settings)
    assert [name for name, _ in kernels(first)] == [name for name, _ in kernels(other)]
    for (_, mine), (_, its) in zip(kernels(first), kernels(other), strict=True):
        np.testing.assert_array_equal(mine, its)
    apart, _ = build(text, norm="gn", seed=4, **settings)
    assert all((to_numpy(mine) != to_numpy(its)).any() for (_, mine), (_, its) in zip(kernels(first), kernels(apart)))  # noqa: B905


def test_compiled_blocks_are_used_where_the_run_is_long():
    for text, settings in ((SWAPPED_NET, {}), (RESIDUAL_NET, {"penalty_at": ("hidden=0,0",)})):
        config = own_net(text, norm="gn", batch_size=4, **settings)
        for fused in (False, True):
            model = build_model(config, image_shape=SHAPE, num_classes=CLASSES, fused=fused)
            norms = [layer for layer in model._flatten_layers() if type(layer).__name__ == "GroupNormalization"]
            assert [layer.fused for layer in norms] == [fused] * len(norms)
            assert len(norms) > 1


def test_a_net_of_dense_layers_alone_is_watched_at_its_last_hidden_one(images):
    text = """
    import keras

    def net(image_shape, num_classes):
        layers = [keras.layers.Flatten(), keras.layers.Dense(7, name="hidden"), keras.layers.Dense(num_classes)]
        return keras.Sequential([keras.Input(image_shape), *layers])
    """
    model, config = build(text, norm="none")
    watched = Watch(model, config, images).measure()
    inner = model.get_layer(model.layers[-1].name)
    hidden = inner.get_layer("hidden")(images.reshape(4, -1) / np.float32(255))
    assert watched.layer == "hidden"
    assert watched.activations == pytest.approx(np.percentile(hidden, (1, 20, 80, 99)), rel=1e-4, abs=1e-6)


def net(body, arguments="image_shape, num_classes, conv"):
    lines = "\n    ".join(body.split("; "))
    return f"import keras\nfrom keras import layers as L\n\ndef net({arguments}):\n    {lines}\n"


IMAGE = "image = keras.Input(image_shape); "
LOGITS = "L.Dense(num_classes)(L.Flatten()(conv(image, 4)))"
PLAIN = "L.Dense(num_classes)(L.Flatten()(L.Conv2D(4, 3)(image)))"
TWO = "image_shape, num_classes"
ENDS = r"^A net ends in logits: .* Received: net, which ends in softmax\. Remove it\."
WRONG = {
    "raises": (net("x = 1; raise ValueError('too\\nsmall')"), {}, r"net, line 6: ValueError: too small\. Fix it\."),
    "nothing": (
        net("conv(keras.Input(image_shape), 4)"),
        {},
        r"returns a keras\.Model .*Received: net, which returns noth",
    ),
    "a layer": (net("return L.Dense(3)"), {}, r"Received: net, which returns Dense\. End it by return keras\.Model"),
    "unbuilt": (
        net("return keras.Sequential([L.Dense(3)])", TWO),
        {"norm": "none"},
        r"net, which returns Sequential\.",
    ),
    "arguments": (
        net("return 1", "width"),
        {},
        r"takes image_shape and num_classes, .*Received: net\(width\): too many",
    ),
    "no conv call": (net(IMAGE + f"return {PLAIN}"), {}, r"argument conv calls it\. Received: net, which never does\."),
    "conv unused": (
        net(IMAGE + f"conv(image, 8); return {LOGITS}"),
        {},
        r"^What conv makes is part of the net\. Received: conv1 of net, whose result is not used\.",
    ),
    "conv of vectors": (
        net("conv(keras.Input((3,)), 4)"),
        {},
        r"^conv takes a map \(N, H, W, C\) of known size\. Received: \(None, 3\)\.",
    ),
    "conv of any size": (net("conv(keras.Input((None, None, 3)), 4)"), {}, r"Received: \(None, None, None, 3\)\."),
    "conv of a number": (net("conv(3, 4)"), {}, r"of known size\. Received: int\. Begin with keras\.Input"),
    "two names": (
        net(
            IMAGE
            + "x = L.Dense(3, name='a')(image); x = L.Dense(3, name='a')(conv(x, 4)); return keras.Model(image, x)"
        ),
        {},
        r'^Two layers of a model have two names\. Received: net: The name "a" is used 2 times',
    ),
    "a name of convs": (
        net(IMAGE + "return keras.Model(image, L.Conv2D(3, 3, name='conv1')(conv(image, 4)))"),
        {},
        r'The name "conv1" is used 2 times .* those of conv are conv1, conv2, …',
    ),
    "shape": (
        net(IMAGE + f"return keras.Model(image, {PLAIN.replace('num_classes', '7')})", TWO),
        {"norm": "none"},
        r"^A net answers with a logit a class\. Received: net with float32 Nx7 for 5 classes\.",
    ),
    "map": (net(IMAGE + "return conv(image, num_classes)"), {}, r"Received: net with float32 Nx8x8x5 for 5 classes\."),
    "dtype": (
        net(IMAGE + "return L.Dense(num_classes, dtype='float16')(L.Flatten()(conv(image, 4)))"),
        {},
        r"Received: net with float16 Nx5 for 5 classes\. End it by keras\.layers\.Dense\(num_classes\)\.",
    ),
    "softmax": (net(IMAGE + f"return L.Softmax()({LOGITS})"), {}, ENDS),
    "softmax by name": (net(IMAGE + f"return L.Reshape((5,))(L.Activation('softmax')({LOGITS}))"), {}, ENDS),
    "softmax in Dense": (net((IMAGE + f"return {LOGITS}").replace("ses)", 'ses, activation="softmax")')), {}, ENDS),
    "softmax as operation": (net(IMAGE + f"return keras.ops.softmax({LOGITS})"), {}, ENDS),
    "sigmoid": (net(IMAGE + f"return L.Activation('sigmoid')({LOGITS})"), {}, ENDS.replace("softmax\\.", "sigmoid\\.")),
    "softmax of a nested model": (
        net(IMAGE + "i = keras.Input((5,)); top = keras.Sequential([i, L.Softmax()]); " + f"return top({LOGITS})"),
        {},
        ENDS,
    ),
    "two inputs": (
        net(IMAGE + f"other = keras.Input((5,)); return keras.Model([image, other], L.Add()([{LOGITS}, other]))"),
        {},
        r"^A net goes from one image to its logits\. Received: net with 2 inputs and 1 outputs\.",
    ),
    "input of another shape": (
        net(f"image = keras.Input((9, 9, 3)); return {LOGITS}"),
        {},
        r"^A net's Input has the shape of the images, .* Received: net with float32 Nx9x9x3, images are Nx8x8x3\.",
    ),
    "input of pixels": (
        net("image = keras.Input(image_shape, dtype='uint8'); " + f"return {LOGITS}"),
        {},
        r"in floats\. Received: net with uint8 Nx8x8x3, images are Nx8x8x3\. Write keras\.Input\(image_shape\)\.",
    ),
    "no kernel": (
        net(IMAGE + "return L.Dense(num_classes, trainable=False)(L.Flatten()(image))", TWO),
        {"norm": "none"},
        r"^A net has kernels that are trained\. Received: net_none without one\.",
    ),
    "no norm": (
        net(IMAGE + f"return {PLAIN}", TWO),
        {"norm": "gn"},
        r"^A net without the argument conv has norms to be swapped\. Received: net without one, norm='gn'\. Give --n",
    ),
    "settings of conv": (
        net(IMAGE + f"return {PLAIN}", TWO),
        {"dropout": 0.1},
        r"^--dropout belongs to nets whose function has the argument conv\. Received: dropout=0\.1 for net\.",
    ),
    "two penalties": (
        RESIDUAL_NET,
        {"l2": 1e-3},
        r"^A weight has one penalty\. Received: hidden of net with L1 of its own, and l1=0, l2=0\.001\. .*hidden=0,0\.",
    ),
    "an unknown layer": (
        RESIDUAL_NET,
        {"norm_at": ("conv9=bn",)},
        r"^--norm-at takes a layer that has a norm\. Received: 'conv9'\. Did you mean 'conv3'\? Known: conv1, conv2",
    ),
    "an unknown penalty": (
        RESIDUAL_NET,
        {"penalty_at": ("dense=0,1",)},
        r"^--penalty-at takes a layer with a kernel\. Received: 'dense'\. .*Known: conv1, .*hidden, head",
    ),
    "a step of its own": (
        "import keras\n\nclass Model(keras.Model):\n    def train_step(self, data):\n        return {}\n\n"
        + net(IMAGE + f"return Model(image, {LOGITS})"),
        {},
        r"^A net is trained by kernorm's own steps and loss\. Received: net, whose Model has a train_step of its own\.",
    ),
    "a fixed number of images": (
        net(f"image = keras.Input(image_shape, batch_size=8); return {LOGITS}"),
        {},
        r"^A net takes any number of images\. Received: net with an Input of batch_size=8\. Write keras\.Input\(ima",
    ),
    "groups": (
        RESIDUAL_NET,
        {"norm": "gn", "groups": 3},
        r"groups=3, conv1 has 4 channels\. Give auto, or one of 1, 2, 4",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_function_that_makes_no_such_net_is_refused_in_one_line(case):
    text, settings, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as refused:
        build(text, **settings)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


RANDOM_NET = """
import keras
from keras import layers as L


def net(image_shape, num_classes, conv):
    image = keras.Input(image_shape)
    x = L.Flatten()(conv(image, 4, strides=2))
    weights = keras.random.normal((x.shape[-1], 16))
    return L.Dense(num_classes)(keras.ops.cos(keras.ops.matmul(x, weights)))
"""


def test_random_numbers_of_a_function_are_the_same_at_every_build(images):
    """Else what is exported would be another net than the one that was trained."""
    first, _ = build(RANDOM_NET)
    keras.random.normal((3,))
    keras.utils.set_random_seed(77)
    drawn = to_numpy(keras.random.normal((3,)))
    keras.utils.set_random_seed(77)
    second, _ = build(RANDOM_NET)
    np.testing.assert_array_equal(to_numpy(keras.random.normal((3,))), drawn)  # what is outside is left as it was
    second.set_weights(first.get_weights())
    np.testing.assert_array_equal(to_numpy(second(images)), to_numpy(first(images)))
    other, _ = build(RANDOM_NET, seed=1)
    other.set_weights(first.get_weights())
    assert np.abs(to_numpy(other(images)) - to_numpy(first(images))).max() > 1e-3


def test_a_file_that_sets_another_policy_is_refused_and_leaves_none():
    text = "import keras\n\nkeras.mixed_precision.set_global_policy('mixed_float16')\n" + SWAPPED_NET
    told = (
        r"^Nets are made in float32\. Received: .*, whose file sets Keras' policy to mixed_float16\. Remove that line"
    )
    with pytest.raises(UsageError, match=told):
        build(text)
    assert keras.config.dtype_policy().name == "float32"
