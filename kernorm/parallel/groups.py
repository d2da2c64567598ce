"""Trains many runs at once on one accelerator, as one program: `train_population(configs)`, on the JAX backend.

A member is an ordinary run, with the folder, lock, checkpoint and record of one: whichever of the two trained it, the
other resumes it. Runs of the same static config (grouping.py) are stacked, padded to one of WIDTHS and trained by the
programs of vmap.py. Study and search reach it by `--population`.
"""

import contextlib
import gc
import os
from collections.abc import Sequence

import jax

from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.datasets.dataset import load
from kernorm.errors import UsageError
from kernorm.parallel.grouping import WIDTHS, grouped
from kernorm.parallel.lowering import Lowering
from kernorm.parallel.members import Failed, on_the_host, passing_errors
from kernorm.parallel.population import Population
from kernorm.records.record import Record
from kernorm.system.backend import keras_settings, require_jax
from kernorm.training.run import (
    check_config,
    complete_if_trained,
    locked_run_folder,
    start_or_resume,
    train,
)
from kernorm.training.trainer import Trainer


@keras_settings()
def train_population(
    configs: Sequence[TrainConfig],
    *,
    width: int | None = None,
    lowering: Lowering | None = None,
    failed: Failed | None = None,
    memory: float = 1.0,
) -> list[Record]:
    """Trains, measures, reports and exports many runs side by side, or what is left of them, as `train` does each.

    A member whose loss is no longer finite ends as `diverged` and leaves the others alone.

    Args:
        configs: of the members, no run twice.
        width: members side by side at most. None: as many as fit the device's memory, up to the largest of WIDTHS; on
            a CPU, where side by side is slower, one after another.
        lowering: of their convolutions. None: the faster one, by a short calibration on an accelerator.
        failed: called for each member that cannot be trained or measured, which is then left out. None: the first such
            error is raised, once the members begun before it have ended.
        memory: share of the devices' memory that is this population's, where others train on the same devices.

    Returns:
        Their records, in the order of the configs.

    Raises:
        UsageError: the backend is not JAX, a run is there twice or held by another process, or as `train` raises it.
        RuntimeError: a penalty is not in the loss as configured.
    """
    require_jax()
    names = [config.run_id for config in configs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError("A population's members differ.", f"{twice} twice", "Remove one of them.")
    _keep_compiled()
    errors: list[Exception] = []
    told = failed or (lambda _, error: errors.append(error))
    records: dict[str, Record] = {}
    if width is None and jax.default_backend() == "cpu":
        for config in configs:
            with passing_errors(told, config):
                records[config.run_id] = train(config, tried=True)
    else:
        for group in grouped(configs):
            limit = width or WIDTHS[-1]
            for start in range(0, len(group), limit):
                records |= _train_group(group[start : start + limit], width, lowering, told, memory)
    if errors:
        raise errors[0]
    return [records[name] for name in names if name in records]


def _keep_compiled() -> None:
    """Lets JAX keep what it compiles in kernorm's cache, unless another folder is set, for later populations."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache.cache_dir() / "xla"))
        # Also the hundred small programs that begin a run.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _train_group(
    configs: Sequence[TrainConfig], width: int | None, lowering: Lowering | None, failed: Failed, memory: float
) -> dict[str, Record]:
    """Trains runs of one static config; returns their records by run id."""
    records: dict[str, Record] = {}
    with contextlib.ExitStack() as held:
        # Members at the same epoch train together: Hyperband's survivors, an interrupted population.
        together: dict[tuple[int, int, bool], list[Trainer]] = {}
        data = None
        for config in configs:
            with passing_errors(failed, config), on_the_host():
                if config.track != "none":
                    raise UsageError(
                        "A tracker follows one run.", f"track={config.track!r} in a population", "Remove it."
                    )
                check_config(config)
                folder = held.enter_context(locked_run_folder(config))
                if record := complete_if_trained(config, folder):
                    records[config.run_id] = record
                    continue
                data = data or load(config)
                run, done = start_or_resume(config, folder, data._replace(test=data.test.sealed_again()))
                together.setdefault((done, run.last, config.stop_after is None), []).append(run)
        for (done, *_), runs in together.items():
            limit = width or WIDTHS[-1]
            while runs:
                members, ended = runs[:limit], {}
                try:
                    population = Population(members, done, width=width, lowering=lowering, failed=failed, memory=memory)
                    members, ended = population.runs, population.ended
                    limit = min(limit, population.count)
                    population.train()
                except Exception as error:  # of what they share: the device, its memory
                    for place, run in enumerate(members):
                        if place not in ended:
                            failed(run.config, error)
                records |= {members[place].config.run_id: record for place, record in ended.items() if record}
                runs = runs[len(members) :]
                population = None  # type: ignore[assignment]
                gc.collect()  # so that what it held is free when the next one asks
    return records
