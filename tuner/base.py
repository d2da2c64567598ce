"""What all oracles of a search share: KerasTuner's base class, made crash-safe."""

import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner import Oracle
from keras_tuner.src.engine import oracle as engine
from keras_tuner.src.engine.stateful import Stateful
from keras_tuner.src.engine.trial import Trial, TrialStatus

from kernorm.system.files import write_atomically
from tuner.space import Value
from tuner.trials import OBJECTIVE

# So many trials that fail before any has completed end a search: more of them would not help.
HOPELESS = 3


_OBJECTIVE = keras_tuner.Objective(OBJECTIVE, "min")


ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class ResumableOracle(Oracle):
    """Mixin that makes a KerasTuner oracle crash-safe: atomic state, locks released on error, exact resume.

    Attributes:
        points: values to try first, unless they have been tried.
        deadline: on the monotonic clock, in seconds; no trial is begun after it.
    """

    points: list[dict[str, Value]]
    deadline: float
    trials: dict[str, Trial]
    ongoing_trials: dict[str, Trial]
    start_order: list[str]
    end_order: list[str]
    _retry_queue: list[str]

    def __init__(self, *, seed: int, **arguments: Any) -> None:
        # KerasTuner takes 0 for "any"; and a failing trial is reported by the search, not by an error in end_trial.
        super().__init__(seed=seed + 1, max_consecutive_failed_trials=10**9, objective=_OBJECTIVE, **arguments)
        self.verbose = 0
        self.points = []
        self.deadline = math.inf
        self._before: set[str] = set()
        # KerasTuner's 20 draws miss points of a small space that have not been tried yet.
        self._max_collisions = 1000

    def create_trial(self, tuner_id: str) -> Trial:
        """Returns a trial to run; see keras_tuner.Oracle.create_trial. None after the deadline, or if all fail."""
        late = time.monotonic() >= self.deadline
        if tuner_id not in self.ongoing_trials and (late or self._hopeless()):
            self.tuner_ids.discard(tuner_id)
            return Trial(hyperparameters=self.hyperparameters.copy(), status=TrialStatus.STOPPED)
        return self._unlocked(super().create_trial, tuner_id)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Takes the metrics of a trial; see keras_tuner.Oracle.update_trial."""
        return self._unlocked(super().update_trial, trial_id, metrics, step=step)

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial; see keras_tuner.Oracle.end_trial. Saved once more, when it is no longer among the ongoing."""
        self._unlocked(super().end_trial, trial)
        if trial.trial_id in self._retry_queue:  # the chief died and came back while a worker was at it
            self._retry_queue.remove(trial.trial_id)
        self.save()

    def _hopeless(self) -> bool:
        """Tells whether all trials that ended have failed, several of them since this process began."""
        failed = [self.trials[name].status == TrialStatus.FAILED for name in self.end_order]
        return len(self.end_order) - len(self._before) >= HOPELESS and all(failed)

    def nothing_left(self) -> bool:
        """Tells whether no trial is under way or will be begun."""
        begun = len(self.trials) >= self.most_trials() or time.monotonic() >= self.deadline
        return begun and not (self._retry_queue or self.ongoing_trials)

    def run_again(self, names: Iterable[str]) -> None:
        """Hands out trials once more that have ended, since what they found is lost."""
        for name in names:
            self.end_order.remove(name)
            self.trials[name].status = TrialStatus.RUNNING
            self._retry_queue.insert(0, name)  # KerasTuner takes the last one first

    def most_trials(self) -> int:
        """Returns how many trials there will be at most."""
        return self.max_trials

    def _unlocked(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            with warnings.catch_warnings():  # a user's filters may make errors of them
                warnings.filterwarnings("ignore", "currentThread|getName", DeprecationWarning)
                return method(*arguments, **named)
        except BaseException:
            if engine.THREADS[self] == threading.current_thread().name:
                engine.THREADS[self] = None
                engine.LOCKS[self].release()
            raise

    def _random_values(self) -> dict[str, Value] | None:
        for values in self.points:
            if not self._duplicate(values):
                return dict(values)
        return super()._random_values()

    def save(self) -> None:
        """Writes the oracle's own file atomically."""
        write_atomically(Path(self._get_oracle_fname()), json.dumps(self.get_state()).encode())

    def _save_trial(self, trial: Trial) -> None:
        path = Path(self._get_trial_dir(trial.trial_id)) / "trial.json"
        write_atomically(path, json.dumps(trial.get_state()).encode())

    def reload(self) -> None:
        """Reads the state back; what was under way will be handed out again, what has ended will not."""
        if not Path(self._get_oracle_fname()).exists():
            return
        # KerasTuner's own way takes the folder's path for a pattern.
        found = sorted(Path(self._project_dir).glob("trial_*/trial.json"))
        self.trials = {trial.trial_id: trial for trial in (Trial.load(str(path)) for path in found)}
        Stateful.reload(self, self._get_oracle_fname())
        self._retry_queue += [trial.trial_id for trial in self.ongoing_trials.values()]
        self.ongoing_trials = {}
        # Written before the oracle's file: with it gone, the same number gets the same values again.
        self.trials = {name: self.trials[name] for name in self.start_order}
        for name in self.start_order:
            ended = self.trials[name].status in ENDED
            if ended and name not in self.end_order:
                self.end_order.append(name)
            if not ended and name not in self._retry_queue:
                self._retry_queue.append(name)
        waiting = dict.fromkeys(name for name in self._retry_queue if self.trials[name].status not in ENDED)
        self._retry_queue = sorted(waiting, reverse=True)  # KerasTuner takes the last one first
        self._before = {*self.end_order}

    def leave_with_workers(self) -> None:
        """Gives back to each worker by its id, once it asks, what it had when the chief was killed."""
        path = Path(self._get_oracle_fname())
        had = json.loads(path.read_bytes())["ongoing_trials"] if path.exists() else {}
        for tuner_id, name in had.items():
            if name in self._retry_queue:
                self._retry_queue.remove(name)
                self.trials[name].status = TrialStatus.RUNNING
                self.ongoing_trials[tuner_id] = self.trials[name]
                self.tuner_ids.add(tuner_id)
