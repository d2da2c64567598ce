"""Writing that leaves either the old file or the new one, whole; locks; the hash of a folder."""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from kernorm.errors import Busy, UsageError
from kernorm.system.processes import is_other_process

# .<name>.<process>.tmp is a file in the making.
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.tmp", re.ASCII)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name next to it, flushes it to disk and renames it into place.

    What killed processes left of this file is removed first.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(OSError):  # of a folder that cannot be read, but written
            remove_stale(path.parent, (path.name,))
        with temporary.open("wb") as file, _held(file):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def file_in_the_making(name: str) -> str | None:
    """Returns the name that a temporary file of `write_atomically` is written for; None for every other name."""
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def remove_stale(folder: Path, names: Collection[str]) -> None:
    """Removes what killed processes left when they wrote files of these names; the files of living ones stay."""
    for path in list(folder.iterdir()):
        match = _TEMPORARY.fullmatch(path.name)
        if match and match[1] in names and not is_other_process(int(match[2])):
            # The number may be of a living process on another machine or in another container: its lock decides.
            with contextlib.suppress(OSError), path.open("rb") as file, _held(file) as free:
                if free:
                    path.unlink()


@contextlib.contextmanager
def _held(file: BinaryIO) -> Iterator[bool]:
    """Holds an open file until it is closed; yields whether no other process does."""
    import fcntl  # which Windows lacks

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a disk without locks
        yield False
    else:
        yield True


def append_whole(path: Path, content: bytes) -> None:
    """Appends to a file in one write, flushed to disk; one that a full disk cuts short is taken back."""
    import fcntl  # which Windows lacks

    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = os.fstat(file.fileno()).st_size
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the way in which TensorFlow tells of a full disk while it writes `path` into Python's."""
    try:
        yield
    except Exception as error:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), str(path)) from error
        raise


def sync_folder(folder: Path) -> None:
    """Flushes a folder's own entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock file `path` while the body runs, if no other process does; yields whether it holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def locked(path: Path, purpose: str, patience: float = 0.0) -> Iterator[None]:
    """Holds the lock file `path` while the body runs, then removes it.

    The system frees it when the process ends, however it ends.

    Raises:
        Busy: another process holds it, `patience` seconds long; `purpose` says what for.
    """
    try:
        with FileLock(path, timeout=patience):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        raise Busy(
            f"Only one process at a time may {purpose}.", f"{path} held by another one", "Wait for it, or end it."
        ) from None


def require_folder(path: Path, flag: str) -> None:
    """Refuses a path that is not, or cannot become, a folder to write in; makes nothing.

    Raises:
        UsageError: it or a part of it is a file, a broken link or not writable; `flag` gave it.
    """
    try:
        found, reason = _nearest(path), ""
        str(path).encode()  # TensorFlow writes to names in UTF-8 only.
        if not stat.S_ISDIR(found.stat().st_mode):
            reason = "which is a file"
        elif not os.access(found, os.W_OK | os.X_OK):
            reason = "which cannot be written"
    except UnicodeEncodeError:
        found, reason = path, "a name that is not UTF-8"
    except OSError as error:
        found, reason = Path(error.filename), os.strerror(error.errno or 0)
    if reason:
        raise UsageError(f"{flag} takes a folder that can be written.", f"{found}, {reason}", "Give another one.")


def make_folder(path: Path, flag: str) -> None:
    """Makes a folder and its parents, where they are not there.

    Raises:
        UsageError: the system has no place for it, as in /proc or a current folder that has been removed.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UsageError(
            f"{flag} takes a folder that can be written.",
            f"{path}, {os.strerror(error.errno or 0)}",
            "Give another one.",
        ) from None


@contextlib.contextmanager
def unless_refused(folder: Path, kept: str) -> Iterator[None]:
    """Removes a folder again that the body made, if a UsageError ends it before a file `kept` is anywhere in it.

    So nothing is left of what was refused. A folder that another process has locked meanwhile stays.
    """
    before = _nearest(folder)
    try:
        yield
    except UsageError:
        if before != folder and folder.exists() and not any(folder.rglob(kept)):
            with locked_if_free(folder / "lock") as free:
                if free:
                    shutil.rmtree(folder)
        for parent in folder.parents:
            if parent == before or folder.exists():
                break
            with contextlib.suppress(OSError):  # not empty, or not there
                parent.rmdir()
        raise


def _nearest(path: Path) -> Path:
    """Returns the path, or of its parents the first that is there."""
    for part in (path, *path.parents):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            part.lstat()
            return part
    return path


def write_json(path: Path, content: object) -> None:
    """Writes JSON atomically, indented."""
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")
