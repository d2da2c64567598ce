"""python -m kernorm.validate: real runtimes in fresh processes, and what makes them refuse a model."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kernorm.saved_model.card import FOLDER
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.warmup import PATH, PredictionLog, recorded_images
from kernorm.serving import validation
from kernorm.serving.runtimes import IMAGES, NEEDS, TOGETHER
from kernorm.serving.validation import validation_problem
from kernorm.system.cli import run
from kernorm.validate import PROG, ValidateConfig, main
from tests.builders import asked_here, candidate, only_runtimes, rehash
from tests.serving_twin import Twin

SERVING = "tensorflow_serving"
# Python reads these as it starts: one notes who has imported TensorFlow; to the other the import of what only `graph`
# needs is a crash.
NOTED = """
import atexit, os, sys

def note():
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{sys.argv[1]} {'tensorflow' in sys.modules}\\n")

atexit.register(note)
"""
KILLED_BY_GRAPH = """
import os, signal, sys

class Killed:
    def find_spec(self, name, path=None, target=None):
        if name == "kernorm.saved_model.graph":
            os.kill(os.getpid(), signal.SIGKILL)

sys.meta_path.insert(0, Killed())
"""


def validated(*words):
    return run(ValidateConfig, main, prog=PROG, argv=[str(word) for word in words])


@pytest.fixture(autouse=True)
def no_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture
def model(tmp_path):
    return candidate(tmp_path / "1000")


@pytest.fixture
def here(monkeypatch):
    """Lets runtimes answer in this process, where a process of their own, with TensorFlow anew, proves no more."""
    asked_here(monkeypatch)


def found(path):
    content = json.loads((path / FOLDER / "validation.json").read_text())
    return content | {"tried": {one["runtime"]: one for one in content["tried"]}}


@pytest.mark.slow
def test_every_runtime_that_is_here_answers_as_keras_does(whole_mnist_cache, model, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(NOTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    command = ["kernorm.validate", model, "--data-dir", whole_mnist_cache.parent / "tfds"]
    told = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=True).stdout
    tried = found(model)["tried"]
    # TensorFlow is imported once, for all that need it, and not to wait for them.
    processes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert [names for names, imported in processes if imported == "True"] == [
        ",".join(name for name in TOGETHER if all(map(importlib.util.find_spec, NEEDS[name])))
    ]
    assert [str(model), "False"] in processes
    assert tried["tensorflow"]["status"] == "passed"
    assert tried["tensorflow"]["version"] == tf.__version__
    assert tried["tensorflow"]["difference"] < 5e-5
    assert tried["graph"]["status"] == "passed"
    assert tried["tensorflow_datasets_records"]["status"] == "passed"
    assert tried["tensorflow_datasets_records"]["difference"] < 5e-5
    for name in ("openvino", "onnxruntime"):
        assert tried[name]["status"] == ("passed" if importlib.util.find_spec(name) else "not_installed")
    assert tried["tensorflow_serving"]["status"] == "not_run"
    assert told.splitlines()[-1] == "INFRA_BLESSED"
    digest = verify_integrity(model)[1]
    assert validation_problem(model, digest) is None
    assert validation_problem(model, "0" * 64) == "its validation is of other files"
    listed = (model / FOLDER / "INFRA_BLESSED").read_text().splitlines()
    assert listed == told.splitlines()[:-1]
    assert "tensorflow_serving: not_run: no tensorflow_model_server on PATH and no KERNORM_SERVING_ENDPOINT" in listed


def test_the_runtimes_that_a_server_has_bless_a_model(model, here, monkeypatch, capsys):
    only_runtimes(monkeypatch, "graph", "tensorflow", SERVING)
    assert validated(model) == 0
    told = capsys.readouterr().out
    tried = found(model)["tried"]
    assert tried["tensorflow"]["difference"] < 5e-5
    assert tried[SERVING]["status"] == "not_run"
    assert told.splitlines()[-1] == "INFRA_BLESSED"
    digest = verify_integrity(model)[1]
    assert validation_problem(model, digest) is None
    assert validation_problem(model, "0" * 64) == "its validation is of other files"
    assert (model / FOLDER / "INFRA_BLESSED").read_text().splitlines() == told.splitlines()[:-1]


@pytest.mark.slow
def test_one_that_ends_the_process_of_those_that_share_it_costs_its_own_answer_only(model, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(KILLED_BY_GRAPH)
    np.save(tmp_path / IMAGES, recorded_images(model, 128))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    found = validation._asked(["graph", "tensorflow"], model, tmp_path)
    assert found["graph"] == validation.Tried(runtime="graph", status="failed", message="exit code -9")
    assert found["tensorflow"]["serving_default:3"].shape == (3, 10)


# The server that is started says so through a pipe, and then loads for ever; nobody else is asked.
WAITING_SERVER = """#!/bin/sh
[ "$1" = --version ] && exit
echo $$ > {fifo}
exec sleep infinity
"""
SERVER_ALONE = f"""
import runpy, sys
from kernorm.serving import validation
validation.NEEDS = {{"{SERVING}": ()}}
sys.argv[:] = ["kernorm.validate", *sys.argv[1:]]
runpy.run_module("kernorm.validate", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_server_that_was_started_and_its_copy(model, tmp_path, start, number):
    folder, temporary, fifo = tmp_path / "bin", tmp_path / "tmp", tmp_path / "fifo"
    folder.mkdir()
    temporary.mkdir()
    os.mkfifo(fifo)
    (folder / "tensorflow_model_server").write_text(WAITING_SERVER.format(fifo=fifo))
    (folder / "tensorflow_model_server").chmod(0o755)
    before = {path.name for path in (model / FOLDER).iterdir()}
    places = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(temporary)}
    command = start([sys.executable, "-c", SERVER_ALONE, model], **places)
    server = os.pidfd_open(int(fifo.read_text()))  # waits for it
    assert list(temporary.rglob("saved_model.pb"))
    # A terminal sends Ctrl-C to all of them, kill sends SIGTERM to one.
    (os.killpg if number == signal.SIGINT else os.kill)(command.pid, number)
    _, told = command.communicate()
    ended = select.select([server], [], [], 0)[0]
    os.close(server)
    assert ended
    assert told == "\nInterrupted. The model has no new verdict; run the same command again.\n"
    assert command.returncode == 128 + number
    assert list(temporary.iterdir()) == []
    assert {path.name for path in (model / FOLDER).iterdir()} == before


def test_another_net_than_the_cards_is_refused(model, here, monkeypatch, capsys):
    only_runtimes(monkeypatch, "graph", "tensorflow")
    path = model / FOLDER / "model_card.json"
    path.write_text(path.read_text().replace('"norm": "bn"', '"norm": "cln"'))
    assert validated(rehash(model)) == 1
    assert "tensorflow: failed: there is no reference: ValueError: the variables of the net are" in (
        capsys.readouterr().out
    )
    assert (model / FOLDER / "INFRA_NOT_BLESSED").exists()
    assert validation_problem(model, verify_integrity(model)[1]).startswith(
        "it failed in a runtime; tensorflow: there is no ref"
    )


def test_other_answers_than_the_nets_are_refused(model, here, monkeypatch, capsys):
    """The card's pixel moments are what the net scales by, so a card of other data is another net."""
    only_runtimes(monkeypatch, "graph", "tensorflow")
    path = model / FOLDER / "model_card.json"
    card = json.loads(path.read_text())
    card["data"]["mean"] = [90.0]
    path.write_text(json.dumps(card))
    assert validated(rehash(model)) == 1
    assert "differ from Keras by 3.7, allowed are " in capsys.readouterr().out


@pytest.mark.slow
def test_a_served_model_is_asked_and_what_it_answers_counts(model, here, monkeypatch, capsys):
    """The server is of the test: it speaks TF Serving's protocol, but is not it."""
    only_runtimes(monkeypatch, "graph", "tensorflow", SERVING)
    with Twin(model, 1000) as twin:
        monkeypatch.setenv("KERNORM_SERVING_ENDPOINT", twin.grpc)
        assert validated(model) == 0
        assert found(model)["tried"][SERVING]["status"] == "passed"
        assert found(model)["tried"][SERVING]["difference"] < 5e-5
        twin.changed = lambda answer: answer | {"logits": answer["logits"] + 1}
        assert validated(model) == 1
        assert f"{SERVING}: failed" in capsys.readouterr().out


def test_a_missing_signature_or_a_refused_operation_is_refused(model, here, monkeypatch, capsys):
    only_runtimes(monkeypatch, "graph")
    saved = SavedModel.FromString((model / "saved_model.pb").read_bytes())
    del saved.meta_graphs[0].signature_def["classify"]
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert validated(rehash(model)) == 1
    assert "graph: failed: ValueError: no signature classify, which the model card names" in capsys.readouterr().out
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.op == "Conv2D":
                node.op = "AssignVariableOp"
    for name in ("serving_png", "serving_tf_examples", "serving_default"):
        saved.meta_graphs[0].signature_def["classify"].CopyFrom(saved.meta_graphs[0].signature_def[name])
    (model / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert validated(rehash(model)) == 1
    assert "Received: AssignVariableOp in " in capsys.readouterr().out


def test_a_warm_up_request_that_fails_is_refused(model, here, monkeypatch, capsys):
    only_runtimes(monkeypatch, "graph", "tensorflow")
    log = PredictionLog()
    log.predict_log.request.model_spec.signature_name = "serving_png"
    log.predict_log.request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([b"no image"]))
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(model / PATH))]
    with tf.io.TFRecordWriter(str(model / PATH)) as writer:
        for record in (*records, log.SerializeToString()):
            writer.write(record)
    assert validated(rehash(model)) == 1
    told = capsys.readouterr().out
    assert (
        "tensorflow: failed: InvalidArgumentError: assertion failed: [An image must be an 8-bit greyscale PNG" in told
    )
    assert "{{node" not in told


def test_refuses_a_model_without_warm_up_requests_or_changed(model, here, capsys):
    (model / PATH).write_bytes(b"")
    assert validated(model) == 2
    assert "A model must be as it was exported. Received: " in capsys.readouterr().err
    (model / PATH).write_bytes(b"not records")
    assert validated(rehash(model)) == 2
    assert "A model has a warm-up file. Received: " in capsys.readouterr().err
    assert validation_problem(model, "") == "it was never validated"


def test_records_are_found_without_a_home(model, homeless, monkeypatch, tmp_path):
    card, _ = verify_integrity(model)
    assert validation._record_file(card, None) is None
    file = tmp_path / "sets" / card.data.name / card.data.version / "mnist-train.tfrecord-00000-of-00001"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    assert validation._record_file(card, None) == file
