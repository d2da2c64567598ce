import errno
import os
from dataclasses import replace

import pytest

from kernorm.ledger import DAMAGED, RECORDS, Ledger, Result
from tests.test_plots import make_record


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
    assert (tmp_path / DAMAGED).read_bytes() == damage.rstrip(b"\n") + b"\n"
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
