import pytest
import tensorflow as tf

from kernorm.saved_model.graph import check_graph, reachable_ops, refused_ops


@tf.custom_gradient
def odd(x):
    return x * 2.0, lambda gradient: gradient


class Module(tf.Module):
    """Signatures that hold, each, what its name says, below two calls and a loop."""

    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0.0)

    def signatures(self):
        bodies = {
            "state": lambda x: x + self.count.assign_add(1.0),
            "python": lambda x: tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), (None,)),
            "chance": lambda x: x + tf.random.normal(tf.shape(x)),
            "gradient": odd,
            "decode": lambda x: x + tf.cast(tf.io.decode_png(tf.fill([], ""))[0, 0, 0], tf.float32),
            "clean": lambda x: x + self.count,
        }
        return {name: self._nested(body) for name, body in bodies.items()} | {
            "serving_default": self._nested(bodies["decode"])
        }

    def _nested(self, body):
        inner = tf.function(body, autograph=False)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")], autograph=False)
        def outer(x):
            return {"y": tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, inner(x)), (0, x))[1]}

        return outer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    return folder


@pytest.mark.parametrize(
    ("signature", "refused"),
    [
        ("state", {"AssignAddVariableOp"}),
        ("python", {"PyFunc"}),
        ("chance", {"RandomStandardNormal"}),
        ("gradient", {"CustomGradient"}),
        ("decode", set()),
        ("clean", set()),
    ],
)
def test_what_a_signature_must_not_reach_is_found_below_calls_and_loops(folder, signature, refused):
    assert refused_ops(folder, signature) == refused


def test_the_default_signature_may_not_decode_nor_loop(folder):
    assert {"DecodePng", "While"} <= {op.removeprefix("Stateless") for op in refused_ops(folder, "serving_default")}


def test_restoring_is_not_reached(folder):
    assert "AssignVariableOp" in (folder / "saved_model.pb").read_bytes().decode("latin1")
    assert not {op for op in reachable_ops(folder, "clean") if "Assign" in op or "Restore" in op}


def test_the_check_names_the_operation_and_the_signature(folder):
    check_graph(folder, ["clean", "decode"])
    with pytest.raises(RuntimeError, match=r"^An exported model holds only .*: AssignAddVariableOp in state\."):
        check_graph(folder, ["clean", "state"])
