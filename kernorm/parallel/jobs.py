"""What a worker of an engine does: it trains one run, or a population of runs."""

import traceback
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kernorm.config import TrainConfig
from kernorm.errors import one_line
from kernorm.nets.source import trust
from kernorm.parallel.engine import Returned
from kernorm.records.record import Record
from kernorm.training.run import train


class Configured(Protocol):
    """A job of a study or of a search."""

    @property
    def config(self) -> TrainConfig:
        """What is trained."""


ConfiguredT = TypeVar("ConfiguredT", bound=Configured)


def train_job(job: Configured) -> Record:
    """Trains one run; its own net was named and tried where the job comes from."""
    trust(job.config.net_source)
    return train(job.config, tried=True, member=getattr(job, "member", None))  # a search's job has none


@dataclass(frozen=True)
class Members(Generic[ConfiguredT]):
    """Jobs of one static config; how many may be side by side, None: as many as their share of the memory holds."""

    jobs: tuple[ConfiguredT, ...]
    width: int | None
    memory: float = 1.0


def train_members(members: Members[ConfiguredT]) -> list[Returned[Record]]:
    """Trains a population; returns a record or one line of an error for each of its jobs."""
    from kernorm.parallel.groups import train_population  # JAX, which only its workers import

    errors: dict[str, str] = {}

    def failed(config: TrainConfig, error: Exception) -> None:
        errors[config.run_id] = one_line(error)
        traceback.print_exception(error)

    configs = [job.config for job in members.jobs]
    for config in configs:
        trust(config.net_source)
    # Two arms may have a run in common, as one and the same arm with another first seed has.
    once = list({config.run_id: config for config in configs}.values())
    records = train_population(once, width=members.width, failed=failed, memory=members.memory)
    found = {record.config.run_id: record for record in records}
    return [(found.get(config.run_id), errors.get(config.run_id)) for config in configs]
