"""A study before all its runs have ended: means and progress, and neither verdict nor look."""

import csv
import io
import json

import pytest

from kernorm.api.study import StudyResult
from kernorm.config import TrainConfig
from kernorm.reporting import figures
from kernorm.studies import runner
from kernorm.studies.analysis import analyse
from kernorm.studies.design import Design, read_design
from kernorm.studies.ledger import RECORDS, Ledger
from kernorm.studies.provisional import is_complete, without_verdicts
from kernorm.studies.report import page as report
from kernorm.studies.runner import run_study
from kernorm.system.files import locked
from tests.builders import Page, a_study, leave_undrawn, some_results

ARMS = {"bn": TrainConfig(epochs=2), "ln": TrainConfig(epochs=2, norm="ln"), "gn": TrainConfig(epochs=2, norm="gn")}
# So far apart that two seeds give a verdict.
ERRORS = {"bn": (20, 21, 22), "ln": (90, 91, 92), "gn": (20, 22, 21)}
STARTED = {arm: errors[:2] for arm, errors in ERRORS.items()}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    leave_undrawn(monkeypatch, report)
    monkeypatch.setattr(report, "grids_of", lambda arms: [])


@pytest.fixture
def study(boxes_cache):
    return a_study(ARMS, metric="accuracy")


def filled(folder, study, errors):
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder)
    for name, result in some_results(study, errors).items():
        if name not in ledger.results:
            ledger.add(result)
    return folder


def page_of(folder):
    return Page((folder / "report.html").read_text())


def test_an_incomplete_study_shows_means_and_no_verdict_and_is_no_look(tmp_path, study):
    folder = filled(tmp_path / "studies" / "mine", study, STARTED)
    summary = run_study(study, folder, train=False)
    assert analyse(study, Ledger(folder).results, design=Design()).arms[1].verdict.name == "worse"  # it would be one
    assert (summary.provisional, summary.missing) == (True, 3)
    for arm in summary.arms:
        assert arm.scores["accuracy"].n == 2
        assert (arm.verdict, arm.p_adjusted, arm.comparisons, arm.mcnemar) == (None, None, {}, None)
        assert arm.generalization_difference is None
    kept = read_design(folder)
    assert kept is None or kept.looks == ()
    found = page_of(folder)
    assert "6 of 9 runs, not complete" in found.text
    assert "No verdict before all runs have: 6 of 9 runs have ended" in found.text
    assert "Means so far." in found.text
    for row in found.rows:
        if row and row[0] == "ln" and len(row) > 6:
            assert not {"worse", "better", "not resolved"} & {cell.strip() for cell in row}
    rows = csv.DictReader(io.StringIO((folder / "tables.csv").read_text()))
    assert not [row for row in rows if row["statistic"] in ("p_holm", "difference", "verdict_name")]
    result = StudyResult(study, summary, folder)
    assert result.verdict("ln") == "no verdict yet: 3 runs are missing"
    assert result.table.loc["ln", "verdict"] == ""


def test_the_last_run_brings_the_verdicts_and_the_look(tmp_path, study):
    folder = filled(tmp_path / "studies" / "mine", study, STARTED)
    run_study(study, folder, train=False)
    filled(folder, study, ERRORS)
    summary = run_study(study, folder, train=False)
    assert not summary.provisional
    assert summary.arms[1].verdict.name == "worse"
    assert not summary.anytime  # what was seen before was no look
    assert [look.seeds for look in read_design(folder).looks] == [dict.fromkeys(ARMS, 3)]
    assert "not complete" not in page_of(folder).text


def test_a_study_until_resolved_may_be_looked_at_at_any_time(study):
    results = some_results(study, STARTED)
    assert not is_complete(study, Design(), results)
    assert is_complete(study, Design(until_resolved=True), results)
    assert is_complete(study, Design(), some_results(study, ERRORS))


def test_factors_have_means_without_effects():
    arms = {f"{norm}-{l2:g}": TrainConfig(norm=norm, l2=l2) for norm in ("ln", "gn") for l2 in (0.0, 1e-3)}
    study = a_study(arms, seeds=3)
    summary = without_verdicts(analyse(study, some_results(study, dict.fromkeys(arms, (20, 22)))))
    levels = [level for factor in summary.factors for level in factor.levels]
    assert len(levels) == 4
    assert all(level.mean is not None and level.effect is None and level.interval is None for level in levels)


def test_a_page_is_made_while_another_process_runs_the_study(tmp_path, study, capsys):
    """Its half-written line stays, and nothing but the page is written."""
    folder = filled(tmp_path / "studies" / "mine", study, STARTED)
    with (folder / RECORDS).open("ab") as file:
        file.write(b'{"arm":"bn","seed":2,')
    before = (folder / RECORDS).read_bytes()
    with locked(folder / "lock", "run this study"):
        summary = run_study(study, folder, train=False)
        assert (folder / RECORDS).read_bytes() == before
        assert not (folder / "design.json").exists()
        assert not list(folder.glob("*.png"))
    assert summary.provisional
    found = page_of(folder)
    assert "6 of 9 runs" in found.text
    assert ("meta", {"http-equiv": "refresh", "content": "60"}) in found.tags
    assert json.loads((folder / "summary.json").read_text())["provisional"] is True


def test_a_live_page_says_when_it_ends_and_has_few_charts(tmp_path, study, monkeypatch):
    folder = filled(tmp_path / "studies" / "mine", study, STARTED)
    ledger, drawn = Ledger(folder), []
    monkeypatch.setattr(figures, "draw_svg", lambda panel: drawn.append(panel.name) or figures.Drawing(panel.name, []))
    ends = runner.Live(6, 9, "runs", page_time())
    runner._show(study, ledger, Design(), "a command", live=ends)
    found = page_of(folder)
    assert "6 of 9 runs, ends about 15:20 UTC" in found.text
    assert ("time", {"datetime": "2026-03-01T15:20:00+00:00"}) in found.tags
    assert set(drawn) == {
        *("seeds-accuracy", "seeds-cross-entropy", "val-accuracy", "val-cross-entropy", "accuracy", "cross-entropy")
    }


def page_time():
    from datetime import UTC, datetime

    return datetime(2026, 3, 1, 15, 20, tzinfo=UTC)
