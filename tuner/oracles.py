"""KerasTuner's oracles with the faults of 1.4.8 closed from outside, and the table that names them.

What is closed (keras-tuner/src/engine/oracle.py unless said otherwise): seed 0 counts as no seed; a lock is kept when a
method raises; state files are written in place, so that a kill leaves half of one; a trial that has ended is still
listed as ongoing, and runs again after a crash; a trial whose creation was cut in two is never run; three failures in a
row raise inside end_trial; the grid's state is not saved at all (tuners/gridsearch.py); a print was forgotten
(engine/conditions.py); a chief that comes back gives a worker's trial to another one. Left as it is: under Hyperband
the place of a trial that failed stays empty.
"""

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras_tuner
from keras_tuner.src.engine import conditions

from kernorm.errors import UsageError
from tuner.base import ResumableOracle

if TYPE_CHECKING:
    from tuner.config import SearchConfig

# A print that KerasTuner forgot in Parent.to_proto, between chief and worker: its own name for it, silent.
vars(conditions)["print"] = lambda *_: None


class Random(ResumableOracle, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class Bayesian(ResumableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Gaussian process, which may suggest what has been tried: chance is asked then."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial; STOPPED if the space seems exhausted."""
        waiting = any(not self._duplicate(values) for values in self.points)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="sklearn")  # a kernel's width at its bound, as on choices alone
            found = None if waiting else super().populate_space(trial_id)
        if found is None or (found["values"] is not None and self._duplicate(found["values"])):
            found = self._random_populate_space()
        return found


class Hyperband(ResumableOracle, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband (Li et al. 2018, arXiv:1603.06560)."""

    def most_trials(self) -> int:
        """Returns the trials of all rounds of all brackets."""
        return sum(self._get_size(*turn) for turn in self._turns())

    def most_epochs(self) -> int:
        """Returns the epochs that all these trials train; a promoted one goes on where it stopped."""
        return sum(
            self._get_size(number, turn)
            * (self._get_epochs(number, turn) - (self._get_epochs(number, turn - 1) if turn else 0))
            for number, turn in self._turns()
        )

    def first_trials(self) -> int:
        """Returns how many different points all brackets begin with."""
        return sum(self._get_size(number, 0) for number in range(self._get_num_brackets()))

    def _turns(self) -> list[tuple[int, int]]:
        brackets = range(self._get_num_brackets())
        return [(number, turn) for number in brackets for turn in range(self._get_num_rounds(number))]


class Grid(ResumableOracle, keras_tuner.oracles.GridSearchOracle):
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


def random(config: "SearchConfig") -> ResumableOracle:
    """Returns the random oracle of a search."""
    return Random(**_arguments(config))


def grid(config: "SearchConfig") -> ResumableOracle:
    """Returns the grid oracle of a search."""
    from tuner.space import declare

    if config.enqueue:
        raise UsageError("A grid has its own order.", "--enqueue with --oracle grid", "Remove it.")
    arguments = _arguments(config)
    arguments["hyperparameters"] = declare(config.space, grid=True)
    arguments["max_trials"] = min(config.max_trials, config.space.points())
    return Grid(**arguments)


def bayesian(config: "SearchConfig") -> ResumableOracle:
    """Returns the Gaussian-process oracle of a search.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        return Bayesian(**_arguments(config))
    except ImportError:
        raise UsageError(
            "--oracle bayesian needs scikit-learn.", "an environment without it", "pip install scikit-learn."
        ) from None


def hyperband(config: "SearchConfig") -> ResumableOracle:
    """Returns the Hyperband oracle of a search: brackets up to the epochs of a trial; it ends by itself.

    Raises:
        UsageError: the space has fewer points than its brackets begin with.
    """
    arguments = _arguments(config)
    del arguments["max_trials"]
    oracle = Hyperband(max_epochs=config.train.epochs, factor=3, **arguments)
    if (points := config.space.distinct()) < (needed := oracle.first_trials()):
        # KerasTuner would stop after the first rounds, with nothing promoted.
        raise UsageError(
            "Hyperband begins with different points.",
            f"a space of {points:g}, where {config.train.epochs} epochs need {needed}",
            "Give --oracle grid, or widen the space.",
        )
    return oracle


def optuna(config: "SearchConfig") -> ResumableOracle:
    """Returns the oracle on top of Optuna's tree-structured Parzen estimator.

    Raises:
        UsageError: Optuna is not installed.
    """
    try:
        from tuner.optuna_oracle import OptunaOracle
    except ImportError:
        raise UsageError("--oracle optuna needs Optuna.", "an environment without it", "pip install optuna.") from None
    return OptunaOracle(**_arguments(config))


def _arguments(config: "SearchConfig") -> dict[str, Any]:
    from tuner.space import declare

    return {
        "seed": config.seed,
        "max_trials": config.max_trials,
        "hyperparameters": declare(config.space),
        "allow_new_entries": False,
    }


ORACLES: dict[str, Callable[["SearchConfig"], ResumableOracle]] = {
    "optuna": optuna,
    "random": random,
    "grid": grid,
    "bayesian": bayesian,
    "hyperband": hyperband,
}
