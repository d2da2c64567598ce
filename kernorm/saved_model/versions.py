"""Numbered versions of a model: built under a temporary name next to the finished ones, published by one rename.

TF Serving takes every child of a model's folder whose name is a whole number for a version, finished or not, so the
temporary name is none. Used by export; knows nothing of TensorFlow.
"""

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.system.files import locked, sync_folder
from kernorm.system.processes import is_other_process

# Name under which models are published, unless another is given.
PUBLISHED = "kernorm"
# TF Serving reads a version as a signed number of 64 bits.
_HIGHEST = 2**63 - 1
# .<version>.<process>.tmp holds `model`, the folder in the making, and `lock`, held while its process lives.
_TEMPORARY = re.compile(r"\.(\d+)\.(\d+)\.tmp", re.ASCII)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Version:
    """A version in the making: its number, the folder to fill, and the path it will have once it is finished."""

    number: int
    folder: Path
    path: Path


def version_number(name: str) -> int | None:
    """Returns the version that a folder's name is; None if it is none, or one that TF Serving cannot take."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 20 else -1
    return number if str(number) == name and number <= _HIGHEST else None


def versions(base: Path) -> list[int]:
    """Returns the numbers of the finished versions in a model's folder, rising; none if there is no such folder."""
    if not base.is_dir():
        return []
    return sorted(number for path in base.iterdir() if (number := version_number(path.name)) is not None)


def model_of(path: Path) -> Path:
    """Returns the model that a path means: of a model's folder the newest version, else the path itself."""
    path = named(path)
    numbers = [] if (path / "saved_model.pb").exists() else versions(path)
    return path / str(numbers[-1]) if numbers else path


def named(path: Path) -> Path:
    """Returns a path whose last part is a name: the path itself, or what `.` or `..` stands for."""
    return path.resolve() if path.name in ("", "..") else path


def ignored_versions(base: Path) -> list[str]:
    """Returns names in a model's folder that are whole numbers, but no versions: leading zeros, or above 2^63 - 1."""
    if not base.is_dir():
        return []
    names = [path.name for path in base.iterdir() if path.name.isascii() and path.name.isdecimal()]
    return sorted(name for name in names if version_number(name) is None)


@contextlib.contextmanager
def new_version(base: Path) -> Iterator[Version]:
    """Yields the next version to fill; publishes it when the body ends, leaves nothing of it when the body fails.

    The number is the time in unix seconds, or one above the highest number there. What killed processes left is
    removed first. All files are flushed to disk before the rename.

    Raises:
        UsageError: the folder cannot be made or written, the disk is full, or no number is left.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        try:
            remove_leftovers(base)
            yield from _build(base)
        finally:
            with contextlib.suppress(OSError):
                base.rmdir()  # Only an empty one goes: the folder of a first version that failed.
    except OSError as error:
        raise _explained(base, error) from error


def remove_leftovers(base: Path) -> None:
    """Removes the temporary folders of processes that were killed; those of living ones and all else stay."""
    for folder in base.iterdir():
        match = _TEMPORARY.fullmatch(folder.name)
        if match and not is_other_process(int(match[2])):
            # The number may be of a living process on another machine or in another container: its lock decides.
            with contextlib.suppress(UsageError, OSError), locked(folder / "lock", "build this version"):
                shutil.rmtree(folder)


def _build(base: Path) -> Iterator[Version]:
    names = [match[1] for path in base.iterdir() if (match := _TEMPORARY.fullmatch(path.name))]
    begun = [number for name in names if (number := version_number(name)) is not None]
    number = max([int(time.time()), *(taken + 1 for taken in [*versions(base), *begun])])
    if number > _HIGHEST:
        raise UsageError(
            "A version is at most 2^63 - 1, as TF Serving takes it.",
            f"{base} with {number - 1}, after which there is none",
            "Rename or remove that folder.",
        )
    temporary = base / f".{number}.{os.getpid()}.tmp"
    version = Version(number, temporary / "model", base / str(number))
    try:
        version.folder.mkdir(parents=True)
        with locked(temporary / "lock", "build this version"):
            yield version
            _sync_tree(version.folder)
            version.folder.rename(version.path)
            sync_folder(base)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _explained(base: Path, error: OSError) -> Exception:
    if error.errno in _NO_ROOM:
        return UsageError(
            "A version needs room on its disk.",
            f"{base}: {error.strerror}",
            "Free some space, or name a folder on another disk.",
        )
    if error.errno in _NO_FOLDER:
        return UsageError(
            "Versions go into a folder that can be written.",
            f"{base}: {error.strerror}",
            "Name another folder, or change its permissions.",
        )
    if error.errno == errno.ENOTEMPTY:
        return UsageError(
            "Only one process at a time may finish a version.",
            f"{base}, where another one took the same number",
            "Run the command again.",
        )
    return error
