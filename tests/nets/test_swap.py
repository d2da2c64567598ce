"""Norms swapped and penalties set in models that others have built, against nets that were built that way."""

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.model import build_model
from kernorm.nets.norms import NORMS
from kernorm.nets.regularize import add_penalties
from kernorm.nets.swap import swap_norm

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def small(norm=None, name="small"):
    """A functional net whose norm layer can be given."""
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="first")(image)
    x = (norm or L.BatchNormalization(name="norm"))(x)
    x = L.ReLU()(x)
    return keras.Model(image, L.Dense(5, name="head")(L.GlobalAveragePooling2D()(x)), name=name)


@pytest.fixture(scope="module")
def eva6():
    return build_model(TrainConfig(net="eva6", seed=3), image_shape=(14, 14, 1), num_classes=10)


@pytest.mark.parametrize("norm", [*NORMS, "none"])
def test_a_swapped_net_is_the_net_that_is_built_so(norm, eva6):
    images = np.random.default_rng(1).integers(0, 256, (6, 14, 14, 1), dtype=np.uint8)
    config = TrainConfig(net="eva6", seed=3, norm=norm, ghost_batch_size=3)
    built = build_model(config, image_shape=(14, 14, 1), num_classes=10)
    swapped = swap_norm(eva6, norm, ghost_batch_size=3)
    assert [variable.path for variable in swapped.weights] == [variable.path for variable in built.weights]
    for training in (False, True):
        np.testing.assert_array_equal(swapped(images, training=training), built(images, training=training))


def test_there_and_back_is_the_same_model():
    model = small()
    back = swap_norm(swap_norm(model, "gn", groups=4), "bn")
    assert [variable.path for variable in back.weights] == [variable.path for variable in model.weights]
    for old, new in zip(model.weights, back.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert isinstance(swap_norm(model, "gn", groups=4).get_layer("norm"), keras.layers.GroupNormalization)
    assert swap_norm(model, "gn", groups=4).get_layer("norm").groups == 4


def test_what_belongs_to_a_norm_is_carried():
    l2, keep = keras.regularizers.L2(1e-3), keras.constraints.NonNeg()
    norm = L.BatchNormalization(
        name="norm", epsilon=0.01, center=False, gamma_regularizer=l2, gamma_constraint=keep, gamma_initializer="zeros"
    )
    model = small(norm)
    norm.gamma.assign(np.arange(8.0))
    made = swap_norm(model, "ln").get_layer("norm")
    assert (made.epsilon, made.center, made.scale) == (0.01, False, True)
    assert (type(made.gamma_constraint), made.gamma.regularizer.l2) == (keras.constraints.NonNeg, l2.l2)
    np.testing.assert_array_equal(made.gamma, np.arange(8.0))
    frozen = small()
    frozen.get_layer("norm").trainable = frozen.get_layer("first").trainable = False
    made = swap_norm(frozen, "gn")
    assert [layer.trainable for layer in (made.get_layer("norm"), made.get_layer("first"))] == [False, False]
    assert [variable.path for variable in made.trainable_variables] == ["head/kernel", "head/bias"]
    frozen.trainable = False
    assert not swap_norm(frozen, "gn").trainable_variables


@pytest.mark.parametrize(("norm", "name"), [("rms", "scale"), ("frn", "gamma")])
def test_the_scale_keeps_its_values_in_norms_that_call_it_otherwise(norm, name):
    model = small()
    model.get_layer("norm").gamma.assign(np.arange(8.0))
    made = swap_norm(model, norm)
    np.testing.assert_array_equal(getattr(made.get_layer("norm"), name), np.arange(8.0))
    np.testing.assert_array_equal(swap_norm(made, "ln").get_layer("norm").gamma, np.arange(8.0))


def test_a_penalty_of_the_scale_goes_to_norms_that_have_one_and_is_refused_by_others():
    penalized = add_penalties(swap_norm(small(), "rms"), l2=0.1, penalize="all")
    made = swap_norm(penalized, "gn").get_layer("norm")
    assert (made.gamma.regularizer.l2, made.get_config()["gamma_regularizer"]["config"]["l2"]) == (0.1, 0.1)
    assert made.beta.regularizer is None  # rms has no offset
    for norm in ("rms", "frn"):
        with pytest.raises(UsageError, match=rf"norm {norm} takes no reg.*gamma, which has a regularizer\. Swap"):
            swap_norm(swap_norm(penalized, "gn"), norm)
        with pytest.raises(UsageError, match=r"takes no regularizer or constraint\. .*which has a constraint"):
            swap_norm(small(L.BatchNormalization(gamma_constraint="non_neg")), norm)


def test_a_weight_that_is_frozen_by_itself_stays_so():
    model = small()
    model.get_layer("first").kernel.trainable = model.get_layer("norm").gamma.trainable = False
    model.get_layer("head").bias.trainable = False
    for norm in ("ln", "rms"):
        made = swap_norm(model, norm)
        left = {variable.path for variable in made.trainable_variables}
        assert left == {"head/kernel", *(["norm/beta"] if norm == "ln" else [])}


def test_ghost_batches_of_vectors_are_those_of_maps_of_one_pixel():
    """Eight vectors in ghost batches of three: means and variances of images 0 to 2, 3 to 5, 6 and 7, by NumPy."""
    vectors = np.random.default_rng(4).normal(size=(8, 6)).astype(np.float32)
    model = keras.Sequential([keras.Input((6,)), L.BatchNormalization(name="norm")])
    made = swap_norm(model, "gbn", ghost_batch_size=3)
    found = np.asarray(made(vectors, training=True))
    ghosts = [vectors[first : first + 3].astype(np.float64) for first in (0, 3, 6)]
    epsilon = model.get_layer("norm").epsilon
    expected = np.concatenate([(one - one.mean(0)) / np.sqrt(one.var(0) + epsilon) for one in ghosts])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    moving = made.get_layer("norm").moving_mean
    np.testing.assert_allclose(moving, (1 - made.get_layer("norm").momentum) * vectors.mean(0), rtol=1e-4, atol=1e-6)


class Halved(L.Layer):
    """A layer of a user, without get_config(); with weights if it is given their number."""

    def __init__(self, function, weights=0, **words):
        super().__init__(**words)
        self.function, self.count = function, weights

    def build(self, shape):
        if self.count:
            self.add_weight(shape=(self.count,), name="own")

    def call(self, inputs):
        return self.function(inputs)


class Wide(L.Layer):
    """A layer whose get_config() forgets how wide it is."""

    def __init__(self, units=4, **words):
        super().__init__(**words)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)

    def get_config(self):
        return {"name": self.name}


@pytest.mark.parametrize("layer", [lambda: L.Lambda(lambda x: x / 2), lambda: Halved(lambda x: x / 2)])
def test_layers_of_a_users_python_stay_where_they_have_no_weights(layer):
    model = keras.Sequential([keras.Input((8, 8, 3)), layer(), L.BatchNormalization(), L.Flatten(), L.Dense(3)])
    same = keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(0.5), L.BatchNormalization(), L.Flatten(), L.Dense(3)])
    same.set_weights(model.get_weights())
    np.testing.assert_allclose(swap_norm(model, "ln")(IMAGES), swap_norm(same, "ln")(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_layer_with_weights_that_cannot_be_made_again_is_refused():
    layer = Halved(lambda x: x / 2, weights=2, name="mine")
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, L.BatchNormalization(), L.Flatten(), L.Dense(3)])
    with pytest.raises(UsageError, match=r"can be made again\. Received: mine, .*Write get_config\(\) of Halved"):
        swap_norm(model, "ln")
    wide = Wide(16, name="wide")
    model = keras.Sequential([keras.Input((8,)), wide, L.BatchNormalization(), L.Dense(3)])
    told = r"wide, whose weights are \[\(8, 16\)\], and \[\(8, 4\)\] by its get_config\(\)\. Write get_config"
    with pytest.raises(UsageError, match=told):
        swap_norm(model, "ln")
    vectors = keras.Input((16,))
    x = L.BatchNormalization()(L.Add()([vectors, Wide(16, name="wide")(vectors)]))  # which the graph notices first
    with pytest.raises(UsageError, match=told.replace("8,", "16,")):
        swap_norm(keras.Model(vectors, L.Dense(3)(x)), "ln")


@pytest.mark.parametrize("attention", [lambda: L.MultiHeadAttention(2, 3), lambda: L.GroupQueryAttention(3, 4, 2)])
def test_the_penalties_of_attention_are_in_its_settings(attention):
    image = keras.Input((4, 6))
    attended = attention()(image, image)
    model = keras.Model(image, L.Dense(3)(L.Flatten()(attended)))
    add_penalties(model, l2=0.1, penalize="all")
    again = keras.Model.from_config(model.get_config())
    told = [[variable.regularizer and variable.regularizer.l2 for variable in one.weights] for one in (model, again)]
    assert told == [[0.1] * len(model.weights)] * 2


def test_norms_of_nested_models_are_swapped_and_shared_ones_stay_shared():
    inner = keras.Sequential([L.Conv2D(8, 3, padding="same"), L.BatchNormalization(name="in_sequence")], name="inner")
    image = keras.Input((8, 8, 3))
    branch = keras.Model(image, L.BatchNormalization(name="in_branch")(inner(image)), name="branch")
    shared = L.BatchNormalization(name="shared")
    x = branch(image)
    x = L.Concatenate()([shared(x), shared(L.ReLU()(x))])
    outer = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.Model(image, x, name="body"), L.GlobalAveragePooling2D(), L.Dense(3)]
    )
    made = swap_norm(outer, "in")
    norms = [layer for layer in made._flatten_layers() if "Normalization" in type(layer).__name__]
    assert sorted(layer.name for layer in norms) == ["in_branch", "in_sequence", "shared"]
    assert {layer.groups for layer in norms} == {8}  # one a channel
    assert made(IMAGES).shape == (4, 3)
    kernels = [[v.numpy() for v in model.weights if "kernel" in v.path] for model in (outer, made)]
    for old, new in zip(*kernels, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_norm_of_vectors_is_swapped():
    vector = keras.Input((8,))
    model = keras.Model(vector, L.BatchNormalization(name="norm")(L.Dense(6)(vector)))
    x = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    for norm in ("ln", "gn"):
        made = swap_norm(model, norm, groups=1)
        hidden = x @ model.layers[1].kernel.numpy()
        wanted = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-3)
        np.testing.assert_allclose(made(x), wanted, atol=1e-5)


def test_a_model_that_was_compiled_stays_so():
    model = small()
    model.compile("sgd", "mse")
    assert swap_norm(model, "gn").compiled
    assert not swap_norm(small(), "gn").compiled


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = L.BatchNormalization(name="norm")

    def call(self, x):
        return self.norm(x)


class Block(L.Layer):
    def __init__(self, **words):
        super().__init__(**words)
        self.norm = L.BatchNormalization(name="hidden")

    def call(self, x):
        return self.norm(x)


def with_block():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, Block(name="block")(image), name="outer")


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        (small, {"norm": "gm"}, r"^A norm is a known one\. Received: 'gm'\. Did you mean 'gn'\?"),
        (
            small,
            {"norm": "gn", "groups": 3},
            r"^--groups must divide the channels of every layer\. Received: groups=3, norm",
        ),
        (Subclassed, {"norm": "gn"}, r"^A model whose norms are swapped is built by the functional .* a Subclassed\."),
        (lambda: keras.Sequential([L.BatchNormalization()]), {"norm": "gn"}, r"is built\. Received: .*, which is not"),
        (with_block, {"norm": "gn"}, r"Received: hidden inside another layer of outer\. Give that layer its norm"),
        (
            lambda: keras.Sequential([keras.Input((3,)), L.Dense(2)]),
            {"norm": "gn"},
            r"has some\. Received: .* without one",
        ),
        (
            lambda: keras.Sequential([keras.Input((1, 1, 3)), L.BatchNormalization(name="norm")]),
            {"norm": "in"},
            r"^A norm needs at least two values a statistic\. Received: in over H,W at norm, a map of 1x1x3",
        ),
        (
            lambda: keras.Sequential([keras.Input((3, 8, 8)), L.BatchNormalization(axis=1, name="norm")]),
            {"norm": "gn"},
            r"channels last\. Received: norm of inputs \(None, 3, 8, 8\), axis=1\.",
        ),
    ],
)
def test_refuses_a_swap_that_cannot_be(model, words, message):
    with pytest.raises(UsageError, match=message):
        swap_norm(model(), **words)


def test_penalties_are_set_where_training_sees_them():
    model = add_penalties(small(), l1=1e-3, l2=1e-2)
    kernels = [variable for variable in model.trainable_variables if variable.path.endswith("kernel")]
    wanted = sum(1e-3 * np.abs(v.numpy()).sum() + 1e-2 * np.square(v.numpy()).sum() for v in kernels)
    assert len(kernels) == len(model.losses) == 2
    assert sum(map(float, model.losses)) == pytest.approx(wanted, rel=1e-6)
    # They are saved with the model.
    again = keras.models.model_from_json(model.to_json())
    assert again.get_layer("first").kernel_regularizer.l2 == pytest.approx(1e-2)
    every = add_penalties(small(), l2=1e-2, penalize="all")
    assert len(every.losses) == len(every.trainable_variables) == 5
    assert not add_penalties(model, replace=True).losses


def test_frozen_layers_and_depthwise_kernels():
    image = keras.Input((8, 8, 3))
    x = L.SeparableConv2D(4, 3, name="separable")(L.Conv2D(3, 1, name="frozen", trainable=False)(image))
    x = L.BatchNormalization()(L.DepthwiseConv2D(3, name="depthwise")(x))
    model = add_penalties(keras.Model(image, L.Flatten()(x)), l2=1e-2)
    for one in (model, swap_norm(model, "gn"), keras.models.model_from_json(model.to_json())):
        found = {variable.path for variable in one.weights if variable.regularizer}
        assert found == {"separable/depthwise_kernel", "separable/pointwise_kernel", "depthwise/kernel"}


def test_a_model_that_was_trained_before_feels_a_new_penalty():
    model = small()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.zeros((4, 5), np.float32)
    model.train_on_batch(IMAGES, y)
    before = model.evaluate(IMAGES, y, verbose=0)
    add_penalties(model, l2=1.0)
    kernels = [v.numpy() for v in model.trainable_variables if v.path.endswith("kernel")]
    penalty = sum(np.square(kernel).sum() for kernel in kernels)
    assert model.evaluate(IMAGES, y, verbose=0) == pytest.approx(before + penalty, rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"l1": -1.0}, r"^λ is a finite number of at least 0\. Received: l1=-1\.0"),
        ({"l2": float("nan")}, r"^λ is a finite number of at least 0\. Received: l2=nan"),
        ({"penalize": "biases"}, r"^penalize is kernels or all\. Received: 'biases'"),
    ],
)
def test_refuses_penalties_that_are_none(words, message):
    with pytest.raises(UsageError, match=message):
        add_penalties(small(), **words)


def test_refuses_to_penalize_twice_and_what_has_no_kernel():
    model = add_penalties(small(), l2=1e-2)
    with pytest.raises(UsageError, match=r"^A kernel has one regularizer\. Received: first/kernel, which has L1L2\."):
        add_penalties(model, l2=1e-3)
    model = small()
    model.trainable = False
    with pytest.raises(UsageError, match=r"^A model that is penalized has trainable kernels\. Received: small without"):
        add_penalties(model, l2=1e-3)
    with pytest.raises(UsageError, match=r"^A model that is penalized is built\. Received: "):
        add_penalties(keras.Sequential([L.Dense(2)]), l2=1e-3)
