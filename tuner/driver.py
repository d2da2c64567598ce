"""Schedules an oracle's trials on the study's engine and returns their scores; every state is on disk when it counts.

A trial is `train(config)`, stopped before anything is measured, so that the test split stays sealed. The oracle lives
in this process, or at a chief of KerasTuner's (distributed.py).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from kernorm.config import TrainConfig
from kernorm.errors import UsageError, is_of_surroundings
from kernorm.parallel.batches import Populations
from kernorm.parallel.engine import Engine, Outcome
from kernorm.parallel.factory import open_training
from kernorm.reporting.format import concise
from kernorm.studies.selection import scored_row
from tuner.config import SearchConfig
from tuner.space import EPOCHS, configured
from tuner.trials import OBJECTIVE, Repeat, Trial, TrialRun, Trials

if TYPE_CHECKING:
    from keras_tuner.src.engine.trial import Trial as Handed

    from kernorm.records.record import Record

    _Engine = Engine[TrialRun, Record] | Populations[TrialRun]

# Between two questions to a chief that has nothing for this worker yet.
IDLE_SECONDS = 1.0


class Oracle(Protocol):
    """What a driver asks of an oracle: one of oracles.py, or a client of a chief's."""

    def create_trial(self, tuner_id: str) -> "Handed":
        """Returns a trial to run, the same one again while it runs; or one that says IDLE or STOPPED."""

    def update_trial(self, trial_id: str, metrics: dict[str, float]) -> "Handed":
        """Takes a trial's score."""

    def end_trial(self, trial: "Handed") -> None:
        """Takes a trial's end, by its status."""


@dataclass
class _Ongoing:
    """A trial under way: its slot, its config without seed, and the outcomes that have come."""

    slot: str
    trial: "Handed"
    config: TrainConfig
    began: float
    outcomes: list[Outcome[TrialRun, "Record"]] = field(default_factory=list)


class Driver:
    """Keeps every slot of an engine at work until the oracle has no more trials.

    Args:
        config: the search's.
        oracle: suggests trials.
        trials: takes what ended.
        ended: called with each trial that has ended.
        name: of the slots, so that an oracle with many drivers tells them apart.
    """

    def __init__(
        self, config: SearchConfig, oracle: Oracle, trials: Trials, ended: Callable[[Trial], None], name: str = "slot"
    ) -> None:
        self.config, self.oracle, self.trials, self.ended, self.name = config, oracle, trials, ended, name
        self.ongoing: dict[str, _Ongoing] = {}
        self.waiting = False
        self.stopped: set[str] = set()
        self.began = time.monotonic() - trials.seconds

    @property
    def clock(self) -> float:
        """Seconds since the search began, without the time between two starts of it."""
        return time.monotonic() - self.began

    def run(self) -> None:
        """Runs trials until the oracle has no more.

        Raises:
            UsageError: files or a full disk kept one from being trained, which says nothing of it.
        """
        config = self.config
        opened: _Engine = open_training(config.engine, log_dir=config.folder / "logs", asked=config.asked)
        with opened as engine:
            self._fill(engine)
            while True:
                for outcome in engine.outcomes():
                    self._take(outcome)
                    self._fill(engine)
                if not self.waiting:
                    return
                time.sleep(IDLE_SECONDS)
                self._fill(engine)

    def _fill(self, engine: "_Engine") -> None:
        """Gives every free slot a trial; asks for each until it has one, or there is none."""
        self.waiting = False
        for number in range(max(engine.slots, 1)):
            slot = f"{self.name}{number}"
            # A slot that was stopped asks no more: a chief ends once every slot was stopped.
            while slot not in self.stopped | {ongoing.slot for ongoing in self.ongoing.values()}:
                trial = self.oracle.create_trial(slot)
                if trial.status == "RUNNING":
                    self._start(slot, trial, engine)
                elif trial.status == "STOPPED":
                    self.stopped.add(slot)
                else:  # IDLE until another trial has ended
                    self.waiting = True
                    break

    def _start(self, slot: str, trial: "Handed", engine: "_Engine") -> None:
        known = next(
            (ended for ended in self.trials.ended if ended.trial_id == trial.trial_id and not ended.lost), None
        )
        if known:  # written just before a process was killed, but not reported
            self._tell(trial, known.score, known.message)
            return
        try:
            config = configured(self.config.space, self.config.base, trial.hyperparameters.values)
        except UsageError as error:
            self._end(_Ongoing(slot, trial, self.config.base, self.clock), str(error))
            return
        self.ongoing[trial.trial_id] = _Ongoing(slot, trial, config, self.clock)
        for seed in range(self.config.seed, self.config.seed + self.config.repeats):
            engine.submit(TrialRun(trial_id=trial.trial_id, config=replace(config, seed=seed)))

    def _take(self, outcome: Outcome[TrialRun, "Record"]) -> None:
        if outcome.error and is_of_surroundings(outcome.error):
            raise UsageError(
                "Every trial must be trained.",
                f"trial {outcome.job.trial_id}, {outcome.error}",
                "Run the same command to go on once that is settled.",
            )
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
        config, epochs = ongoing.config, ongoing.config.stop_after or ongoing.config.epochs
        values = dict(ongoing.trial.hyperparameters.values)
        before = int(values.get("tuner/initial_epoch", 0))
        repeats = [] if message else [_repeat(outcome, before, epochs) for outcome in ongoing.outcomes]
        searched = [name for name, _ in self.config.space.described()]
        score = sum(repeat.cross_entropy for repeat in repeats) / len(repeats) if repeats else None
        ended = Trial(
            number=int(ongoing.trial.trial_id),
            trial_id=ongoing.trial.trial_id,
            values=values,
            settings={name: getattr(config, name) for name in searched},
            status="failed" if message else "completed",
            message=message,
            epochs=epochs,
            new_epochs=(epochs - before) * self.config.repeats,
            score=score,
            repeats=tuple(sorted(repeats, key=lambda repeat: repeat.seed)),
            began=ongoing.began,
            ended=self.clock,
        )
        self.trials.add(ended)
        self._tell(ongoing.trial, score, message)
        self.ended(ended)

    def _tell(self, trial: "Handed", score: float | None, message: str) -> None:
        if score is None:
            trial.status, trial.message = "FAILED", message
        else:
            self.oracle.update_trial(trial.trial_id, {OBJECTIVE: score})
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


def _failure(outcome: Outcome[TrialRun, "Record"]) -> str:
    if outcome.result is None:
        return outcome.error or "failed"
    return outcome.result.message if outcome.result.status == "diverged" else ""


def _repeat(outcome: Outcome[TrialRun, "Record"], before: int, epochs: int) -> Repeat:
    """Returns what a run of a trial found, and what its epochs after the first `before` cost."""
    record = outcome.result
    if record is None:
        raise ValueError(f"A repeat has a record. Received: {outcome.error}.")
    row = scored_row(record, epochs)
    if row.val_cross_entropy is None or row.val_accuracy is None or not math.isfinite(row.val_cross_entropy):
        raise ValueError(f"A trial is scored on validation. Received: {record.run_id} without such a score.")
    return Repeat(
        seed=outcome.job.config.seed,
        run_id=record.run_id,
        cross_entropy=row.val_cross_entropy,
        accuracy=row.val_accuracy,
        seconds=sum(row.seconds for row in record.history[before + 1 : epochs + 1]),
        cpu_seconds=sum(row.cpu_seconds for row in record.history[before + 1 : epochs + 1]),
    )


def format_trial(trial: Trial) -> str:
    """Puts a trial that has ended into one line."""
    settings = ", ".join(
        f"{name} {concise(value) if isinstance(value, float) else value}" for name, value in trial.settings.items()
    )
    if trial.score is None:
        return f"trial {trial.number + 1}  {settings}: failed, {trial.message}"
    accuracy = 100 * sum(repeat.accuracy for repeat in trial.repeats) / len(trial.repeats)
    rung = f" after {trial.epochs} epochs" if EPOCHS in trial.values else ""
    return f"trial {trial.number + 1}  {settings}: validation cross-entropy {trial.score:.4f}{rung}, {accuracy:.2f} %"
