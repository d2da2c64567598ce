import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from kernorm.errors import UsageError
from kernorm.saved_model.versions import ignored_versions, model_of, new_version, remove_leftovers, versions
from kernorm.system.files import locked


def publish(base, content=b"1"):
    with new_version(base) as version:
        (version.folder / "saved_model.pb").write_bytes(content)
    return version


def publish_badly(base, error):
    with new_version(base) as version:
        (version.folder / "saved_model.pb").write_bytes(b"half")
        raise error


def publish_after_another(base):
    with new_version(base) as version:
        version.path.mkdir()
        (version.path / "saved_model.pb").write_bytes(b"theirs")


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def leftover(base, version, process):
    folder = base / f".{version}.{process}.tmp"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "saved_model.pb").write_bytes(b"half")
    (folder / "lock").touch()
    return folder


def test_versions_rise_even_within_one_second(tmp_path):
    numbers = [publish(tmp_path / "m").number for _ in range(5)]
    assert all(later > earlier for earlier, later in zip(numbers, numbers[1:], strict=False))
    assert versions(tmp_path / "m") == numbers
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [str(number) for number in numbers]


def test_a_version_is_above_a_future_one(tmp_path):
    (tmp_path / "99999999999").mkdir()
    assert publish(tmp_path).number == 100_000_000_000


def test_a_version_is_above_a_date(tmp_path):
    (tmp_path / "20261126045022").mkdir()
    assert publish(tmp_path).number == 20261126045023


def test_only_whole_numbers_that_a_server_takes_are_versions(tmp_path):
    for name in ("7", "12", "1a", ".5.5.tmp", "²", "-3", "007", "00", "9223372036854775808", "1" + 30 * "0"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == [7, 12]
    assert versions(tmp_path / "none") == []
    assert ignored_versions(tmp_path) == ["00", "007", "1" + 30 * "0", "9223372036854775808"]
    assert ignored_versions(tmp_path / "none") == []
    (tmp_path / f".9{18 * '9'}99.1.tmp").mkdir()  # begun by a process that counted on
    assert publish(tmp_path).number < 2**40


def test_there_is_no_version_after_the_highest(tmp_path):
    (tmp_path / "9223372036854775806").mkdir()
    assert publish(tmp_path).number == 2**63 - 1
    with pytest.raises(
        UsageError, match=r"^A version is at most 2\^63 - 1, as TF Serving takes it\. Received: .*75807, after which"
    ):
        publish(tmp_path)
    assert versions(tmp_path) == [2**63 - 2, 2**63 - 1]


def test_nothing_numeric_is_there_until_it_is_whole(tmp_path):
    with new_version(tmp_path / "m") as version:
        (version.folder / "variables").mkdir()
        (version.folder / "variables" / "data").write_bytes(b"12")
        assert versions(tmp_path / "m") == []
        assert not version.path.exists()
        assert version.folder.stat().st_dev == (tmp_path / "m").stat().st_dev
    assert (version.path / "variables" / "data").read_bytes() == b"12"


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path):
    kept = publish(tmp_path / "m")
    for base in (tmp_path / "m", tmp_path / "new"):
        with pytest.raises(ZeroDivisionError):
            publish_badly(base, ZeroDivisionError())
    assert [path.name for path in (tmp_path / "m").iterdir()] == [str(kept.number)]
    assert not (tmp_path / "new").exists()


def test_leftovers_of_killed_processes_go_and_all_else_stays(tmp_path):
    dead = dead_process()
    leftover(tmp_path, 5, dead)
    leftover(tmp_path, 6, os.getpid())  # An earlier process had this one's number, as in containers.
    living = leftover(tmp_path, 7, os.getppid())
    foreign = leftover(tmp_path, 8, dead)  # On another machine with the same disk, say: its lock is held.
    others = [tmp_path / name for name in ("5", ".5.tmp", ".a.1.tmp", "notes.tmp")]
    for other in others:
        other.mkdir()
    with locked(foreign / "lock", "build"):
        remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {living, foreign, *others}


def test_a_version_in_the_making_keeps_its_number(tmp_path):
    leftover(tmp_path, 99_999_999_999, os.getppid())
    assert publish(tmp_path).number == 100_000_000_000


def test_two_processes_that_take_one_number(tmp_path):
    with pytest.raises(UsageError, match=r"^Only one process at a time may finish a version\. Received: .* Run"):
        publish_after_another(tmp_path)
    (theirs,) = tmp_path.iterdir()
    assert (theirs / "saved_model.pb").read_bytes() == b"theirs"


def test_a_full_disk(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UsageError, match=r"^A version needs room on its disk\. Received: .* Free some space"):
            publish(tmp_path / "m", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "m").exists()


def test_another_error_of_the_body_is_not_explained_away(tmp_path):
    with pytest.raises(OSError, match="nothing to do with it") as caught:
        publish_badly(tmp_path, OSError(errno.EIO, "nothing to do with it"))
    assert not isinstance(caught.value, UsageError)


def test_a_base_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for base in (tmp_path / "file", tmp_path / "file" / "m"):
        with pytest.raises(UsageError, match=r"^Versions go into a folder that can be written\. Received: .*file"):
            publish(base)


def test_a_base_that_is_not_writable(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m").chmod(0o555)
    root = os.geteuid() == 0
    if root:  # Permissions do not bind root.
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match=r"Received: .*Permission denied\. Name another folder"):
            publish(tmp_path / "m")
    finally:
        if root:
            os.seteuid(0)
    assert list((tmp_path / "m").iterdir()) == []


def test_a_models_folder_means_its_newest_version(tmp_path, monkeypatch):
    for version in ("9", "10", "011"):
        (tmp_path / "kernorm" / version).mkdir(parents=True)
    assert model_of(tmp_path / "kernorm") == tmp_path / "kernorm" / "10"
    assert model_of(tmp_path / "kernorm" / "9") == tmp_path / "kernorm" / "9"
    monkeypatch.chdir(tmp_path / "kernorm" / "9")
    assert model_of(Path(".")) == tmp_path / "kernorm" / "9"
    assert model_of(Path("..")) == tmp_path / "kernorm" / "10"
    # A model elsewhere, whatever lies in it, and what is not there, are themselves; whoever reads them says so.
    (tmp_path / "kernorm" / "saved_model.pb").touch()
    assert model_of(tmp_path / "kernorm") == tmp_path / "kernorm"
    assert model_of(tmp_path / "none") == tmp_path / "none"
