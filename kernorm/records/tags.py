"""Tags and notes that a user gives to runs: runs/tags.json of a reports folder, by the runs' names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.records.schema import Schema, strict
from kernorm.system.files import locked

TAGS = Path("runs", "tags.json")
# What a condition of --where can name.
_WORD = re.compile(r"[^\s,<>=!]+")


@strict
@dataclass(frozen=True, kw_only=True)
class Tags:
    """What a user says of a run."""

    tags: tuple[str, ...] = ()
    note: str = ""


@strict
@dataclass(frozen=True, kw_only=True)
class _File:
    runs: dict[str, Tags] = field(default_factory=dict)


_SCHEMA = Schema("A tags.json", _File, version=None, fix="Fix it, or remove it; then tags and notes are gone.")


def read_tags(reports_dir: Path) -> dict[str, Tags]:
    """Returns the tags and notes by the names of runs.

    Raises:
        UsageError: the file is damaged.
    """
    found = _SCHEMA.read(reports_dir / TAGS)
    return found.runs if found else {}


def set_tags(
    reports_dir: Path,
    runs: Iterable[str],
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
    note: str | None = None,
) -> dict[str, Tags]:
    """Adds and removes tags of some runs, and sets their note unless it is None; returns those of all runs.

    Raises:
        UsageError: a tag is no word, the file is damaged, or another process changes it.
        OSError: the disk is full or the folder cannot be written.
    """
    add = tuple(add)
    for tag in add:
        if not _WORD.fullmatch(tag):
            raise UsageError("A tag is one word.", f"{tag!r}", "Give for example paper-2; --note takes a sentence.")
    path = reports_dir / TAGS
    path.parent.mkdir(parents=True, exist_ok=True)
    gone = set(remove)
    with locked(path.with_name("tags.lock"), "change tags"):
        found = read_tags(reports_dir)
        for run in runs:
            before = found.get(run, Tags())
            tags = tuple(tag for tag in dict.fromkeys((*before.tags, *add)) if tag not in gone)
            found[run] = Tags(tags=tags, note=before.note if note is None else note)
        found = {run: one for run, one in found.items() if one != Tags()}
        _SCHEMA.write(_File(runs=found), path)
    return found


def forget_runs(reports_dir: Path, runs: Iterable[str]) -> None:
    """Removes tags and notes of runs that are deleted.

    Raises:
        UsageError: as `set_tags`.
        OSError: as `set_tags`.
    """
    gone = set(runs)
    tags = {tag for run, one in read_tags(reports_dir).items() if run in gone for tag in one.tags}
    set_tags(reports_dir, gone & read_tags(reports_dir).keys(), remove=tags, note="")
