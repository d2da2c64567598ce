"""One run from command to candidate on real digits: what it leaves, that it resumes, repeats itself and fails well."""

import csv
import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.cache import prepared_sha256
from kernorm.datasets.dataset import load
from kernorm.errors import UsageError
from kernorm.nets.model import build_model_for
from kernorm.nets.weights import load_model
from kernorm.records.record import read_record, write_record
from kernorm.train import main, summary
from kernorm.training import optimizers
from kernorm.training.callbacks import RunLog
from kernorm.training.run import locked_run_folder, start_or_resume, train
from tests.builders import TINY_RUN, assert_equal_weights, make_record

pytestmark = pytest.mark.usefixtures("small_net")


@pytest.fixture
def tiny(small_net, tmp_path, boxes_cache):
    def config(**settings):
        places = {"reports_dir": tmp_path / "reports", "saved_models_dir": tmp_path / "saved_models"}
        return TrainConfig(**{**TINY_RUN, **places, **settings})

    return config


@pytest.fixture(scope="module")
def finished(small_net, tmp_path_factory, boxes):
    """A finished, exported run, its config and its folder."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        places = {"reports_dir": root / "reports", "saved_models_dir": root / "saved_models"}
        config = TrainConfig(**{**TINY_RUN, **places, "norm": "ln", "l1": 1e-4, "l2": 6.6e-3, "export": True})
        record = train(config)
    return record, config, config.reports_dir / "runs" / record.run_id


def test_a_run_leaves_its_files_and_a_whole_record(finished):
    record, config, folder = finished
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "record.json", "history.csv", "report.html", "model.weights.h5", "tensorboard"} <= names
    assert {"curves.png", "misclassified.png", "confusion.png", "reliability.png"} <= names
    assert "checkpoint.npz" not in names
    assert not [name for name in names if name.endswith(".tmp")]
    assert read_record(folder / "record.json") == record
    assert json.loads((folder / "config.json").read_text())["l2"] == 6.6e-3
    assert record.status == "finished"
    assert record.run_id == config.run_id == folder.name
    assert (record.data.train, record.data.validation, record.data.test) == (160, 32, 64)
    assert record.environment.versions["keras"]
    assert record.environment.peak_memory > 2e8


def test_history_splits_the_loss_and_agrees_with_the_file(finished):
    record, _, folder = finished
    assert [row.epoch for row in record.history] == [0, 1, 2, 3]
    for row in record.history[1:]:
        added = row.loss - row.cross_entropy
        # What the optimizer saw on average lies between the penalties at the epoch's two ends.
        ends = [past.l1_penalty + past.l2_penalty for past in record.history[row.epoch - 1 : row.epoch + 1]]
        assert 0.98 * min(ends) < added < 1.02 * max(ends)
        assert row.l1_penalty > 0
        assert row.val_accuracy is not None
    rows = list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
    assert [float(row["l2_penalty"]) for row in rows] == [row.l2_penalty for row in record.history]
    assert rows[0]["loss"] == ""
    found, expected = record.penalty_proof
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(record.history[0].l1_penalty + record.history[0].l2_penalty)
    found, expected = record.penalty_proof_last
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(record.history[-1].l1_penalty + record.history[-1].l2_penalty)


def test_scores_are_those_of_the_saved_weights_and_the_test_split_was_opened_once(finished, boxes_cache):
    record, config, folder = finished
    assert [(opening.epoch, opening.purpose) for opening in record.openings] == [(3, "final evaluation")]
    data = load(config)
    model = load_model(record, folder / "model.weights.h5")
    images, labels = data.test.open(purpose="checking", epoch=0)
    predicted = model.predict(images, batch_size=500, verbose=0).argmax(axis=1)
    assert record.test.accuracy == pytest.approx(np.mean(predicted == labels))
    assert record.test.count - len(record.test.mistakes) == round(record.test.accuracy * 64)
    kernel = np.array(model.get_layer("conv2").kernel.value)
    row = next(layer for layer in record.layers if layer.name == "conv2")
    assert row.kernel_norm == pytest.approx(np.linalg.norm(kernel.ravel()), rel=1e-6)
    assert row.near_zero[2] == pytest.approx(np.mean(np.abs(kernel) < 1e-2))
    assert (row.l1, row.l2) == (1e-4, 6.6e-3)
    assert {layer.norm: layer.axes for layer in record.layers if layer.norm} == {"ln": "H,W,C"}
    assert record.pruned[0].accuracy == pytest.approx(record.validation.accuracy, abs=1 / 32)


def test_the_candidate_answers_as_the_run_was_scored(finished, boxes_cache):
    import tensorflow as tf

    record, config, folder = finished
    candidate = config.saved_models_dir / record.run_id / str(record.export.version)
    assert str(candidate) == record.export.path
    images, labels = load(config).test.open(purpose="checking", epoch=0)
    served = tf.saved_model.load(str(candidate)).signatures["serving_default"](image=tf.constant(images))
    wrong = np.flatnonzero(served["class_id"].numpy() != labels)
    assert list(wrong) == [mistake.index for mistake in record.test.mistakes]


def test_a_finished_run_is_not_trained_twice(finished, boxes_cache, caplog):
    caplog.set_level("INFO", "kernorm")
    record, config, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert train(config) == record
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert "is already trained; --retrain" in caplog.text


def test_a_missing_export_is_made_up_for(finished, boxes_cache):
    record, config, folder = finished
    elsewhere = replace(config, saved_models_dir=folder.parent / "elsewhere")
    os.rename(config.saved_models_dir, folder.parent / "away")
    try:
        again = train(elsewhere)
    finally:
        os.rename(folder.parent / "away", config.saved_models_dir)
    assert again.export.tree_sha256
    assert again.export.path.startswith(str(elsewhere.saved_models_dir))
    assert again.test == record.test


def test_a_deleted_report_is_written_again_and_the_look_is_entered(finished, boxes_cache, tmp_path):
    import shutil

    record, config, folder = finished
    shutil.copytree(config.reports_dir, tmp_path / "reports")
    moved = replace(config, reports_dir=tmp_path / "reports")
    copy = tmp_path / "reports" / "runs" / record.run_id
    page = (copy / "report.html").read_text()
    (copy / "report.html").unlink()
    again = train(moved)
    assert [opening.purpose for opening in again.openings] == ["final evaluation", "pictures for the report"]
    assert read_record(copy / "record.json") == again
    # The same but for the number of openings that it states.
    assert (copy / "report.html").read_text().count("data:image/png") == page.count("data:image/png")


@pytest.mark.slow
def test_without_a_report_it_can_be_added_later(tiny, capsys):
    config = tiny(epochs=1, report=False)
    assert main(config) == 0
    folder = config.reports_dir / "runs" / config.run_id
    assert "not written (--no-report)" in capsys.readouterr().out
    assert not list(folder.glob("*.png")) + list(folder.glob("*.html"))
    assert replace(config, report=True).run_id == config.run_id
    record = train(replace(config, report=True))
    assert (folder / "report.html").exists()
    assert [opening.purpose for opening in record.openings] == ["final evaluation", "pictures for the report"]


def test_summary_says_what_counts(finished):
    record, config, folder = finished
    text = summary(record, config)
    assert f"{100 * record.test.accuracy:.2f} % of 64" in text
    assert str(folder / "report.html") in text
    assert record.export.path in text
    confusion = np.array(record.test.confusion)
    recalls = confusion.diagonal() / confusion.sum(axis=1)
    worst = record.data.labels[recalls.argmin()]
    assert f"classes  balanced accuracy {100 * recalls.mean():.2f} %, macro F1 " in text
    assert f"worst recall {100 * recalls.min():.2f} % ({worst})" in text
    missing = [label for label, images in zip(record.data.labels, confusion.sum(axis=0), strict=True) if not images]
    assert ("caution  " in text) == bool(missing)
    never = np.zeros_like(confusion)
    never[:, 0] = confusion.sum(axis=1)
    dull = replace(record, test=replace(record.test, confusion=tuple(map(tuple, never.tolist()))))
    assert (
        f"caution  {len(never) - 1} of {len(never)} classes were never predicted: {', '.join(record.data.labels[1:])}"
        in summary(dull, config)
    )


def test_same_seed_gives_the_same_weights_and_retrain_keeps_the_first(uninterrupted, boxes_cache):
    first, config, folder = uninterrupted
    second = train(replace(config, retrain=True))
    runs = config.reports_dir / "runs"
    assert second.run_id == f"{first.run_id}-r2"
    assert_equal_weights(folder, runs / second.run_id)
    assert first.test == second.test
    initial = [build_model_for(replace(config, seed=seed), first.data).get_weights()[0] for seed in (0, 1)]
    assert (initial[0] != initial[1]).any()


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def uninterrupted(small_net, tmp_path_factory, boxes):
    """A run that nothing interrupts, its config, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        config = TrainConfig(**TINY_RUN, norm="bn", l1=1e-5, report=False, reports_dir=tmp_path_factory.mktemp("whole"))
        record = train(config)
    return record, config, config.reports_dir / "runs" / record.run_id


@pytest.mark.parametrize(
    "moment",
    [
        "in the middle of an epoch",
        pytest.param("between epoch and state", marks=pytest.mark.slow),
        pytest.param("after the last epoch", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_with_the_same_weights(uninterrupted, tiny, monkeypatch, moment):
    straight, whole, folder = uninterrupted
    config = replace(whole, reports_dir=tiny().reports_dir)
    method = {
        "in the middle of an epoch": ("on_train_batch_end", lambda log: log.epoch == 1),
        "between epoch and state": ("on_epoch_end", lambda log: log.epoch == 1),
        "after the last epoch": None,
    }[moment]
    with monkeypatch.context() as patch:
        if method is None:
            patch.setattr("kernorm.training.run.finish", lambda *arguments: (_ for _ in ()).throw(Stop))
        else:
            name, due = method
            original = getattr(RunLog, name)

            def stopping(self, *arguments, **named):
                if due(self):
                    raise Stop
                original(self, *arguments, **named)

            patch.setattr(RunLog, name, stopping)
        with pytest.raises(Stop):
            train(config)
    resumed = train(config)
    assert_equal_weights(config.reports_dir / "runs" / config.run_id, folder)
    timed = ("seconds", "cpu_seconds")
    for row, expected in zip(resumed.history, straight.history, strict=True):
        assert replace(row, **dict.fromkeys(timed, 0)) == replace(expected, **dict.fromkeys(timed, 0))
    assert resumed.test == straight.test
    # Had the first process already looked at the test split, that look is entered as well.
    assert len(resumed.openings) == (2 if moment == "after the last epoch" else 1)


def test_a_diverged_run_stops_names_the_step_and_is_recorded(tiny, capsys, caplog):
    caplog.set_level("INFO", "kernorm")
    config = tiny(norm="none", learning_rate=1000.0, div_factor=1.0, clip_ratio=None, l2=1.0)
    assert main(config) == 1
    record = read_record(config.reports_dir / "runs" / config.run_id / "record.json")
    assert record.status == "diverged"
    assert record.message.startswith("diverged at step ")
    assert record.test is None
    assert record.openings == ()
    assert record.message in capsys.readouterr().out
    page = (config.reports_dir / "runs" / config.run_id / "report.html").read_text()
    assert "diverged at step" in page
    assert not config.saved_models_dir.exists()
    # Its loss would diverge again; it is not computed twice.
    assert main(config) == 1
    assert "is already trained; --retrain" in caplog.text


def test_selection_on_validation_keeps_the_best_epoch_of_a_weighted_loss(tiny, monkeypatch):
    traced, apply = [], optimizers._Scheduled.apply
    monkeypatch.setattr(optimizers._Scheduled, "apply", lambda self, *words: (traced.append(self), apply(self, *words)))
    # A rate that stays high makes accuracies go up and down, so that the last epoch is rarely the best.
    settings = {"schedule": "constant", "learning_rate": 0.3, "class_weight": "balanced", "l2": 1e-3}
    config = tiny(select="validation", report=False, **settings)
    record = train(config)
    accuracies = [row.val_accuracy for row in record.history[1:]]
    assert record.selected_epoch == 1 + int(np.argmax(accuracies))
    assert record.validation.accuracy == pytest.approx(max(accuracies), abs=1e-6)
    assert (len(record.openings), record.test_last) == (1, None)
    assert len(traced) == 1  # twice, if the first step makes the momenta
    # The loss is what images weigh and the penalty; the other columns count each image once.
    for before, row in itertools.pairwise(record.history):
        ends = sorted((before.l2_penalty, row.l2_penalty))
        assert 0.9 * ends[0] < row.loss - row.weighted_cross_entropy < 1.1 * ends[1]
        assert row.weighted_cross_entropy != pytest.approx(row.cross_entropy, rel=1e-4)
    assert record.penalty_proof == pytest.approx((record.history[0].l2_penalty,) * 2, rel=1e-3)
    text = (config.reports_dir / "runs" / config.run_id / "history.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["weighted_cross_entropy"] != "" for row in rows] == [False] + [True] * (len(rows) - 1)


# Hardly any step, so that no epoch is better than the first.
STILL = {"norm": "ln", "schedule": "constant", "learning_rate": 1e-12, "dropout": 0.0}


def test_a_run_that_gets_no_better_stops_and_resumes_to_the_same(tiny, monkeypatch):
    config = tiny(epochs=9, patience=2, report=False, **STILL)
    with monkeypatch.context() as patch:
        patch.setattr("kernorm.training.run.finish", lambda *arguments: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            train(config)
    steps = []
    monkeypatch.setattr(RunLog, "on_train_batch_end", lambda *arguments: steps.append(arguments))
    record = train(config)
    assert (record.status, record.stopped_epoch, record.selected_epoch) == ("finished", 3, 1)
    assert ([row.epoch for row in record.history], steps) == ([0, 1, 2, 3], [])
    assert record.validation.accuracy == pytest.approx(record.history[1].val_accuracy, abs=1e-6)
    assert read_record(config.reports_dir / "runs" / config.run_id / "record.json") == record
    assert train(config) == record


def test_a_run_that_is_resumed_on_another_device_says_where_its_epochs_were_trained(tiny):
    config = tiny(report=False)
    path = config.reports_dir / "runs" / config.run_id / "record.json"
    begun = train(replace(config, stop_after=1))
    card = replace(begun.environment, backend="jax", device="NVIDIA H200", precision="default")
    write_record(replace(begun, environment=card), path)
    moved = train(replace(config, stop_after=2))
    assert [(part.last, part.environment) for part in moved.elsewhere] == [(1, card)]
    ended = train(config)
    assert (ended.elsewhere, read_record(path)) == (moved.elsewhere, ended)
    assert (ended.environment.backend, ended.environment.device) == ("tensorflow", begun.environment.device)


# The rate rises to the end, until nothing is left of what was learned: the last epoch is not the best one.
RISING = {
    "norm": "ln",
    "batch_size": 8,
    "learning_rate": 2.0,
    "pct_start": 1.0,
    "div_factor": 100.0,
    "validation_size": 0,
    "report": False,
    "dropout": 0.0,
}


def test_a_run_selected_on_test_logs_every_opening_and_records_its_last_epoch_by_image_too(tiny):
    record = train(tiny(select="test", **RISING))
    assert record.monitored == "test"
    assert record.selected_epoch < 3
    assert [(opening.epoch, opening.purpose) for opening in record.openings] == [
        (1, "selection"),
        (2, "selection"),
        (3, "selection"),
        (3, "evaluation of the last epoch"),
        (record.selected_epoch, "final evaluation"),
    ]
    assert record.validation is None
    assert record.test.accuracy == pytest.approx(max(row.val_accuracy for row in record.history[1:]), abs=1e-6)
    last, row = record.test_last, record.history[-1]
    assert last.accuracy == pytest.approx(row.val_accuracy, abs=1e-6) != record.test.accuracy
    assert last.cross_entropy == pytest.approx(row.val_cross_entropy, rel=1e-5)
    assert (len(last.mistakes), last.count) == (last.errors, record.test.count)
    # A run that kept its last epoch has the same weights there, and without validation nothing is monitored.
    same = train(tiny(**RISING))
    assert last == same.test
    assert (same.test_last, same.monitored, same.history[-1].val_accuracy) == (None, "none", None)
    assert same.pruned[0].split == "train"


@pytest.mark.slow
def test_a_paused_run_pauses_again_and_is_still_unmeasured(tiny):
    config = tiny(report=False)
    paused = train(replace(config, stop_after=2))
    assert train(replace(config, stop_after=2)).history == paused.history
    assert train(replace(config, stop_after=99)).test is None


@pytest.mark.slow
def test_interrupted_after_its_last_epoch_it_still_records_it(tiny):
    config = tiny(select="test", **RISING)
    whole = train(replace(config, reports_dir=config.reports_dir / "whole"))
    assert train(replace(config, stop_after=3)).status == "running"
    assert train(config).test_last == whole.test_last


@pytest.mark.parametrize("change", ["revision", "data"])
def test_a_result_that_is_no_longer_what_would_be_computed_is_kept_and_not_taken(tiny, caplog, change):
    caplog.set_level("INFO", "kernorm")
    config = tiny(report=False)
    place = config.reports_dir / "runs" / config.run_id
    whole = make_record(config=config, run_id=place.name)
    now = replace(whole, data=replace(whole.data, sha256=prepared_sha256("boxes")))
    old = replace(now, revision=1) if change == "revision" else whole
    place.mkdir(parents=True)
    write_record(old, place / "record.json")
    with locked_run_folder(config) as folder:
        assert folder.name == f"{config.run_id}-r2"
        write_record(now, folder / "record.json")
    told = caplog.text
    assert f"{config.run_id} was trained " in told
    assert f"it is kept, and this run is {config.run_id}-r2." in told
    assert train(config) == now
    assert read_record(place / "record.json") == old


def test_one_process_at_a_time_trains_a_run(tiny):
    from kernorm.system.files import locked

    config = tiny()
    folder = config.reports_dir / "runs" / config.run_id
    folder.mkdir(parents=True)
    with locked(folder / "lock", "hold"), pytest.raises(UsageError, match="Only one process at a time may train"):
        train(config)


def test_tensorboard_reads_what_was_logged(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record, _, folder = finished
    events = EventAccumulator(str(folder / "tensorboard" / "validation"))
    events.Reload()
    logged = [event.tensor_proto.float_val[0] for event in events.Tensors("accuracy")]
    np.testing.assert_allclose(logged, [row.val_accuracy for row in record.history[1:]], rtol=1e-6)


def test_a_wrong_number_of_threads_is_refused_before_training(tiny):
    with pytest.raises(UsageError, match="threads is fixed at the first operation of a process"):
        train(tiny(threads=64))


@pytest.fixture
def paused(finished, tmp_path):
    """The run of `finished` once more, stopped after its second epoch."""
    _, config, _ = finished
    config = replace(config, reports_dir=tmp_path, export=False, report=False)
    return train(replace(config, stop_after=2)), config


def test_a_paused_run_keeps_the_test_split_shut(finished, boxes_cache, paused):
    record, (stopped, config) = finished[0], paused
    assert (stopped.status, stopped.test, stopped.openings) == ("running", None, ())
    assert [row.epoch for row in stopped.history] == [0, 1, 2]
    assert stopped.history[2].val_cross_entropy == record.history[2].val_cross_entropy
    other = stopped.data.sha256[::-1]
    data = load(config)
    data = data._replace(info=replace(data.info, sha256=other))
    told = rf"data that it started with\. Received: .* of boxes {stopped.data.sha256[:12]}…, which is {other[:12]}… now"
    with pytest.raises(UsageError, match=told):
        start_or_resume(config, config.reports_dir / "runs" / config.run_id, data)


@pytest.mark.slow
def test_a_paused_run_goes_on_to_the_same_weights(finished, boxes_cache, paused):
    (record, _, folder), (_, config) = finished, paused
    ended = train(config)
    assert ended.status == "finished"
    assert [opening.purpose for opening in ended.openings] == ["final evaluation"]
    assert ended.test == record.test
    ours, theirs = (
        load_model(ended, place / "model.weights.h5").get_weights()
        for place in (config.reports_dir / "runs" / config.run_id, folder)
    )
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_command_says_where_a_run_is_paused(finished):
    record, config, _ = finished
    paused = replace(record, status="running", history=record.history[:3])
    assert summary(paused, config) == "paused   after epoch 2; run the same command without --stop-after to resume"
