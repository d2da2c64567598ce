import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.parallel.engine import Outcome
from kernorm.parallel.jobs import train_job
from kernorm.studies.definition import Planned
from tests.builders import make_history, make_record
from tuner.config import SearchConfig
from tuner.driver import Driver, _repeat
from tuner.trials import TrialRun


def scored(epochs, before=0, **settings):
    """The repeat of a trial of so many epochs whose run has six, the fourth of them the best."""
    history = tuple(
        replace(row, val_cross_entropy=0.01 if row.epoch == 4 else row.val_cross_entropy) for row in make_history(6)
    )
    config = TrainConfig(epochs=9, schedule="constant", **settings)
    record = make_record(config=config, history=history, selected_epoch=4)
    return _repeat(Outcome(TrialRun(trial_id="0", config=config), record, None, 1), before, epochs), history


def test_a_trial_that_stopped_by_itself_is_scored_on_the_epoch_that_is_kept():
    repeat, history = scored(9, patience=2)
    assert repeat.cross_entropy == 0.01
    assert repeat.seconds == sum(row.seconds for row in history)


def test_another_trial_is_scored_on_its_last_epoch():
    repeat, history = scored(5, select="validation")
    assert (repeat.cross_entropy, repeat.accuracy) == (history[5].val_cross_entropy, history[5].val_accuracy)


def test_a_promoted_trial_costs_its_own_epochs_alone():
    repeat, history = scored(5, before=3)
    assert repeat.seconds == sum(row.seconds for row in history[4:6])
    assert repeat.cpu_seconds == sum(row.cpu_seconds for row in history[4:6])
    assert repeat.cross_entropy == history[5].val_cross_entropy


@pytest.mark.parametrize(
    "job",
    [TrialRun(trial_id="0", config=TrainConfig()), Planned(arm="bn", seed=0, config=TrainConfig())],
    ids=["of a search", "of a study"],
)
def test_a_worker_that_reads_its_job_imports_nothing_of_what_hands_it_out(job):
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); print(*{name.partition('.')[0] for name in sys.modules})"
    read = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((train_job, job)), capture_output=True, check=True
    )
    loaded = set(read.stdout.decode().split())
    assert "kernorm" in loaded
    assert not loaded & {"keras", "keras_tuner", "matplotlib", "pandas", "scipy", "statsmodels", "tensorflow"}


@pytest.mark.parametrize("error", ["OSError: No space left on device", "PermissionError: run.csv", "Busy: it is held"])
def test_a_trial_that_files_keep_from_being_trained_is_no_failure_of_its_values(error):
    driver = Driver(SearchConfig(name="s"), oracle=None, trials=SimpleNamespace(seconds=0.0), ended=None)
    run = TrialRun(trial_id="7", config=TrainConfig())
    told = rf"^Every trial must be trained\. Received: trial 7, {error}\. Run the same command to go on once"
    with pytest.raises(UsageError, match=told):
        driver._take(Outcome(run, None, error, 1))
