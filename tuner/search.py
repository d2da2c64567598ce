"""Searches penalties, batch size and more with KerasTuner, confirms the best and exports it: `python -m tuner.search`.

About 45 minutes on two busy CPU cores. The oracle lives in this process and hands trials to the study's engine; a
trial is `train(config)`, stopped before anything is measured, so that the test split stays sealed. Killed at any
moment, the same command with --resume continues.
"""

import sys
from dataclasses import replace
from pathlib import Path

from kernorm.config import TrainConfig
from kernorm.recipes import recipe, recipe_named
from kernorm.system import cli
from kernorm.system import words as command_words
from tuner.config import HELD, SearchConfig, first_of_trials
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
    from kernorm.system.backend import choose_backend
    from tuner import distributed
    from tuner.runner import find, with_oracle

    if config.push:
        from kernorm.serving.publish import require_thresholds

        require_thresholds(config.train.dataset)
    if config.dry_run:
        choose_backend()
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
    from tuner.oracles import ORACLES, Hyperband

    for name, values in config.space.described():
        print(f"{name:14} {values}")
    oracle = ORACLES[config.oracle](config)
    trials = oracle.most_trials()
    workers = config.engine.local_workers
    run, full = cost(config.base), cost(replace(config.base, epochs=config.full_epochs, train_size=None))
    if run is None or full is None:
        print(f"{config.oracle}: up to {trials} trials; time is known once {config.train.dataset} is prepared")
        return
    trial = run * config.repeats
    epochs = oracle.most_epochs() if isinstance(oracle, Hyperband) else trials * config.train.epochs
    search = trial * epochs / config.train.epochs
    arms = config.top_k + 1 if config.top_k else 0
    confirm = run * arms * config.confirm_seeds
    final = 2 * full * config.confirm_seeds if config.final else 0
    print(f"{config.oracle}: up to {trials} trials, {search / trials:.0f} CPU-seconds each")
    print(
        f"about {search / workers / 60:.0f} minutes of search, {confirm / workers / 60:.0f} of confirmation and "
        f"{final / workers / 60:.0f} of final training, with {workers} workers"
    )


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the search's own words and those of kernorm.train.

    Raises:
        UsageError: a flag that neither has, or one of kernorm.train that the search sets itself.
    """
    own = command_words.settings_of(SearchConfig)
    theirs = command_words.settings_of(TrainConfig) - own
    return command_words.split_words(words, own=own, theirs=theirs, held=HELD, holder="A search", prog=PROG)


def default(words: list[str]) -> tuple[SearchConfig, list[str]]:
    """Returns the settings that a command line leaves to kernorm.train, and the search's own words."""
    own, theirs = split_words(words)
    first = first_of_trials(recipe(recipe_named(theirs)))
    found = cli.parse(TrainConfig, prog=PROG, argv=theirs, default=first)
    # Once more, since the data decide as well.
    found = cli.parse(TrainConfig, prog=PROG, argv=theirs, default=first_of_trials(found))
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
