import dataclasses
import json
import math
from typing import Annotated

import pytest
from pydantic import TypeAdapter

from kernorm import config
from kernorm.errors import UsageError
from kernorm.records.record import RECORD, Export, Mistake, read_record, write_record
from kernorm.records.schema import BY_COLUMNS, strict
from tests.builders import make_history, make_record


@pytest.fixture
def path(tmp_path):
    """A whole record.json in an empty folder."""
    write_record(make_record(), tmp_path / RECORD)
    return tmp_path / RECORD


def damage(path, **changes):
    """Writes the record at `path` again, with some of its top-level values changed."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_record_comes_back_as_it_was(tmp_path):
    record = make_record(
        status="failed",
        message="a “message”\nof two lines",
        export=Export(path="saved_models/x/17", version=17, tree_sha256="ab" * 32),
    )
    write_record(record, tmp_path / RECORD)
    assert read_record(tmp_path / RECORD) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_the_smallest_record_comes_back_as_it_was(tmp_path):
    nothing = dict.fromkeys(("train", "validation", "test", "export", "penalty_proof", "selected_epoch"))
    record = make_record(history=(), layers=(), pruned=(), openings=(), status="running", **nothing)
    write_record(record, tmp_path / RECORD)
    assert read_record(tmp_path / RECORD) == record


def test_a_record_of_before_a_setting_has_the_value_that_meant_as_before(path, monkeypatch):
    """The first reader that has the setting: its default is another value."""
    content = json.loads(path.read_text())
    assert content["config"].pop("dropout") == 0.0
    path.write_text(json.dumps(content))
    monkeypatch.setattr(config, "ADDED", {"dropout": 0.25})
    assert read_record(path).config.dropout == 0.25


def test_a_record_without_a_revision_or_a_last_epoch_is_read(path):
    content = json.loads(path.read_text())
    del content["revision"], content["test_last"]
    path.write_text(json.dumps(content))
    read = read_record(path)
    assert (read.revision, read.test_last) == (1, None)


def test_what_is_not_finite_comes_back(tmp_path):
    row = dataclasses.replace(make_history(1)[1], loss=math.nan, cross_entropy=math.inf, learning_rate=-math.inf)
    write_record(make_record(history=(row,)), tmp_path / RECORD)
    (read,) = read_record(tmp_path / RECORD).history
    assert math.isnan(read.loss)
    assert (read.cross_entropy, read.learning_rate) == (math.inf, -math.inf)


def test_training_mistakes_are_counted_but_not_listed(path):
    train = json.loads(path.read_text())["train"]
    assert (train["errors"], train["mistakes"]) == (37, [])


def test_mistakes_are_held_by_columns_and_read_in_either_form(path):
    record, content = read_record(path), json.loads(path.read_text())
    mistakes = record.test.mistakes
    assert content["test"]["mistakes"] == {
        name: [getattr(mistake, name) for mistake in mistakes]
        for name in ("index", "target", "prediction", "confidence")
    }
    rows = [dataclasses.asdict(mistake) for mistake in mistakes]
    damage(path, test=content["test"] | {"mistakes": rows})
    assert len(rows) > 1
    assert read_record(path) == record


def test_a_history_is_held_by_columns_and_read_in_either_form(path):
    record, content = read_record(path), json.loads(path.read_text())
    columns = content["history"]
    assert columns["loss"] == [row.loss for row in record.history]
    assert columns["own_losses"] is None
    damage(path, history=[dataclasses.asdict(row) for row in record.history])
    assert read_record(path) == record


def test_a_net_that_calls_everything_the_same_is_written_short(path):
    mistakes = tuple(Mistake(index=index, target=index % 9, prediction=9, confidence=0.1) for index in range(9_000))
    record = make_record()
    record = dataclasses.replace(record, test=dataclasses.replace(record.test, mistakes=mistakes))
    write_record(record, path)
    held = json.loads(path.read_text())["test"]["mistakes"]
    assert (held["prediction"], held["confidence"], len(held["index"])) == (9, 0.1, 9_000)
    assert read_record(path) == record


@strict
@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table."""

    number: int | float | bool
    text: str | None
    pair: tuple[int, ...]


@pytest.mark.parametrize(
    ("rows", "written"),
    [
        ([], []),
        ([Row(1, "a", (1,))], {"number": [1], "text": ["a"], "pair": [[1]]}),
        ([Row(1, "a", (1,)), Row(1, "a", (1,))], {"number": 1, "text": "a", "pair": [[1], [1]]}),
        ([Row(1, None, ()), Row(2, None, ())], {"number": [1, 2], "text": None, "pair": [[], []]}),
        ([Row(1, "a", ()), Row(True, "a", ())], {"number": [1, True], "text": "a", "pair": [[], []]}),
        ([Row(0.5, "a", ()), Row(0.5, "b", ())], {"number": 0.5, "text": ["a", "b"], "pair": [[], []]}),
    ],
)
def test_a_table_is_written_by_columns_and_a_value_that_all_rows_have_once(rows, written):
    kind = TypeAdapter(Annotated[tuple[Row, ...], *BY_COLUMNS])
    text = kind.dump_json(tuple(rows))
    assert json.loads(text) == written
    assert [dataclasses.astuple(row) for row in kind.validate_json(text)] == [dataclasses.astuple(row) for row in rows]


def test_a_table_of_equal_rows_keeps_their_number():
    @strict
    @dataclasses.dataclass(frozen=True)
    class Pair:
        one: int
        two: str

    kind = TypeAdapter(Annotated[tuple[Pair, ...], *BY_COLUMNS])
    text = kind.dump_json((Pair(3, "a"),) * 4)
    assert json.loads(text) == {"one": [3, 3, 3, 3], "two": "a"}
    assert kind.validate_json(text) == (Pair(3, "a"),) * 4


@pytest.mark.parametrize("place", ["none/record.json", "record.json/record.json"])
def test_refuses_a_file_that_is_not_there(path, place):
    with pytest.raises(UsageError, match=r"^A run folder holds a record\.json\. Received: .* missing\. Give the folde"):
        read_record(path.parent / place)


@pytest.mark.parametrize("kept", [0, 1, 5000, -3])
def test_refuses_a_half_written_file(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=r"must be whole and of schema 1\. Received: .*, file: Invalid JSON.*Move its"):
        read_record(path)


@pytest.mark.parametrize("content", [b"[]", b"17", b"null", b"\xff\xfe"])
def test_refuses_what_is_no_record(path, content):
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^A record\.json must be whole and of schema 1\. Received: .*, file: "):
        read_record(path)


@pytest.mark.parametrize("changes", [{}, {"a_field_of_later": 1}, {"history": "kept elsewhere"}])
def test_refuses_another_schema_whatever_its_fields(path, changes):
    damage(path, schema_version=2, **changes)
    with pytest.raises(
        UsageError, match=r"^A record\.json must be of schema 1\. Received: .* of schema 2\. Read it wit"
    ):
        read_record(path)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"schema_version": "first"}, "schema_version: Input should be a valid integer"),
        ({"status": "done"}, "status: Input should be 'running', 'finished', 'diverged' or 'failed'"),
        ({"seconds": "long"}, "seconds: Input should be a valid number"),
        ({"parameters": 7288.5}, "parameters: Input should be a valid integer"),
        ({"history": [{"epoch": 0, "l1_penalty": None, "l2_penalty": 0}]}, r"history\.0\.l1_penalty: Input should be"),
        ({"data": {}}, r"data\.name: Field required"),
        ({"surprise": 1}, "surprise: Unexpected keyword argument"),
    ],
)
def test_refuses_wrong_values_and_says_where(path, changes, where):
    damage(path, **changes)
    with pytest.raises(
        UsageError, match=rf"must be whole and of schema 1\. Received: .*, {where}.*Move its folder away"
    ):
        read_record(path)


def test_refuses_a_setting_out_of_range(path):
    damage(path, config=json.loads(path.read_text())["config"] | {"l2": -1})
    with pytest.raises(UsageError, match=r"l2"):
        read_record(path)
