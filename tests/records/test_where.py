"""Conditions and orders of runs, against what plain Python selects."""

from dataclasses import replace

import pytest

from kernorm.errors import UsageError
from kernorm.records.tags import Tags
from kernorm.records.where import ordered, selected
from tests.builders import a_line

LINES = [
    a_line("r1", 0.9941, norm="gn", l2=1e-4),
    a_line("r2", 0.9907, ("studies/eva6",), norm="bn"),
    a_line("r3", None, ("searches/a/studies/b",), norm="gn", l2=0.01, nesterov=False, clip_ratio=None),
    a_line("r4", 0.9950, norm="ln", norm_at=("conv1=none", "conv2=gn"), net="resnet8"),
]
TAGS = {"r1": Tags(tags=("good", "paper-1"), note="the one"), "r4": Tags(tags=("bad",))}


@pytest.mark.parametrize(
    ("where", "runs"),
    [
        ("norm=gn", "13"),
        ("norm!=gn", "24"),
        ("norm=gn accuracy>99.4", "1"),
        ("accuracy>=99.41", "14"),
        ("accuracy<99.4", "2"),
        ("accuracy<=99.15", "2"),
        # In floating point 100 · 0.9907 is not 99.07.
        ("accuracy<=99.07", "2"),
        ("accuracy>=99.07", "124"),
        ("accuracy>99.07", "14"),
        ("accuracy<99.07", ""),
        ("accuracy=none", "3"),
        ("net=eva*", "123"),
        ("l2=0.0001", "1"),
        ("l2=1e-4", "1"),
        ("l2>0", "13"),
        ("nesterov=false", "3"),
        ("nesterov=True", "124"),
        ("clip_ratio=none", "3"),
        ("norm_at=conv2=gn", "4"),
        ("status=diverged", "3"),
        ("study=eva6", "2"),
        ("study=b", "3"),
        ("tag=paper-*", "1"),
        ("tag!=good", "234"),
        ("note=the*", "1"),
        ("run=r[34]", "34"),
        ("started>=2026-03-03", "34"),
        ("started<2026-03-02T12", "12"),
        ("started=2026-03-02", "2"),
        ("started!=2026-03-02", "134"),
        ("started=2026-03-0[12]*", "12"),
        ("started<=2026-03-02", "12"),
        ("started>2026-03-02", "34"),
        ("norm==gn", "13"),
        ("norm=g*", "13"),
        ("norm=frn", ""),
        ("norm>2", ""),
        ("", "1234"),
    ],
)
def test_a_condition_selects(where, runs):
    assert "".join(line.run[-1] for line in selected(LINES, [where], TAGS)) == runs


def test_a_number_that_a_list_shows_finds_its_run():
    line = replace(LINES[0], settings=LINES[0].settings | {"l1": 0.00023989412345})
    assert selected([line], [f"l1={0.00023989412345:g}"], {}) == [line]
    assert selected([line], ["l1=0.00024"], {}) == []
    assert selected([line], ["l1=0.000239895"], {}) == []


def test_several_conditions_must_all_hold():
    assert selected(LINES, ["norm=gn", "l2>0.001"], TAGS) == [LINES[2]]


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("norm", r"--where takes NAME=VALUE\. Received: 'norm'\. Give for example 'norm=gn accuracy>99\.4'\."),
        ("norm=", r"--where takes NAME=VALUE\. Received: 'norm='"),
        ("norm=xn", r"--where norm takes a known name\. Received: 'xn'\. Did you mean 'ln'\? Known: none, bn"),
        ("optimizer!=adam", r"--where optimizer takes a known name\. Received: 'adam'\. Did you mean 'adamw'\?"),
        ("nrom=gn", r"--where takes a setting or a column\. Received: 'nrom'\. Did you mean 'norm'\?"),
        (
            "accuracy>high",
            r"> of --where takes a number\. Received: 'accuracy>high'\. Give for example accuracy>99\.4\.",
        ),
    ],
)
def test_a_condition_of_another_form_is_refused(where, told):
    with pytest.raises(UsageError, match=told):
        selected(LINES, [where], TAGS)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("accuracy", "4123"),
        ("-accuracy", "2143"),
        ("l2", "3124"),
        ("norm", "4132"),
        ("-norm", "2134"),
        ("tag", "1423"),
        ("-started", "1234"),
        (None, "1234"),
    ],
)
def test_an_order_puts_what_is_missing_last(name, runs):
    assert "".join(line.run[-1] for line in ordered(LINES, name, TAGS)) == runs


def test_an_order_by_nothing_that_runs_have_is_refused():
    with pytest.raises(
        UsageError, match=r"--sort takes a setting or a column\. Received: 'acuracy'\. Did you mean 'acc"
    ):
        ordered(LINES, "-acuracy", TAGS)


def test_of_no_run_anything_may_be_asked():
    assert selected([], ["anything=1"], {}) == ordered([], "anything", {}) == []
