"""Where the runs of a study or of a search are computed: the settings that both commands share."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings

EngineName = Literal["local", "ray"]
Width = int | Literal["auto"] | None
_SHARE = "a share from 0 to 1, or a whole number of GPUs"


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where runs are computed, and how many at a time."""

    name: Annotated[EngineName, tyro.conf.arg(name="engine")] = "local"
    """local: processes on this machine. ray: Ray tasks, here or on the cluster at --address (pip install ray)."""

    workers: Annotated[int | None, Limit(1, math.inf, "at least 1")] = None
    """Runs at a time. None: one a CPU core, no more than memory or a container's limits hold, or what the Ray cluster
    has room for."""

    address: str | None = None
    """Of a Ray cluster; None starts Ray on this machine."""

    gpus_per_job: Annotated[float, Limit(0, math.inf, _SHARE)] = 0.0
    """GPUs that Ray reserves for a run; 0.25 puts four runs on one."""

    threads: Annotated[int, Limit(1, 1024, "from 1 to 1024")] = 1
    """CPU threads of a run. Two runs of one thread finish sooner than one after another with two."""

    population: Annotated[Width, Limit(1, math.inf, "auto or at least 1")] = None
    """Train runs that differ in λ's, rates, schedules or seeds alone side by side, as one program. auto: as many as an
    accelerator's memory holds; where there is none, one after another, which is faster there. A number: so many at
    most. Needs KERAS_BACKEND=jax."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits, and a population without JAX, with a UsageError."""
        check_settings(self)
        share = self.gpus_per_job
        if share > 1 and share != int(share):
            raise UsageError(
                f"--gpus-per-job must be {_SHARE}.",
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
        from kernorm.system.backend import require_jax  # only where it is asked for: --help needs none of it

        require_jax()

    @property
    def local_workers(self) -> int:
        """Runs at a time on this machine, without a population."""
        from kernorm.system.machine import default_workers

        return self.workers or default_workers(self.threads)


# Their title in a command's help.
ENGINE_GROUP = {
    "where runs are computed": ("engine", "workers", "address", "gpus_per_job", "threads", "population"),
}
# The fields stand among the command's own flags.
Engine = Annotated[EngineConfig, tyro.conf.arg(name="")]
