"""Runs that exist are compared: arms, means and intervals, and nothing that would be a verdict."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kernorm.errors import UsageError
from kernorm.records.index import list_lines
from kernorm.records.record import write_record
from kernorm.studies.analysis import analyse
from kernorm.studies.chosen import FILE, choose_runs, chosen_study, compare_runs, default_name, described
from kernorm.studies.ledger import Ledger, Result
from kernorm.studies.report import page
from kernorm.studies.report.arms import arms_of
from kernorm.studies.report.tables import tables_csv
from kernorm.study import PROG, StudyConfig, main
from kernorm.system.cli import run
from tests.builders import Page, a_run_of, in_study, leave_undrawn, make_evaluation, make_history

ERRORS = {"gn": (30, 34, 38), "ln": (40, 47, 45), "bn": (33, 35, 37)}


def some_runs(reports, seeds=lambda norm: range(3), **changes):
    """Runs of three norms; those of bn lie in a study alone."""
    found = {}
    for norm, errors in ERRORS.items():
        for seed, wrong in zip(seeds(norm), errors, strict=True):
            test = make_evaluation(errors=wrong, seed=seed)
            settings = {"norm": norm, "l2": 0.0 if norm == "bn" else 0.01, "pictures": False}
            record, folder = a_run_of(reports, seed, settings=settings, test=test, **changes)
            found.setdefault(norm, []).append(record)
            if norm == "bn":
                in_study(reports, record, "planned")
                (folder / "record.json").unlink()
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    reports = tmp_path_factory.mktemp("reports")
    records = some_runs(reports)
    lines = choose_runs((), ["epochs=8"], reports)
    folder = reports / "studies" / default_name(lines)
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch, page)
        summary = compare_runs(lines, folder, reports_dir=reports, command="python -m kernorm.study --where epochs=8")
    return records, folder, summary


def test_what_is_alike_but_for_the_seed_is_an_arm(compared):
    records, folder, summary = compared
    assert folder.name == "chosen-norm-l2"
    # The one with the fewest settings of its own is the baseline.
    assert summary.arms[0].name == "default"
    assert {arm.name: arm.baseline for arm in summary.arms[1:]} == {"gn-l2_0.01": "default", "ln-l2_0.01": "default"}
    assert summary.question == "Chosen afterwards: 9 runs that differ in norm, l2"
    assert (summary.finished, summary.missing, summary.chosen) == (9, 0, True)


@pytest.mark.parametrize("norm", ["gn", "ln"])
def test_means_and_intervals_are_those_of_the_runs(compared, norm):
    records, _, summary = compared
    arm = next(arm for arm in summary.arms if arm.config.norm == norm)
    values, base = ([record.test.cross_entropy for record in records[name]] for name in (norm, "bn"))
    score, found = arm.scores["cross_entropy"], arm.comparisons["cross_entropy"]
    assert score.mean == pytest.approx(np.mean(values))
    assert score.interval == pytest.approx(stats.t.interval(0.95, 2, np.mean(values), stats.sem(values)))
    differences = np.subtract(values, base)
    assert found.difference == pytest.approx(differences.mean())
    assert found.interval == pytest.approx(stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences)))


def test_there_is_no_verdict_and_no_p_and_it_is_no_look(compared):
    _, folder, summary = compared
    written = json.loads((folder / "summary.json").read_text())
    for arm in written["arms"]:
        assert [arm[name] for name in ("verdict", "p_adjusted", "mcnemar", "last")] == [None] * 4
        for comparison in arm["comparisons"].values():
            assert {comparison[name] for name in ("p", "tost_p", "p_paired", "p_welch")} == {None}
    assert not (folder / "design.json").exists()
    page = (folder / "report.html").read_text()
    text = " ".join(Page(page).words)
    assert "Chosen afterwards: 9 runs" in text
    assert "No verdict: these runs were chosen" in " ".join(text.split())
    for gone in (
        "p, Holm",
        "McNemar",
        "p, Welch",
        "TOST",
        "How a verdict is found",
        "Not resolved",
        "Marks are",
    ):
        assert gone not in text
    told = {line.split(",")[4] for line in (folder / "tables.csv").read_text().splitlines()}
    assert not {"p_holm", "difference_p", "difference_p_welch", "verdict_name", "p"} & told


def test_the_records_are_kept_and_the_same_runs_may_be_compared_again(compared):
    records, folder, _ = compared
    ledger = Ledger(folder)
    assert (len(ledger.results), ledger.file) == (9, FILE)
    lines = [line for line in list_lines(folder.parents[1]) if line.settings["norm"] != "ln"]
    _, results = chosen_study(lines, folder.parents[1], "x")
    ledger.rewrite(results)
    assert Ledger(folder).results == ledger.results
    assert {result.record.config.norm for result in ledger.results.values()} == {"gn", "bn"}


def test_runs_without_common_seeds_are_samples(tmp_path):
    starts = {"gn": 0, "ln": 1000, "bn": 7}
    records = some_runs(tmp_path, seeds=lambda norm: range(starts[norm], starts[norm] + 3))
    lines = choose_runs([record.run_id for norm in ("ln", "gn") for record in records[norm]], (), tmp_path)
    study, results = chosen_study(lines, tmp_path, "x")
    assert study.chosen == {"ln": {0: 1000, 1: 1001, 2: 1002}, "gn": {0: 0, 1: 1, 2: 2}}
    summary = described(analyse(study, {result.run_id: result for result in results}))
    baseline, arm = summary.arms
    assert (baseline.name, arm.name, baseline.baseline) == ("ln", "gn", None)
    means = {norm: np.mean([record.test.accuracy for record in records[norm]]) for norm in ("ln", "gn")}
    found = arm.comparisons["accuracy"]
    assert found.difference == pytest.approx(means["gn"] - means["ln"])
    assert found.interval[0] < found.difference < found.interval[1]
    text = tables_csv(summary, arms_of(study, summary, {result.run_id: result for result in results})).decode()
    assert {line.split(",")[1] for line in text.splitlines()[1:]} == {"", "0", "1", "2", "1000", "1001", "1002"}


def asked(reports, *words):
    return run(StudyConfig, main, prog=PROG, argv=["--reports-dir", str(reports), *words])


def test_the_command_shows_what_it_compares(tmp_path, capsys, monkeypatch):
    leave_undrawn(monkeypatch, page)
    for norm in ("bn", "gn"):
        for seed in range(2):
            test = make_evaluation(errors=ERRORS[norm][seed])
            a_run_of(tmp_path, seed, settings={"norm": norm, "pictures": False}, test=test, history=make_history(2))
    assert asked(tmp_path, "--where", "norm=?n", "--margin", "0.5pp", "--no-pictures") == 0
    out = capsys.readouterr().out
    assert "Chosen afterwards: no verdict, no p; intervals are not corrected for the number of arms." in out
    head, baseline, arm = (line.split() for line in out.splitlines()[:3])
    assert baseline[0], baseline[-1] == ("default", "baseline")
    assert (arm[0], arm[1], arm[-1], arm[-3]) == ("gn", "2", "pp", "to")
    path = tmp_path / "studies" / "chosen-norm" / "report.html"
    assert out.endswith(f"report   {path}\n")
    assert "python -m kernorm.study --where &#39;norm=?n&#39; --margin 0.5pp --no-pictures" in path.read_text()


def test_runs_that_cannot_stand_next_to_each_other_are_refused_by_name(tmp_path, capsys):
    gn, ln = some_runs(tmp_path)["gn"][0], a_run_of(tmp_path, 0, settings={"norm": "rms"})[0]
    other = {"data": replace(gn.data, sha256="ab" * 32)}
    mixes = {
        "were trained on the same data. Received: mnist of sha256 5d5d5d5d5d5d: {gn}; mnist of sha256 ababab": (
            {"dropout": 0.2},
            other,
        ),
        "selected their epoch by one rule. Received: --select last: {gn}; --select test: {it}": (
            {"select": "test"},
            {},
        ),
        "were trained by one revision of the training code. Received: revision 2: {gn}; revision 1: {it}": (
            {"dropout": 0.3},
            {"revision": 1},
        ),
        "have a test result. Received: {it} (diverged). Leave them out": (
            {"dropout": 0.4},
            {"status": "diverged", "message": "nan", "test": None},
        ),
    }
    for told, (settings, changes) in mixes.items():
        record, _ = a_run_of(tmp_path, 0, settings=settings, **changes)
        assert asked(tmp_path, "--runs", gn.run_id, record.run_id) == 2
        assert f"Runs that are compared {told.format(gn=gn.run_id, it=record.run_id)}" in capsys.readouterr().err
    assert asked(tmp_path, "--runs", gn.run_id) == 2
    assert f"A comparison has two runs or more. Received: {gn.run_id} alone. Add one." in capsys.readouterr().err
    assert asked(tmp_path, "--where", "norm=bn") == 2
    assert "which differ in more than the seed. Received: 3 runs of 1 arm. Choose others." in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["planned"]
    assert asked(tmp_path, "--runs", gn.run_id, ln.run_id, "--name", "planned") == 2
    assert "A study's folder belongs to one study. Received: " in capsys.readouterr().err


def test_a_config_counts_once_with_each_seed(tmp_path):
    records = some_runs(tmp_path)["gn"]
    again = tmp_path / "runs" / f"{records[0].run_id}-r2"
    again.mkdir()
    write_record(replace(records[0], started="2026-04-01T10:00:00+00:00"), again / "record.json")
    lines = choose_runs((), ["norm=?n"], tmp_path)
    told = rf"A config counts once with each seed\. Received: {again.name}, {records[0].run_id}\. Leave all"
    with pytest.raises(UsageError, match=told):
        compare_runs(lines, tmp_path / "studies" / "x", reports_dir=tmp_path)


def test_a_record_of_a_study_that_was_damaged_since_is_told(tmp_path):
    some_runs(tmp_path)
    lines = choose_runs((), ["norm=?n"], tmp_path)
    (tmp_path / "studies" / "planned" / "records.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"A run's record must be whole\. Received: .*planned/records\.jsonl\. "):
        compare_runs(lines, tmp_path / "studies" / "x", reports_dir=tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--runs", "x"], "--runs takes runs by their names. Received: 'x'. python -m kernorm.runs lists them."),
        (["--where", "norm=frn"], "--where must select runs. Received: 'norm=frn', which selects none."),
        (["--where", "nrom=gn"], "--where takes a setting or a column. Received: 'nrom'. Did you mean 'norm'?"),
        (["smoke", "--where", "norm=gn"], "by --runs or --where. Received: 'smoke' and --where. Give one of them"),
        (["--runs", "x", "--where", "norm=gn"], "Received: --runs and --where."),
        (
            ["--where", "norm=gn", "--seeds", "3"],
            "that exist are compared as they are. Received: --seeds. Remove it.",
        ),
        (["--where", "norm=gn", "--push"], "are compared as they are. Received: --push."),
        (["--where", "norm=gn", "--report-only"], "are compared as they are. Received: --report-only."),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, words, told):
    a_run_of(tmp_path)
    assert asked(tmp_path, *words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert not (tmp_path / "studies").exists()


def test_results_are_replaced_as_a_whole(tmp_path):
    record, _ = a_run_of(tmp_path)
    ledger = Ledger(in_study(tmp_path, record))
    other = Result(arm="a", seed=1, run_id="x", status="failed", message="no", file=FILE)
    ledger.rewrite([other])
    assert ledger.results == Ledger(ledger.path.parent).results == {"x": other}
