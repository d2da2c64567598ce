"""The file of a search's trials: what cannot be read is kept aside, and said."""

from dataclasses import replace

from kernorm.errors import LOST
from tests.builders import a_trial
from tuner.trials import Trials


def test_lines_that_cannot_be_read_are_moved_aside_by_whoever_may_write(tmp_path, caplog):
    trials = Trials(tmp_path)
    for number in range(3):
        trials.add(a_trial(number, 0.05, {"l2": 0.1}))
    path = tmp_path / "trials.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    newer = first.replace("{", '{"of_a_newer_version": 1, ', 1)
    path.write_text(newer + "".join(others))
    before = path.read_bytes()
    assert [trial.number for trial in Trials(tmp_path, mend=False).ended] == [1, 2]
    assert path.read_bytes() == before
    assert caplog.messages == [f"Lines of {path} cannot be read (1)."]
    assert [trial.number for trial in Trials(tmp_path).ended] == [1, 2]
    assert (tmp_path / "trials.damaged.jsonl").read_text() == newer
    assert path.read_text() == "".join(others)
    assert "their trials run again" in caplog.messages[-1]


def test_a_trial_whose_worker_was_lost_counts_once_it_ran_again(tmp_path):
    trials = Trials(tmp_path)
    whole = a_trial(0, 0.05, {"l2": 0.1})
    failed = {"status": "failed", "score": None, "repeats": ()}
    trials.add(replace(whole, **failed, message=f"{LOST} was killed by SIGKILL; 2 attempts"))
    trials.add(replace(a_trial(1, 0.04, {}), **failed, message="diverged at step 3: the loss is nan"))
    assert [trial.lost for trial in trials.ended] == [True, False]
    trials.add(whole)
    for found in (trials, Trials(tmp_path)):
        assert [(trial.number, trial.score) for trial in found.ended] == [(1, None), (0, 0.05)]
