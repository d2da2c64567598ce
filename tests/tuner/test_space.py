"""The space of a search: words to ranges, KerasTuner's form of it, and a trial's config."""

import math

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import Range
from tuner.config import TRIAL, SearchConfig
from tuner.points import published_points
from tuner.space import configured, declare, point

BASE = TrainConfig(epochs=9)


def space(**words):
    return SearchConfig(**words, train=BASE).space


def test_the_words_become_ranges_choices_and_single_values():
    found = space(
        l1="1e-5:1e-3", l2="0.0066", batch_sizes="8,32", norms="bn,gn", groups="2,4", learning_rate="0.01:0.1"
    )
    assert found.l1 == Range(1e-5, 1e-3)
    assert found.l2 == 0.0066
    assert (found.batch_size, found.norm, found.groups) == ((8, 32), ("bn", "gn"), (2, 4))
    assert found.learning_rate == Range(0.01, 0.1)
    assert [name for name, _ in found.described()] == ["norm", "groups", "l1", "batch_size", "learning_rate"]


def test_every_hyperparameter_is_declared_before_the_first_trial():
    hp = declare(space(norms="bn,gn", groups="2,4", learning_rate="0.01:0.1"))
    names = [item.name for item in hp.space]
    assert names == ["norm", "groups", "l1_on", "l1", "l2_on", "l2", "batch_size", "learning_rate"]
    by_name = {item.name: item for item in hp.space}
    assert [(by_name[name].sampling, by_name[name].min_value) for name in ("l1", "learning_rate")] == [
        ("log", 1e-6),
        ("log", 0.01),
    ]
    assert [condition.name for name in ("groups", "l1") for condition in by_name[name].conditions] == ["norm", "l1_on"]


def test_log_sampling_spreads_over_the_decades():
    hp = next(item for item in declare(space(l1="1e-6:1e-2")).space if item.name == "l1")
    exponents = np.log10([hp.random_sample(seed) for seed in range(2000)])
    assert np.histogram(exponents, bins=4, range=(-6, -2))[0] == pytest.approx([500] * 4, abs=75)


def test_a_grid_has_a_value_a_decade():
    assert Range(1e-6, 1e-3).grid() == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])
    assert Range(0.02, 0.06).grid() == pytest.approx([0.02, 0.06])
    hp = next(item for item in declare(space(), grid=True).space if item.name == "l1")
    assert list(hp.values) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3])


def test_a_trial_is_a_run_that_stops_unmeasured():
    found = space(norms="bn,gn", groups="2,4")
    values = {"norm": "gn", "groups": 2, "l1_on": True, "l1": 1e-4, "l2_on": False, "batch_size": 16}
    config = configured(found, BASE, values)
    assert (config.norm, config.groups, config.l1, config.l2, config.batch_size) == ("gn", 2, 1e-4, 0.0, 16)
    assert config.stop_after == 9
    rung = configured(found, BASE, values | {"tuner/epochs": 3, "norm": "bn"})
    assert (rung.stop_after, rung.epochs, rung.groups) == (3, 9, "auto")
    assert config.identity == configured(found, BASE, values | {"tuner/epochs": 3}).identity


def test_what_is_not_searched_keeps_the_value_it_was_given():
    config = configured(space(l1="off", l2="0.01", learning_rate="0.5"), BASE, {"batch_size": 64})
    assert (config.l1, config.l2, config.learning_rate, config.norm) == (0.0, 0.01, 0.5, "bn")


def test_points_are_given_as_fields_of_train():
    found = space(norms="bn,ln")
    assert point(found, {"l2": 0.0066, "norm": "ln"}) == {
        "norm": "ln",
        "l1_on": False,
        "l2_on": True,
        "l2": 0.0066,
        "batch_size": 16,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"l3": 1}, r"^A point names what is searched\. Received: 'l3'\. Did you mean 'l"),
        ({"l2": 0.5}, r"^A point lies in the space\. Received: l2=0\.5, searched: off, or 1e-6 to 0\.01"),
        ({"l2": "x"}, r"^A point lies in the space\. Received: l2='x'"),
        ({"batch_size": 17}, r"^A point lies in the space\. Received: batch_size=17, searched: 16, 32, 64, 128"),
    ],
)
def test_refuses_points_outside(given, message):
    with pytest.raises(UsageError, match=message):
        point(space(), given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"l1": "1e-3:1e-6"}, r"^--l1 takes LOW:HIGH.*Received: '1e-3:1e-6'\."),
        ({"l2": "0:1"}, r"^--l2 takes LOW:HIGH.*Received: '0:1'\."),
        ({"l2": "nan"}, r"^--l2 takes LOW:HIGH.*Received: 'nan'\."),
        ({"l1": "a:b:c"}, r"^--l1 takes LOW:HIGH.*Received: 'a:b:c'\."),
        ({"l2": "1e-6:1e9"}, r"^--l2 must be a finite number.*Received: l2=1000000000"),
        ({"learning_rate": "off"}, r"^--learning-rate must be above 0\."),
        (
            {"learning_rate": "1:1e4"},
            r"^--learning-rate must be above 0 and at most 1000\. Received: learning_rate=10000",
        ),
        ({"batch_sizes": "16,x"}, r"^--batch-sizes takes different whole numbers from 1\. Received: '16,x'"),
        ({"batch_sizes": "16,16"}, r"^--batch-sizes takes different whole numbers"),
        ({"batch_sizes": "0"}, r"^--batch-sizes takes different whole numbers"),
        ({"norms": "bn,lnn"}, r"^--norms takes known names\. Received: 'lnn'\. Did you mean 'ln'\?"),
        ({"norms": "bn,bn"}, r"^--norms takes each norm once\. Received: 'bn,bn'"),
        ({"groups": "2,4"}, r"^--groups belongs to gn\. Received: groups=2,4 with bn\. Add gn\."),
        ({"l1": "off", "l2": "off", "batch_sizes": "64"}, r"^A search varies something\. Received: one value of every"),
        ({"max_trials": 0}, r"^--max-trials must be at least 1\. Received: max_trials=0"),
        ({"repeats": 0}, r"^--repeats must be at least 1"),
        ({"name": "a/b"}, r"^--name is one folder's name\. Received: 'a/b'"),
        ({"report_only": True, "overwrite": True}, r"^--overwrite deletes what --report-only shows"),
        ({"resume": True, "overwrite": True}, r"^--resume and --overwrite exclude each other"),
        ({"time_budget": "soon"}, r"^--time-budget takes a time\. Received: 'soon'\. Give for example 30m"),
        ({"top_k": -1}, r"^--top-k must be at least 0"),
    ],
)
def test_refuses_what_cannot_be_searched(words, message):
    with pytest.raises(UsageError, match=message):
        SearchConfig(**words)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"select": "test"}, r"^A search keeps the test split sealed\. Received: select='test'"),
        ({"validation_size": 0}, r"^A search needs a validation split\. Received: validation_size=0"),
    ],
)
def test_refuses_runs_that_a_search_cannot_score(train, message):
    with pytest.raises(UsageError, match=message):
        SearchConfig(train=TrainConfig(**train))


def test_a_time_budget_is_read_in_its_unit():
    assert [SearchConfig(time_budget=text).budget_seconds for text in ("30m", "1.5h", "20s", "7")] == [
        1800,
        5400,
        20,
        7,
    ]
    assert SearchConfig().budget_seconds is None
    assert TRIAL == {"epochs": 4, "train_size": 10_000}


def test_a_point_without_a_rate_has_the_middle_of_its_range():
    found = space(learning_rate="0.01:0.1")
    assert point(found, {"l2": 0.0066})["learning_rate"] == pytest.approx(10**-1.5)
    assert point(found, {"learning_rate": 0.02})["learning_rate"] == 0.02


def test_published_points_are_counted_and_those_outside_too(caplog):
    caplog.set_level("INFO", "kernorm")
    assert len(published_points(SearchConfig(learning_rate="0.01:0.1", batch_sizes="64,128"))) > 5
    assert len(published_points(SearchConfig(batch_sizes="7,9"))) == 0
    assert "points of the published tables; 16 rows lie outside of the space" in caplog.messages[-1]


def test_the_number_of_different_points_is_known():
    assert space().distinct() == math.inf
    assert space(l1="off", l2="off", norms="bn,gn", groups="2,4", batch_sizes="16,64").distinct() == 6
