"""Runs that could not be trained for a reason that is not theirs: they are no results, so nothing is said of them."""

import errno
import os
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.parallel.engine import Engine, Workplace, do_job
from kernorm.parallel.jobs import train_job
from kernorm.studies.definition import UntilResolved
from kernorm.studies.design import read_design
from kernorm.studies.ledger import Ledger
from kernorm.studies.runner import run_study
from kernorm.system.files import locked
from tests.builders import a_study

RULE = r"^Every run of a study must be trained\. Received: "


class InPlace(Engine):
    """Does each job in this process, as a worker does."""

    slots = 1

    def _start(self, job):
        future = Future()
        future.set_result(do_job(train_job, job, Workplace(log=None)))
        return future

    def _ended(self, future):
        return ""

    def _close(self):
        pass


@pytest.fixture
def study(boxes_cache, tmp_path, monkeypatch):
    monkeypatch.setattr("kernorm.studies.runner.open_training", lambda *_, **__: InPlace())
    settings = TrainConfig(dataset="boxes", validation_size=32, batch_size=40, reports_dir=tmp_path, export=False)
    arms = {norm: replace(settings, norm=norm) for norm in ("bn", "ln")}
    return a_study(arms, seeds=3, baselines=dict.fromkeys(arms, "bn"), metric="accuracy")


@pytest.mark.parametrize("until", [None, UntilResolved()])
def test_runs_that_another_process_trains_are_no_results(study, tmp_path, until):
    folder = tmp_path / "studies" / "mine"
    told = r"6 runs that could not be, the first boxes-.*-s0-\w+: Busy: Only one process at a time may train this run\."
    with ExitStack() as held:
        for run in study.runs():
            (tmp_path / "runs" / run.config.run_id).mkdir(parents=True)
            held.enter_context(locked(tmp_path / "runs" / run.config.run_id / "lock", "train this run"))
        with pytest.raises(UsageError, match=rf"{RULE}{told}.* Run the same command to go on once that is settled\."):
            run_study(study, folder, until=until)
    assert not Ledger(folder).results
    assert not read_design(folder).looks


def test_a_full_disk_is_no_arms_fault(study, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kernorm.training.run.make_folder", full)
    with pytest.raises(UsageError, match=rf"{RULE}6 runs .*: OSError: \[Errno 28\] No space left on device\."):
        run_study(study, tmp_path / "studies" / "mine")
    assert not Ledger(tmp_path / "studies" / "mine").results


def test_a_run_that_fails_by_itself_is_a_result(study, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("kernorm.training.run.make_folder", fail)
    run_study(study, tmp_path / "studies" / "mine")
    results = Ledger(tmp_path / "studies" / "mine").results.values()
    assert {(result.status, result.message) for result in results} == {("failed", "RuntimeError: out of memory")}
