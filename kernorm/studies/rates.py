"""The learning rates that `--tune-rate` found for the arms of a study, on validation: rates.json next to records.jsonl.

Comparing arms at one arm's rate is the first confounder. tuning.py finds the rates, before the study's first run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernorm.errors import UsageError
from kernorm.limits import Range, range_of
from kernorm.records.schema import Schema, strict

RATES = "rates.json"
_SCHEMA = 1
PER_DECADE = 3
# Added to an arm's own seed: seeds that no study has, whose own begin at 0.
SEEDS = (100_000, 100_001)


@strict
@dataclass(frozen=True, kw_only=True)
class ArmRate:
    """The rate of an arm, and the mean validation cross-entropy of each rate that was tried, in their order.

    It is infinite where a run diverged. `run_id` is the arm's before its rate was found.
    """

    run_id: str
    rate: float
    cross_entropies: tuple[float, ...]


@strict
@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was asked for, the rates that were tried, the seeds added to an arm's own, and what was found by arm."""

    schema_version: int = _SCHEMA
    asked: str
    tried: tuple[float, ...]
    seeds: tuple[int, ...] = SEEDS
    arms: dict[str, ArmRate] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Says what was found, and how."""
        found = ", ".join(f"{arm} {one.rate:g}" for arm, one in self.arms.items())
        return (
            f"rates were tuned on validation: {found} (of {len(self.tried)} from {self.tried[0]:g} to "
            f"{self.tried[-1]:g}, by the mean cross-entropy of {len(self.seeds)} seeds that the study does not have)"
        )

    def at_an_end(self) -> list[str]:
        """Returns the arms whose best rate is the lowest or highest that was tried, so that another may be better."""
        return [arm for arm, one in self.arms.items() if one.rate in (self.tried[0], self.tried[-1])]


def rate_range(text: str) -> Range:
    """Reads the LOW:HIGH of --tune-rate.

    Raises:
        UsageError: it is none, or outside what --learning-rate takes.
    """
    found = range_of(text)
    if found is None or found.low < 1e-12 or found.high > 1e3:
        rule = "--tune-rate takes LOW:HIGH with 0 < LOW < HIGH, at most 1000."
        raise UsageError(rule, f"{text!r}", "Give for example 0.01:0.1.")
    return found


def tried_rates(asked: str) -> tuple[float, ...]:
    """Returns the rates that are tried of a range, PER_DECADE of them a decade, to three digits."""
    return tuple(float(f"{rate:.3g}") for rate in rate_range(asked).grid(PER_DECADE))


def best_rate(tried: Sequence[float], cross_entropies: Sequence[float]) -> float | None:
    """Returns the rate of the lowest cross-entropy, the lower of two; None if all diverged."""
    lowest = min(cross_entropies)
    return tried[list(cross_entropies).index(lowest)] if math.isfinite(lowest) else None


_FILE = Schema("A rates.json", Rates, version=_SCHEMA, fix="Remove it; the runs that found the rates are kept.")


def read_rates(folder: Path) -> Rates | None:
    """Returns the rates of the study in `folder`; None if none were found yet.

    Raises:
        UsageError: the file is damaged.
    """
    return _FILE.read(folder / RATES)


def write_rates(rates: Rates, folder: Path) -> None:
    """Writes the rates of the study in `folder`."""
    _FILE.write(rates, folder / RATES)
