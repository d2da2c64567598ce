"""Deletes what a user names, after showing it: never outside a folder, and never through a link."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.system.files import locked_if_free


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def require_within(path: Path, folder: Path) -> None:
    """Refuses what lies outside a folder, or is reached by a link in it.

    Raises:
        UsageError: it is so.
    """
    inside = Path(os.path.relpath(path, folder))
    if inside.parts[:1] in ((), ("..",)) or path.resolve() != folder.resolve() / inside:
        raise UsageError(
            f"Only what lies in {folder} itself is deleted, never through a link.",
            f"{path}, which is at {path.resolve()}",
            "Delete it there yourself.",
        )


def remove(paths: Sequence[Path], *, yes: bool, remarks: Sequence[str] = ()) -> bool:
    """Shows files and folders with their bytes, asks, and deletes them; tells whether it did.

    A folder is renamed first, so that one that is deleted in part is not taken for a whole one.

    Args:
        paths: of what is to go; see `require_within`.
        yes: a flag has answered the question.
        remarks: lines that are shown before it.

    Raises:
        UsageError: there is no terminal to ask on, and no flag.
        OSError: something cannot be deleted.
    """
    sizes = [size_of(path) for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        print(f"{size:>15,} bytes  {path}")
    for remark in remarks:
        print(remark)
    if not _confirmed(f"Delete {sum(sizes):,} bytes for good?", yes=yes):
        print("Nothing was deleted.")
        return False
    for path in paths:
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        path.rename(aside)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    return True


@contextlib.contextmanager
def holding(folders: Sequence[Path], what: str) -> Iterator[None]:
    """Holds the locks of folders, so that nothing begins there while the body runs.

    Raises:
        UsageError: another process holds one; it uses `what`.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            if not held.enter_context(locked_if_free(folder / "lock")):
                raise UsageError(
                    f"{what} that another process uses is not deleted.",
                    f"{folder}, whose lock is held",
                    "Wait for it, or end it.",
                )
        yield


def _confirmed(question: str, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("Deleting asks first.", "no terminal to ask on", "Add --yes if you mean it.")
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
