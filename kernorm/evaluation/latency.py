"""How fast an exported model answers on one machine, by runtime and batch size; in the model's report.

Measured by tests/benchmarks/serving.py, which writes it beside the model.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config

from kernorm.saved_model.card import FOLDER
from kernorm.system.files import write_atomically

LATENCY = "latency.json"

_strict = with_config(ConfigDict(extra="forbid"))


@_strict
@dataclass(frozen=True, kw_only=True)
class Timed:
    """Requests of one batch size to one runtime: 50th and 99th percentile in milliseconds, and images a second."""

    runtime: str
    batch: int
    requests: int
    p50_ms: float
    p99_ms: float
    images_per_second: float


@_strict
@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measurement: its command, the processor and the cores it had, and a row a runtime and batch size."""

    command: str
    created: str
    processor: str
    cores: int
    rows: tuple[Timed, ...]


_ADAPTER = TypeAdapter(Latency)


def read_latency(path: Path) -> Latency | None:
    """Reads what was measured of the model in `path`; None if nothing was."""
    try:
        return _ADAPTER.validate_json((path / FOLDER / LATENCY).read_bytes())
    except FileNotFoundError:
        return None


def write_latency(latency: Latency, path: Path) -> None:
    """Writes it beside the model."""
    write_atomically(path / FOLDER / LATENCY, _ADAPTER.dump_json(latency, indent=1) + b"\n")
