"""Opens the engine that a study or a search asks for."""

import functools
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kernorm.parallel.batches import Populations
from kernorm.parallel.engine import JOBS_PER_WORKER, Engine, JobT, ResultT, Returned
from kernorm.parallel.grouping import WIDTHS
from kernorm.parallel.jobs import ConfiguredT, Members, train_job, train_members
from kernorm.parallel.local import LocalEngine
from kernorm.parallel.settings import EngineConfig
from kernorm.records.record import Record

_LOG = logging.getLogger("kernorm")


def open_engine(
    work: Callable[[JobT], ResultT],
    config: EngineConfig | None = None,
    *,
    log_dir: Path | None = None,
    jobs_per_worker: int = JOBS_PER_WORKER,
) -> Engine[JobT, ResultT]:
    """Opens the engine that the settings name, to be used as a context manager; one job after another in each worker.

    Args:
        work: a module's function; it, its jobs and its results are pickled.
        config: by default processes on this machine, one a core.
        log_dir: takes a file a worker, with what its jobs print and the tracebacks of those that fail.
        jobs_per_worker: after so many a process is replaced by a new one, which keeps its memory flat.

    Raises:
        UsageError: Ray is not installed, no cluster is at the address, or it has no such slots.
    """
    config = config or EngineConfig()
    if config.name == "ray":
        from kernorm.parallel.ray_engine import RayEngine  # the extra ray

        return RayEngine(
            work,
            workers=config.workers,
            address=config.address,
            cpus_per_job=config.threads,
            gpus_per_job=config.gpus_per_job,
            log_dir=log_dir,
            jobs_per_worker=jobs_per_worker,
        )
    return LocalEngine(work, workers=config.local_workers, log_dir=log_dir, jobs_per_worker=jobs_per_worker)


def open_training(
    config: EngineConfig, *, log_dir: Path | None = None, asked: int | None = None
) -> Engine[ConfiguredT, Record] | Populations[ConfiguredT]:
    """Opens the engine of a study or a search: of runs one after another in each worker, or of populations.

    Args:
        config: with population auto, populations on accelerators, else one run after another, which is what a
            processor does faster. Populations on this machine have one worker by default, over all its accelerators;
            with gpus_per_job 0, Ray's workers see no accelerator.
        log_dir: as in `open_engine`.
        asked: jobs that all populations are to be filled from; by default as many as one may hold.

    Raises:
        UsageError: as `open_engine`.
    """
    population = config.population
    if population == "auto" and not (config.gpus_per_job > 0 if config.name == "ray" else accelerators() > 0):
        why = "no --gpus-per-job" if config.name == "ray" else "no accelerator"
        _LOG.info("population: %s, so runs go one after another, a process a core", why)
        population = None
    if population is None:
        return open_engine(train_job, config, log_dir=log_dir)
    width = None if population == "auto" else population
    memory = config.gpus_per_job if 0 < config.gpus_per_job < 1 else 1.0
    if config.name == "local":
        config = replace(config, workers=config.workers or 1)
        memory = 1 / (config.workers or 1)
    engine: Engine[Members[ConfiguredT], list[Returned[Record]]] = open_engine(train_members, config, log_dir=log_dir)
    return Populations(engine, width=width, asked=asked or width or WIDTHS[-1], memory=memory)


@functools.cache
def accelerators() -> int:
    """Asks JAX, in a process that gives the devices back at once, how many accelerators this machine has."""
    code = "import jax; print(sum(device.platform != 'cpu' for device in jax.local_devices()))"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    count = int(asked.stdout.split()[-1]) if asked.returncode == 0 and asked.stdout.strip() else 0
    if count == 0 and (told := _of_devices(asked.stderr, failed=asked.returncode != 0)):
        _LOG.warning("JAX finds no accelerator: %s", told)
    return count


def _of_devices(text: str, *, failed: bool) -> str:
    """Returns the last line of JAX's messages that names an accelerator, such as an error of CUDA at its start.

    That of a JAX that failed is its last line, if none does.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.search("cuda|nvidia|gpu|rocm|tpu", line, re.IGNORECASE)]
    return (named or (lines if failed else []) or [""])[-1]
