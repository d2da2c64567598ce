import errno
import os
from dataclasses import replace

import pytest

from kernorm.records.record import REVISION
from kernorm.studies.ledger import OLD_REVISION, OTHER_DATA, RECORDS, Ledger, Result, find_shared
from tests.builders import make_record


def result(seed, status="finished"):
    record = replace(make_record(), run_id=f"run-{seed}") if status == "finished" else None
    return Result(
        arm="ln", seed=seed, run_id=f"run-{seed}", status=status, message="" if record else "gone", record=record
    )


def test_results_come_back_as_they_were(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.results == {}
    written = {f"run-{seed}": result(seed) for seed in range(3)}
    for each in written.values():
        ledger.add(each)
    assert Ledger(tmp_path).results == written == ledger.results
    assert len((tmp_path / RECORDS).read_text().splitlines()) == 3


def test_a_later_result_of_a_run_counts(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add(result(1, "failed"))
    ledger.add(result(1))
    assert Ledger(tmp_path).results["run-1"].status == "finished"


@pytest.mark.parametrize("damage", [b'{"arm": "ln", "se', b"\xff\xfe\n", b'{"arm": "ln"}\n', b"\n"])
def test_damaged_lines_are_put_aside_and_the_rest_is_used(tmp_path, damage):
    ledger = Ledger(tmp_path)
    ledger.add(result(0))
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(damage)
    if damage.endswith(b"\n"):
        ledger.add(result(1))
    again = Ledger(tmp_path)
    assert again.damaged == [2]
    assert list(again.results) == (["run-0", "run-1"] if damage.endswith(b"\n") else ["run-0"])
    assert (tmp_path / "records.damaged.jsonl").read_bytes() == damage.rstrip(b"\n") + b"\n"
    again.add(result(2))
    mended = Ledger(tmp_path)
    assert mended.damaged == []
    assert set(mended.results) == {*again.results}


def test_a_line_without_its_end_but_whole_is_used(tmp_path):
    Ledger(tmp_path).add(result(0))
    path = tmp_path / RECORDS
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = Ledger(tmp_path)
    again.add(result(1))
    assert list(Ledger(tmp_path).results) == ["run-0", "run-1"]


TODAY = make_record().data.sha256


def of(run_id, revision=REVISION, data=TODAY, status="finished"):
    record = make_record(run_id=run_id, revision=revision)
    record = replace(record, data=replace(record.data, sha256=data), status=status)
    return Result(arm="ln", seed=0, run_id=run_id, status=status, record=record)


def write(folder, *results):
    ledger = Ledger(folder)
    for each in results:
        ledger.add(each)
    return ledger.path


def test_results_have_one_source_the_newest(tmp_path):
    write(tmp_path, of("a", 1), of("b", 1), result(3, "failed"))
    assert list(Ledger(tmp_path).results) == ["a", "b", "run-3"]
    write(tmp_path, of("a", 2), of("c", 1))
    assert {name: r.record and r.record.revision for name, r in Ledger(tmp_path).results.items()} == {
        "run-3": None,
        "a": 2,
    }
    write(tmp_path, of("d", 2, "9f" * 32))
    assert list(Ledger(tmp_path).results) == ["run-3", "d"]
    # All lines are still there.
    assert len((tmp_path / RECORDS).read_text().splitlines()) == 6


def test_runs_are_found_in_the_records_of_all_studies(tmp_path):
    for name in ("own", "eva4", "eva6", "later"):
        (tmp_path / name).mkdir()
    own = write(tmp_path / "own", of("a"))
    write(tmp_path / "eva4", of("a"), of("b"), of("unwanted"), result(0, "failed"))
    write(tmp_path / "eva6", of("c", status="diverged"), replace(of("d"), taken_from="eva4"))
    write(tmp_path / "later", replace(of("e"), taken_from="own"))
    with (tmp_path / "eva4" / RECORDS).open("ab") as file:
        file.write(b'{"arm":"ln","seed":1,"run_id":"e","sta')
    before = (tmp_path / "eva4" / RECORDS).read_bytes()
    shared = find_shared(own, {"a", "b", "c", "d", "e", "run-0", "missing"}, {"mnist": TODAY})
    assert {name: found.taken_from for name, found in shared.usable.items()} == {
        "a": "",
        "b": "eva4",
        "c": "eva6",
        "d": "eva4",
        "e": "",
    }
    assert shared.unusable == {}
    assert (tmp_path / "eva4" / RECORDS).read_bytes() == before  # what is another study's is only read


def test_runs_that_todays_code_or_data_would_not_give_are_not_usable(tmp_path):
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    own = write(tmp_path / "own", of("a", REVISION - 1), of("b", data="9f" * 32), of("c"))
    write(tmp_path / "other", of("a"), of("d", REVISION + 1), of("e", REVISION - 1))
    wanted = {"a", "b", "c", "d", "e"}
    shared = find_shared(own, wanted, {"mnist": TODAY})
    assert set(shared.usable) == {"a", "c"}
    assert shared.unusable == {OLD_REVISION: 3, OTHER_DATA: 1}
    # Without the data there is nothing to compare with.
    assert set(find_shared(own, wanted, {"mnist": None}).usable) == {"a", "b", "c"}


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.add(result(0))
    before = (tmp_path / RECORDS).read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.add(result(1))
    assert (tmp_path / RECORDS).read_bytes() == before
    assert list(ledger.results) == ["run-0"]
