"""A search's page: next to what was found, the recipe as it is, trained in full as well, and the difference."""

import shlex
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.studies.wording import decided_interval, score, signed
from kernorm.system import cli
from tests.builders import Page, a_trial, leave_undrawn, own_net, summary_of
from tuner import report
from tuner.config import SearchConfig, first_of_trials
from tuner.confirm import DEFAULT, FOUND, FULL, Arm, Confirmed, final_arms
from tuner.report import command, write_search_report
from tuner.search import default
from tuner.trials import Trials

SETTINGS = ({"l1": 0.0, "l2": 1e-6, "batch_size": 64}, {"l1": 1.23e-5, "l2": 0.0, "batch_size": 16})


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Renders the page of a search whose full training has so many wrong images an arm and seed."""
    leave_undrawn(monkeypatch, report)
    config = SearchConfig(reports_dir=tmp_path, name="norms")
    config.folder.mkdir(parents=True)
    trials = Trials(config.folder)
    for number, value in enumerate((0.05, 0.04)):
        trials.add(a_trial(number, value, SETTINGS[number]))
    best = trials.best()[0]
    errors = {"trial 2": (30, 31, 33), "no penalty": (20, 22, 21)}
    study = summary_of({"trial 2": "ln", "no penalty": "bn"}, errors, "no penalty")

    def render(final):
        confirmed = Confirmed(
            arms=(Arm(name="trial 2", trial=best, scores=(0.045, 0.047)),),
            chosen=best,
            config=TrainConfig(),
            baseline=Arm(name="no penalty", trial=None, scores=(0.046,)),
            study=study,
            final=summary_of({FOUND: "ln", DEFAULT: "bn"}, final, DEFAULT),
        )
        return Page(write_search_report(config, trials, confirmed).read_text()), study, confirmed.final

    return render


def test_what_was_found_stands_next_to_the_recipe_as_it_is(page):
    found, study, final = page({FOUND: (40, 41, 42), DEFAULT: (20, 21, 22)})
    arm, default = final.arms
    assert f"{score(arm.scores['accuracy'].mean)} % test accuracy of what was found, trained in full" in found.text
    assert f"trained in full: {score(default.scores['accuracy'].mean)} % ±" in found.text
    assert f"Difference {signed(-0.02)} pp, {decided_interval(arm.decided)}: worse" in found.text
    row = found.row("trial 2")
    compared = study.arms[0].comparisons["accuracy"]
    assert row[2:5] == [signed(compared.difference), "worse", "0.0460"]
    assert row[7:9] == ["0.0400", "+0.0060"]
    assert found.row("no penalty")[2:4] == ["–", "baseline"]


def test_a_search_from_before_says_that_the_recipe_was_not_trained_in_full(page):
    found, _, _ = page({FOUND: (40, 41, 42)})
    assert "The same recipe as it is, without a search, is not yet trained in full" in found.text


def test_numbers_are_written_in_one_way(page):
    found, _, _ = page({FOUND: (40, 41, 42)})
    assert "1e-06" not in found.text
    assert "off, or 1e-6 to 0.001, log scale" in found.text
    assert found.row("1", "off")[1:4] == ["off", "1e-6", "64"]


def test_the_command_begins_the_same_search():
    words = [
        *("--name", "norms", "--oracle", "random", "--l2", "1e-5:1e-3", "--norms", "bn,ln", "--until-resolved"),
        *("--time-budget", "2h", "--no-final", "--optimizer", "adamw", "--weight-decay", "0.01", "--epochs", "9"),
        *("--label-smoothing", "0.1", "--validation-size", "500", "--norm-at", "conv1=none", "conv2=gn"),
    ]
    for more in ([], ["--recipe", "best"], ["--dataset", "photos@0123456789ab"]):
        config = parsed([*words, *more])
        assert parsed(shlex.split(command(config))[3:]) == config
    plain = SearchConfig(train=first_of_trials(TrainConfig()))
    assert command(plain) == "python -m tuner.search --name search --oracle best"


def parsed(words):
    """The settings of a search's command line."""
    first, own = default(words)
    return cli.parse(SearchConfig, prog="search", argv=own, default=first)


def test_the_command_names_an_own_net_by_a_file_that_is_kept():
    config = SearchConfig(name="mine", train=own_net("def net(image_shape, num_classes): ..."))
    told = command(config, [a_trial(0, 0.05, {})])
    assert f"--net '{config.folder}/runs/run 0/net.py:net'" in told


def test_the_recipe_as_it_is_has_no_value_of_the_search(tmp_path):
    config = SearchConfig(reports_dir=tmp_path, train=TrainConfig(epochs=4, train_size=10_000, l2=1e-4))
    found = replace(config.base, l1=1e-5, batch_size=16, seed=1000)
    arms = final_arms(config, found)
    assert (arms[FOUND].l1, arms[FOUND].batch_size) == (1e-5, 16)
    assert (arms[DEFAULT].l1, arms[DEFAULT].l2, arms[DEFAULT].batch_size) == (0.0, 1e-4, TrainConfig.batch_size)
    assert {(arm.epochs, arm.train_size, arm.seed) for arm in arms.values()} == {(TrainConfig.epochs, None, FULL)}
    assert list(final_arms(config, replace(config.base, seed=FULL))) == [FOUND]
