"""The life of a search in its folder: begun or resumed, run, confirmed, reported."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernorm.config import with_added
from kernorm.datasets.dataset import load
from kernorm.datasets.own import with_prepared
from kernorm.errors import UsageError
from kernorm.nets.source import with_net
from kernorm.records.record import REVISION
from kernorm.reporting.live import Live, LivePage
from kernorm.reporting.progress import StudyProgress
from kernorm.system.backend import choose_backend
from kernorm.system.files import locked, locked_if_free, make_folder, require_folder, write_json
from kernorm.training.first_step import try_nets
from tuner import distributed
from tuner.config import SearchConfig
from tuner.confirm import CONFIRMATION, SETTINGS, Confirmed, confirm, unconfirmed
from tuner.driver import Driver, format_trial
from tuner.hparams import write_hparams
from tuner.points import first_points
from tuner.report import write_search_report
from tuner.space import check_batches
from tuner.trials import Trial, Trials

if TYPE_CHECKING:
    from keras_tuner.distribute.oracle_client import OracleClient

    from tuner.base import ResumableOracle

# There while what an earlier search left is deleted.
_DELETING = ".deleting"

_LOG = logging.getLogger("kernorm")


def find(config: SearchConfig) -> tuple[Trials, Confirmed | None]:
    """Runs what is missing of a search, confirms the best, exports it and writes the report.

    With KerasTuner's variables for many processes set, this process is the chief or a worker; see distributed.py. A
    worker returns when the chief has no more trials.

    Returns:
        The trials, and what was confirmed; None if no trial completed, or this process is a worker.

    Raises:
        UsageError: the space, the data, the oracle or the engine cannot be used, or a search of that name exists.
    """
    choose_backend()
    config = with_oracle(replace(config, train=with_prepared(with_net(config.train), config.reports_dir)))
    check_batches(config.train, config.space)
    points = first_points(config)
    require_folder(config.folder, "--reports-dir")
    role = None if config.report_only else distributed.role()
    if role == "worker":
        distributed.ask_chief(lambda client: _work(config, client))
        return Trials(config.folder, mend=False), None
    known = _known(config)
    if config.report_only and not known:
        raise UsageError("--report-only needs a search.", f"{config.folder}, which has none", "Run it first.")
    # A wrong size is refused at once, and workers find the cache.
    info = None if config.report_only else load(config.base).info
    data = info.sha256 if info else None
    if info and config.train.net_source is not None and not known:
        size = max(config.space.batch_size)
        changes: list[dict[str, Any]] = [{"norm": norm, "batch_size": size} for norm in config.space.norm]
        try_nets([(replace(config.base, **change), info) for change in changes])
    oracle = None if config.report_only else _oracle(config, points)
    make_folder(config.folder, "--reports-dir")
    lock = config.folder / "lock"
    with locked_if_free(lock) if config.report_only else locked(lock, "run this search") as free:
        if free is False:  # another process runs what is only shown here
            _check_same(config, data)
            trials = Trials(config.folder, mend=False)
            shown = _show(config, trials, Live(len(trials.ended), config.max_trials, "trials"))
            # Where the other process has ended meanwhile, its last page is not to be hidden by an older one.
            return (trials, shown) if lock.exists() else find(config)
        if _known(config):  # also one that another process has begun meanwhile
            _check_same(config, data)
        else:
            if config.overwrite or (config.folder / _DELETING).exists():
                _empty(config.folder)
            write_json(config.folder / SETTINGS, _settings(config, data))
        if oracle:
            _run(config, oracle, serving=role == "chief")
        trials = Trials(config.folder, mend=False)
        return trials, _finish(config, trials)


def _known(config: SearchConfig) -> bool:
    """Tells whether there is a search to go on with.

    Raises:
        UsageError: there is one, and nothing says what to do with it.
    """
    begun = (config.folder / SETTINGS).exists() and not (config.folder / _DELETING).exists()
    if begun and not (config.resume or config.report_only or config.overwrite):
        raise UsageError(
            "A search of this name exists.",
            config.folder,
            "Give --resume to continue it, --overwrite to delete it, or another --name.",
        )
    return begun and not config.overwrite


def _empty(folder: Path) -> None:
    """Deletes what is in a locked folder; if that is cut off, the next search of the name ends it."""
    (folder / _DELETING).touch()
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (_DELETING, "lock"):
            path.unlink()
    (folder / _DELETING).unlink()


def _oracle(config: SearchConfig, points: list[dict]) -> "ResumableOracle":
    """Returns the oracle of a search, with nothing of its folder read yet."""
    from tuner.oracles import ORACLES  # KerasTuner, which imports Keras: its backend is chosen by now

    oracle = ORACLES[config.oracle](config)
    oracle.points = points
    oracle._set_project_dir(str(config.reports_dir / "searches"), config.name)
    return oracle


def _run(config: SearchConfig, oracle: "ResumableOracle", *, serving: bool) -> None:
    oracle.reload()
    trials = Trials(config.folder)
    # With fewer workers, say, a trial that failed for lack of memory may not fail. Once the best are confirmed, none is
    # tried any more.
    over = (config.folder / "studies").exists()
    there = {trial.trial_id for trial in trials.ended if over or not trial.lost}
    oracle.run_again([name for name in oracle.end_order if name not in there])
    if config.budget_seconds:
        oracle.deadline = time.monotonic() + config.budget_seconds - trials.seconds
    if serving and oracle.nothing_left():  # as of a chief that was killed during the confirmation
        return
    if serving:
        oracle.leave_with_workers()
        _LOG.info(f"chief at {distributed.address()}: waiting for workers")
        distributed.serve(oracle)
        return
    pages = LivePage()
    slots = config.asked if config.engine.population else config.engine.local_workers
    with StudyProgress(total=oracle.most_trials(), done=len(trials.ended), slots=slots, what="trials") as progress:

        def ended(trial: Trial) -> None:
            best = trials.best()
            left = progress.ended(format_trial(trial), best=f"best {best[0].score:.4f}" if best else "")
            pages.ended(lambda live: _show(config, trials, live), progress.done, progress.total, left, "trials")

        Driver(config, oracle, trials, ended).run()


def _work(config: SearchConfig, client: "OracleClient") -> None:
    """Runs trials of a chief until it has no more."""
    _check_same(config, load(config.base).info.sha256)
    name = os.environ[distributed.ID]
    trials = Trials(config.folder, mend=False)
    Driver(config, client, trials, lambda trial: _LOG.info(format_trial(trial)), name=f"{name}.").run()
    _LOG.info(f"{name}: the chief has no more trials")


def _finish(config: SearchConfig, trials: Trials) -> Confirmed | None:
    failed = [trial for trial in trials.ended if trial.score is None]
    if failed:
        _LOG.warning("%d of %d trials failed; the last one: %s", len(failed), len(trials.ended), failed[-1].message)
    if not trials.best():
        _LOG.warning("No trial completed.")
        return None
    if not config.report_only:
        _show(config, trials, Live(len(trials.ended), len(trials.ended), "trials; the best are being confirmed"))
    confirmed = confirm(config, trials)
    write_search_report(config, trials, confirmed)
    write_hparams(trials.ended, config.folder)
    return confirmed


def _show(config: SearchConfig, trials: Trials, live: Live) -> Confirmed | None:
    """Writes the page of a search that is under way, if a trial has completed; returns what is the best so far."""
    if not trials.best():
        return None
    best = unconfirmed(config, trials)
    write_search_report(config, trials, best, live=live)
    return best


def with_oracle(config: SearchConfig) -> SearchConfig:
    """Resolves the oracle `best`, and says which it is."""
    if config.oracle != "best":
        return config
    name = "optuna" if importlib.util.find_spec("optuna") else "random"
    why = "installed" if name == "optuna" else "Optuna is not: pip install optuna"
    _LOG.info(f"oracle: {name} ({why})")
    return replace(config, oracle=name)  # type: ignore[arg-type]


def _settings(config: SearchConfig, data: str | None) -> dict[str, Any]:
    """Returns what a resumed search must have in common with the one that it continues; `data` is the set's sha256."""
    base = {name: value for name, value in config.base.identity.items() if name not in ("norm", "threads")}
    return {
        "oracle": config.oracle,
        "seed": config.seed,
        "repeats": config.repeats,
        "space": json.loads(json.dumps(dataclasses.asdict(config.space))),
        "train": base,
        "data": data,
        "confirmation": CONFIRMATION,
        "revision": REVISION,
        "keras_tuner": importlib.metadata.version("keras-tuner"),
    }


def _check_same(config: SearchConfig, data: str | None) -> None:
    try:
        before = json.loads((config.folder / SETTINGS).read_bytes())
    except FileNotFoundError:
        raise UsageError(
            "A worker sees its chief's folder.",
            f"{config.folder} without {SETTINGS}",
            "Give the chief's --name and --reports-dir.",
        ) from None
    before = {"revision": 1, "data": data} | before | {"train": with_added(before["train"])}
    now = _settings(config, data)
    del now["confirmation"]  # goes on as it was begun
    if config.report_only:  # trains nothing, so that an old search is reported as it was
        del now["revision"], now["data"]
    for name in ("net_source", "net"):
        if before["train"].get(name) != now["train"][name]:
            raise UsageError(
                "A resumed search keeps its net.",
                f"--net {config.train.net}, of another text than in {config.folder}",
                "Give the same file, or another --name.",
            )
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise UsageError(
            "A resumed search keeps its settings.",
            f"{name}={now[name]}, begun with {before.get(name)} in {config.folder}",
            "Give the same ones, or another --name.",
        )
