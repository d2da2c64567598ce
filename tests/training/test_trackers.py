"""Trackers that are installed are really run, without network; the others are refused by name."""

import os
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.training.trackers import STORE, TensorBoardLog, trackers
from kernorm.training.tracking import Membership, require_tracker


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


def fit(config, run_id, folder, fail=False, member=None):
    """Fits two epochs of a line as a run does; returns the history that Keras keeps."""
    folder.mkdir(parents=True)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer=keras.optimizers.SGD(0.01 + config.seed / 50), loss="mse")
    x = np.arange(8.0).reshape(-1, 1)
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / (epoch if fail else 1))
    with trackers(config, run_id, folder, member) as callbacks:
        return model.fit(x, 2 * x, epochs=2, verbose=0, shuffle=False, callbacks=[*callbacks, stop]).history


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def member_of(seed):
    return Membership(study="norms", arm=f"arm{seed}", question="Which norm?")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_mlflow_logs_every_epoch_of_all_runs_in_one_store(offline):
    mlflow = pytest.importorskip("mlflow")
    losses = {}
    for seed in (0, 1):
        config = TrainConfig(track="mlflow", seed=seed, reports_dir=offline)
        losses[seed] = fit(config, f"run{seed}", offline / f"run{seed}", member=member_of(seed))["loss"]
    with pytest.raises(ZeroDivisionError):
        fit(TrainConfig(track="mlflow", seed=2, reports_dir=offline), "failed", offline / "failed", fail=True)
    client = mlflow.MlflowClient(f"sqlite:///{offline / STORE}")
    runs = client.search_runs([client.get_experiment_by_name("kernorm").experiment_id], "tags.study = 'norms'")
    assert {run.info.run_name: run.data.tags["arm"] for run in runs} == {"run0": "arm0", "run1": "arm1"}
    for run in runs:
        seed = int(run.data.params["seed"])
        assert (run.info.run_name, run.info.status) == (f"run{seed}", "FINISHED")
        assert run.data.tags["mlflow.note.content"] == "Which norm?"
        logged = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "loss")}
        assert [logged[step] for step in (0, 1)] == pytest.approx(losses[seed])
    (failed,) = client.search_runs([runs[0].info.experiment_id], "attributes.status = 'FAILED'")
    assert failed.info.run_name == "failed"
    assert "arm" not in failed.data.tags
    assert mlflow.active_run() is None
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert sorted(os.listdir(offline)) == ["failed", STORE, "mlflow.lock", "mlruns", "run0", "run1"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_mlflow_and_a_user_of_a_store_of_their_own(offline, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{offline / 'own.db'}")
    fit(TrainConfig(track="mlflow", reports_dir=offline / "reports"), "mine", offline / "mine")
    client = mlflow.MlflowClient(f"sqlite:///{offline / 'own.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("kernorm").experiment_id])
    assert run.info.run_name == "mine"
    assert not (offline / "reports").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_wandb_logs_every_epoch_of_each_run_in_a_process(offline):
    wandb = pytest.importorskip("wandb")
    losses = []
    for seed in (0, 1):
        config, member = TrainConfig(track="wandb", seed=seed), member_of(seed)
        losses.append(fit(config, f"run{seed}", offline / f"run{seed}", member=member)["loss"])
        assert wandb.run is None
    wandb.teardown()  # waits for the process that writes
    for seed in (0, 1):
        (written,) = (offline / f"run{seed}" / "wandb").glob(f"offline-run-*/run-run{seed}.wandb")
        content = written.read_bytes()
        assert b"epoch/loss" in content
        for loss in losses[seed]:
            assert repr(loss).encode() in content
        assert repr(losses[1 - seed][-1]).encode() not in content
        for said in (f"arm{seed}", "norms", "Which norm?"):
            assert said.encode() in content
        assert f"arm{1 - seed}".encode() not in content
    assert sorted(os.listdir(offline)) == ["run0", "run1"]


STUDY = """'''Does a study say who its runs are?'''
from kernorm.config import TrainConfig
SMALL = dict(net="eva6", train_size=256, validation_size=128, batch_size=64, epochs=1, warmup=0.0, report=False)
ARMS = {
    "bn": TrainConfig(track="mlflow", **SMALL),
    "ln": TrainConfig(norm="ln", track="mlflow", **SMALL),
    "gn": TrainConfig(norm="gn", track="wandb", **SMALL),
}
SEEDS = 2
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # their own
def test_a_study_of_two_processes_says_arm_and_study(offline, mnist_cache):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    (offline / "mine.py").write_text(STUDY)
    words = ["mine.py", "--workers=2", "--threads=1", "--reports-dir", "reports"]
    done = subprocess.run(
        [sys.executable, "-m", "kernorm.study", *words], capture_output=True, text=True, check=False, cwd=offline
    )
    assert done.returncode == 0, done.stderr
    logs = list((offline / "reports" / "runs").glob("*/wandb/offline-run-*/run-*.wandb"))
    assert [sum(name in log.parts[-4] for log in logs) for name in ("-gn-", "-bn-", "-ln-")] == [2, 0, 0]
    assert all(b"Does a study say who its runs are?" in log.read_bytes() for log in logs)
    client = mlflow.MlflowClient(f"sqlite:///{offline / 'reports' / STORE}")
    runs = client.search_runs([client.get_experiment_by_name("kernorm").experiment_id])
    assert sorted((run.data.tags["arm"], run.data.params["seed"], run.info.status) for run in runs) == [
        (arm, seed, "FINISHED") for arm in ("bn", "ln") for seed in ("0", "1")
    ]
    assert {run.data.tags["study"] for run in runs} == {"mine"}
