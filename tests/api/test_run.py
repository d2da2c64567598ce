import pickle
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import kernorm
from kernorm import UsageError
from kernorm.records.record import read_record, write_record

pytestmark = pytest.mark.usefixtures("small_net")

SETTINGS = {"net": "eva6", "dataset": "boxes", "validation_size": 32, "epochs": 2, "batch_size": 40, "l2": 1e-3}


@pytest.fixture(scope="module")
def run(tmp_path_factory, boxes):
    """A run by somebody who makes errors of all warnings, as a strict test suite does."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        warnings.simplefilter("error")
        yield kernorm.train_model(**SETTINGS, reports_dir=str(folder / "reports"), saved_models_dir=folder / "models")


def test_a_run_holds_what_was_measured(run):
    record = read_record(run.folder / "record.json")
    assert (run.run_id, run.status, run.config.l2) == (record.run_id, "finished", 1e-3)
    assert list(run.history.index) == [0, 1, 2]
    assert run.history.loc[2, "val_accuracy"] == record.history[2].val_accuracy
    assert list(run.scores.index) == ["train", "validation", "test"]
    assert run.scores.loc["test", "errors"] == record.test.errors
    assert tuple(run.scores.loc["test", ["low", "high"]]) == record.test.interval
    assert run.penalty_proof == record.penalty_proof
    assert run.layers.loc["conv1", "l2"] == 1e-3
    assert run.report_path.exists()
    assert repr(run).startswith(f"Run({run.run_id}: ")


def test_the_same_call_again_trains_nothing(run, boxes_cache):
    before = (run.folder / "record.json").read_bytes()
    again = kernorm.train_model(run.config)
    assert (again.folder, again.record) == (run.folder, run.record)
    assert (run.folder / "record.json").read_bytes() == before


def test_the_model_is_the_one_that_was_measured(run, boxes_cache):
    from kernorm.datasets.dataset import load

    images, labels = load(run.config).test.open(purpose="checking", epoch=0)
    predicted = run.load_model().predict(images, verbose=0).argmax(-1)
    assert (predicted == labels).mean() == pytest.approx(run.scores.loc["test", "accuracy"])
    balanced = balanced_accuracy_score(labels, predicted)
    assert run.scores.loc["test", "balanced_accuracy"] == pytest.approx(balanced)
    exported = run.export()
    assert str(exported.path) == run.record.export.path
    table = exported.predict(images)
    np.testing.assert_array_equal(table["class_id"], predicted)
    assert [exported.card.data.labels[index] for index in predicted] == list(table["label"])
    np.testing.assert_allclose(table[list(exported.card.data.labels)].sum(axis=1), 1, rtol=1e-6)
    assert exported.predict(images[:0]).empty


@pytest.mark.parametrize(
    "images", [np.zeros((1, 9, 9, 1), np.uint8), np.zeros((1, 28, 28, 1)), np.zeros((28, 28), np.uint8)]
)
def test_refuses_images_that_the_model_does_not_take(run, images):
    with pytest.raises(UsageError, match=r"^Images are uint8 of shape \(N, .*\)\. Received: (uint8|float64) of shape"):
        run.export().predict(images)


def test_refuses_images_of_different_sizes(run):
    with pytest.raises(
        UsageError, match=r"^Images are uint8 of shape .* Received: images of different sizes\. Bring them"
    ):
        run.export().predict([np.zeros((28, 28, 1), np.uint8), np.zeros((20, 28, 1), np.uint8)])


def test_refuses_a_format_that_is_none(run):
    with pytest.raises(
        UsageError, match=r"^A format is a known one\. Received: 'onxn'\. Did you mean 'onnx'\? Known: "
    ):
        run.export().convert("onxn")


def test_a_model_that_was_asked_is_pickled(run):
    exported = run.export()
    images = np.zeros((2, *run.record.data.image_shape), np.uint8)
    wanted = exported.predict(images)
    assert pickle.loads(pickle.dumps(exported)).predict(images).equals(wanted)


@pytest.mark.parametrize("config", ["ln", {"norm": "ln"}, 3])
def test_refuses_settings_that_are_no_config(config):
    message = (
        rf"^All settings at once are a TrainConfig\. Received: .* \({type(config).__name__}\)\. Give single ones by"
    )
    with pytest.raises(UsageError, match=message):
        kernorm.train_model(config)


def test_a_run_without_a_page_gets_one(run, boxes_cache, tmp_path):
    folder = tmp_path / run.run_id
    shutil.copytree(run.folder, folder)
    (folder / "report.html").unlink()
    again = kernorm.load_run(folder)
    assert not again.report_path.exists()
    assert again.write_report() == folder / "report.html" == again.report_path
    assert again.report_path.exists()
    assert len(again.record.openings) == len(run.record.openings) + 1
    written = again.report_path.read_bytes()
    again.write_report()
    assert again.report_path.read_bytes() == written
    assert again.record == kernorm.load_run(folder).record
    write_record(replace(again.record, status="running"), folder / "record.json")
    again.report_path.unlink()
    with pytest.raises(UsageError, match=r"^A run that has ended has a report\. Received: .*, which has not\."):
        kernorm.load_run(folder).write_report()


def test_charts_show_themselves(run, boxes_cache, tmp_path):
    for name in ("curves", "confusion", "reliability", "classes", "weights"):
        html = run.plot(name)._repr_html_()
        assert "<svg" in html
        assert "--ink:#" in html
    assert run.plot("curves").save(tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = run._repr_html_()
    assert run.run_id in page
    assert "<table" in page
    with pytest.raises(
        UsageError, match=r"^A chart is one that the run has\. Received: 'curvs'\. Did you mean 'curves'"
    ):
        run.plot("curvs")


def test_pictures_of_mistakes_are_one_more_look_at_the_test_split(run, boxes_cache):
    again = kernorm.load_run(run.folder)
    looks = len(again.record.openings)
    assert "<svg" in again.plot("misclassified")._repr_html_()
    openings = kernorm.load_run(run.folder).record.openings
    assert [look.purpose for look in openings[looks:]] == ["pictures in a notebook"]


def test_all_runs_in_a_table(run, tmp_path):
    table = kernorm.list_runs(run.config.reports_dir)
    assert list(table.index) == [run.run_id]
    assert table.loc[run.run_id, "accuracy"] == run.record.test.accuracy
    assert kernorm.list_runs(tmp_path).empty


def test_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(UsageError, match=r"^A run folder holds a record\.json\. Received: "):
        kernorm.load_run(tmp_path)


def test_refuses_a_model_that_kernorm_has_not_exported(tmp_path):
    with pytest.raises(UsageError, match=r"^An exported model is a folder with a saved_model\.pb\. Received: "):
        kernorm.load_exported(tmp_path)
