"""Sends runs that can be members of one population to the same worker, for study and search: `--population`.

Between their plans and engine.py; imports neither Keras nor JAX. The worker's side is population.py.
"""

import functools
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, Protocol, Self, TypeVar

from kernorm.config import TrainConfig
from kernorm.engine import Answer, Engine, EngineName, Outcome, open_engine
from kernorm.errors import UsageError, one_line

if TYPE_CHECKING:
    from kernorm.record import Record

Width = int | Literal["auto"] | None

# Populations are padded to these, so that few programs are compiled and few places are in vain.
WIDTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# What may differ between the members of a population: values of its program, or of the data fed to it.
DYNAMIC = (
    "seed",
    "initializer",
    "l1",
    "l2",
    "penalize",
    "penalty_at",
    "learning_rate",
    "momentum",
    "base_momentum",
    "schedule",
    "pct_start",
    "div_factor",
    "final_div_factor",
    "anneal",
    "step_size",
    "step_gamma",
    "step_after",
    "rotation",
    "shift",
    "zoom",
    "shear",
    "recipe",
    "threads",
)


class Configured(Protocol):
    """A job of a study or of a search."""

    @property
    def config(self) -> TrainConfig:
        """What is trained."""


Job = TypeVar("Job", bound=Configured)


def static_key(config: TrainConfig) -> str:
    """Returns what runs must have in common to be members of one population."""
    values = {name: value for name, value in config.identity.items() if name not in DYNAMIC}
    # Not the values themselves, but whether there are any: without, the program has another form.
    values["momentum"] = max(config.momentum, config.base_momentum or 0.0) > 0
    values["augmented"] = any((config.rotation, config.shift, config.zoom, config.shear))
    return json.dumps(values, sort_keys=True)


def grouped(configs: Sequence[TrainConfig]) -> list[list[TrainConfig]]:
    """Sorts configs into groups that can be one population, both in the order in which they came."""
    groups: dict[str, list[TrainConfig]] = {}
    for config in configs:
        groups.setdefault(static_key(config), []).append(config)
    return list(groups.values())


def padded(count: int, limit: int, devices: int = 1) -> int:
    """Returns the width of a population of `count` members, at most `limit`: one of WIDTHS, on every device as many."""
    fitting = next((width for width in WIDTHS if width >= count), count)
    return math.ceil(max(min(fitting, limit), count) / devices) * devices


def check_population(population: Width) -> None:
    """Refuses a `--population` that is no width, or a backend that cannot train one.

    Raises:
        UsageError: it is neither auto nor a number of at least 1, or Keras does not run on JAX.
    """
    if population is None:
        return
    if population != "auto" and not (isinstance(population, int) and population >= 1):
        raise UsageError(
            "--population is auto or at least 1.",
            f"population={population!r}",
            "Give auto, for as many runs side by side as the device's memory holds.",
        )
    from kernorm.environment import require_jax

    require_jax()


@functools.cache
def accelerators() -> int:
    """Asks JAX, in a process that gives the devices back at once, how many accelerators this machine has."""
    code = "import jax; print(sum(device.platform != 'cpu' for device in jax.local_devices()))"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 and asked.stdout.strip() else 0


@dataclass(frozen=True)
class Members(Generic[Job]):
    """Jobs of one static config; how many may be side by side, None: as many as their share of the memory holds."""

    jobs: tuple[Job, ...]
    width: int | None
    memory: float = 1.0


def train_members(members: Members[Job]) -> "list[Answer[Record]]":
    """Trains a population; what a worker does. Returns a record or one line of an error for each of its jobs."""
    from kernorm.population import train_population

    errors: dict[str, str] = {}

    def failed(config: TrainConfig, error: Exception) -> None:
        errors[config.run_id] = one_line(error)
        traceback.print_exception(error)

    configs = [job.config for job in members.jobs]
    # Two arms may have a run in common, as one and the same arm with another first seed has.
    once = list({config.run_id: config for config in configs}.values())
    records = train_population(once, width=members.width, failed=failed, memory=members.memory)
    found = {record.config.run_id: record for record in records}
    return [(found.get(config.run_id), errors.get(config.run_id)) for config in configs]


class Populations(Generic[Job]):
    """An engine, as engine.py's to its user, whose workers train populations of the jobs that are waiting.

    When a worker is free it gets the fullest group, shared out evenly where there are more free workers than groups.

    Args:
        engine: of `train_members`.
        width: members side by side; None: as many as the device's memory holds.
        asked: jobs that populations are to be filled from, which is what `slots` says.
        memory: share of an accelerator's memory that is a worker's.
    """

    def __init__(
        self,
        engine: "Engine[Members[Job], list[Answer[Record]]]",
        *,
        width: int | None,
        asked: int,
        memory: float = 1.0,
    ) -> None:
        self._engine, self._width, self._asked, self._memory = engine, width, asked, memory
        self._waiting: dict[str, list[Job]] = {}

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

    def submit(self, job: Job) -> None:
        """Puts a job into its group; it begins when outcomes are asked for."""
        self._waiting.setdefault(static_key(job.config), []).append(job)

    def outcomes(self) -> "Iterator[Outcome[Job, Record]]":
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


def open_populations(
    work: "Callable[[Job], Record]",
    population: Width,
    name: EngineName,
    *,
    workers: int | None,
    gpus_per_job: float,
    asked: int | None = None,
    **settings: object,
) -> "Engine[Job, Record] | Populations[Job]":
    """Opens the engine of a study or a search: of runs one after another in each worker, or of populations.

    Args:
        work: trains one job, where there is no population.
        population: as `--population` has it. auto: populations on accelerators, else one run after another, which is
            what a processor does faster.
        name: of the engine.
        workers: at once at most; of populations on this machine one by default, over all of its accelerators.
        gpus_per_job: as `open_engine` takes it; with 0, Ray's workers see no accelerator.
        asked: jobs that all populations are to be filled from; by default as many as one may hold.
        settings: what else `open_engine` takes.
    """
    if population == "auto" and not (gpus_per_job > 0 if name == "ray" else accelerators() > 0):
        why = "no --gpus-per-job" if name == "ray" else "no accelerator"
        print(f"population: {why}, so runs go one after another, a process a core", file=sys.stderr)
        population = None
    if population is None:
        return open_engine(work, name, workers=workers, gpus_per_job=gpus_per_job, **settings)  # type: ignore[arg-type]
    width = None if population == "auto" else population
    if name == "local":
        workers = workers or 1
        memory = 1 / workers
    else:
        memory = gpus_per_job if 0 < gpus_per_job < 1 else 1.0
    engine: Engine[Members[Job], list[Answer[Record]]] = open_engine(
        train_members,
        name,
        workers=workers,
        gpus_per_job=gpus_per_job,
        **settings,  # type: ignore[arg-type]
    )
    return Populations(engine, width=width, asked=asked or width or WIDTHS[-1], memory=memory)
