"""Searches penalties, batch size and more with KerasTuner, confirms the best and exports it: `python -m tuner.search`.

About 25 minutes on two CPU cores. The oracle lives in this process and hands trials to the study's engine; a trial is
`train(config)`, stopped before anything is measured, so that the test split stays shut. Killed at any moment, the same
command with --resume goes on.
"""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernorm import cli, environment
from kernorm.config import TrainConfig, UsageError, nearest
from kernorm.engine import Outcome, cores, open_engine
from kernorm.files import locked, make_folder, require_folder, write_json
from kernorm.recipes import recipe, recipe_named
from tuner.config import TRIAL, SearchConfig
from tuner.space import EPOCHS, check_batches, configured, point

if TYPE_CHECKING:
    import keras_tuner

    from kernorm.record import Record
    from tuner.oracles import Steady
    from tuner.trials import Repeat, Trials

PROG = "python -m tuner.search"
SETTINGS = "search.json"
# So many trials that fail before any has completed end a search: more of them would not help.
HOPELESS = 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a trial."""

    trial_id: str
    config: TrainConfig


def run_job(job: Job) -> "Record":
    """Trains a run of a trial; what an engine's worker does."""
    from kernorm.train import train

    return train(job.config)


@dataclass
class _Ongoing:
    """A trial under way: its config without seed, and the outcomes that have come."""

    trial: "keras_tuner.engine.trial.Trial"
    config: TrainConfig
    began: float
    outcomes: list[Outcome[Job, "Record"]] = field(default_factory=list)


class Search:
    """Hands trials from an oracle to an engine, and their scores back; every state is on disk when it counts."""

    def __init__(self, config: SearchConfig, oracle: "Steady", trials: "Trials", say: Callable[[str], None]) -> None:
        self.config, self.oracle, self.trials, self.say = config, oracle, trials, say
        self.ongoing: dict[str, _Ongoing] = {}
        self.began = time.monotonic() - max((trial.ended for trial in trials.ended), default=0.0)
        self.numbers = {name: number for number, name in enumerate(oracle.start_order)}
        self._catch_up()

    def _catch_up(self) -> None:
        """Tells the oracle what was written in trials.jsonl just before a process was killed."""
        for ended in self.trials.ended:
            trial = self.oracle.trials.get(ended.trial_id)
            if trial and trial.trial_id in self.oracle._retry_queue:
                self.oracle._retry_queue.remove(trial.trial_id)
                self._tell(trial, ended.score, ended.message)

    @property
    def clock(self) -> float:
        """Seconds since the search began, without the time between two starts of it."""
        return time.monotonic() - self.began

    @property
    def hopeless(self) -> bool:
        """Tells whether the first trials have all failed."""
        return len(self.trials.ended) >= HOPELESS and all(trial.score is None for trial in self.trials.ended)

    def run(self) -> None:
        """Runs trials until the oracle has no more, the time is over, or nothing works."""
        left = self.config.max_trials - len(self.trials.ended)
        if left <= 0 and self.config.oracle != "hyperband":
            return
        with open_engine(
            run_job,
            self.config.engine,
            workers=self.config.workers,
            address=self.config.address,
            cpus_per_job=self.config.threads,
            gpus_per_job=self.config.gpus_per_job,
            log_dir=self.config.folder / "logs",
        ) as engine:
            self._fill(engine)
            for outcome in engine.outcomes():
                self._take(outcome)
                self._fill(engine)

    def _fill(self, engine: Any) -> None:
        budget = self.config.budget_seconds
        free = (f"slot{number}" for number in range(max(engine.slots, 1)))
        for slot in free:
            if slot in self.oracle.ongoing_trials or self.hopeless or (budget and self.clock >= budget):
                continue
            trial = self.oracle.create_trial(slot)
            if trial.status != "RUNNING":  # IDLE until another one has ended, or STOPPED
                return
            self._start(trial, engine)

    def _start(self, trial: Any, engine: Any) -> None:
        self.numbers.setdefault(trial.trial_id, len(self.numbers))
        values = trial.hyperparameters.values
        try:
            config = configured(self.config.space, self.config.base, values)
        except UsageError as error:
            self._end(_Ongoing(trial, self.config.base, self.clock), str(error))
            self._fill(engine)
            return
        self.ongoing[trial.trial_id] = _Ongoing(trial, config, self.clock)
        for seed in range(self.config.seed, self.config.seed + self.config.repeats):
            engine.submit(Job(trial_id=trial.trial_id, config=replace(config, seed=seed)))

    def _take(self, outcome: Outcome[Job, "Record"]) -> None:
        ongoing = self.ongoing[outcome.job.trial_id]
        ongoing.outcomes.append(outcome)
        if len(ongoing.outcomes) < self.config.repeats:
            return
        del self.ongoing[outcome.job.trial_id]
        failed = [_failure(outcome) for outcome in ongoing.outcomes]
        self._end(ongoing, next(filter(None, failed), ""))
        self._prune()

    def _end(self, ongoing: _Ongoing, message: str) -> None:
        """Writes what a trial found, then tells the oracle: in this order, so that a kill between loses nothing."""
        from tuner.trials import Trial

        config, epochs = ongoing.config, ongoing.config.stop_after or ongoing.config.epochs
        repeats = () if message else tuple(
            sorted((_repeat(outcome, epochs) for outcome in ongoing.outcomes), key=lambda repeat: repeat.seed)
        )  # fmt: skip
        before = int(ongoing.trial.hyperparameters.values.get("tuner/initial_epoch", 0))
        searched = [name for name, _ in self.config.space.described()]
        score = sum(repeat.cross_entropy for repeat in repeats) / len(repeats) if repeats else None
        ended = Trial(
            number=self.numbers[ongoing.trial.trial_id],
            trial_id=ongoing.trial.trial_id,
            values=dict(ongoing.trial.hyperparameters.values),
            settings={name: getattr(config, name) for name in searched},
            status="failed" if message else "completed",
            message=message,
            epochs=epochs,
            new_epochs=(epochs - before) * self.config.repeats,
            score=score,
            repeats=repeats,
            began=ongoing.began,
            ended=self.clock,
        )
        self.trials.add(ended)
        self._tell(ongoing.trial, score, message)
        self.say(described(ended, self.trials))

    def _tell(self, trial: Any, score: float | None, message: str) -> None:
        if score is None:
            trial.status, trial.message = "FAILED", message
        else:
            self.oracle.update_trial(trial.trial_id, {self.oracle.objective.name: score})
            trial.status = "COMPLETED"
        self.oracle.end_trial(trial)

    def _prune(self) -> None:
        """Deletes the checkpoints of all but the best trials; Hyperband may still promote any until it ends."""
        if self.config.oracle == "hyperband":
            return
        kept = {
            repeat.run_id for trial in self.trials.best()[: self.config.keep_checkpoints] for repeat in trial.repeats
        }
        for trial in self.trials.ended:
            for repeat in trial.repeats:
                if repeat.run_id not in kept:
                    (self.config.folder / "runs" / repeat.run_id / "checkpoint.npz").unlink(missing_ok=True)


def _failure(outcome: Outcome[Job, "Record"]) -> str:
    if outcome.result is None:
        return outcome.error or "failed"
    return outcome.result.message if outcome.result.status == "diverged" else ""


def _repeat(outcome: Outcome[Job, "Record"], epochs: int) -> "Repeat":
    from tuner.trials import Repeat

    record = outcome.result
    if record is None:
        raise ValueError(f"A repeat has a record. Received: {outcome.error}.")
    row = record.history[epochs]
    if row.val_cross_entropy is None or row.val_accuracy is None or not math.isfinite(row.val_cross_entropy):
        raise ValueError(f"A trial is scored on validation. Received: {record.run_id} without such a score.")
    return Repeat(
        seed=outcome.job.config.seed,
        run_id=record.run_id,
        cross_entropy=row.val_cross_entropy,
        accuracy=row.val_accuracy,
        seconds=sum(row.seconds for row in record.history[: epochs + 1]),
        cpu_seconds=sum(row.cpu_seconds for row in record.history[: epochs + 1]),
    )


def described(trial: Any, trials: "Trials") -> str:
    """Puts a trial that has ended into one line, with the best so far."""
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in trial.settings.items())
    if trial.score is None:
        return f"trial {trial.number + 1}  {settings}: failed, {trial.message}"
    accuracy = 100 * sum(repeat.accuracy for repeat in trial.repeats) / len(trial.repeats)
    best = trials.best()[0]
    rung = f" after {trial.epochs} epochs" if EPOCHS in trial.values else ""
    return (
        f"trial {trial.number + 1}  {settings}: validation cross-entropy {trial.score:.4f}{rung}, {accuracy:.2f} %; "
        f"best {best.score:.4f} (trial {best.number + 1})"
    )


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def search(config: SearchConfig) -> int:
    """Searches, confirms, exports and reports; returns 1 if no trial completed.

    Raises:
        UsageError: the space, the data, the oracle or the engine cannot be used, or the search is there already.
    """
    from tuner.trials import Trials

    environment.choose_backend()
    config = _with_oracle(config)
    check_batches(config.train, config.space)
    points = _points(config)
    if config.dry_run:
        _show_plan(config)
        return 0
    require_folder(config.folder, "--reports-dir")
    if config.overwrite and config.folder.exists():
        shutil.rmtree(config.folder)
    known = (config.folder / SETTINGS).exists()
    if known and not (config.resume or config.report_only):
        raise UsageError(
            f"A search is begun once. Received: {config.folder}, which is there. "
            "Give --resume to go on, --overwrite to delete it, or another --name."
        )
    if config.report_only and not known:
        raise UsageError(f"--report-only needs a search. Received: {config.folder}, which has none. Run it first.")
    make_folder(config.folder, "--reports-dir")
    with locked(config.folder / "lock", "run this search"):
        settings = _settings(config)
        if known:
            _check_same(json.loads((config.folder / SETTINGS).read_text()), settings, config.folder)
        else:
            write_json(config.folder / SETTINGS, settings)
        trials = Trials(config.folder)
        if not config.report_only:
            _run(config, points, trials)
        return _finish(config, trials)


def _run(config: SearchConfig, points: list[dict], trials: "Trials") -> None:
    from kernorm.data import load
    from tuner.oracles import ORACLES

    load(config.base)  # a wrong size is told at once, and workers find the cache
    oracle = ORACLES[config.oracle](config)
    oracle.points = points
    oracle._set_project_dir(str(config.reports_dir / "searches"), config.name)
    oracle.reload()
    Search(config, oracle, trials, _say).run()


def _finish(config: SearchConfig, trials: "Trials") -> int:
    failed = [trial for trial in trials.ended if trial.score is None]
    if failed:
        _say(f"{len(failed)} of {len(trials.ended)} trials failed; the last one: {failed[-1].message}")
    if not trials.best():
        _say("No trial completed.")
        return 1
    from tuner.confirm import confirm
    from tuner.hparams import write_hparams
    from tuner.report import write_search_report

    confirmed = confirm(config, trials)
    path = write_search_report(config, trials, confirmed)
    write_hparams(trials.ended, config.folder)
    print(f"report   {path}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _with_oracle(config: SearchConfig) -> SearchConfig:
    """Resolves the oracle `best`, and says which it is."""
    if config.oracle != "best":
        return config
    name = "optuna" if importlib.util.find_spec("optuna") else "random"
    why = "installed" if name == "optuna" else "Optuna, extra optuna, is not installed"
    _say(f"oracle: {name} ({why})")
    return replace(config, oracle=name)  # type: ignore[arg-type]


def _points(config: SearchConfig) -> list[dict]:
    """Reads the points to try first."""
    if config.enqueue is None:
        return []
    if config.enqueue == "published":
        return _published(config)
    try:
        given = json.loads(Path(config.enqueue).read_bytes())
    except OSError as error:
        raise UsageError(
            f"--enqueue takes 'published' or a file. Received: {config.enqueue}: {os.strerror(error.errno or 0)}. "
            "Give the path of a JSON file."
        ) from None
    except ValueError as error:
        raise UsageError(f"--enqueue takes JSON. Received: {config.enqueue}: {error}. Mend it.") from None
    if not (isinstance(given, list) and all(isinstance(item, dict) for item in given)):
        raise UsageError(
            f'--enqueue takes a list of objects. Received: {config.enqueue}. Write for example [{{"l2": 0.0066}}].'
        )
    return [point(config.space, item) for item in given]


def _published(config: SearchConfig) -> list[dict]:
    """Returns the rows of both published tables as far as the space holds them."""
    from kernorm.plan import load_study

    found: list[dict] = []
    for study in (load_study("eva4"), load_study("eva6")):
        for arm in study.arms.values():
            row = {name: getattr(arm, name) for name, _ in config.space.described() if name != "learning_rate"}
            try:
                values = point(config.space, row)
            except UsageError:
                continue
            if values not in found:
                found.append(values)
    return found


def _settings(config: SearchConfig) -> dict[str, Any]:
    """Returns what a resumed search must have in common with the one that it goes on with."""
    from keras_tuner import __version__

    base = {name: value for name, value in config.base.identity.items() if name not in ("norm", "threads")}
    return {
        "oracle": config.oracle,
        "seed": config.seed,
        "repeats": config.repeats,
        "space": json.loads(json.dumps(dataclasses.asdict(config.space))),
        "train": base,
        "keras_tuner": __version__,
    }


def _check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise UsageError(
            f"A resumed search keeps its settings. Received: {name}={now[name]}, begun with {before.get(name)} in "
            f"{folder}. Give the same ones, or another --name."
        )


def _show_plan(config: SearchConfig) -> None:
    from kernorm.study_tables import cost

    for name, values in config.space.described():
        print(f"{name:14} {values}")
    workers = config.workers or cores()
    trial = cost(config.base) * config.repeats
    arms = config.top_k + 1 if config.top_k else 0
    confirm = cost(config.base) * arms * config.confirm_seeds
    final = cost(_full(config)) * config.confirm_seeds if config.final else 0
    print(f"{config.oracle}: up to {config.max_trials} trials of {trial:.0f} CPU-seconds")
    print(f"about {config.max_trials * trial / workers / 60:.0f} minutes of search, {confirm / workers / 60:.0f} of "
          f"confirmation and {final / workers / 60:.0f} of final training, {workers} runs at a time")  # fmt: skip


def _full(config: SearchConfig) -> TrainConfig:
    return replace(config.base, epochs=TrainConfig().epochs, train_size=None)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the search's own words and those of kernorm.train.

    Raises:
        UsageError: a flag that neither has, or one of kernorm.train that the search sets itself.
    """
    own = {field.name for field in dataclasses.fields(SearchConfig)} - {"train"}
    theirs = {field.name for field in dataclasses.fields(TrainConfig)} - own
    held = {"batch_size": "--batch-sizes", "export": "--final", "report": "--report-only", "stop_after": "--epochs",
            "retrain": "--overwrite", "track": "the report"}  # fmt: skip
    parts: tuple[list[str], list[str]] = ([], [])
    into = parts[0]
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("-", "_")
            name = name.removeprefix("no_") if name not in own | theirs else name
            if name in held:
                raise UsageError(
                    f"A search sets --{name.replace('_', '-')} itself. Received: {word}. See {held[name]}."
                )
            if name not in own | theirs | {"help"}:
                flags = sorted(known.replace("_", "-") for known in own | theirs - set(held))
                close = nearest(name.replace("_", "-"), flags).partition("Known:")[0].replace("'", "")
                raise UsageError(
                    f"An option must be a known one. Received: {word}. {close}See {PROG} --help and "
                    "python -m kernorm.train --help."
                )
            into = parts[1] if name in theirs else parts[0]
        into.append(word)
    return parts


def main(words: list[str] | None = None) -> int:
    """Runs the command of these words; see `SearchConfig`."""
    given = sys.argv[1:] if words is None else words
    theirs: list[str] = []

    def default(_: list[str]) -> SearchConfig:
        own_words, their_words = split_words(given)
        own[:], theirs[:] = own_words, their_words
        named = recipe_named(theirs)
        first = recipe(named, **TRIAL) if named == TrainConfig.recipe else recipe(named)
        return SearchConfig(train=cli.parse(TrainConfig, prog=PROG, argv=theirs, default=first))

    own = list(given)
    return cli.run(
        SearchConfig,
        search,
        prog=PROG,
        argv=own,
        default=default,
        interrupted="Ended trials and finished epochs are kept; the same command with --resume goes on from there.",
    )


if __name__ == "__main__":
    sys.exit(main())
