"""What the runs of a study left, a line a run in records.jsonl: appended whole, read back without what is damaged.

Between the engine and the analysis. A run is known by its id, which is derived from its config; so a study that is
changed, extended or renamed finds what it still needs, and leaves the rest alone. Runs are shared: what one study has
trained, another one takes, if today's code would compute the same from today's data.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict, with_config

from kernorm.config import without_places
from kernorm.records.jsonl import JsonLines
from kernorm.records.record import REVISION, Record
from kernorm.system.files import write_atomically

RECORDS = "records.jsonl"


@with_config(ConfigDict(extra="forbid", ser_json_inf_nan="constants"))
@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run of a study ended: with a record, or `failed` with a message of one line.

    `attempts` counts how often it was begun by the study that ended it, and `taken_from` names the study that trained
    it, if that was another one. `file` is the study's own (see `Study.file`).
    """

    arm: str
    seed: int
    run_id: str
    status: Literal["finished", "diverged", "failed"]
    message: str = ""
    attempts: int = 1
    taken_from: str = ""
    file: str = ""
    record: Record | None = None


class Source(NamedTuple):
    """What a result was computed by and from: the revision of training, and the sha256 of the data's arrays."""

    revision: int
    data: str


def source_of(record: Record) -> Source:
    """Returns what a record was computed by and from."""
    return Source(record.revision, record.data.sha256)


_LINES = JsonLines(Result)
_RUN_ID = re.compile(rb'"run_id":"([^"]*)"')


class Ledger:
    """The results of a study in its folder, by run id; of several lines of one run the last one counts.

    Results of one data set have one source: the highest revision in the file, and of that the data of the last line.
    Others stay in the file and are not in `results`.

    Args:
        folder: the study's.
        mend: takes lines that cannot be read out of the file; not while another process appends to it.

    Attributes:
        results: by run id.
        damaged: the numbers of the lines, from 1, that could not be read and were moved to records.damaged.jsonl.
        file: the study file that added the last result; empty where it is not known.
    """

    def __init__(self, folder: Path, *, mend: bool = True) -> None:
        self.path = folder / RECORDS
        self.results: dict[str, Result] = {}
        self.damaged: list[int] = []
        self.file = ""
        self._sources: dict[str, Source] = {}
        results, damaged = _LINES.load(self.path, mend=mend)
        for result in results:
            self._enter(result)
        if mend:
            self.damaged = damaged

    def add(self, result: Result) -> None:
        """Appends a result, without the folders of this machine: on disk when this returns, or not there at all."""
        result = _portable(result)
        _LINES.append(self.path, result)
        self._enter(result)

    def rewrite(self, results: Iterable[Result]) -> None:
        """Puts these results, without the folders of this machine, in place of all."""
        self.results, self._sources = {}, {}
        lines = []
        for result in map(_portable, results):
            lines.append(_LINES.line(result))
            self._enter(result)
        write_atomically(self.path, b"".join(lines))

    def _enter(self, result: Result) -> None:
        self.file = result.file or self.file
        if record := result.record:
            dataset, source = record.config.dataset, source_of(record)
            before = self._sources.setdefault(dataset, source)
            if source.revision < before.revision:
                return
            if source != before:
                self._sources[dataset] = source
                self.results = {
                    name: other
                    for name, other in self.results.items()
                    if other.record is None or other.record.config.dataset != dataset
                }
        self.results[result.run_id] = result


def _portable(result: Result) -> Result:
    record = result.record
    return replace(result, record=record and replace(record, config=without_places(record.config)))


OLD_REVISION, OTHER_DATA = "another revision of the training code", "other data"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the records of all studies in a reports folder hold of some runs.

    Attributes:
        usable: results that today's code would compute from today's data, by run id.
        unusable: how many of the runs have a result of OLD_REVISION or OTHER_DATA, by these names.
    """

    usable: dict[str, Result] = field(default_factory=dict)
    unusable: dict[str, int] = field(default_factory=dict)


def find_shared(ledger: Path, run_ids: Collection[str], digests: Mapping[str, str | None]) -> Shared:
    """Looks for runs that have ended in a study's own records and in those of the studies next to it.

    Args:
        ledger: the study's own records.jsonl, which need not exist.
        run_ids: of the runs that are wanted.
        digests: the sha256 of today's arrays by the name of the data set; None where it is not known, so that results
            of any data are usable.
    """
    usable: dict[str, Result] = {}
    unusable: dict[str, str] = {}
    for result, record in _ended(ledger, frozenset(run_ids)):
        revision, data = source_of(record)
        if revision != REVISION:
            unusable[result.run_id] = OLD_REVISION
        elif data != (digests.get(record.config.dataset) or data):
            unusable[result.run_id] = OTHER_DATA
        else:
            usable[result.run_id] = result
    return Shared(usable=usable, unusable=dict(Counter(unusable.values())))


def _ended(ledger: Path, run_ids: frozenset[str]) -> Iterator[tuple[Result, Record]]:
    """Yields the results that have a record, the study's own last; lines that cannot be read are skipped."""
    paths = sorted(ledger.parents[1].glob(f"*/{RECORDS}"), key=lambda path: (path == ledger, path))
    for path in paths:
        for result in results_of(path, run_ids):
            trained_by = result.taken_from or (path.parent.name if path != ledger else "")
            if result.record and result.status != "failed":
                yield replace(result, taken_from="" if trained_by == ledger.parent.name else trained_by), result.record


def results_of(path: Path, run_ids: Collection[str]) -> Iterator[Result]:
    """Yields the results of some runs in a records.jsonl, in its order; lines that cannot be read are skipped."""
    for line in path.read_bytes().splitlines():
        # A line takes a millisecond to validate, and few are of a run that is wanted.
        named = _RUN_ID.search(line)
        if named and named[1].decode(errors="replace") in run_ids and (result := _LINES.parse(line)):
            yield result
