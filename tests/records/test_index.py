"""The index of runs tells what the records do, whatever happened to it and to them."""

import json
import os
from dataclasses import replace

import pytest

from kernorm.config import without_places
from kernorm.records.index import INDEX, append_run, list_lines
from kernorm.records.jsonl import JsonLines
from kernorm.records.record import write_record
from kernorm.studies.ledger import Result
from tests.builders import a_run_of, in_study, make_history


def test_a_line_holds_what_the_record_does(tmp_path):
    record, folder = a_run_of(tmp_path)
    (line,) = list_lines(tmp_path)
    assert (line.run, line.path, line.status) == (record.run_id, f"runs/{record.run_id}", "finished")
    assert (line.accuracy, line.cross_entropy) == (record.test.accuracy, record.test.cross_entropy)
    assert (line.low, line.high) == record.test.interval
    assert line.validation == record.validation.cross_entropy
    assert (line.data, line.revision, line.studies) == (record.data.sha256, record.revision, ())
    assert {name: line.settings[name] for name in ("norm", "l2", "seed")} == {"norm": "gn", "l2": 0.01, "seed": 0}
    assert "reports_dir" not in line.settings
    assert line.settings.keys() == record.config.identity.keys()


def test_an_appended_line_is_the_one_that_is_made_from_the_record(tmp_path):
    record, folder = a_run_of(tmp_path)
    append_run(record, folder)
    appended = (tmp_path / INDEX).read_bytes()
    (line,) = list_lines(tmp_path)
    assert (tmp_path / INDEX).read_bytes() == appended  # it was taken as it is
    (tmp_path / INDEX).unlink()
    assert list_lines(tmp_path) == [line]
    assert (tmp_path / INDEX).read_bytes() == appended


def test_a_run_that_has_diverged_is_listed_without_scores(tmp_path):
    record, folder = a_run_of(tmp_path, status="diverged", message="the loss is nan", test=None, validation=None)
    append_run(record, folder)
    (line,) = list_lines(tmp_path)
    assert (line.status, line.accuracy, line.low, line.validation) == ("diverged", None, None, None)


def test_a_run_that_stopped_where_it_was_to_is_paused(tmp_path):
    shown = []
    for stop, epochs in ((3, 3), (3, 2), (None, 2)):
        folder = tmp_path / str(len(shown))
        a_run_of(folder, settings={"stop_after": stop}, status="running", history=make_history(epochs))
        (line,) = list_lines(folder)
        shown.append(line.status)
    assert shown == ["paused", "running", "running"]


def test_what_changed_since_is_read_again_and_what_is_gone_is_not_listed(tmp_path):
    first, folder = a_run_of(tmp_path)
    second, gone = a_run_of(tmp_path, seed=1)
    assert [line.run for line in list_lines(tmp_path)] == [second.run_id, first.run_id]
    write_record(replace(first, status="diverged"), folder / "record.json")
    (gone / "record.json").unlink()
    (line,) = list_lines(tmp_path)
    assert (line.run, line.status) == (first.run_id, "diverged")
    assert len((tmp_path / INDEX).read_bytes().splitlines()) == 1


def test_of_two_lines_of_one_folder_the_later_counts(tmp_path):
    record, folder = a_run_of(tmp_path)
    append_run(replace(record, status="running"), folder)
    append_run(record, folder)
    assert [line.status for line in list_lines(tmp_path)] == ["finished"]


@pytest.mark.parametrize("damage", [b'{"run": "x", "pa', b"\xff\n", b"[1]\n", b'{"run": "x"}\n', b'{"path": "runs/x"}'])
def test_a_damaged_line_of_the_index_is_made_again(tmp_path, damage):
    record, _ = a_run_of(tmp_path)
    before = list_lines(tmp_path)
    (tmp_path / INDEX).write_bytes(damage)
    assert list_lines(tmp_path) == before


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "{}", '{"config": 3}'])
def test_a_damaged_record_is_left_out(tmp_path, damage):
    record, _ = a_run_of(tmp_path)
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "record.json").write_text(damage)
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "file").touch()
    assert [line.run for line in list_lines(tmp_path)] == [record.run_id]


def test_a_run_of_a_study_is_one_line_with_its_studies(tmp_path):
    record, _ = a_run_of(tmp_path)
    other = replace(record, config=replace(record.config, seed=5), started="2026-03-02T10:00:00+00:00")
    for name in ("s", "t"):
        in_study(tmp_path, record, name)
    in_study(tmp_path, other)
    alone, shared = list_lines(tmp_path)
    assert (shared.path, shared.studies) == (f"runs/{record.run_id}", ("studies/s", "studies/t"))
    assert (alone.run, alone.path, alone.studies) == (other.config.run_id, "studies/s", ("studies/s",))
    assert list_lines(tmp_path) == [alone, shared]  # by the index that is written now
    in_study(tmp_path, replace(other, config=replace(other.config, seed=6)))
    assert len(list_lines(tmp_path)) == 3


def test_runs_of_searches_and_examples_are_listed(tmp_path):
    record, _ = a_run_of(tmp_path, place="examples")
    a_run_of(tmp_path, seed=1, place="searches/one/runs")
    in_study(tmp_path / "searches" / "one", replace(record, config=replace(record.config, seed=2)))
    paths = {line.path.rpartition("/")[0] for line in list_lines(tmp_path)}
    assert paths == {"examples", "searches/one/runs", "searches/one/studies"}


def test_an_older_record_has_the_settings_that_came_later(tmp_path):
    record, folder = a_run_of(tmp_path)
    content = json.loads((folder / "record.json").read_bytes())
    for name in ("ema", "elastic"):
        del content["config"][name]
    del content["revision"]
    (folder / "record.json").write_text(json.dumps(content))
    (line,) = list_lines(tmp_path)
    assert (line.settings["ema"], line.settings["elastic"], line.revision) == (0.0, 0.0, 1)


def test_an_index_that_cannot_be_written_lists_all_the_same(tmp_path):
    record, folder = a_run_of(tmp_path)
    (tmp_path / INDEX).mkdir()
    append_run(record, folder)
    os.rmdir(tmp_path / INDEX)
    (tmp_path / "runs" / f".index.jsonl.{os.getpid()}.tmp").mkdir()  # where it is written first
    with pytest.raises(OSError, match=r"index\.jsonl"):
        (tmp_path / "runs" / f".index.jsonl.{os.getpid()}.tmp").write_bytes(b"")
    assert [line.run for line in list_lines(tmp_path)] == [record.run_id]


def test_a_folder_without_runs_has_none(tmp_path):
    assert list_lines(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_ledger_lines_that_cannot_be_read_are_left_out(tmp_path):
    record, _ = a_run_of(tmp_path)
    folder = in_study(tmp_path, without_places_of(record))
    with (folder / "records.jsonl").open("ab") as file:
        file.write(b"{broken\n[]\n")
    assert len(list_lines(tmp_path)) == 1
    assert len(list(JsonLines(Result).read(folder / "records.jsonl"))) == 3


def without_places_of(record):
    return replace(record, config=without_places(record.config))


@pytest.mark.parametrize(
    "damage", [{"run_id": None}, {"record": [1]}, {"record": {"config": {}, "test": [1]}}, {"record": {"config": 3}}]
)
def test_a_line_of_a_study_that_holds_something_else_is_left_out(tmp_path, damage):
    record, _ = a_run_of(tmp_path / "elsewhere")
    path = in_study(tmp_path, record) / "records.jsonl"
    whole = json.loads(path.read_text())
    path.write_text("".join(json.dumps(line) + "\n" for line in (whole | damage, whole)))
    assert [line.studies for line in list_lines(tmp_path)] == [("studies/s",)]
