"""Models that others would bring: ten of them swapped and proven or refused, and what a run on one is known by."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812

import kernorm
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets import layers, source
from kernorm.nets.brought import with_model
from kernorm.nets.contents import is_kernel
from kernorm.nets.model import build_model
from kernorm.nets.norms import SWAPPED, norms_of
from kernorm.nets.proof import prove_penalty
from kernorm.nets.regularize import add_penalties
from kernorm.nets.source import allow_code, with_net
from kernorm.nets.swap import swap_norm
from kernorm.saved_model.inference import load_in_batches
from kernorm.training.diagnostics import layer_table

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


def brought(seed=0, **words):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    x = block(L.Rescaling(1 / 255)(image), 4, **words)
    return keras.Model(image, L.Dense(CLASSES, name="top")(L.GlobalAveragePooling2D()(x)), name="my-model")


def build(model, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as in a strict test suite
        config = with_model(TrainConfig(**{"norm": "bn", "batch_size": 4, **settings}), model)
    return build_model(config, image_shape=(8, 8, 3), num_classes=CLASSES), config


@pytest.fixture
def given(monkeypatch):
    """The initial weights that this process was given."""
    monkeypatch.setattr(source, "_WEIGHTS", {})
    return source._WEIGHTS


def test_a_run_begins_with_the_weights_of_the_model_and_takes_pixels_as_they_are(given, rng):
    model = brought()
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    built, config = build(model, l2=1e-3)
    np.testing.assert_allclose(built(pixels), model(pixels.astype(np.float32)), rtol=1e-5, atol=1e-5)
    assert [row.l2 for row in layer_table(built, config) if row.kernel_norm] == [1e-3, 1e-3]
    swapped, _ = build(model, norm="gn")
    kinds = [type(layer).__name__ for layer in swapped._flatten_layers()]
    assert "GroupNormalization" in kinds
    assert "BatchNormalization" not in kinds
    for mine, its in zip(model.weights[:1], swapped.weights[:1], strict=True):
        np.testing.assert_array_equal(mine, its)
    assert all(variable.regularizer is None for variable in model.weights)  # what was brought stays as it was


def test_a_run_is_known_by_the_configuration_and_the_weights(given):
    first = build(brought())[1]
    assert (first.net, first.run_id.split("-")[0]) == ("my_model", "my_model")
    model = brought()
    model.compile("adam", "mse")
    names = [layer.name for layer in model.layers]
    same = keras.Model.from_config(brought().get_config())
    same.set_weights(brought().get_weights())
    again, other = with_model(TrainConfig(), same), with_model(TrainConfig(), same)
    assert again.identity == other.identity
    same.layers[-1].kernel.assign(2 * same.layers[-1].kernel)
    changed = with_model(TrainConfig(), same)
    assert changed.net_source == again.net_source
    assert changed.run_id != again.run_id
    assert len(names) == len(same.layers)
    compiled = with_model(TrainConfig(), model)
    model.compile("sgd", "mse")
    assert with_model(TrainConfig(), model).run_id == compiled.run_id
    model.layers[-1].trainable = False
    assert with_model(TrainConfig(), model).run_id != compiled.run_id


def normed(*norms):
    """A model whose convolutions have these norms, with values of their own, or none."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    for norm in norms:
        x = L.Conv2D(8, 3, padding="same")(x)
        x = L.ReLU()(norm(x) if norm else x)
    model = head(image, x)
    model.set_weights(
        [values + np.float32(0.1) * np.arange(values.size).reshape(values.shape) for values in model.get_weights()]
    )
    return model


@pytest.mark.parametrize(
    ("norms", "settings"),
    [
        ([None], {"norm": "none"}),
        ([L.BatchNormalization(momentum=0.97, epsilon=1e-2, axis=3)] * 2, {"norm": "bn"}),
        ([L.BatchNormalization(renorm=True)], {"norm": "brn"}),
        ([L.GroupNormalization(8, epsilon=0.5), L.GroupNormalization(2)], {"norm": "gn"}),
        ([L.GroupNormalization(8), L.GroupNormalization(-1)], {"norm": "in"}),
        ([L.LayerNormalization(center=False)], {"norm": "cln"}),
        ([layers.LayerNormalization()], {"norm": "ln"}),
        ([layers.GhostBatchNormalization(ghost_batch_size=2)], {"norm": "gbn", "ghost_batch_size": 2}),
        ([L.RMSNormalization(), None], {"norm": "rms"}),
        ([layers.FilterResponseNormalization()], {"norm": "frn"}),
    ],
    ids=lambda value: value.get("norm") if isinstance(value, dict) else "",
)
def test_norms_are_kept_where_none_is_asked_for(norms, settings, given, rng):
    model = normed(*norms)
    kept = with_model(TrainConfig(batch_size=4), model, keep_norms=True)
    assert {name: getattr(kept, name) for name in settings} == settings
    assert with_model(TrainConfig(batch_size=4, **settings), model).run_id == kept.run_id
    built = build_model(kept, image_shape=(8, 8, 3), num_classes=CLASSES)
    mine, its = ([layer for layer in one._flatten_layers() if layer.weights] for one in (model, built.get_layer("net")))
    for old, new in zip(mine[1:], its[1:], strict=True):  # behind the models themselves
        assert {**old.get_config(), "name": ""} == {**new.get_config(), "name": ""}
        for variable, twin in zip(old.weights, new.weights, strict=True):
            np.testing.assert_array_equal(variable, twin)
    pixels = rng.integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(built(pixels), model(pixels.astype(np.float32)))
    assert {row.norm for row in layer_table(built, kept)} - {""} == {settings["norm"]} - {"none"}


@pytest.mark.parametrize(
    ("norms", "received"),
    [
        ([L.BatchNormalization(), L.LayerNormalization()], "with BatchNormalization and LayerNormalization"),
        ([L.LayerNormalization(axis=(1, 2, 3))], "with LayerNormalization of other axes or sizes"),
        ([L.BatchNormalization(axis=1)], "with BatchNormalization of other axes or sizes"),
        ([layers.GhostBatchNormalization(ghost_batch_size=size) for size in (2, 4)], "with GhostBatchNormalization of"),
    ],
)
def test_norms_of_several_or_unknown_kinds_are_not_kept(norms, received, given):
    message = rf'^The norms of a model are kept if .* Received: functional.* {received}.* such as norm="bn"\.$'
    with pytest.raises(UsageError, match=message):
        with_model(TrainConfig(), normed(*norms), keep_norms=True)


def test_a_norm_that_is_asked_for_is_swapped_in_unless_it_is_there(given):
    model = normed(L.GroupNormalization(8), L.GroupNormalization(2))
    for settings, groups in (
        ({"norm": "gn"}, [2, 8]),
        ({"norm": "gn", "groups": 4}, [4, 4]),
        ({"norm": "none"}, []),
    ):
        norms = norms_of(build(model, **settings)[0])
        assert sorted(layer.groups for layer in norms) == groups
    with pytest.raises(UsageError, match=r"norm='bn'\. Leave out norm, or give norm='none'\.$"):
        build(normed(None))


def test_the_same_model_is_the_same_run_whatever_was_built_before(given):
    def make():
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3))
        x = L.Add()([image, image]) + image
        body = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.Conv2D(4, 3, name="mine")])
        x = L.Dense(5, activation="softmax")(L.Softmax()(L.Flatten()(body(x))))
        return keras.Model(image, L.Dense(CLASSES)(x))

    keras.backend.clear_session()
    first = make()
    [keras.layers.Dense(1) for _ in range(3)]
    again = make()
    assert first.layers[-1].name != again.layers[-1].name
    configs = [
        with_model(TrainConfig(), one, keep_norms=True) for one in (first, again, keras.models.clone_model(again))
    ]
    assert configs[0].identity == configs[1].identity
    assert configs[2].net_source == configs[0].net_source
    assert configs[0].net == "functional"
    built = build_model(configs[1], image_shape=(8, 8, 3), num_classes=CLASSES)
    assert [row.name for row in layer_table(built, configs[1])] == ["conv2d", "mine", "dense", "dense_1"]


def test_a_model_whose_names_would_clash_keeps_them(given):
    keras.backend.clear_session()
    keras.layers.Dense(1)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, L.Dense(CLASSES)(L.Flatten(name="dense")(L.Conv2D(1, 1)(image))), name="mine")
    assert '"dense_1"' in with_model(TrainConfig(norm="none"), model).net_source


def test_a_penalty_of_a_layer_is_by_its_name_in_the_model_or_in_the_run(given):
    keras.backend.clear_session()
    keras.layers.Dense(1)
    image = keras.Input((8, 8, 3))
    x = L.Dense(5)(L.Flatten()(image))
    x = L.Dense(5)(x)
    model = keras.Model(image, L.Dense(CLASSES, name="top")(x))  # behind dense_1 and dense_2, then dense and dense_1
    for name, row in (("dense_2", 1), ("dense", 0), ("top", 2)):
        built, config = build(model, norm="none", penalty_at=(f"{name}=0,0.5",))
        assert [layer.l2 for layer in layer_table(built, config)] == [0.5 * (place == row) for place in range(3)]
    with pytest.raises(UsageError, match=r"'dense_1', which is dense in the run, where .* name='top'\)\.$"):
        build(model, norm="none", penalty_at=("dense_1=0,0.5",))
    with pytest.raises(UsageError, match=r"'dense_3'\. Did you mean .* Known: dense, dense_1, top\.$"):
        build(model, norm="none", penalty_at=("dense_3=0,0.5",))


def test_its_weights_are_given_once_more_to_be_trained_but_not_to_be_loaded(given, rng):
    built, config = build(brought())
    given.clear()
    with pytest.raises(
        UsageError, match=r"^A model that was brought from Python is given once more .*: my_model, whose"
    ):
        with_net(config)
    shapes = [variable.shape for variable in build_model(config, image_shape=(8, 8, 3), num_classes=CLASSES).weights]
    assert shapes == [variable.shape for variable in built.weights]
    allow_code(config)  # there is none


def custom():
    image = keras.Input((8, 8, 3))
    return head(image, OwnLayer(name="own")(image))


def with_function():
    image = keras.Input((8, 8, 3))
    return head(image, L.Conv2D(3, 3, activation=lambda x: x)(image))


def with_lambda():
    image = keras.Input((8, 8, 3))
    return head(image, L.Lambda(lambda x: x)(image))


def without_config():
    model = own_model()
    image = keras.Input((32, 32, 3))
    return keras.Model(image, model(image))


def set_later():
    model = brought()
    model.layers[-1].kernel.regularizer = R.L2(1e-3)
    return model


def penalized():
    return brought(kernel_regularizer=R.L2(1e-3))


def probabilities():
    model = brought()
    return keras.Model(model.input, L.Softmax()(model.output))


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            own_model,
            {},
            r"^A model that is trained is built, .* Received: own_model, a OwnModel\. Build it so: a subcl",
        ),
        (lambda: 3, {}, r"Received: 3, a int\."),
        (custom, {}, r"^A model that is trained is made of layers of Keras .* Received: OwnLayer in functional"),
        (with_function, {}, r"Received: a lambda in functional.* Use one of Keras, or write the net in a file"),
        (with_lambda, {}, r"Received: a lambda in functional"),
        (without_config, {}, r"^A model that is trained (has a get_config|is made of)"),
        (set_later, {}, r"^A model that is trained is what its get_config\(\) describes\. Received: top/kernel, whose"),
        (penalized, {"l2": 1e-3}, r"^A weight has one penalty\. Received: conv2d.* of my_model with L2 of its own"),
        (probabilities, {}, r"^A net ends in logits: .* which ends in softmax\."),
        (brought, {"dropout": 0.1}, r"^--dropout belongs to nets whose function has the argument conv\."),
        (lambda: keras.Model(*[keras.Input((9, 8, 3))] * 2), {"norm": "none"}, r"images are Nx8x8x3\."),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_one_line(make, settings, message, given):
    with pytest.raises(UsageError, match=message) as refused:
        build(make(), **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_run_on_a_model_leaves_what_any_run_leaves_and_needs_no_python(given, tmp_path, boxes_cache, rng):
    keras.utils.set_random_seed(0)
    image = keras.Input((20, 20, 1), dtype="uint8")
    x = L.Rescaling(1 / 255, dtype="float32")(image)
    model = keras.Model(image, L.Dense(10)(L.GlobalAveragePooling2D()(block(x, 6, strides=2))), name="mine")
    places = {"reports_dir": tmp_path / "reports", "saved_models_dir": tmp_path / "saved_models"}
    settings = {"dataset": "boxes", "validation_size": 32, "batch_size": 40, "epochs": 1, "norm": "gn", "l2": 1e-3}
    run = kernorm.train_model(model=model, **settings, **places)
    assert run.run_id.startswith("boxes-mine-gn-l2_0.001-bs40-s0-")
    assert json.loads((run.folder / "net.json").read_text())["class_name"] == "Functional"
    assert "kernorm.train_model(model=mine, norm=&#39;gn&#39;, l2=0.001" in (run.folder / "report.html").read_text()
    assert kernorm.train_model(model=model, **settings, **places).record == run.record
    del settings["norm"]
    assert kernorm.train_model(model=model, **settings, **places).config.norm == "bn"
    given.clear()
    images, _ = run.load_validation()
    wanted = kernorm.load_run(run.folder).load_model().predict(images, verbose=0)
    exported = kernorm.load_run(run.folder).export(tmp_path / "again")
    np.testing.assert_allclose(load_in_batches(exported.path)(images), wanted, atol=1e-5)
    with pytest.raises(UsageError, match=r"^A model that was brought from Python is given once more"):
        kernorm.train_model(run.config, seed=1)
    with pytest.raises(UsageError, match=r"^A run is on a net or on a model\. Received: net='eva4' and model\."):
        kernorm.train_model(model=model, net="eva4")
