"""How fast an exported model answers on one machine, by runtime and batch size; in the model's report.

Measured by tests/benchmarks/serving.py, which writes it into the model's folder.
"""

from dataclasses import dataclass
from pathlib import Path

from kernorm.records.schema import Schema, strict
from kernorm.saved_model.card import FOLDER

LATENCY = "latency.json"


@strict
@dataclass(frozen=True, kw_only=True)
class Timed:
    """Requests of one batch size to one runtime: 50th and 99th percentile in milliseconds, and images a second."""

    runtime: str
    batch: int
    requests: int
    p50_ms: float
    p99_ms: float
    images_per_second: float


@strict
@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measurement: its command, the processor and the cores it had, and a row a runtime and batch size."""

    command: str
    created: str
    processor: str
    cores: int
    rows: tuple[Timed, ...]


_SCHEMA = Schema("A latency.json", Latency, version=None, fix="Measure it again.")


def read_latency(path: Path) -> Latency | None:
    """Reads what was measured of the model in `path`; None if nothing was.

    Raises:
        UsageError: the file is damaged.
    """
    return _SCHEMA.read(path / FOLDER / LATENCY)


def write_latency(latency: Latency, path: Path) -> None:
    """Writes it into the model's folder."""
    _SCHEMA.write(latency, path / FOLDER / LATENCY)
