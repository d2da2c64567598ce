import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from kernorm.errors import UsageError
from kernorm.saved_model.integrity import tree_sha256
from kernorm.system.files import disk_errors, locked, require_folder, unless_refused, write_atomically, write_json


@contextmanager
def file_size_limit(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"newer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"newer"
    write_json(path, {"λ": [1, None]})
    assert json.loads(path.read_text()) == {"λ": [1, None]}
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with file_size_limit(100), pytest.raises(OSError, match="File too large") as failed:
        write_atomically(path, bytes(200))
    assert (failed.value.errno, failed.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_a_file_is_told_by_its_name(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError) as failed:
        write_atomically(tmp_path / "file", b"new")
    assert failed.value.filename == str(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_processes_left_of_a_file_is_removed_when_it_is_written(tmp_path):
    stays = [tmp_path / name for name in (f".file.{os.getppid()}.tmp", ".other.99999999.tmp", ".file.x.tmp")]
    held = tmp_path / ".file.99999998.tmp"  # of a process of another container
    for path in (*stays, held, tmp_path / ".file.99999999.tmp"):
        path.touch()
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(tmp_path / "file", b"new")
    assert set(tmp_path.iterdir()) == {*stays, held, tmp_path / "file"}
    write_atomically(tmp_path / "file", b"new")
    assert set(tmp_path.iterdir()) == {*stays, tmp_path / "file"}


HOLD = """
import sys
from pathlib import Path
from kernorm.system.files import locked
with locked(Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_the_lock_goes_with_its_process(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UsageError, match=r"may do it\. Received: .*lock held by another one\. Wait for it"),
            locked(path, "do it"),
        ):
            pytest.fail("two hold it")
        assert path.exists()
        other.kill()
        with locked(path, "do it", patience=60):  # until it has ended
            pass
    with locked(path, "do it"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_lock_is_removed_after_a_failure_and_may_be_lost_with_its_folder(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "lock", "fail"):
        raise KeyError
    assert os.listdir(tmp_path) == []
    with locked(tmp_path / "lock", "remove it"):
        (tmp_path / "lock").unlink()


def refuse(folder, *made, error=UsageError, meanwhile=lambda: None):
    """Makes files in a folder, which is then refused."""
    with pytest.raises(error):
        make_and_raise(folder, made, error, meanwhile)


def make_and_raise(folder, made, error, meanwhile):
    with unless_refused(folder, "records.jsonl"):
        for file in made:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        meanwhile()
        raise error("A thing is there.", "nothing", "Bring it.")


def test_a_folder_that_was_made_for_what_is_refused_is_removed(tmp_path):
    folder = tmp_path / "reports" / "studies" / "s"
    refuse(folder)
    refuse(folder, "design.json", "logs/1.log")
    assert list(tmp_path.iterdir()) == []
    refuse(folder, "design.json", error=KeyError)  # not for what a user gave
    refuse(folder, "logs/1.log")  # it was there
    assert sorted(os.listdir(folder)) == ["design.json", "logs"]


def test_a_folder_of_what_is_refused_stays_with_its_records_or_under_the_lock_of_another_process(tmp_path):
    refuse(tmp_path / "reports" / "s", "rates/records.jsonl")
    refuse(tmp_path / "reports" / "t", "design.json", "../beside")
    assert sorted(os.listdir(tmp_path / "reports")) == ["beside", "s"]
    with ExitStack() as stack:
        lock = locked(tmp_path / "u" / "lock", "run this study")
        refuse(tmp_path / "u", "design.json", meanwhile=lambda: stack.enter_context(lock))
        assert (tmp_path / "u" / "design.json").exists()


def test_the_hash_of_a_folder_sees_names_and_contents_but_not_what_is_added_later(tmp_path):
    extra = tmp_path / "assets.extra" / "kernorm"
    extra.mkdir(parents=True)
    (tmp_path / "a").write_text("1")
    (extra / "model_card.json").write_text("{}")
    first = tree_sha256(tmp_path)
    for added in ("tree.sha256", "evaluation.json"):
        (extra / added).write_text(added)
        assert tree_sha256(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert tree_sha256(tmp_path) != first
    (tmp_path / "b").rename(tmp_path / "a")
    assert tree_sha256(tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert tree_sha256(tmp_path) != first
    (tmp_path / "a").write_text("1")
    (tmp_path / "evaluation.json").write_text("{}")
    assert tree_sha256(tmp_path) != first


def test_a_full_disk_is_told_in_one_way(tmp_path):
    with pytest.raises(OSError, match="No space left on device") as told, disk_errors(tmp_path):
        raise RuntimeError("flush failed (errno = 28, error message = 'No space left on device')")
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(RuntimeError, match="something else"), disk_errors(tmp_path):
        raise RuntimeError("something else")


def test_folders_that_can_be_made_are_accepted_and_not_made(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b"):
        require_folder(path, "--x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    require_folder(tmp_path / "link" / "c", "--x")
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from kernorm.system.files import require_folder\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "require_folder(Path(sys.argv[1]) / 'new', '--x')"
    )
    tmp_path.chmod(0o555)
    command = [sys.executable, "-c", code, str(tmp_path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert refused.stderr.splitlines()[-1].startswith("kernorm.errors.UsageError: --x takes a folder that can be")
    assert refused.returncode == 1
