"""An oracle of KerasTuner on top of Optuna: TPE (Watanabe 2023, arXiv:2304.11127), in milliseconds a suggestion."""

from typing import Any

import optuna
from keras_tuner.src.engine import hyperparameters as hp_module
from keras_tuner.src.engine.trial import Trial, TrialStatus
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from tuner.base import ResumableOracle
from tuner.space import Value

_DISTRIBUTION_OF = {
    hp_module.Choice: lambda hp: CategoricalDistribution(hp.values),
    hp_module.Boolean: lambda hp: CategoricalDistribution([False, True]),
    hp_module.Float: lambda hp: FloatDistribution(hp.min_value, hp.max_value, log=hp.sampling == "log"),
}
# Trials before the estimator is used: Optuna's default.
STARTUP = 10
# Suggestions that are known already before chance is asked instead.
ASKED = 5


class OptunaOracle(ResumableOracle):
    """Asks Optuna for values, conditional ones only where they are active, and tells it the scores.

    Optuna's study lives in memory and is rebuilt from the trials on resume; its generator is then seeded by how many
    trials there are, so that a resumed search does not repeat its first suggestions.
    """

    def __init__(self, *, seed: int, **arguments: Any) -> None:
        super().__init__(seed=seed, **arguments)
        self._asked: dict[str, optuna.Trial] = {}
        self.study = self._empty_study(seed)

    def _empty_study(self, seed: int) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        return optuna.create_study(sampler=sampler, direction="minimize")

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial; STOPPED if the space seems exhausted."""
        waiting = any(not self._duplicate(values) for values in self.points)
        for _ in range(0 if waiting else ASKED):
            asked = self.study.ask()
            hps = hp_module.HyperParameters()
            for hp in self.hyperparameters.space:
                hps.merge([hp])
                if hps.is_active(hp):
                    hps.values[hp.name] = _suggest(asked, hp)
            if not self._duplicate(hps.values):
                self._asked[trial_id] = asked
                return {"status": TrialStatus.RUNNING, "values": hps.values}
            self.study.tell(asked, state=TrialState.FAIL)
        # A point of the user's; or, where the estimator insists on what is known, chance.
        values = self._random_values()
        if values is None:
            return {"status": TrialStatus.STOPPED, "values": None}
        self._tell_of(trial_id, values)
        return {"status": TrialStatus.RUNNING, "values": values}

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial, and tells Optuna."""
        super().end_trial(trial)
        ended = self.trials[trial.trial_id]
        asked = self._asked.pop(trial.trial_id, None)
        completed = ended.status == TrialStatus.COMPLETED
        if asked is None:
            self._add(ended)
        elif completed:
            self.study.tell(asked, ended.score)
        else:
            self.study.tell(asked, state=TrialState.FAIL)

    def reload(self) -> None:
        """Reads the state back and rebuilds Optuna's study."""
        super().reload()
        self._asked = {}
        self.study = self._empty_study(self.seed - 1 + 1000 * len(self.start_order))
        for name in self.end_order:
            self._add(self.trials[name])

    def _tell_of(self, trial_id: str, values: dict[str, Value]) -> None:
        """Queues values that Optuna did not suggest, and takes them out again as this trial."""
        self.study.enqueue_trial(values)
        asked = self.study.ask()
        for hp in self.hyperparameters.space:
            if hp.name in values:
                _suggest(asked, hp)
        self._asked[trial_id] = asked

    def _add(self, trial: Trial) -> None:
        if trial.status != TrialStatus.COMPLETED:
            return
        values = trial.hyperparameters.values
        distributions = {hp.name: _distribution(hp) for hp in self.hyperparameters.space if hp.name in values}
        params = {name: values[name] for name in distributions}
        self.study.add_trial(create_trial(params=params, distributions=distributions, value=trial.score))


def _distribution(hp: hp_module.HyperParameter) -> BaseDistribution:
    return _DISTRIBUTION_OF[type(hp)](hp)


def _suggest(asked: optuna.Trial, hp: hp_module.HyperParameter) -> Value | None:
    found = _distribution(hp)
    if isinstance(found, CategoricalDistribution):
        return asked.suggest_categorical(hp.name, found.choices)
    return asked.suggest_float(hp.name, hp.min_value, hp.max_value, log=hp.sampling == "log")
