"""python -m kernorm.runs: the list of runs, tags, and what it refuses."""

import csv
import io

import pytest

from kernorm.records.tags import Tags, read_tags
from kernorm.runs import PROG, RunsConfig, main
from kernorm.system.cli import run
from tests.builders import a_run_of


@pytest.fixture
def reports(tmp_path):
    for seed in range(3):
        a_run_of(tmp_path, seed)
    return tmp_path


def shown(reports, *words):
    return run(RunsConfig, main, prog=PROG, argv=["--reports-dir", str(reports), *words])


def runs_of(text):
    return [row["seed"] for row in csv.DictReader(io.StringIO(text))]


def test_lists_what_is_asked_for_and_writes_a_page_of_all(reports, capsys):
    assert shown(reports, "--where", "seed>0") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["runs     2 of 3", f"page     {reports / 'index.html'}"]
    assert (reports / "index.html").read_text().count('<tr><th scope="row"') == 3
    assert shown(reports, "--csv", "--sort", "seed") == 0
    assert runs_of(capsys.readouterr().out) == ["2", "1", "0"]
    assert shown(reports, "--csv", "--sort=-seed", "--where", "seed<2", "norm=gn") == 0
    assert runs_of(capsys.readouterr().out) == ["0", "1"]
    assert shown(reports, "--latex", "--where", "seed=1") == 0
    assert capsys.readouterr().out.startswith(r"\begin{tabular}{rrlr}")
    assert shown(reports, "--where", "norm=ln") == 0
    assert capsys.readouterr().out.startswith("runs     0 of 3\n")


def test_a_run_that_was_deleted_is_gone(reports, capsys):
    assert shown(reports) == 0
    folder = next((reports / "runs").glob("*-s1-*"))
    (folder / "record.json").unlink()
    assert shown(reports, "--csv") == 0
    assert "-s1-" not in capsys.readouterr().out.rpartition("run,path")[2]
    assert "-s1-" not in (reports / "index.html").read_text()


def test_tags_and_notes_are_of_the_selected_runs(reports, capsys):
    assert shown(reports, "--where", "seed<2", "--tag", "good", "paper", "--note", "for table 2") == 0
    assert set(read_tags(reports).values()) == {Tags(tags=("good", "paper"), note="for table 2")}
    assert shown(reports, "--where", "seed=0", "--untag", "paper", "--note=-") == 0
    capsys.readouterr()
    assert shown(reports, "--csv", "--where", "tag=paper") == 0
    assert runs_of(capsys.readouterr().out) == ["1"]
    assert "for table 2" in (reports / "index.html").read_text()


def test_without_runs_it_says_so_and_writes_nothing(tmp_path, capsys):
    assert shown(tmp_path / "none", "--csv") == 0
    told = f"No run lies under {tmp_path / 'none'}. python -m kernorm.train trains one.\n"
    assert capsys.readouterr() == ("", told)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--csv", "--latex"], "A list has one form. Received: --csv and --latex. Give one of them."),
        (
            ["--tag", "x"],
            "--tag, --untag and --note say something of the runs that --where selects.",
        ),
        (
            ["--note", "x"],
            "Received: no --where. Give for example --where run=eva6-ln-*",
        ),
        (
            ["--where", "seed=9", "--tag", "x"],
            "--where must select a run. Received: 'seed=9', which selects none.",
        ),
        (["--where", "seed=0", "--tag", "a b"], "A tag is one word. Received: 'a b'."),
        (["--where", "sed=0"], "--where takes a setting or a column. Received: 'sed'. Did you mean 'seed'?"),
        (["--sort", "acuracy"], "--sort takes a setting or a column. Received: 'acuracy'. Did you mean 'accuracy'?"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(reports, capsys, words, told):
    assert shown(reports, *words) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert (out, err.count("\n")) == ("", 1)
    assert not (reports / "index.html").exists()
    assert read_tags(reports) == {}
