"""The first step of a net in a process of its own: what it shows, and what ends it."""

import json
import os
import signal

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.training import first_step
from kernorm.training.first_step import try_nets
from tests.builders import RESIDUAL_NET, own_net

DATA = Data(
    name="random",
    version="",
    sha256="",
    labels=("a", "b", "c"),
    image_shape=(8, 8, 3),
    mean=(128.0,) * 3,
    std=(64.0,) * 3,
    train=64,
    validation=0,
    test=0,
)
# Ends its process as TensorFlow does where it damages its own memory: in native code, without an exception.
CRASHING = """
import os, signal

def net(image_shape, num_classes, conv):
    os.kill(os.getpid(), signal.SIGSEGV)
"""
PROBABILITIES = """
import keras

def net(image_shape, num_classes, conv):
    image = keras.Input(image_shape)
    x = keras.ops.exp(keras.layers.Dense(num_classes)(keras.layers.Flatten()(conv(image, 2))))
    return x / keras.ops.sum(x, axis=-1, keepdims=True)
"""


def small(text, **settings):
    return own_net(text, **{"norm": "ln", "batch_size": 8, "epochs": 1, "threads": None, **settings})


@pytest.mark.slow
def test_a_net_that_works_is_described_and_one_that_crashes_is_told(capfd):
    works = small(RESIDUAL_NET + "print('noise')\n", penalty_at=("hidden=0,0",))
    with pytest.raises(UsageError) as crashed:
        try_nets([(works, DATA), (small(CRASHING), DATA)], timed=1)
    assert str(crashed.value) == (
        "A net must survive its first training step. Received: net with 8 images of 8x8x3, whose process crashed with "
        "SIGSEGV in native code. That is a fault of TensorFlow, known of 1x1 convolutions of stride 2 from few "
        "channels: set TF_ENABLE_ONEDNN_OPTS=0, or write average pooling and a 1x1 convolution of stride 1."
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "backend", "out_of_memory", "message"),
    [
        (
            -signal.SIGABRT,
            "jax",
            False,
            r"crashed with SIGABRT in native code\. Take layers out until it runs, to find",
        ),
        (-signal.SIGKILL, "tensorflow", True, r"killed by SIGKILL, for lack of memory\. Give a smaller --batch-size\."),
    ],
)
def test_what_helps_depends_on_what_ended_it(code, backend, out_of_memory, message, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(UsageError, match=message):
        raise first_step._ended(TrainConfig(), DATA, code, out_of_memory)


def test_steps_leave_layers_parameters_and_a_time():
    config = small(RESIDUAL_NET, penalty_at=("hidden=0,0",), norm="bn", l2=1e-3)
    tried = first_step._tried(config, DATA, timed=2)
    assert [layer.name for layer in tried.layers][:2] == ["conv1", "conv1_norm"]
    # 3x3 convolutions from 3 and 4 channels to 4, the 1x1 one, three norms, and both Dense layers.
    assert tried.parameters == 9 * 3 * 4 + 9 * 4 * 4 + 4 * 4 + 3 * 8 + (64 * 6 + 6) + (6 * 3 + 3)
    assert tried.parameters_total == tried.parameters + 3 * 8  # the moving statistics
    assert tried.seconds > 0


def test_answers_that_are_probabilities_are_refused_however_they_are_made():
    with pytest.raises(UsageError, match=r"^A net ends in logits: .* Received: net, whose answers are probabilities\."):
        first_step._tried(small(PROBABILITIES), DATA, timed=0)


def answered(config, tmp_path, monkeypatch):
    """What the child writes, by its own function in this process."""
    asked, answers = tmp_path / "asked.json", tmp_path / "answers.jsonl"
    asked.write_bytes(first_step._JOBS.dump_json([(config, DATA)]))
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert first_step._child([str(asked), str(answers), "0"]) == 0
    return json.loads(answers.read_text())


def test_a_layer_that_fails_in_the_step_is_one_line(tmp_path, monkeypatch):
    text = """
    import keras

    class Odd(keras.layers.Layer):
        def call(self, x, training=False):
            if training:
                raise OSError("only when it is trained")
            return x

    def net(image_shape, num_classes, conv):
        image = keras.Input(image_shape)
        return keras.Model(image, keras.layers.Dense(num_classes)(keras.layers.Flatten()(Odd()(conv(image, 2)))))
    """
    rule, received, fix = answered(small(text), tmp_path, monkeypatch)["refused"]
    assert (rule, fix) == ("A net must do a training step.", "Fix it, or give a smaller --batch-size.")
    assert received.startswith("net, OSError: ")
    assert "only when it is trained" in received
    assert "\n" not in received


def test_a_refusal_crosses_to_the_parent_as_it_was(tmp_path, monkeypatch):
    rule, received, fix = answered(small(RESIDUAL_NET, l2=1e-3), tmp_path, monkeypatch)["refused"]
    assert rule == "A weight has one penalty."
    assert received.startswith("hidden of net with L1 of its own")
    assert np.isin("--penalty-at", fix.split())
