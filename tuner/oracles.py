"""KerasTuner's oracles with the faults of 1.4.8 closed from outside, and the table that names them.

What is closed (keras-tuner/src/engine/oracle.py unless said otherwise): seed 0 counts as no seed; a lock is kept when a
method raises; state files are written in place, so that a kill leaves half of one; a trial that has ended is still
listed as ongoing, and runs again after a crash; a trial whose creation was cut in two is never run; three failures in a
row raise inside end_trial; the grid's state is not saved at all (tuners/gridsearch.py); a print was forgotten
(engine/conditions.py); a chief that comes back gives a worker's trial to another one. Left as it is: under Hyperband
the place of a trial that failed stays empty.
"""

import functools
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras_tuner
from keras_tuner import Oracle
from keras_tuner.src.engine import conditions
from keras_tuner.src.engine import oracle as engine
from keras_tuner.src.engine.trial import Trial, TrialStatus

from kernorm.errors import UsageError
from kernorm.files import write_atomically
from tuner.space import Value
from tuner.trials import OBJECTIVE

if TYPE_CHECKING:
    from tuner.config import SearchConfig

# So many trials that fail before any has completed end a search: more of them would not help.
HOPELESS = 3
_OBJECTIVE = keras_tuner.Objective(OBJECTIVE, "min")
# A print that KerasTuner forgot in Parent.to_proto, between chief and worker: its own name for it, silent.
vars(conditions)["print"] = lambda *_: None
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class Steady(Oracle):
    """Put before an oracle of KerasTuner: whole files, free locks, and a resume that neither loses nor repeats a trial.

    Attributes:
        points: values to try first, as far as they have not been tried.
        deadline: on the monotonic clock, in seconds; no trial is begun after it.
    """

    points: list[dict[str, Value]]
    deadline: float
    trials: dict[str, Trial]
    start_order: list[str]
    end_order: list[str]
    _retry_queue: list[str]

    def __init__(self, *, seed: int, **arguments: Any) -> None:
        # KerasTuner takes 0 for "any"; and a failing trial is told by the search, not by an error in end_trial.
        super().__init__(seed=seed + 1, max_consecutive_failed_trials=10**9, objective=_OBJECTIVE, **arguments)
        self.verbose = 0
        self.points = []
        self.deadline = math.inf

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
        failed = [self.trials[name].status == TrialStatus.FAILED for name in self.end_order]
        return len(failed) >= HOPELESS and all(failed)

    def most_trials(self) -> int:
        """Returns how many trials there will be at most."""
        return self.max_trials

    def _unlocked(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
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
        super().reload()
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


class Random(Steady, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class Bayesian(Steady, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process."""


class Hyperband(Steady, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband (Li et al. 2018, arXiv:1603.06560)."""

    def most_trials(self) -> int:
        """Returns the trials of all rounds of all brackets."""
        brackets = range(self._get_num_brackets())
        return sum(self._get_size(number, turn) for number in brackets for turn in range(self._get_num_rounds(number)))


class Grid(Steady, keras_tuner.oracles.GridSearchOracle):
    """KerasTuner's grid."""

    def reload(self) -> None:
        """Reads the state back, and rebuilds from the trials what KerasTuner does not write."""
        super().reload()
        values = {name: self.trials[name].hyperparameters.values for name in self.start_order}
        before = None

        def compare(a: str, b: str) -> int:
            return self._compare(values[a], values[b])

        for name in sorted(values, key=functools.cmp_to_key(compare)):
            self._ordered_ids.insert(name, before)
            before = name
        self._populate_next = list(self.start_order)


def random(config: "SearchConfig") -> Steady:
    """Returns the random oracle of a search."""
    return Random(**_arguments(config))


def grid(config: "SearchConfig") -> Steady:
    """Returns the grid oracle of a search."""
    from tuner.space import declare

    if config.enqueue:
        raise UsageError("A grid has its own order.", "--enqueue with --oracle grid", "Leave it away.")
    arguments = _arguments(config)
    arguments["hyperparameters"] = declare(config.space, grid=True)
    arguments["max_trials"] = min(config.max_trials, config.space.points())
    return Grid(**arguments)


def bayesian(config: "SearchConfig") -> Steady:
    """Returns the Gaussian-process oracle of a search.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        return Bayesian(**_arguments(config))
    except ImportError:
        raise UsageError(
            "--oracle bayesian needs scikit-learn.", "an environment without it", "Install the extra bayesian."
        ) from None


def hyperband(config: "SearchConfig") -> Steady:
    """Returns the Hyperband oracle of a search: brackets up to the epochs of a trial; it ends by itself."""
    arguments = _arguments(config)
    del arguments["max_trials"]
    return Hyperband(max_epochs=config.train.epochs, factor=3, **arguments)


def optuna(config: "SearchConfig") -> Steady:
    """Returns the oracle on top of Optuna's tree-structured Parzen estimator.

    Raises:
        UsageError: Optuna is not installed.
    """
    try:
        from tuner.optuna_oracle import OptunaOracle
    except ImportError:
        raise UsageError(
            "--oracle optuna needs Optuna.", "an environment without it", "Install the extra optuna."
        ) from None
    return OptunaOracle(**_arguments(config))


def _arguments(config: "SearchConfig") -> dict[str, Any]:
    from tuner.space import declare

    return {
        "seed": config.seed,
        "max_trials": config.max_trials,
        "hyperparameters": declare(config.space),
        "allow_new_entries": False,
    }


ORACLES: dict[str, Callable[["SearchConfig"], Steady]] = {
    "optuna": optuna,
    "random": random,
    "grid": grid,
    "bayesian": bayesian,
    "hyperband": hyperband,
}
