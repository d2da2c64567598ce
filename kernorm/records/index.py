"""Every run under a reports folder, a line each in runs/index.jsonl: appended as a run ends, made again where stale.

Between the records and what lists them. A record takes a millisecond to read and check, a line of the index ten
microseconds, so that ten thousand runs are listed at once. The index holds nothing that records do not.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kernorm.config import NOT_IDENTITY, to_json, with_added, without_auto
from kernorm.records.record import RECORD, Record
from kernorm.system.files import append_whole, write_atomically

INDEX = Path("runs", "index.jsonl")
# Of a study, a run a line; see `kernorm.studies.ledger`.
RECORDS = "records.jsonl"
# Where folders of runs lie, and those of studies.
_RUNS, _STUDIES = ("runs", "examples", "searches/*/runs"), ("studies", "searches/*/studies")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A run as it is listed.

    Attributes:
        run: the name of its folder, which is its id, or its id.
        path: from the reports folder: of the run's own folder, or of a study that holds its record.
        stamp: when the record was last changed, in nanoseconds, as the file system has it.
        status: of the record, or `paused` after the epoch at which the run was to stop.
        settings: what decides its weights.
        data: sha256 of the data's arrays.
        low: lower end of the 95 % interval of the test accuracy over the images; None where it was not tested.
        high: the upper end.
        validation: cross-entropy on the validation split.
        studies: paths of the studies that hold its record.
    """

    run: str
    path: str
    stamp: int
    status: str
    started: str
    settings: dict[str, Any]
    data: str
    revision: int
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    cross_entropy: float | None = None
    validation: float | None = None
    cpu_seconds: float = 0.0
    studies: tuple[str, ...] = ()


def append_run(record: Record, folder: Path) -> None:
    """Appends the line of a run that has ended to the index of the reports folder that its folder lies in.

    A line that cannot be written is made when the runs are listed.
    """
    found = json.loads(json.dumps({"config": to_json(record.config)})) | {
        "status": record.status,
        "started": record.started,
        "revision": record.revision,
        "data": {"sha256": record.data.sha256},
        "test": record.test and _scores(record.test),
        "validation": record.validation and _scores(record.validation),
        "cpu_seconds": record.cpu_seconds,
    }
    line = _line(found, folder.name, f"{folder.parent.name}/{folder.name}", (folder / RECORD).stat().st_mtime_ns)
    with contextlib.suppress(OSError):
        append_whole(folder.parent.parent / INDEX, _dumped(line))


def list_lines(reports_dir: Path) -> list[Line]:
    """Returns every run under a reports folder, the newest first; reads again what has changed.

    The index is then written, where it can be. A run that several records tell of is one line: that of its own folder,
    with the studies that hold it.
    """
    known: dict[str, list[Line]] = {}
    path = reports_dir / INDEX
    for line in _read(path):
        # Of a run's folder the last line counts, of a study all of one stamp.
        same = known.get(line.path, [])
        known[line.path] = [*same, line] if same and same[0].stamp == line.stamp and line.studies else [line]
    found: dict[str, list[Line]] = {}
    changed = False
    for place, stamp in _sources(reports_dir):
        lines = known.get(place)
        if not lines or lines[0].stamp != stamp:
            lines, changed = _of_source(reports_dir, place, stamp), True
        found[place] = lines
    if changed or known.keys() - found.keys():
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, b"".join(_dumped(line) for lines in found.values() for line in lines))
    return sorted(_merged(found.values()), key=lambda line: line.started, reverse=True)


def _sources(reports_dir: Path) -> Iterator[tuple[str, int]]:
    """Yields the folders that hold a run's record or a study's, from the reports folder, and when that was changed."""
    for patterns, name in ((_RUNS, RECORD), (_STUDIES, RECORDS)):
        for parent in (parent for pattern in patterns for parent in sorted(reports_dir.glob(pattern))):
            place = parent.relative_to(reports_dir).as_posix()
            for entry in os.scandir(parent) if parent.is_dir() else ():
                if entry.name.startswith("."):  # what was left when a run was deleted
                    continue
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    yield f"{place}/{entry.name}", os.stat(f"{entry.path}/{name}").st_mtime_ns


def _of_source(reports_dir: Path, place: str, stamp: int) -> list[Line]:
    """Reads the records of a folder; what cannot be read is left out, since whoever reads it whole will say so."""
    folder = reports_dir / place
    rows: list[tuple[str, Any, tuple[str, ...]]]
    if (folder / RECORD).exists():
        rows = [(folder.name, json_of((folder / RECORD).read_bytes()), ())]
    else:
        results = (json_of(line) for line in (folder / RECORDS).read_bytes().splitlines())
        rows = [
            (one["run_id"], one["record"], (place,))
            for one in results
            if one and one.get("record") and isinstance(one.get("run_id"), str)
        ]
    lines = []
    for name, record, studies in rows:
        # Any part of a damaged line may be of another type.
        with contextlib.suppress(KeyError, TypeError, AttributeError, ValueError):
            lines.append(replace(_line(record or {}, name, place, stamp), studies=studies))
    return lines


def json_of(text: bytes) -> dict[str, Any] | None:
    """Returns the object that a text holds; None if it is damaged."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _line(record: Mapping[str, Any], name: str, place: str, stamp: int) -> Line:
    test, validation = record.get("test") or {}, record.get("validation") or {}
    low, high = test.get("interval") or (None, None)
    config = with_added(record["config"])
    settings = without_auto({name: value for name, value in config.items() if name not in NOT_IDENTITY})
    return Line(
        run=name,
        path=place,
        stamp=stamp,
        status=_status(record),
        started=record["started"],
        settings=settings,
        data=record["data"]["sha256"],
        revision=record.get("revision", 1),
        accuracy=test.get("accuracy"),
        low=low,
        high=high,
        cross_entropy=test.get("cross_entropy"),
        validation=validation.get("cross_entropy"),
        cpu_seconds=record.get("cpu_seconds", 0.0),
    )


def _status(record: Mapping[str, Any]) -> str:
    """Returns the status of a record; `paused` after the epoch at which a run was to stop, as a search's trials are."""
    stop, history = record["config"].get("stop_after"), record.get("history")
    if record["status"] == "running" and stop and isinstance(history, dict):  # columns; of one row, numbers
        epochs = history.get("epoch")
        if (epochs[-1] if isinstance(epochs, list) else epochs or 0) >= stop:
            return "paused"
    return record["status"]


def _scores(evaluation: Any) -> dict[str, Any]:
    return {name: getattr(evaluation, name) for name in ("accuracy", "interval", "cross_entropy")}


def _merged(groups: Iterable[list[Line]]) -> Iterator[Line]:
    """Joins the lines of one run, its own folder's first."""
    runs: dict[tuple[str, int, str], list[Line]] = {}
    for line in (line for lines in groups for line in lines):
        runs.setdefault((line.run, line.revision, line.data), []).append(line)
    for lines in runs.values():
        first = min(lines, key=lambda line: bool(line.studies))
        studies = tuple(sorted({study for line in lines for study in line.studies}))
        yield replace(first, studies=studies) if studies != first.studies else first


def _read(path: Path) -> Iterator[Line]:
    for text in path.read_bytes().splitlines() if path.exists() else ():
        if found := json_of(text):
            with contextlib.suppress(TypeError):  # of another version, or cut by a full disk
                yield Line(**found | {"studies": tuple(found.get("studies", ()))})


def _dumped(line: Line) -> bytes:
    return json.dumps(asdict(line), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
