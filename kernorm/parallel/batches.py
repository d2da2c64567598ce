"""An engine whose workers train populations of the jobs that wait."""

import math
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, Self

from kernorm.parallel.engine import Engine, Outcome, Returned
from kernorm.parallel.grouping import WIDTHS, padded, static_key
from kernorm.parallel.jobs import ConfiguredT, Members
from kernorm.records.record import Record


class Populations(Generic[ConfiguredT]):
    """An engine, used as those of engine.py are, whose workers train populations of the jobs that wait.

    When a worker is free it gets the fullest group, shared out evenly where there are more free workers than groups.

    Args:
        engine: of `train_members`.
        width: members side by side; None: as many as the device's memory holds.
        asked: jobs that populations are to be filled from, which is what `slots` says.
        memory: share of an accelerator's memory that is a worker's.
    """

    def __init__(
        self,
        engine: Engine[Members[ConfiguredT], list[Returned[Record]]],
        *,
        width: int | None,
        asked: int,
        memory: float = 1.0,
    ) -> None:
        self._engine, self._width, self._asked, self._memory = engine, width, asked, memory
        self._waiting: dict[str, list[ConfiguredT]] = {}

    def __enter__(self) -> Self:
        self._engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._engine.__exit__(kind, error, traceback)

    @property
    def slots(self) -> int:
        """Jobs to be submitted at once."""
        return self._asked

    def submit(self, job: ConfiguredT) -> None:
        """Puts a job into its group; it begins when outcomes are asked for."""
        self._waiting.setdefault(static_key(job.config), []).append(job)

    def outcomes(self) -> Iterator[Outcome[ConfiguredT, Record]]:
        """Yields outcomes as they come, until nothing is under way; more may be submitted in between."""
        self._launch()
        while self._waiting or self._engine.busy:
            for population in self._engine.outcomes():
                answers = population.result or [(None, population.error)] * len(population.job.jobs)
                for job, (record, error) in zip(population.job.jobs, answers, strict=True):
                    yield Outcome(job, record, error, population.attempts)
                # Only now: what the last outcomes made the user submit may fill the next population.
                self._launch()
            self._launch()

    def _launch(self) -> None:
        while self._waiting and (free := max(self._engine.slots, 1) - self._engine.busy) > 0:
            key = max(self._waiting, key=lambda name: len(self._waiting[name]))
            jobs = self._waiting.pop(key)
            share = math.ceil((len(jobs) + sum(map(len, self._waiting.values()))) / free)
            limit = self._width or WIDTHS[-1]
            count = min(padded(min(share, limit), limit), len(jobs))
            if jobs[count:]:
                self._waiting[key] = jobs[count:]
            self._engine.submit(Members(tuple(jobs[:count]), self._width, self._memory))
