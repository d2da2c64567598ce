"""Trackers that are installed are really run, without network; the others are refused by name."""

import os
import resource
import sys

import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.training.trackers import TensorBoardLog, require_tracker, trackers


def test_no_tracker_needs_no_package():
    require_tracker("none")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_by_name(tmp_path, monkeypatch, name):
    # A folder of the same name, as both leave behind where they run, is not the package.
    (tmp_path / name).mkdir()
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    told = rf"needs its package\. Received: --track {name}, which is not installed\. pip install {name}, or remove --tr"
    with pytest.raises(UsageError, match=told):
        require_tracker(name)


def test_a_full_disk_is_told_as_such(tmp_path):
    log = TensorBoardLog(tmp_path / "board")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.on_epoch_end(0, {"loss": 1.0})
        with pytest.raises(OSError, match="File too large"):
            TensorBoardLog(tmp_path / "other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_in_the_place_of_the_log_is_told_as_such(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(NotADirectoryError), trackers(TrainConfig(), "run", tmp_path):
        pytest.fail("nothing to write to")


def fit(config, run_id, folder, fail=False):
    """Fits two epochs of a line as a run does; returns the history that Keras keeps."""
    folder.mkdir(parents=True)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer=keras.optimizers.SGD(0.01 + config.seed / 50), loss="mse")
    x = np.arange(8.0).reshape(-1, 1)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / (epoch if fail else 1))
    with trackers(config, run_id, folder) as callbacks:
        return model.fit(x, 2 * x, epochs=2, verbose=0, shuffle=False, callbacks=[*callbacks, stop]).history


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # their own
def test_mlflow_logs_every_epoch_of_each_run_in_a_process(offline):
    mlflow = pytest.importorskip("mlflow")
    for seed in (0, 1):
        folder = offline / f"run{seed}"
        history = fit(TrainConfig(track="mlflow", seed=seed), f"run{seed}", folder)
        client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        (run,) = client.search_runs([client.get_experiment_by_name("kernorm").experiment_id])
        assert (run.info.run_name, run.info.status, run.data.params["seed"]) == (f"run{seed}", "FINISHED", str(seed))
        logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
        assert [logged[step] for step in (0, 1)] == pytest.approx(history["loss"])
    with pytest.raises(ZeroDivisionError):
        fit(TrainConfig(track="mlflow"), "failed", offline / "failed", fail=True)
    client = mlflow.MlflowClient(f"sqlite:///{offline / 'failed' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("kernorm").experiment_id])
    assert run.info.status == "FAILED"
    assert mlflow.active_run() is None
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert sorted(os.listdir(offline)) == ["failed", "run0", "run1"]


@pytest.mark.filterwarnings("ignore")  # their own
def test_wandb_logs_every_epoch_of_each_run_in_a_process(offline):
    wandb = pytest.importorskip("wandb")
    losses = []
    for seed in (0, 1):
        losses.append(fit(TrainConfig(track="wandb", seed=seed), f"run{seed}", offline / f"run{seed}")["loss"])
        assert wandb.run is None
    wandb.teardown()  # waits for the process that writes
    for seed in (0, 1):
        (written,) = (offline / f"run{seed}" / "wandb").glob(f"offline-run-*/run-run{seed}.wandb")
        content = written.read_bytes()
        assert b"epoch/loss" in content
        for loss in losses[seed]:
            assert repr(loss).encode() in content
        assert repr(losses[1 - seed][-1]).encode() not in content
    assert sorted(os.listdir(offline)) == ["run0", "run1"]
