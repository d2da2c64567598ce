"""Where the runs of a study or of a search are computed: the settings that both commands share."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import tyro

from kernorm.errors import UsageError, nearest

EngineName = Literal["local", "ray"]
Width = int | Literal["auto"] | None


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where runs are computed, and how many at a time."""

    name: Annotated[EngineName, tyro.conf.arg(name="engine")] = "local"
    """local: processes on this machine. ray: Ray tasks, here or on the cluster at --address (extra ray)."""

    workers: int | None = None
    """Runs at a time. None: one a CPU core, or what the Ray cluster has room for."""

    address: str | None = None
    """Of a Ray cluster; None starts Ray on this machine."""

    gpus_per_job: float = 0.0
    """GPUs that Ray reserves for a run; 0.25 puts four runs on one."""

    threads: int = 1
    """CPU threads of a run. Two runs of one thread finish sooner than one after another with two."""

    population: Width = None
    """Train runs that differ in λ's, rates, schedules or seeds alone side by side, as one program. auto: as many as an
    accelerator's memory holds; where there is none, one after another, which is faster there. A number: so many at
    most. Needs KERAS_BACKEND=jax."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits, and a population without JAX, with a UsageError."""
        names = get_args(EngineName)
        if self.name not in names:
            raise UsageError("--engine takes a known name.", f"{self.name!r}", nearest(self.name, names))
        if self.workers is not None and self.workers < 1:
            raise UsageError("--workers must be at least 1.", f"workers={self.workers}", "Omit it for one a core.")
        if self.threads < 1:
            raise UsageError("A job needs at least one core.", f"threads={self.threads}", "Give --threads 1.")
        share = self.gpus_per_job
        if not (0 <= share < math.inf and (share <= 1 or share == int(share))):
            raise UsageError(
                "--gpus-per-job takes a share from 0 to 1, or a whole number of GPUs.",
                f"gpus_per_job={share}",
                "Give for example 0.25.",
            )
        if self.name == "local" and (self.address is not None or share):
            received = f"address={self.address!r}" if self.address is not None else f"gpus_per_job={share}"
            raise UsageError(
                "Addresses and shares of a GPU belong to --engine ray.",
                f"{received} with engine='local'",
                "Remove it, or give --engine ray.",
            )
        if self.population is None:
            return
        if self.population != "auto" and not (isinstance(self.population, int) and self.population >= 1):
            raise UsageError(
                "--population is auto or at least 1.",
                f"population={self.population!r}",
                "Give auto, for as many runs side by side as the device's memory holds.",
            )
        from kernorm.system.backend import require_jax  # only where it is asked for: --help needs none of it

        require_jax()


# The fields stand among the command's own flags.
Engine = Annotated[EngineConfig, tyro.conf.arg(name="")]
