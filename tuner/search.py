"""Searches penalties, batch size and more with KerasTuner, confirms the best and exports it: `python -m tuner.search`.

About 45 minutes on two busy CPU cores. The oracle lives in this process and hands trials to the study's engine; a
trial is `train(config)`, stopped before anything is measured, so that the test split stays sealed. Killed at any
moment, the same command with --resume continues.
"""

import sys
from dataclasses import replace
from pathlib import Path

from kernorm.config import TrainConfig
from kernorm.limits import is_path
from kernorm.recipes import recipe, recipe_named
from kernorm.system import cli
from kernorm.system import words as command_words
from tuner.config import OWN_TRIAL, TRIAL, SearchConfig
from tuner.points import first_points
from tuner.space import check_batches

PROG = "python -m tuner.search"


def search(config: SearchConfig) -> int:
    """Searches, confirms, exports and reports; returns 1 if no trial completed.

    Raises:
        UsageError: see `tuner.runner.find`.
        Refused: the model may not be published.
    """
    from kernorm.datasets.own import with_prepared
    from tuner import distributed
    from tuner.runner import find, with_oracle

    if config.push:
        from kernorm.serving.publish import require_thresholds

        require_thresholds(config.train.dataset)
    if config.dry_run:
        config = with_oracle(replace(config, train=with_prepared(config.train, config.reports_dir)))
        check_batches(config.train, config.space)
        first_points(config)
        _show_plan(config)
        return 0
    _, confirmed = find(config)
    if confirmed is None:
        return 0 if distributed.role() == "worker" else 1
    print(f"report   {config.folder / 'report.html'}")
    export = confirmed.exported.export if confirmed.exported else None
    if not config.push:
        return 0
    if not (export and export.path):
        return 1
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


def _show_plan(config: SearchConfig) -> None:
    from kernorm.studies.terminal import cost

    for name, values in config.space.described():
        print(f"{name:14} {values}")
    workers = config.engine.local_workers
    run, full = cost(config.base), cost(_full(config))
    if run is None or full is None:
        print(
            f"{config.oracle}: up to {config.max_trials} trials; time is known once {config.train.dataset} is prepared"
        )
        return
    trial = run * config.repeats
    arms = config.top_k + 1 if config.top_k else 0
    confirm = run * arms * config.confirm_seeds
    final = 2 * full * config.confirm_seeds if config.final else 0
    print(f"{config.oracle}: up to {config.max_trials} trials of {trial:.0f} CPU-seconds")
    print(
        f"about {config.max_trials * trial / workers / 60:.0f} minutes of search, {confirm / workers / 60:.0f} of "
        f"confirmation and {final / workers / 60:.0f} of final training, with {workers} workers"
    )


def _full(config: SearchConfig) -> TrainConfig:
    return replace(config.base, epochs=TrainConfig().epochs, train_size=None)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the search's own words and those of kernorm.train.

    Raises:
        UsageError: a flag that neither has, or one of kernorm.train that the search sets itself.
    """
    own = command_words.settings_of(SearchConfig)
    held = {
        "batch_size": "--batch-sizes",
        "export": "--final",
        "report": "--report-only",
        "stop_after": "--epochs",
        "retrain": "--overwrite",
        "track": "the report",
    }
    theirs = command_words.settings_of(TrainConfig) - own
    return command_words.split_words(words, own=own, theirs=theirs, held=held, holder="A search", prog=PROG)


def default(words: list[str]) -> tuple[SearchConfig, list[str]]:
    """Returns the settings that a command line leaves to kernorm.train, and the search's own words."""
    own, theirs = split_words(words)
    named = recipe_named(theirs)
    first = recipe(named, **TRIAL) if named == TrainConfig.recipe else recipe(named)
    found = cli.parse(TrainConfig, prog=PROG, argv=theirs, default=first)
    if named == TrainConfig.recipe and (is_path(found.dataset) or "@" in found.dataset):
        found = cli.parse(TrainConfig, prog=PROG, argv=theirs, default=recipe(named, **OWN_TRIAL))
    return SearchConfig(train=found), own


def main(argv: list[str] | None = None) -> int:
    """Runs the command of these words, the process's own by default; see `SearchConfig`."""
    return cli.run(
        SearchConfig,
        search,
        prog=PROG,
        argv=argv,
        default=default,
        interrupted="Ended trials and finished epochs are kept; run the same command with --resume to continue.",
    )


if __name__ == "__main__":
    sys.exit(main())
