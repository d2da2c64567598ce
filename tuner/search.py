"""Searches penalties, batch size and more with KerasTuner, confirms the best and exports it: `python -m tuner.search`.

About 25 minutes on two CPU cores. The oracle lives in this process and hands trials to the study's engine; a trial is
`train(config)`, stopped before anything is measured, so that the test split stays shut. Killed at any moment, the same
command with --resume goes on.
"""

import dataclasses
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernorm.config import TrainConfig, with_added
from kernorm.errors import UsageError, nearest
from kernorm.recipes import recipe, recipe_named
from kernorm.system import cli
from kernorm.system.backend import choose_backend
from kernorm.system.files import locked, make_folder, require_folder, write_json
from kernorm.system.machine import cores
from tuner import distributed
from tuner.config import TRIAL, SearchConfig
from tuner.points import first_points
from tuner.space import check_batches

if TYPE_CHECKING:
    from keras_tuner.distribute.oracle_client import OracleClient

    from tuner.trials import Trial, Trials

PROG = "python -m tuner.search"
SETTINGS = "search.json"

_LOG = logging.getLogger("kernorm")


def search(config: SearchConfig) -> int:
    """Searches, confirms, exports and reports; returns 1 if no trial completed.

    Raises:
        UsageError: the space, the data, the oracle or the engine cannot be used, or the search is there already.
    """
    from tuner.trials import Trials

    choose_backend()
    config = _with_oracle(config)
    check_batches(config.train, config.space)
    points = first_points(config)
    if config.dry_run:
        _show_plan(config)
        return 0
    require_folder(config.folder, "--reports-dir")
    role = None if config.report_only else distributed.role()
    if role == "worker":
        distributed.ask_chief(lambda client: _work(config, client))
        return 0
    if config.overwrite and config.folder.exists():
        shutil.rmtree(config.folder)
    known = (config.folder / SETTINGS).exists()
    if known and not (config.resume or config.report_only):
        raise UsageError(
            "A search is begun once.",
            f"{config.folder}, which is there",
            "Give --resume to go on, --overwrite to delete it, or another --name.",
        )
    if config.report_only and not known:
        raise UsageError("--report-only needs a search.", f"{config.folder}, which has none", "Run it first.")
    make_folder(config.folder, "--reports-dir")
    with locked(config.folder / "lock", "run this search"):
        if known:
            _check_same(config)
        else:
            write_json(config.folder / SETTINGS, _settings(config))
        if not config.report_only:
            _run(config, points, serving=role == "chief")
        return _finish(config, Trials(config.folder))


def _run(config: SearchConfig, points: list[dict], *, serving: bool) -> None:
    from kernorm.datasets.dataset import load
    from kernorm.reporting.progress import StudyProgress
    from tuner.driver import Driver, format_trial
    from tuner.oracles import ORACLES
    from tuner.trials import Trials

    load(config.base)  # a wrong size is told at once, and workers find the cache
    oracle = ORACLES[config.oracle](config)
    oracle.points = points
    oracle._set_project_dir(str(config.reports_dir / "searches"), config.name)
    oracle.reload()
    trials = Trials(config.folder)
    if config.budget_seconds:
        oracle.deadline = time.monotonic() + config.budget_seconds - trials.seconds
    if serving:
        oracle.leave_with_workers()
        _LOG.info(f"chief at {distributed.address()}: waiting for workers")
        distributed.serve(oracle)
        return
    slots = config.asked if config.engine.population else config.engine.workers or cores()
    with StudyProgress(total=oracle.most_trials(), done=len(trials.ended), slots=slots, what="trials") as progress:

        def ended(trial: "Trial") -> None:
            best = trials.best()
            progress.ended(format_trial(trial), best=f"best {best[0].score:.4f}" if best else "")

        Driver(config, oracle, trials, ended).run()


def _work(config: SearchConfig, client: "OracleClient") -> None:
    """Runs trials of a chief until it has no more."""
    from tuner.driver import Driver, format_trial
    from tuner.trials import Trials

    _check_same(config)
    name = os.environ[distributed.ID]
    trials = Trials(config.folder, mend=False)
    Driver(config, client, trials, lambda trial: _LOG.info(format_trial(trial)), name=f"{name}.").run()
    _LOG.info(f"{name}: the chief has no more trials")


def _finish(config: SearchConfig, trials: "Trials") -> int:
    failed = [trial for trial in trials.ended if trial.score is None]
    if failed:
        _LOG.info(f"{len(failed)} of {len(trials.ended)} trials failed; the last one: {failed[-1].message}")
    if not trials.best():
        _LOG.info("No trial completed.")
        return 1
    from tuner.confirm import confirm
    from tuner.hparams import write_hparams
    from tuner.report import write_search_report

    confirmed = confirm(config, trials)
    path = write_search_report(config, trials, confirmed)
    write_hparams(trials.ended, config.folder)
    print(f"report   {path}")
    export = confirmed.exported.export if confirmed.exported else None
    if config.push and export and export.path:
        from kernorm.serving.publish import publish

        print(
            publish(
                Path(export.path),
                saved_models_dir=config.saved_models_dir,
                manual_dir=config.train.manual_dir,
                data_dir=config.train.data_dir,
            )
        )
        return 0
    return 1 if config.push else 0


def _with_oracle(config: SearchConfig) -> SearchConfig:
    """Resolves the oracle `best`, and says which it is."""
    if config.oracle != "best":
        return config
    name = "optuna" if importlib.util.find_spec("optuna") else "random"
    why = "installed" if name == "optuna" else "Optuna, extra optuna, is not installed"
    _LOG.info(f"oracle: {name} ({why})")
    return replace(config, oracle=name)  # type: ignore[arg-type]


def _settings(config: SearchConfig) -> dict[str, Any]:
    """Returns what a resumed search must have in common with the one that it goes on with."""
    from keras_tuner import __version__

    from kernorm.records.record import REVISION

    base = {name: value for name, value in config.base.identity.items() if name not in ("norm", "threads")}
    return {
        "oracle": config.oracle,
        "seed": config.seed,
        "repeats": config.repeats,
        "space": json.loads(json.dumps(dataclasses.asdict(config.space))),
        "train": base,
        "revision": REVISION,
        "keras_tuner": __version__,
    }


def _check_same(config: SearchConfig) -> None:
    try:
        before = json.loads((config.folder / SETTINGS).read_bytes())
    except FileNotFoundError:
        raise UsageError(
            "A worker sees its chief's folder.",
            f"{config.folder} without {SETTINGS}",
            "Give the chief's --name and --reports-dir.",
        ) from None
    before = {"revision": 1} | before | {"train": with_added(before["train"])}
    now = _settings(config)
    if config.report_only:  # trains nothing, so that an old search is reported as it was
        del now["revision"]
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise UsageError(
            "A resumed search keeps its settings.",
            f"{name}={now[name]}, begun with {before.get(name)} in {config.folder}",
            "Give the same ones, or another --name.",
        )


def _show_plan(config: SearchConfig) -> None:
    from kernorm.studies.terminal import cost

    for name, values in config.space.described():
        print(f"{name:14} {values}")
    workers = config.engine.workers or cores()
    trial = cost(config.base) * config.repeats
    arms = config.top_k + 1 if config.top_k else 0
    confirm = cost(config.base) * arms * config.confirm_seeds
    final = cost(_full(config)) * config.confirm_seeds if config.final else 0
    print(f"{config.oracle}: up to {config.max_trials} trials of {trial:.0f} CPU-seconds")
    print(
        f"about {config.max_trials * trial / workers / 60:.0f} minutes of search, {confirm / workers / 60:.0f} of "
        f"confirmation and {final / workers / 60:.0f} of final training, {workers} runs at a time"
    )


def _full(config: SearchConfig) -> TrainConfig:
    return replace(config.base, epochs=TrainConfig().epochs, train_size=None)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the search's own words and those of kernorm.train.

    Raises:
        UsageError: a flag that neither has, or one of kernorm.train that the search sets itself.
    """
    own = {flag.removeprefix("--").replace("-", "_") for flag in cli.flags_of(SearchConfig)}
    theirs = {field.name for field in dataclasses.fields(TrainConfig)} - own
    held = {
        "batch_size": "--batch-sizes",
        "export": "--final",
        "report": "--report-only",
        "stop_after": "--epochs",
        "retrain": "--overwrite",
        "track": "the report",
    }
    parts: tuple[list[str], list[str]] = ([], [])
    into = parts[0]
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            name = name.removeprefix("no_") if name not in own | theirs else name
            if name in held:
                raise UsageError(f"A search sets --{name.replace('_', '-')} itself.", word, f"See {held[name]}.")
            if name not in own | theirs | {"help"}:
                flags = sorted("--" + known.replace("_", "-") for known in own | theirs - set(held))
                close = nearest(f"--{name.replace('_', '-')}", flags).partition("Known:")[0].replace("'", "")
                raise UsageError(
                    "An option must be a known one.",
                    word,
                    f"{close}See {PROG} --help and python -m kernorm.train --help.",
                )
            into = parts[1] if name in theirs else parts[0]
        into.append(word)
    return parts


def default(words: list[str]) -> tuple[SearchConfig, list[str]]:
    """Returns the settings that a command line leaves to kernorm.train, and the search's own words."""
    own, theirs = split_words(words)
    named = recipe_named(theirs)
    first = recipe(named, **TRIAL) if named == TrainConfig.recipe else recipe(named)
    return SearchConfig(train=cli.parse(TrainConfig, prog=PROG, argv=theirs, default=first)), own


def main(argv: list[str] | None = None) -> int:
    """Runs the command of these words, the process's own by default; see `SearchConfig`."""
    return cli.run(
        SearchConfig,
        search,
        prog=PROG,
        argv=argv,
        default=default,
        interrupted="Ended trials and finished epochs are kept; run the same command with --resume to go on.",
    )


if __name__ == "__main__":
    sys.exit(main())
