"""KerasTuner's oracles as a search uses them: each fault of 1.4.8 that is closed has a test."""

import itertools
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from keras_tuner.src.engine import oracle as engine
from keras_tuner.src.engine.trial import TrialStatus

from kernorm.errors import UsageError
from tests.builders import end_trial, open_oracle, oracle_score
from tuner.base import HOPELESS

# KerasTuner asks the current thread for its name in a way that Python 3.10 deprecated.


def run(oracle, most=200):
    """Runs an oracle to its end with one slot; returns the values of its trials."""
    found = []
    for _ in range(most):
        trial = oracle.create_trial("slot0")
        if trial.status != "RUNNING":
            break
        found.append(trial.hyperparameters.values)
        end_trial(oracle, trial)
    return found


@pytest.mark.parametrize("name", ["random", "optuna", "hyperband"])
def test_the_same_seed_gives_the_same_trials_and_zero_is_a_seed(tmp_path, name):
    first, again, other = (
        run(open_oracle(tmp_path / folder, name, seed=seed), most=8) for folder, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other
    assert len(first) == 8


@pytest.mark.parametrize("name", ["random", "grid", "optuna"])
def test_trials_are_distinct_and_their_number_is_kept(tmp_path, name):
    found = run(open_oracle(tmp_path / "s", name))
    assert len(found) == 12
    assert len({json.dumps(values, sort_keys=True) for values in found}) == 12


def test_values_are_active_ones_only(tmp_path):
    for values in run(open_oracle(tmp_path / "s", "optuna")):
        assert ("l1" in values) == values["l1_on"]
        assert ("l2" in values) == values["l2_on"]


def test_optuna_finds_what_is_good(tmp_path):
    """After its random start the estimator's trials are better than random ones of the same space."""
    random = [oracle_score(values) for values in run(open_oracle(tmp_path / "r", "random", max_trials=40))]
    learned = [oracle_score(values) for values in run(open_oracle(tmp_path / "o", "optuna", max_trials=40))]
    assert np.mean(learned[20:]) < np.mean(random) - 0.004


def test_a_grid_is_the_product_of_its_values_also_when_resumed_after_every_trial(tmp_path):
    words = {"l1": "off", "l2": "1e-4:1e-3", "batch_sizes": "16,64", "norms": "bn,ln", "max_trials": 99}
    whole = run(open_oracle(tmp_path / "whole", "grid", **words))
    expected = set(itertools.product(("bn", "ln"), (None, 1e-4, 1e-3), (16, 64)))
    assert {(values["norm"], values.get("l2"), values["batch_size"]) for values in whole} == expected
    assert len(whole) == len(expected)
    resumed = []
    while found := run(open_oracle(tmp_path / "resumed", "grid", **words), most=1):
        resumed += found
    assert resumed == whole


@pytest.mark.parametrize("most", [8, pytest.param(14, marks=pytest.mark.slow)])
def test_bayesian_suggests_after_its_random_start(tmp_path, most):
    pytest.importorskip("sklearn")
    oracle = open_oracle(tmp_path / "s", "bayesian", l1="off", max_trials=most)
    assert len(run(oracle)) == most


def test_hyperband_promotes_the_best_with_their_values(tmp_path):
    oracle = open_oracle(tmp_path / "s", "hyperband")
    found = run(oracle)
    rungs = [values["tuner/epochs"] for values in found]
    assert set(rungs) == {1, 3, 9}
    promoted = [values for values in found if values["tuner/initial_epoch"]]
    assert promoted
    for values in promoted:
        parent = oracle.trials[values["tuner/trial_id"]].hyperparameters.values
        assert {name: value for name, value in values.items() if not name.startswith("tuner/")} == {
            name: value for name, value in parent.items() if not name.startswith("tuner/")
        }
        assert values["tuner/initial_epoch"] == parent["tuner/epochs"]


SMALL = {"l1": "off", "l2": "off", "batch_sizes": "16,64", "norms": "bn,ln,gn,in,rms", "max_trials": 30}


@pytest.mark.parametrize("name", ["random", "optuna", "bayesian"])
def test_a_small_space_is_tried_once_each_with_several_trials_under_way(tmp_path, name):
    if name == "bayesian":
        pytest.importorskip("sklearn")
    oracle, found, under_way = open_oracle(tmp_path / "s", name, **SMALL), [], []
    while (trial := oracle.create_trial(f"slot{len(found) % 3}")).status == "RUNNING":
        found.append((trial.hyperparameters.values["norm"], trial.hyperparameters.values["batch_size"]))
        under_way.append(trial)
        if len(under_way) == 3:
            end_trial(oracle, under_way.pop(0))
    assert sorted(found) == sorted(itertools.product(("bn", "gn", "in", "ln", "rms"), (16, 64)))


def test_hyperband_refuses_a_space_that_it_would_not_promote_in(tmp_path):
    with pytest.raises(
        UsageError, match=r"^Hyperband begins with different points\. Received: a space of 10, where 9 "
    ):
        open_oracle(tmp_path / "s", "hyperband", **SMALL)
    assert open_oracle(tmp_path / "s", "hyperband", **SMALL | {"l2": "1e-4:1e-3"}).first_trials() > 10


def test_hyperbands_epochs_are_those_of_its_trials(tmp_path):
    oracle = open_oracle(tmp_path / "s", "hyperband")
    found = run(oracle)
    assert oracle.most_epochs() == sum(values["tuner/epochs"] - values["tuner/initial_epoch"] for values in found)


@pytest.mark.parametrize("name", ["random", "optuna", "hyperband", "bayesian"])
def test_points_given_come_first_and_once(tmp_path, name):
    if name == "bayesian":
        pytest.importorskip("sklearn")
    points = [
        {"l1_on": False, "l2_on": True, "l2": 0.0033, "batch_size": 64},
        {"l1_on": True, "l1": 1e-4, "l2_on": False, "batch_size": 16},
    ]
    found = run(open_oracle(tmp_path / "s", name, points), most=4)
    plain = [{key: value for key, value in values.items() if not key.startswith("tuner/")} for values in found]
    assert plain[:2] == points
    assert not [values for values in plain[2:] if values in points]


@pytest.mark.parametrize("name", ["random", "grid", "optuna", "hyperband"])
def test_killed_anywhere_a_search_has_the_same_number_of_trials_none_twice(tmp_path, name, monkeypatch):
    """The files as they lie after every single write are what a kill at that moment leaves; each is taken up again."""
    import tuner.base

    live, shots = tmp_path / "live", tmp_path / "shots"
    write, taken = tuner.base.write_atomically, itertools.count()

    def write_and_keep(path, content):
        write(path, content)
        shutil.copytree(live, shots / f"{next(taken):03}")

    monkeypatch.setattr(tuner.base, "write_atomically", write_and_keep)
    words = {"max_trials": 6, "l1": "off"}
    begun = open_oracle(live, name, **words)
    whole = run(begun, most=30)
    monkeypatch.setattr(tuner.base, "write_atomically", write)
    assert next(taken) > 3 * len(whole)
    for folder in sorted(shots.iterdir())[:24]:
        ended = {
            path.parent.name
            for path in folder.glob("trial_*/trial.json")
            if json.loads(path.read_text())["status"] == "COMPLETED"
        }
        oracle = open_oracle(folder, name, **words)
        again = run(oracle, most=60)
        assert len(oracle.trials) == len(begun.trials)
        assert len(again) == len(begun.trials) - len(ended)
        assert sorted(oracle.end_order) == sorted(oracle.trials) == sorted(oracle.start_order)
        assert {trial.status for trial in oracle.trials.values()} == {TrialStatus.COMPLETED}


def test_a_trial_under_way_is_handed_out_again_with_its_values(tmp_path):
    before = open_oracle(tmp_path / "s")
    trials = [before.create_trial(f"slot{number}") for number in range(3)]
    end_trial(before, trials[1])
    after = open_oracle(tmp_path / "s")
    found = [after.create_trial("slot0")]
    end_trial(after, found[0])
    found.append(after.create_trial("slot0"))
    assert [trial.trial_id for trial in found] == [trials[0].trial_id, trials[2].trial_id]
    assert [t.hyperparameters.values for t in found] == [trials[n].hyperparameters.values for n in (0, 2)]


def test_an_ended_trial_is_no_longer_written_as_ongoing(tmp_path):
    oracle = open_oracle(tmp_path / "s")
    end_trial(oracle, oracle.create_trial("slot0"))
    assert json.loads((tmp_path / "s" / "oracle.json").read_text())["ongoing_trials"] == {}


def test_a_write_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    oracle = open_oracle(tmp_path / "s")
    end_trial(oracle, oracle.create_trial("slot0"))
    before = (tmp_path / "s" / "oracle.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            oracle.create_trial("slot0")
    assert (tmp_path / "s" / "oracle.json").read_bytes() == before


def test_an_error_frees_the_oracles_lock(tmp_path):
    oracle = open_oracle(tmp_path / "s")
    with pytest.raises(KeyError):
        oracle.update_trial("no such trial", {"val_cross_entropy": 1.0})
    assert not engine.LOCKS[oracle].locked()
    other = threading.Thread(target=oracle.create_trial, args=("slot0",))
    other.start()
    other.join()


def test_refuses_points_for_a_grid(tmp_path):
    with pytest.raises(UsageError, match=r"^A grid has its own order\. Received: --enqueue with --oracle grid\."):
        open_oracle(tmp_path / "s", "grid", enqueue="published")


@pytest.mark.parametrize(("name", "module"), [("optuna", "tuner.optuna_oracle"), ("bayesian", "")])
def test_refuses_an_oracle_that_is_not_installed(tmp_path, monkeypatch, name, module):
    package = {"optuna": "optuna", "bayesian": "scikit-learn"}[name]
    if name == "optuna":
        monkeypatch.setitem(__import__("sys").modules, module, None)
    else:
        from keras_tuner.src.tuners import bayesian

        monkeypatch.setattr(bayesian, "sklearn", None)
    with pytest.raises(UsageError, match=rf"^--oracle {name} needs .* pip install {package}\."):
        open_oracle(tmp_path / "s", name)


@pytest.mark.parametrize(
    ("name", "words"), [("grid", {"norms": "bn,gn", "groups": "2,4", "l1": "off"}), ("hyperband", {})]
)
def test_the_number_of_trials_to_come_is_known(tmp_path, name, words):
    oracle = open_oracle(tmp_path / "s", name, max_trials=200, **words)
    assert oracle.most_trials() == len(run(oracle)) > 20


def test_three_failures_and_nothing_else_end_a_search(tmp_path):
    oracle = open_oracle(tmp_path / "s")
    for _ in range(HOPELESS):
        end_trial(oracle, oracle.create_trial("slot0"), "FAILED")
    assert oracle.create_trial("slot0").status == TrialStatus.STOPPED
    assert not oracle.tuner_ids
    other = open_oracle(tmp_path / "t")
    for status in ("FAILED", "COMPLETED", "FAILED", "FAILED", "FAILED"):
        end_trial(other, other.create_trial("slot0"), status)
    assert len(run(other)) == 7


def test_failures_before_a_search_was_resumed_do_not_end_it_at_once(tmp_path):
    oracle = open_oracle(tmp_path / "s")
    for _ in range(HOPELESS):
        end_trial(oracle, oracle.create_trial("slot0"), "FAILED")
    resumed = open_oracle(tmp_path / "s")
    for _ in range(HOPELESS):
        end_trial(resumed, resumed.create_trial("slot0"), "FAILED")
    assert resumed.create_trial("slot0").status == TrialStatus.STOPPED


def test_a_trial_whose_result_is_lost_is_handed_out_again(tmp_path):
    oracle = open_oracle(tmp_path / "s", max_trials=2)
    values = run(oracle)
    resumed = open_oracle(tmp_path / "s", max_trials=2)
    assert resumed.nothing_left()
    resumed.run_again([resumed.start_order[0]])
    assert not resumed.nothing_left()
    assert run(resumed) == values[:1]
    assert resumed.nothing_left()
    assert sorted(resumed.end_order) == sorted(resumed.start_order)


def test_after_the_deadline_no_trial_is_begun_but_one_under_way_is_there(tmp_path):
    oracle = open_oracle(tmp_path / "s")
    trial = oracle.create_trial("slot0")
    oracle.deadline = 0
    assert oracle.create_trial("slot0") is trial
    assert oracle.create_trial("slot1").status == TrialStatus.STOPPED


def test_a_chief_that_comes_back_gives_each_worker_its_own_trial(tmp_path):
    before = open_oracle(tmp_path / "s")
    mine, other = before.create_trial("a.0"), before.create_trial("b.0")
    oracle = open_oracle(tmp_path / "s")
    oracle.leave_with_workers()
    assert oracle.create_trial("c.0").trial_id not in (mine.trial_id, other.trial_id)
    assert oracle.create_trial("b.0").trial_id == other.trial_id
    end_trial(oracle, oracle.create_trial("a.0"))
    assert oracle.create_trial("a.0").trial_id not in (mine.trial_id, other.trial_id)


def test_a_trial_ended_while_it_waits_to_be_run_again_is_not(tmp_path):
    trial = open_oracle(tmp_path / "s").create_trial("slot0")
    oracle = open_oracle(tmp_path / "s")
    assert oracle._retry_queue == [trial.trial_id]
    end_trial(oracle, trial)
    assert oracle.create_trial("slot0").trial_id != trial.trial_id


def test_between_chief_and_worker_nothing_is_printed_and_nothing_lost(tmp_path, capsys):
    from keras_tuner.src.engine.trial import Trial

    oracle = open_oracle(tmp_path / "s", norms="bn,gn", groups="2,4")
    for _ in range(6):
        trial = oracle.create_trial("slot0")
        copied = Trial.from_proto(trial.to_proto())
        assert copied.hyperparameters.values == pytest.approx(trial.hyperparameters.values)
        assert copied.trial_id == trial.trial_id
        end_trial(oracle, trial)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["[ab]", "a*", "a\\b"])
def test_a_search_is_resumed_from_any_folder(tmp_path, name):
    other, here = tmp_path / "ab" / "s", tmp_path / name / "s"
    run(open_oracle(other, "random", seed=5), most=3)
    values = run(open_oracle(here, "random"), most=3)
    found = open_oracle(here, "random")
    assert [found.trials[trial].hyperparameters.values for trial in found.end_order] == values
