"""TFX's two functions, with duck-typed FnArgs and the record files that tensorflow-datasets wrote."""

import ast
import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from kernorm import tfx
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.saved_model.inference import load_saved_model
from tests.builders import make_history, make_record
from tuner import tfx as tuner_tfx

QUICK = {"validation_size": 100, "epochs": 1, "batch_size": 50, "report": False, "norm": "gn"}


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """Record files with 300 training and 200 test examples, as tensorflow-datasets serializes them; its features."""
    folder = tmp_path_factory.mktemp("records")
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(num_classes=10)}
    )
    found = {}
    for part, chosen in (("train", slice(0, 300)), ("test", slice(300, 500))):
        path = found[part] = folder / f"{part}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image, label in zip(digits[0][chosen], digits[1][chosen], strict=True):
                writer.write(features.serialize_example({"image": image, "label": int(label)}))
    return found, features


@pytest.fixture
def fn_args(files, tmp_path):
    return SimpleNamespace(
        train_files=[str(files[0]["train"].parent / "train*")],
        eval_files=[str(files[0]["test"])],
        train_steps=None,
        eval_steps=None,
        serving_model_dir=str(tmp_path / "Format-Serving"),
        model_run_dir=str(tmp_path / "run"),
        working_dir=str(tmp_path / "work"),
        hyperparameters=None,
        custom_config=QUICK,
    )


@pytest.mark.slow
def test_run_fn_writes_a_servable_model_of_the_examples(fn_args, files, tmp_path, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path / "mine"))
    hp = keras_tuner.HyperParameters()
    hp.Fixed("l1_on", False)
    hp.Fixed("l2", 3e-3)
    hp.Fixed("batch_size", 20)
    fn_args.hyperparameters = hp.get_config()
    fn_args.train_steps = 11  # of 10 an epoch
    tfx.run_fn(fn_args)
    served = Path(fn_args.serving_model_dir)
    assert (served / "saved_model.pb").is_file()
    (path,) = (tmp_path / "run" / "runs").glob("*/record.json")
    record = json.loads(path.read_text())
    config = record["config"]
    assert [config[name] for name in ("norm", "l1", "l2", "batch_size", "epochs")] == ["gn", 0.0, 3e-3, 20, 2]
    assert (record["data"]["train"], record["data"]["validation"], record["data"]["test"]) == (200, 100, 200)
    # The eval split is what tensorflow-datasets decodes of those records.
    found, features = files
    decoded = [features.deserialize_example(one.numpy()) for one in tf.data.TFRecordDataset(str(found["test"]))]
    images, labels = (np.stack([one[key].numpy() for one in decoded]) for key in ("image", "label"))
    right = (load_saved_model(served)(images).argmax(-1) == labels).mean()
    assert record["test"]["accuracy"] == pytest.approx(right)
    assert tfx.os.environ["KERNORM_CACHE_DIR"] == str(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_tuner_fn_searches_and_its_best_feeds_run_fn(fn_args, tmp_path):
    fn_args.model_run_dir = None
    fn_args.custom_config = QUICK | {"search": {"max_trials": 2, "batch_sizes": "50,100", "l1": "off"}}
    tuner, fit_kwargs = tuner_tfx.tuner_fn(fn_args)
    tuner.search(**fit_kwargs)
    trials = tuner.oracle.get_best_trials(5)
    assert [trial.status for trial in trials] == ["COMPLETED"] * 2
    assert trials[0].score < trials[1].score
    best = tuner.get_best_hyperparameters()[0]
    again = keras_tuner.HyperParameters.from_config(json.loads(json.dumps(best.get_config())))
    settings = tfx._tuned(SimpleNamespace(hyperparameters=again.get_config()))
    assert settings["batch_size"] in (50, 100)
    assert set(settings) <= {"l2", "batch_size"}
    # The eval split stayed shut.
    records = [json.loads(path.read_text()) for path in tmp_path.glob("work/searches/*/runs/*/record.json")]
    assert all(not record["openings"] and record["test"] is None for record in records)


def test_a_trial_of_tfx_is_the_mean_of_its_repeats_and_begins_with_the_points_given(fn_args, tmp_path, monkeypatch):
    seeds = []

    def trained(config):
        seeds.append((config.seed, config.l2, config.batch_size))
        history = tuple(replace(row, val_cross_entropy=0.1 * (1 + config.seed)) for row in make_history(1))
        return make_record(config=config, history=history)

    monkeypatch.setattr(tuner_tfx, "train", trained)
    points = tmp_path / "points.json"
    points.write_text('[{"l2": 0.001, "batch_size": 16}]')
    search = {"max_trials": 1, "repeats": 3, "enqueue": str(points), "time_budget": "1h"}
    fn_args.custom_config = QUICK | {"search": search}
    tuner, _ = tuner_tfx.tuner_fn(fn_args)
    tuner.search()
    assert seeds == [(seed, 0.001, 16) for seed in range(3)]
    assert tuner.oracle.get_best_trials(1)[0].score == pytest.approx(0.2)
    assert tuner.oracle.deadline < math.inf


@pytest.mark.parametrize("name", ["top_k", "final", "keep_checkpoints", "engine"])
def test_what_a_search_of_tfx_does_not_do_is_refused(fn_args, name):
    fn_args.custom_config = QUICK | {"search": {name: 1}}
    with pytest.raises(
        UsageError, match=rf"custom_config\['search'\] names settings of tuner.search. Received: '{name}'"
    ):
        tuner_tfx.tuner_fn(fn_args)


def test_gzipped_records_are_read(fn_args, files, tmp_path):
    found, _ = files
    (tmp_path / "test.gz").write_bytes(gzip.compress(found["test"].read_bytes()))
    plain, zipped = (tfx._decoded("test", [path]) for path in (found["test"], tmp_path / "test.gz"))
    np.testing.assert_array_equal(plain[0], zipped[0])
    np.testing.assert_array_equal(plain[1], zipped[1])
    assert zipped[0].shape == (200, 28, 28, 1)


def test_a_file_in_any_folder_stands_for_itself(files, tmp_path):
    path = tmp_path / "[ab]" / "test"
    path.parent.mkdir()
    path.write_bytes(files[0]["test"].read_bytes())
    assert len(tfx._decoded("test", [path])[1]) == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_files": ["/nowhere/*"]}, r"^train examples are tf\.Example .* Received: /nowhere/\*, 0 files: "),
        ({"eval_files": [__file__]}, r"^test examples are tf\.Example records .* Received: .*test_tfx\.py, 1 files: "),
        ({"custom_config": {"nrom": "ln"}}, r"^custom_config names settings of kernorm\.train\. Received: 'nrom'\."),
        *(
            (
                {"custom_config": {"validation_size": size}, "train_steps": 10},
                rf"^validation_size must leave images to train on\. Received: validation_size={size} of 300 examples\.",
            )
            for size in (300, 400)
        ),
        ({"custom_config": {"labels": ["a", "b"]}}, r"^TFX's examples must be images .* Received: train labels go"),
    ],
)
def test_refuses_what_is_wrong(fn_args, changes, message):
    with pytest.raises(UsageError, match=message):
        tfx.run_fn(SimpleNamespace(**(vars(fn_args) | changes)))


def test_steps_are_counted_of_the_images_that_train():
    found = [tfx._training_images(TrainConfig(validation_size=100, train_size=size), 300) for size in (None, 50, 0.5)]
    assert found == [200, 50, 100]


def test_refuses_an_unknown_setting_of_the_search(fn_args):
    fn_args.custom_config = {"search": {"trials": 3}}
    with pytest.raises(
        UsageError, match=r"^custom_config\['search'\] names settings of tuner\.search\. Received: 'tri"
    ):
        tuner_tfx.tuner_fn(fn_args)


@pytest.mark.parametrize("module", [tfx, tuner_tfx])
def test_it_stands_alone_as_a_module_file(module):
    """TFX loads the file by its path: no import in it may be relative."""
    tree = ast.parse(Path(module.__file__).read_text())
    assert all(not node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
