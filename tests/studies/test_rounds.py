"""Studies that run until they are resolved; their runs are those that another study has, so that none is trained."""

import json
import logging
from dataclasses import replace

import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import prepared_sha256
from kernorm.errors import UsageError
from kernorm.records.jsonl import JsonLines
from kernorm.reporting.format import NO_BREAK
from kernorm.studies.definition import UntilResolved
from kernorm.studies.design import Design, read_design
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.rounds import format_round, next_round, require_order, with_counts
from kernorm.studies.runner import run_study
from tests.benchmarks import verdicts as simulation
from tests.builders import a_study

ARMS = {
    name: TrainConfig(dataset="boxes", validation_size=32, batch_size=40, norm=norm)
    for name, norm in (("base", "none"), ("same", "bn"), ("good", "ln"))
}


def elsewhere(tmp_path, seeds=50, better=0.3, name="other", **changes):
    """Lets another study have runs of all arms: `same` is the baseline's equal, `good` better by so many points."""
    world = simulation.World(simulation.Setting(arms=2, seeds=1, interaction=0.0, better=better), 4)
    world.chances = {"base": world.chances["base"], "same": world.chances["base"], "good": world.chances["arm 1"]}
    template = simulation.template_record()
    template = replace(template, data=replace(template.data, name="boxes", sha256=prepared_sha256("boxes")))
    ledger = Ledger(tmp_path / "studies" / name)
    ledger.path.parent.mkdir(parents=True)
    lines, form = [], JsonLines(Result)  # which takes long to make
    for run in a_study(ARMS, seeds=seeds).runs():
        test = simulation.evaluation(template, world.wrong(run.arm))
        record = replace(template, run_id=run.config.run_id, config=run.config, test=test, **changes)
        result = Result(arm="theirs", seed=run.seed, run_id=record.run_id, status="finished", record=record)
        lines.append(form.line(result))
    ledger.path.write_bytes(b"".join(lines))


@pytest.fixture
def study(boxes_cache):
    return a_study(ARMS, baselines=dict.fromkeys(ARMS, "base"), metric="accuracy")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No page is drawn, and the bootstrap, which no verdict looks at, is left out: rounds are many."""
    monkeypatch.setattr("kernorm.studies.runner.write_study_report", lambda *_, **__: None)
    monkeypatch.setattr("kernorm.stats.comparison.bootstrap_interval", lambda *_: (0.0, 0.0))


def counts_of(folder):
    seeds = {}
    for result in Ledger(folder).results.values():
        seeds.setdefault(result.arm, []).append(result.seed)
    return {arm: len(found) for arm, found in seeds.items()}


def test_it_ends_when_every_arm_is_resolved(tmp_path, study, caplog):
    caplog.set_level(logging.INFO, "kernorm")
    elsewhere(tmp_path)
    folder = tmp_path / "studies" / "mine"
    summary = run_study(study, folder, until=UntilResolved())
    verdicts = {arm.name: arm.verdict.name for arm in summary.arms if arm.verdict}
    assert verdicts["good"] == "better"
    counts = counts_of(folder)
    assert counts["good"] < counts["same"] == counts["base"]
    assert summary.missing == 0
    assert summary.seeds == tuple(range(counts["base"]))
    rounds = [text for text in caplog.messages if " seeds: " in text]
    assert rounds[0].startswith("0 seeds: 2 open, 0 resolved")
    assert rounds[1].startswith("3 seeds: ")
    assert any("resolved: good better" in text for text in rounds)
    assert "same: not resolved, " in rounds[1]
    assert rounds[0].endswith("at most 50 rounds more")
    assert rounds[1].endswith("at most 47 rounds more")  # all runs existed: how long training takes is not known
    kept = read_design(folder)
    assert (kept.until_resolved, kept.looks[-1].seeds) == (True, counts)
    # Every round shows verdicts, so that whoever interrupts it has seen them.
    assert [max(look.seeds.values()) for look in kept.looks] == list(range(3, counts["base"] + 1))
    # Given again, nothing is added.
    before = (folder / "records.jsonl").read_bytes()
    assert run_study(study, folder, until=UntilResolved()).seeds == summary.seeds
    assert (folder / "records.jsonl").read_bytes() == before
    assert read_design(folder) == kept


def test_what_is_not_used_is_said_once_and_not_in_every_round(tmp_path, study, caplog):
    caplog.set_level(logging.INFO, "kernorm")
    elsewhere(tmp_path, better=0.0)
    elsewhere(tmp_path, seeds=3, name="old", revision=1)
    run_study(study, tmp_path / "studies" / "mine", until=UntilResolved(most=5))
    assert sum(" seeds: " in text for text in caplog.messages) == 4  # before the first round, and after each of three
    said = [text for text in caplog.messages if "not used here" in text]
    assert said == ["9 runs have results not used here: 9 of another revision of the training code."]


def test_it_stops_at_the_cap_or_budget_and_goes_on(tmp_path, study, caplog):
    caplog.set_level(logging.INFO, "kernorm")
    elsewhere(tmp_path, better=0.0)
    folder = tmp_path / "studies" / "mine"
    first = run_study(study, folder, until=UntilResolved(seconds=1e-9))
    assert first.seeds == (0, 1, 2)
    assert "The time budget ends; the same command with a longer one goes on." in caplog.text
    assert {arm.verdict.name for arm in first.arms if arm.verdict} == {"not resolved"}
    assert {arm.verdict.of for arm in first.arms if arm.verdict} == {"these images"}
    told = format_round(first, first.design, dict.fromkeys(ARMS, 3), seconds=90.0).replace(NO_BREAK, " ")
    assert told.endswith("at most 47 rounds more, about 1 h 10 min at 1 min 30 s each")  # 47 of 90 s are 4,230 s
    capped = run_study(study, folder, until=UntilResolved(most=6))
    assert capped.seeds == tuple(range(6))
    assert "the most seeds are reached" in caplog.text
    whole = run_study(study, tmp_path / "studies" / "whole", until=UntilResolved(most=6))
    assert [arm.verdict for arm in whole.arms] == [arm.verdict for arm in capped.arms]
    with pytest.raises(UsageError, match=r"How a study ends is decided before its first run\."):
        run_study(study, folder)


def test_a_fixed_study_that_was_looked_at_knows_it(tmp_path, study):
    elsewhere(tmp_path, seeds=6)
    folder = tmp_path / "studies" / "mine"
    first = run_study(a_study(ARMS, seeds=3), folder)
    assert not first.anytime
    assert [look.seeds for look in first.design.looks] == [dict.fromkeys(ARMS, 3)]
    assert run_study(a_study(ARMS, seeds=3), folder) == first  # the same page again is no second look
    more = run_study(a_study(ARMS, seeds=6), folder)
    assert more.anytime
    assert [look.seeds for look in more.design.looks] == [dict.fromkeys(ARMS, seeds) for seeds in (3, 6)]
    assert len(json.loads((folder / "design.json").read_text())["looks"]) == 2
    assert run_study(a_study(ARMS, seeds=6), folder, train=False) == more


def test_an_arm_alone_has_no_verdict_that_could_be_seen(tmp_path, study):
    elsewhere(tmp_path, seeds=6)
    folder, alone = tmp_path / "studies" / "mine", {"base": ARMS["base"]}
    assert run_study(a_study(alone, seeds=3), folder).design.looks == ()
    assert not run_study(a_study(ARMS, seeds=6), folder).anytime


def test_another_name_takes_over_the_looks_at_the_runs_that_it_takes(tmp_path, study):
    elsewhere(tmp_path, seeds=6)
    for seeds in (3, 6):
        run_study(a_study(ARMS, seeds=seeds), tmp_path / "studies" / "mine")
    again = run_study(a_study(ARMS, seeds=6), tmp_path / "studies" / "again")
    assert again.anytime
    assert [(look.study, set(look.seeds.values())) for look in again.design.looks] == [("mine", {3}), ("mine", {6})]
    assert run_study(a_study(ARMS, seeds=6), tmp_path / "studies" / "again") == again
    # Of the study next to it nobody has seen a verdict, nor of runs that this one has trained.
    assert not run_study(a_study(ARMS, seeds=3), tmp_path / "studies" / "third").anytime


def test_a_round_that_was_interrupted_is_completed_first(study):
    design = Design(until_resolved=True, cap=8)
    both = ["same", "good"]
    assert next_round(study, design, both, {}) == {"base": 3, "same": 3, "good": 3}
    assert next_round(study, design, both, {"base": 3, "same": 3, "good": 3}) == {"base": 4, "same": 4, "good": 4}
    assert next_round(study, design, both, {"base": 4, "same": 3, "good": 4}) == {"base": 4, "same": 4, "good": 4}
    assert next_round(study, design, ["same"], {"base": 5, "same": 5, "good": 3}) == {"base": 6, "same": 6, "good": 3}
    assert next_round(study, design, both, {"base": 8, "same": 8, "good": 8}) == {}
    assert next_round(study, design, both, {"base": 8, "same": 7, "good": 8}) == {"base": 8, "same": 8, "good": 8}
    assert next_round(study, design, [], {"base": 3, "same": 3, "good": 3}) == {}
    planned = with_counts(study, {"base": 2, "same": 2, "good": 1})
    assert [(run.arm, run.seed) for run in planned.runs()] == [
        ("base", 0),
        ("same", 0),
        ("good", 0),
        ("base", 1),
        ("same", 1),
    ]


def test_seeds_come_in_their_order(study):
    with pytest.raises(UsageError, match=r"seeds in order, from 0\. Received: seeds 0, 2 of 'good'\. Give --name"):
        require_order(study, {"good": dict.fromkeys((0, 2)), "base": dict.fromkeys((0, 1))})
