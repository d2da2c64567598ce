"""A run on a user's own net, from its file to what it exports; its Python runs only where the user has named it."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import kernorm
from kernorm.api.run import load_run
from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
from kernorm.errors import UsageError
from kernorm.evaluation.evaluator import evaluate_model
from kernorm.nets import source
from kernorm.nets.source import with_net
from kernorm.push import PushConfig
from kernorm.push import main as push
from kernorm.saved_model.answers import recorded_answers
from kernorm.saved_model.card import FOLDER, read_card
from kernorm.saved_model.formats import FORMATS, convert
from kernorm.saved_model.inference import load_in_batches
from kernorm.saved_model.versions import versions
from kernorm.serving.validation import validate_model
from kernorm.training.run import train
from tests.builders import RESIDUAL_NET, easy_thresholds, only_runtimes, rehash

# Raises where it runs although nobody has named it.
TRAP = 'import os\nif "NET_RAN" in os.environ:\n    raise RuntimeError("ran once more")\n'
TEXT = TRAP + RESIDUAL_NET
UNTRUSTED = r"^The Python of a stored net runs only if its user says so\."


@pytest.fixture(scope="module")
def finished(tmp_path_factory, boxes):
    """The record of a finished run on the own net, and the folder of its files."""
    root = tmp_path_factory.mktemp("own")
    (root / "nets.py").write_text(TEXT)
    config = TrainConfig(
        net=f"{root / 'nets.py'}:net",
        norm="gn",
        l2=1e-3,
        penalty_at=("hidden=0,0",),
        dataset="boxes",
        validation_size=32,
        batch_size=40,
        epochs=2,
        export=False,
        reports_dir=root / "reports",
        saved_models_dir=root / "saved_models",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        return train(config, tried=True), config, root


@pytest.fixture
def elsewhere(monkeypatch, boxes_cache):
    """As in another process: nothing was named, and the file raises if it runs."""
    monkeypatch.setattr(source, "_TRUSTED", set())
    monkeypatch.setenv("NET_RAN", "1")


def lenient(folder):
    """Writes a threshold that any model shows."""
    path = easy_thresholds(folder, accuracy=0.0, classes=0.0)
    content = json.loads(path.read_text())
    del content["metricsSpecs"][0]["metrics"][1:]
    path.write_text(json.dumps(content))
    return path


def run_folder(record, root):
    return root / "reports" / "runs" / record.run_id


@pytest.mark.slow
def test_a_run_keeps_the_text_and_shows_what_the_net_is(finished):
    record, config, root = finished
    folder = run_folder(record, root)
    assert record.run_id.startswith("boxes-net-gn-l2_0.001-bs40-s0-")
    assert (folder / "net.py").read_text() == TEXT == record.config.net_source
    assert str(root) not in json.dumps(record.config.identity)
    assert [row.name for row in record.layers if row.kernel_norm] == ["conv1", "conv3", "conv2", "hidden", "head"]
    assert {row.norm for row in record.layers if row.norm} == {"gn"}
    assert record.history[-1].watched.layer == "conv2"
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [float(row["own_losses"]) for row in rows] == [row.own_losses for row in record.history]
    first, last = record.history[0], record.history[-1]
    assert record.penalty_proof[0] == pytest.approx(first.l2_penalty, rel=1e-3)
    # What the optimizer saw on average lies near the penalties and own losses of the epoch's two ends.
    ends = [row.l2_penalty + row.own_losses for row in record.history[-2:]]
    assert 0.8 * min(ends) < last.loss - last.cross_entropy < 1.2 * max(ends)
    page = (folder / "report.html").read_text()
    assert f"--net {folder}/net.py:net" in " ".join(page.replace("<span>", "").replace("</span>", "").split())
    assert "the net&#39;s own losses, " in page
    assert '<th scope="col">Own losses</th>' in page
    assert "Dense (own L1)" in page
    assert "ActivityRegularization(l2=1e-4)" in page


def test_the_same_text_under_another_path_is_the_same_run(finished, boxes_cache, caplog):
    record, config, root = finished
    other = root / "other"
    other.mkdir()
    (other / "renamed.py").write_text(TEXT)
    same = replace(config, net=f"{other / 'renamed.py'}:net")
    with caplog.at_level("INFO", "kernorm"):
        assert train(same).run_id == record.run_id
    assert "already trained" in caplog.text
    (other / "renamed.py").write_text(TEXT.replace("4, strides", "8, strides"))
    assert with_net(same).run_id != record.run_id


@pytest.mark.slow
def test_an_exported_model_needs_no_python_of_its_net(finished, boxes_cache, monkeypatch, tmp_path):
    record, config, root = finished
    path = load_run(run_folder(record, root)).export(tmp_path / "saved", net=config.net).path
    monkeypatch.setattr(source, "_TRUSTED", set())
    monkeypatch.setenv("NET_RAN", "1")
    assert (path / FOLDER / "net.py").read_text() == TEXT
    assert read_card(path).config["net_source"] == TEXT
    images, _ = load(record.config).validation
    wanted = load_in_batches(path)(images)
    measured = evaluate_model(path, published=tmp_path / "none", thresholds=str(lenient(tmp_path)), robustness=False)
    assert measured.blessed
    (accuracy,) = (one.value for one in measured.measures if (one.metric, one.slice) == ("accuracy", "overall"))
    assert accuracy == pytest.approx(record.test.accuracy)
    predicted = kernorm.load_exported(path).predict(images)
    assert predicted["class_id"].tolist() == wanted.argmax(-1).tolist()
    for name, form in FORMATS.items():
        answered = form.load(convert(path, name))(images)
        np.testing.assert_allclose(answered, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))
    found = {one.runtime: one for one in validate_model(path).tried}
    names = ("graph", "tensorflow", "openvino", "onnxruntime")
    assert [found[name].status for name in names] == ["passed"] * 4
    assert found["tensorflow"].difference < 1e-5
    push(PushConfig(path=path, saved_models_dir=tmp_path / "saved_models", model="own"))
    (number,) = versions(tmp_path / "saved_models" / "own")
    published = tmp_path / "saved_models" / "own" / str(number)
    np.testing.assert_array_equal(load_in_batches(published)(images), wanted)
    # Runtimes are compared with what the net answered in Keras when it was exported.
    only_runtimes(monkeypatch, "graph", "tensorflow")
    other = shutil.copytree(path, tmp_path / "other" / "1")
    np.save(other / FOLDER / "answers.npy", recorded_answers(path) + 1)
    found = {one.runtime: one for one in validate_model(rehash(other)).tried}
    assert found["tensorflow"].message.startswith("logits of serving_default:1 differ from Keras by 1, allowed are ")


def test_what_needs_the_net_is_refused_until_its_user_names_it(finished, elsewhere, monkeypatch, tmp_path):
    record, config, root = finished
    run = load_run(run_folder(record, root))
    for refused in (run.load_model, lambda: run.export(tmp_path), lambda: kernorm.train_model(run.config, seed=1)):
        with pytest.raises(UsageError, match=UNTRUSTED):
            refused()
    with pytest.raises(UsageError, match=r"net, line 3: RuntimeError: ran once more\. Fix it\."):
        run.load_model(trust_code=True)
    monkeypatch.delenv("NET_RAN")
    monkeypatch.setattr(source, "_TRUSTED", set())
    model = run.load_model(net=config.net)
    images, labels = load(record.config).validation
    assert (model.predict(images, verbose=0).argmax(-1) != labels).sum() == record.validation.errors


NOISY = """
import keras
from keras import layers as L


class Noise(L.Layer):
    def call(self, x, training=False):
        return x + 0.3 * keras.random.normal(keras.ops.shape(x)) if training else x


def net(image_shape, num_classes, conv):
    image = keras.Input(image_shape)
    return L.Dense(num_classes)(L.Flatten()(Noise()(conv(image, 4, strides=2))))
"""


@pytest.mark.slow
def test_a_resumed_run_draws_the_random_numbers_that_were_next(boxes_cache, tmp_path):
    """Of Keras' own generator, where a layer of the net draws without a seed."""
    (tmp_path / "noisy.py").write_text(NOISY)
    config = TrainConfig(net=f"{tmp_path / 'noisy.py'}:net", dataset="boxes", validation_size=32, batch_size=40)
    config = replace(config, epochs=2, export=False, report=False, reports_dir=tmp_path / "once")
    whole = train(config, tried=True)
    parts = replace(config, reports_dir=tmp_path / "parts")
    assert train(replace(parts, stop_after=1), tried=True).status == "running"
    again = train(parts)
    assert [row.loss for row in again.history] == [row.loss for row in whole.history]


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(finished, boxes_cache, tmp_path):
    record, config, root = finished
    paused = replace(config, reports_dir=tmp_path, export=False, report=False, stop_after=1)
    assert train(paused, tried=True).status == "running"
    again = train(replace(paused, stop_after=None))  # a checkpoint stands for a first step
    assert again.status == "finished"
    assert [row.loss for row in again.history] == [row.loss for row in record.history]
    assert [row.own_losses for row in again.history] == [row.own_losses for row in record.history]
    assert again.test == record.test
