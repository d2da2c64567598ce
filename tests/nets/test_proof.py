"""The proof of a penalty, on models that have it and on ones whose training forgets it, as the published ones did."""

import signal
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L  # noqa: N812
from keras import ops

from kernorm.errors import UsageError
from kernorm.nets.probe import gradients_of
from kernorm.nets.proof import prove_penalty
from kernorm.nets.regularize import add_penalties
from tests.builders import Deleted

R = keras.regularizers
X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 5, 16)


def graph(first=None, head=None, **words):
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, kernel_regularizer=first, name="first", **words)(image)
    x = L.Dropout(0.3)(L.ReLU()(L.BatchNormalization(name="norm")(x)))
    return image, L.Dense(5, kernel_regularizer=head, name="head")(L.GlobalAveragePooling2D()(x))


def compiled(model, optimizer="adam"):
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def net(first=None, head=None, kind=keras.Model, **words):
    return compiled(kind(*graph(first, head), name="mine"), **words)


def test_a_penalty_that_is_on_is_proven_weight_by_weight():
    model = net(R.L1L2(1e-3, 1e-2), R.L2(1e-6))
    first, head = (model.get_layer(name).kernel.numpy().astype(float) for name in ("first", "head"))
    wanted = 1e-3 * np.abs(first).sum() + 1e-2 * np.square(first).sum(), 1e-6 * np.square(head).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as in a strict test suite
        proof = prove_penalty(model, X, Y)
    assert proof.holds
    assert [(row.variable, row.regularizer, row.l1, row.l2) for row in proof.rows] == [
        ("first/kernel", "L1L2", 1e-3, 1e-2),
        ("head/kernel", "L2", 0.0, 1e-6),
    ]
    assert [row.formula for row in proof.rows] == pytest.approx(wanted, rel=1e-12)
    assert [row.penalty for row in proof.rows] == pytest.approx(wanted, rel=1e-5)
    assert proof.in_loss == pytest.approx(sum(wanted), rel=1e-4)
    assert [row.felt for row in proof.rows] == pytest.approx([1, 1], rel=1e-3)
    assert str(proof).endswith("The penalty is on.")


def test_the_model_is_left_as_it_was():
    model = net(R.L2(1e-2), optimizer=keras.optimizers.Adam(1e-3))
    model.get_layer("head").kernel.constraint = limit = keras.constraints.MaxNorm(1.0)
    model.train_on_batch(X, Y)
    weights, step = model.get_weights(), int(model.optimizer.iterations)
    seeds = [v.numpy() for v in model.variables if "seed" in v.path]
    optimizer, kinds = model.optimizer, [v.regularizer for v in model.weights]
    prove_penalty(model, X, Y)
    assert (model.optimizer, int(model.optimizer.iterations)) == (optimizer, step)
    assert [v.regularizer for v in model.weights] == kinds
    assert model.get_layer("head").kernel.constraint is limit
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(seeds, [v.numpy() for v in model.variables if "seed" in v.path], strict=True):
        np.testing.assert_array_equal(old, new)
    # And it trains on, by its own optimizer.
    model.train_on_batch(X, Y)
    assert int(model.optimizer.iterations) == step + 1
    assert not np.array_equal(model.get_weights()[0], weights[0])


class Forgets(keras.Model):
    """A training loop of one's own that minimizes the data's loss alone, and counts right."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.data_loss(y, self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}

    def data_loss(self, y, logits):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))


class TakesTheOther(Forgets):
    """The first published fault: the L1 norm times the L2 coefficient, ten times the stated one."""

    def data_loss(self, y, logits):
        return super().data_loss(y, logits) + 5e-3 * ops.sum(ops.abs(self.get_layer("first").kernel))


class OptimizerOfItsOwn(Forgets):
    """A loop that applies its gradients by another optimizer than the compiled one."""

    def train_step(self, data):
        return {"loss": self.data_loss(data[1], self(data[0], training=True))}


class LossOfItsOwn(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a loop by TensorFlow's tape")
def test_a_training_loop_that_forgets_the_penalty_is_caught():
    proof = prove_penalty(net(R.L1(5e-4), kind=Forgets), X, Y)
    assert proof.in_loss == pytest.approx(proof.by_regularizers, rel=1e-3)  # evaluate would not tell
    assert [row.felt for row in proof.rows] == [pytest.approx(0, abs=1e-6), None]
    assert proof.problems == ("first/kernel: the training step does not apply its penalty.",)
    proof = prove_penalty(net(None, R.L2(1e-3), kind=LossOfItsOwn), X, Y)
    assert [text.split(":")[0] for text in proof.problems] == [
        proof.problems[0],
        "head/kernel",
    ]
    assert proof.problems[0].startswith("The compiled loss holds 0 nats of penalty; the regularizers give ")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a loop by TensorFlow's tape")
def test_a_step_that_cannot_be_seen_is_no_proof():
    proof = prove_penalty(net(R.L1(5e-4), kind=OptimizerOfItsOwn), X, Y)
    assert proof.problems == (
        "The training step does not use the compiled optimizer, so that what it applies cannot be seen.",
    )
    assert [row.felt for row in proof.rows] == [None, None]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a loop by TensorFlow's tape")
def test_the_published_fault_is_caught_by_the_statement():
    proof = prove_penalty(net(kind=TakesTheOther), X, Y, l1=5e-4, l2=0.0)
    assert proof.problems == tuple(f"{name}/kernel: λ1 = 0.0005 is stated, 0 is on." for name in ("first", "head"))


def test_a_regularizer_that_was_set_too_late_is_none():
    """The second published fault in Keras' form: what looks like a penalty is only logged."""
    model = net()
    for layer in model.layers:
        layer.kernel_regularizer = R.L2(1e-3)  # of a layer that is built: without effect
    assert prove_penalty(model, X, Y).problems == ("No weight that is trained has a regularizer.",)
    add_penalties(model, l2=1e-3)
    assert prove_penalty(model, X, Y, l1=0.0, l2=1e-3).holds
    assert prove_penalty(model, X, Y, l2=5e-4).problems == tuple(
        f"{name}/kernel: λ2 = 0.0005 is stated, 0.001 is on." for name in ("first", "head")
    )


def test_mixed_models_are_described():
    """Frozen layers, activity regularizers, a regularizer of another kind, decoupled weight decay, shared layers."""
    image = keras.Input((8, 8, 3))
    frozen = L.Conv2D(4, 1, kernel_regularizer=R.L2(1.0), trainable=False, name="frozen")
    shared = L.Dense(4, kernel_regularizer=R.L2(1e-2), name="shared")
    x = shared(shared(frozen(image)))
    x = L.Dense(4, kernel_regularizer=R.OrthogonalRegularizer(0.1), name="orthogonal")(L.GlobalAveragePooling2D()(x))
    x = L.Dense(3, activity_regularizer=R.L1(1e-3), name="active")(x)
    inner = keras.Sequential([keras.Input((3,)), L.Dense(5, bias_regularizer=R.L1(1e-2), name="inner")])
    inner.layers[0].bias.assign(np.ones(5))
    model = compiled(keras.Model(image, inner(x)), keras.optimizers.AdamW(weight_decay=0.004))
    proof = prove_penalty(model, X, Y)
    rows = {"/".join(row.variable.split("/")[-2:]): row for row in proof.rows}
    assert proof.holds, proof.problems
    assert (rows["frozen/kernel"].trainable, rows["frozen/kernel"].penalty, rows["frozen/kernel"].felt) == (
        False,
        0,
        None,
    )
    kernel = shared.kernel.numpy().astype(float)
    assert rows["shared/kernel"].penalty == pytest.approx(1e-2 * np.square(kernel).sum(), rel=1e-5)
    orthogonal = rows["orthogonal/kernel"]
    assert (orthogonal.regularizer, orthogonal.formula, orthogonal.felt) == ("OrthogonalRegularizer", None, 1.0)
    assert orthogonal.penalty == pytest.approx(
        float(R.OrthogonalRegularizer(0.1)(model.get_layer("orthogonal").kernel))
    )
    assert rows["inner/bias"].penalty == pytest.approx(0.05)
    hidden = keras.Model(model.input, model.get_layer("active").output)(X).numpy()
    assert proof.activity == pytest.approx(1e-3 * np.abs(hidden).sum() / len(X), rel=1e-3)
    assert [text.split(":")[0].split(" of ")[0] for text in proof.notes] == [
        "Frozen, so that their regularizers add nothing",
        "Kernels without a penalty",
        "Regularizers",
        "The optimizer's weight decay",
    ]


def test_refuses_what_it_cannot_prove():
    with pytest.raises(UsageError, match=r"^A penalty is proven in a compiled model\. Received: mine, which is not\."):
        prove_penalty(keras.Model(*graph(), name="mine"), X, Y)
    with pytest.raises(UsageError, match=r"^A penalty is proven on a batch that the model takes\. Received: "):
        prove_penalty(net(), X[:, :4, :4, :2], Y)


class Interrupted(keras.Model):
    def compute_loss(self, *args, **options):
        loss = super().compute_loss(*args, **options)
        Deleted(signal.SIGINT)
        return loss


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_proof_leaves_the_model_as_it_was():
    model = net(R.L2(1e-3), kind=Interrupted)
    optimizer, before = model.optimizer, [variable.numpy() for variable in model.variables]
    with pytest.raises(KeyboardInterrupt):
        gradients_of(model, X, Y)
    assert model.optimizer is optimizer
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
