"""What is confirmed of a search: which trials, against what, on which seeds, and how failed runs count."""

import json
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.recipes import recipe
from tests.builders import a_trial, make_record, summary_of
from tuner import confirm as confirm_module
from tuner.confirm import (
    BASELINE,
    DEFAULT,
    FOUND,
    FRESH,
    FULL,
    SETTINGS,
    baseline_in_words,
    confirm,
    confirmed_arms,
    final_arms,
)
from tuner.search import default
from tuner.trials import Trials

ERRORS = {"trial 9": (1, 2)}


def config_of(folder, *words):
    config, _ = default(list(words))
    return replace(config, reports_dir=folder, top_k=3, confirm_seeds=2, final=False)


def trial(number, score=0.05, **values):
    values = {"l1_on": False, "l2_on": False, "batch_size": 64} | values
    return replace(a_trial(number, score, {}), values=values)


def test_settings_that_were_tried_for_more_epochs_are_confirmed_once(tmp_path):
    best = [
        trial(0, batch_size=16),
        trial(1, batch_size=16),
        trial(2, batch_size=32),
        trial(3),
        trial(4, batch_size=128),
    ]
    arms, baseline = confirmed_arms(config_of(tmp_path), best)
    # The fourth trial has the recipe's own settings, so that it is the baseline as well.
    assert (list(arms), baseline) == (["trial 1", "trial 3", "trial 4"], "trial 4")
    assert len({arm.run_id for arm in arms.values()}) == 3


def test_the_baseline_is_the_best_trial_without_its_penalty(tmp_path):
    config = config_of(tmp_path, "--batch-sizes", "16,32")
    arms, baseline = confirmed_arms(config, [trial(0, l2_on=True, l2=1e-4, batch_size=16), trial(1, batch_size=32)])
    assert baseline == BASELINE
    assert arms[BASELINE] == replace(arms["trial 1"], l2=0.0)
    again, baseline = confirmed_arms(config, [trial(0, l2_on=True, l2=1e-4, batch_size=16), trial(1, batch_size=16)])
    assert (list(again), baseline) == (["trial 1", "trial 2"], "trial 2")


def test_where_the_best_has_no_penalty_the_baseline_is_the_recipe(tmp_path):
    config = replace(config_of(tmp_path), l1="off", l2="off", norms="bn,ln")
    arms, baseline = confirmed_arms(config, [trial(0, norm="ln", batch_size=16)])
    assert baseline == DEFAULT
    assert (arms[DEFAULT].norm, arms[DEFAULT].batch_size) == ("bn", TrainConfig.batch_size)
    arms, baseline = confirmed_arms(config_of(tmp_path), [trial(0, batch_size=16)])
    assert (arms[DEFAULT].batch_size, baseline) == (TrainConfig.batch_size, DEFAULT)


def test_the_page_says_what_the_trials_are_compared_with(tmp_path):
    config = config_of(tmp_path)

    def told(baseline):
        return baseline_in_words(
            config, summary_of({"trial 9": "ln", baseline: "bn"}, ERRORS | {baseline: (3, 4)}, baseline)
        )

    assert told(BASELINE) == "the best trial without its penalty"
    assert told(DEFAULT) == "the recipe as it is"
    assert told("trial 2") == "trial 2, which is the recipe as it is"


def test_a_full_training_has_seeds_of_its_own_and_the_epochs_of_its_recipe(tmp_path):
    config = config_of(tmp_path, "--recipe", "best")
    chosen = confirmed_arms(config, [trial(0, l2_on=True, l2=1e-4)])[0]["trial 1"]
    arms = final_arms(config, chosen)
    assert {arm.seed for arm in arms.values()} == {FULL}
    assert chosen.seed == FRESH
    assert final_arms(config_of(tmp_path, "--recipe", "best", "--epochs", "3"), chosen)[DEFAULT].epochs == 40
    assert final_arms(config_of(tmp_path), chosen)[FOUND].epochs == TrainConfig.epochs
    assert arms[DEFAULT].epochs == recipe("best").epochs


def test_a_search_from_before_is_confirmed_as_it_was_begun(tmp_path):
    config = config_of(tmp_path)
    config.folder.mkdir(parents=True)
    (config.folder / SETTINGS).write_text(json.dumps({"oracle": "random"}))
    arms, _ = confirmed_arms(config, [trial(0, l2_on=True, l2=1e-4, batch_size=16)])
    assert (arms[BASELINE].batch_size, arms[BASELINE].seed) == (TrainConfig.batch_size, FRESH)
    assert final_arms(config, arms["trial 1"])[FOUND].seed == FRESH
    assert baseline_in_words(config, None) == "the same recipe without penalty"


def test_the_seeds_that_an_arm_survived_do_not_choose_it(tmp_path, monkeypatch):
    config = config_of(tmp_path)
    trials = Trials(config.folder)
    trials.ended += [trial(0, 0.04, batch_size=32), trial(1, 0.05, batch_size=16)]
    scores = {"trial 1": [0.03], "trial 2": [0.1, 0.2], DEFAULT: [0.3, 0.3]}

    def study(_, name, arms, *__):
        records = {arm: {seed: scored(value) for seed, value in enumerate(scores[arm])} for arm in arms}
        return None, records, {arm: 2 - len(records[arm]) for arm in arms}

    def scored(value):
        record = make_record()
        return replace(record, validation=replace(record.validation, cross_entropy=value))

    monkeypatch.setattr(confirm_module, "_study", study)
    monkeypatch.setattr(confirm_module, "_export", lambda *_: None)
    found = confirm(config, trials)
    assert [(arm.name, arm.score, arm.failed) for arm in found.arms] == [
        ("trial 2", pytest.approx(0.15), 0),
        ("trial 1", 0.03, 1),
    ]
    assert found.chosen.number == 1
