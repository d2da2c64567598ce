"""python -m kernorm.runs: the list of runs, tags, and what it refuses."""

import csv
import io

import pytest

from kernorm.records.record import read_record
from kernorm.records.tags import Tags, read_tags
from kernorm.runs import PROG, RunsConfig, main
from kernorm.saved_model.card import FOLDER, make_card, write_card
from kernorm.system.cli import run
from kernorm.system.files import locked
from tests.builders import a_run_of, in_study


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


def test_a_run_is_deleted_and_what_came_from_it_stays(reports, capsys, tmp_path_factory):
    first, second = sorted((reports / "runs").glob("*-s[01]-*"))
    (first / "report.html").write_text("page")
    saved = tmp_path_factory.mktemp("saved_models")
    published = saved / "kernorm" / "17"
    (published / FOLDER).mkdir(parents=True)
    (published / "saved_model.pb").touch()
    write_card(make_card(read_record(first / "record.json"), 17, {}, {}), published)
    size = sum(path.stat().st_size for path in first.iterdir())
    assert shown(reports, "--where", f"run={first.name}", "--tag", "gone", "--note", "x") == 0
    capsys.readouterr()
    words = ["--delete", str(first), second.name, "--saved-models-dir", str(saved)]
    assert shown(reports, *words) == 2
    assert "Deleting asks first. Received: no terminal to ask on" in capsys.readouterr().err
    assert first.exists()
    assert shown(reports, *words, "--yes") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [f"{size:,}", "bytes", str(first)]
    assert out[2:] == [f"stays: {published}, which is from {first.name}", f"page     {reports / 'index.html'}"]
    assert (published / "saved_model.pb").exists()
    assert [path.name for path in (reports / "runs").iterdir() if path.is_dir()] == [
        path.name for path in (reports / "runs").glob("*-s2-*")
    ]
    assert read_tags(reports) == {}
    assert first.name not in (reports / "index.html").read_text()


def test_a_run_that_studies_hold_is_deleted_from_its_folder_alone(reports, capsys):
    folder = next((reports / "runs").glob("*-s0-*"))
    record = read_record(folder / "record.json")
    in_study(reports, record)
    assert shown(reports, "--delete", folder.name, "--yes") == 0
    assert f"stays: the record of {folder.name} in studies/s" in capsys.readouterr().out
    assert not folder.exists()
    assert shown(reports, "--delete", folder.name, "--yes") == 2
    told = f"with a folder of their own. Received: {folder.name!r}, which is a line of studies/s/records.jsonl."
    assert told in capsys.readouterr().err
    assert (reports / "studies" / "s" / "records.jsonl").exists()


def test_a_run_that_is_trained_or_behind_a_link_is_not_deleted(reports, capsys, tmp_path_factory):
    first, second = sorted((reports / "runs").glob("*-s[01]-*"))
    with locked(first / "lock", "train"):
        assert shown(reports, "--delete", first.name, "--yes") == 2
    assert "A run that another process uses is not deleted." in capsys.readouterr().err
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    second.rename(elsewhere)
    second.symlink_to(elsewhere)
    assert shown(reports, "--delete", second.name, "--yes") == 2
    assert "never through a link" in capsys.readouterr().err
    assert (elsewhere / "record.json").exists()
    assert first.exists()


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
        (["--delete", "x"], "--delete takes runs by their names. Received: 'x'. python -m kernorm.runs lists"),
        (["--delete", "x", "--csv"], "--delete goes without other flags of a list. Received: another one."),
        (["--yes"], "--yes goes with --delete. Received: --yes alone. Remove it."),
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
