"""Which folders are deleted with runs, what stays, and what of them is to be forgotten."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.records.index import Line
from kernorm.records.where import named
from kernorm.system.removal import require_within


def run_folders(given: Iterable[str], lines: Sequence[Line], reports_dir: Path) -> dict[Path, Line]:
    """Returns the folders of runs that are given by their names or paths.

    Raises:
        UsageError: there is no such run, it has no folder of its own, or a link leads to it.
    """
    found: dict[Path, Line] = {}
    for line in named(given, lines, reports_dir, "--delete"):
        if line.path in line.studies:
            raise UsageError(
                "--delete takes runs with a folder of their own.",
                f"{line.run!r}, which is a line of {line.path}/records.jsonl",
                "Delete the whole study yourself, if you mean it.",
            )
        require_within(reports_dir / line.path, reports_dir)
        found[reports_dir / line.path] = line
    return found


def run_id_of(line: Line) -> str:
    """Returns a run's id: its folder's name without the number that tells it from others of the same id."""
    return re.sub(r"-r\d+$", "", line.run)


def what_stays(lines: Iterable[Line], models: Mapping[str, Sequence[Path]]) -> list[str]:
    """Says where records of deleted runs stay, and which models; `models` are exported and published ones by run id."""
    said = []
    for line in lines:
        said += [f"stays: the record of {line.run} in {study}" for study in line.studies]
        said += [f"stays: {path}, which is from {line.run}" for path in models.get(run_id_of(line), ())]
    return said
