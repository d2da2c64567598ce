"""What the runs of a study left, a line a run in records.jsonl: appended whole, read back without what is damaged.

Between the engine and the analysis. A run is known by its id, which is derived from its config; so a study that is
changed, extended or renamed finds what it still needs, and leaves the rest alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from kernorm.config import without_places
from kernorm.files import append_whole, write_atomically
from kernorm.record import Record

RECORDS, DAMAGED = "records.jsonl", "records.damaged.jsonl"


@with_config(ConfigDict(extra="forbid", ser_json_inf_nan="constants"))
@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run of a study ended: with a record, or `failed` with a message of one line.

    `attempts` counts how often it was begun by the study that ended it.
    """

    arm: str
    seed: int
    run_id: str
    status: Literal["finished", "diverged", "failed"]
    message: str = ""
    attempts: int = 1
    record: Record | None = None


_ADAPTER = TypeAdapter(Result)


class Ledger:
    """The results of a study in its folder, by run id; of several lines of one run the last one counts.

    Attributes:
        results: by run id.
        damaged: the numbers of the lines, from 1, that could not be read and were moved to records.damaged.jsonl.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORDS
        self.results: dict[str, Result] = {}
        self.damaged: list[int] = []
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        kept, aside = [], []
        for number, line in enumerate(content.splitlines(), 1):
            try:
                result = _ADAPTER.validate_json(line)
            except ValidationError:
                self.damaged.append(number)
                aside.append(line + b"\n")
                continue
            self.results[result.run_id] = result
            kept.append(line + b"\n")
        if aside:
            append_whole(self.path.with_name(DAMAGED), b"".join(aside))
        # Also where a process was killed before it wrote the last line's end.
        if content != b"".join(kept):
            write_atomically(self.path, b"".join(kept))

    def add(self, result: Result) -> None:
        """Appends a result, without the folders of this machine: on disk when this returns, or not there at all."""
        if record := result.record:
            result = replace(result, record=replace(record, config=without_places(record.config)))
        append_whole(self.path, _ADAPTER.dump_json(result) + b"\n")
        self.results[result.run_id] = result
