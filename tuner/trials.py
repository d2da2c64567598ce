"""What a search has tried, a line a trial in trials.jsonl: appended whole as soon as the trial has ended."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kernorm.config import TrainConfig
from kernorm.errors import LOST
from kernorm.records.jsonl import JsonLines
from kernorm.records.schema import strict

TRIALS = "trials.jsonl"
# What a search minimizes, under the name that oracles know it by.
OBJECTIVE = "val_cross_entropy"


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """One run of a trial, as a worker of an engine gets it: it imports this module, and nothing of the search's."""

    trial_id: str
    config: TrainConfig


@strict
@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One run of a trial: scores on the validation split after its last epoch, cross-entropy in nats; its cost."""

    seed: int
    run_id: str
    cross_entropy: float
    accuracy: float
    seconds: float
    cpu_seconds: float


@strict
@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial that has ended.

    Attributes:
        number: from 0, in the order in which they were begun.
        values: KerasTuner's.
        settings: the searched fields of TrainConfig.
        epochs: trained so far; under Hyperband the rung's.
        new_epochs: of these, the ones that this trial trained itself, over all repeats.
        score: mean cross-entropy of the repeats; None if it failed.
        began, ended: seconds since the search began, interruptions left out.
    """

    number: int
    trial_id: str
    values: dict[str, Any]
    settings: dict[str, Any]
    status: Literal["completed", "failed"]
    message: str = ""
    epochs: int
    new_epochs: int
    score: float | None = None
    repeats: tuple[Repeat, ...] = ()
    began: float = 0.0
    ended: float = 0.0

    @property
    def lost(self) -> bool:
        """Tells whether it failed with its worker, as for lack of memory, which says nothing of its values."""
        return self.status == "failed" and self.message.startswith(LOST)


_LINES = JsonLines(Trial)
_LOG = logging.getLogger("kernorm")


class Trials:
    """The trials of a search in its folder, in the order in which they ended.

    Args:
        folder: the search's.
        mend: moves lines that cannot be read to trials.damaged.jsonl; not while other processes append to the file.
    """

    def __init__(self, folder: Path, *, mend: bool = True) -> None:
        self.path = folder / TRIALS
        lines, damaged = _LINES.load(self.path, mend=mend)
        self.ended: list[Trial] = []
        for trial in lines:
            self._enter(trial)
        if damaged:
            moved = " and are kept in trials.damaged.jsonl; their trials run again" if mend else ""
            numbers = ", ".join(map(str, damaged))
            _LOG.warning("Lines of %s cannot be read (%s)%s.", self.path, numbers, moved)

    def add(self, trial: Trial) -> None:
        """Appends a trial: on disk when this returns, or not there at all."""
        _LINES.append(self.path, trial)
        self._enter(trial)

    def _enter(self, trial: Trial) -> None:
        """Takes a trial in; of one that was lost and ran again, the last line counts."""
        self.ended = [one for one in self.ended if one.trial_id != trial.trial_id] + [trial]

    @property
    def seconds(self) -> float:
        """Seconds that the search has taken until its last trial ended."""
        return max((trial.ended for trial in self.ended), default=0.0)

    def best(self) -> list[Trial]:
        """Returns the completed trials, the best first; those of fewer epochs, as Hyperband has them, come after."""
        done = [trial for trial in self.ended if trial.score is not None]
        return sorted(done, key=lambda trial: (-trial.epochs, trial.score))
