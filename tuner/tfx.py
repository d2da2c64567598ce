"""For TFX: `run_fn` for its Trainer and `tuner_fn` for its Tuner; give this file as their `module_file`.

A trial is a run of kernorm, suggested by an oracle of oracles.py. How examples are read: kernorm/tfx.py.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras_tuner
from keras_tuner.src import errors

from kernorm.errors import UsageError, nearest
from kernorm.recipes import recipe_of_settings
from kernorm.studies.selection import scored_row
from kernorm.tfx import DATASET, examples, run_fn, settings_of
from kernorm.training.run import train
from tuner.config import SearchConfig
from tuner.oracles import ORACLES
from tuner.points import first_points
from tuner.space import configured
from tuner.trials import OBJECTIVE

if TYPE_CHECKING:
    from keras_tuner.engine.base_tuner import BaseTuner
    from keras_tuner.src.engine.trial import Trial

__all__ = ["example_tuner", "run_fn", "tuner_fn"]
# TFX has its own folders and engine, and confirms nothing.
_HELD = (
    *("train", "reports_dir", "saved_models_dir", "resume", "overwrite", "dry_run", "report_only", "push", "name"),
    *("top_k", "confirm_seeds", "until_resolved", "max_seeds", "final", "engine", "keep_checkpoints"),
)


class ExampleTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """KerasTuner's own loop over trials of kernorm; the score is the validation cross-entropy."""

    def __init__(self, config: SearchConfig, examples: Callable[[], AbstractContextManager[int]]) -> None:
        self.config, self.examples = config, examples
        oracle = ORACLES[config.oracle](config)
        oracle.points = first_points(config)
        if config.budget_seconds:
            oracle.deadline = time.monotonic() + config.budget_seconds
        super().__init__(oracle, directory=config.folder.parent, project_name=config.name)

    def run_trial(self, trial: "Trial", *_: Any, **__: Any) -> dict[str, float]:
        """Trains a trial and returns its score.

        Raises:
            keras_tuner.errors.FailedTrialError: it diverged.
        """
        scores = []
        with self.examples():
            config = configured(self.config.space, self.config.base, trial.hyperparameters.values)
            for seed in range(self.config.seed, self.config.seed + self.config.repeats):
                # TensorFlow has begun in TFX's process: its threads are what they are.
                record = train(replace(config, seed=seed, threads=self.config.train.threads))
                score = scored_row(record, config.stop_after or config.epochs).val_cross_entropy
                if record.status == "diverged" or score is None:
                    raise errors.FailedTrialError(record.message or "no score")
                scores.append(score)
        return {OBJECTIVE: sum(scores) / len(scores)}


def example_tuner(
    settings: Mapping[str, Any],
    search: Mapping[str, Any],
    folder: Path,
    examples: Callable[[], AbstractContextManager[int]],
) -> ExampleTuner:
    """Returns a tuner of runs with these settings of TrainConfig, by these of SearchConfig, under `folder`.

    Raises:
        UsageError: a name or a value is wrong.
    """
    known = {field.name for field in fields(SearchConfig)} - set(_HELD)
    for name in search:
        if name not in known:
            raise UsageError(
                "custom_config['search'] names settings of tuner.search.", f"{name!r}", nearest(name, sorted(known))
            )
    config = SearchConfig(**search, train=recipe_of_settings({**settings, "dataset": DATASET}), reports_dir=folder)
    return ExampleTuner(replace(config, oracle="random" if config.oracle == "best" else config.oracle), examples)


class TunerFnResult(NamedTuple):
    """What TFX's Tuner takes: it calls tuner.search(**fit_kwargs)."""

    tuner: "BaseTuner"
    fit_kwargs: dict[str, Any]


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Returns KerasTuner over λ1, λ2 and the batch size, as TFX's Tuner asks for.

    Args:
        fn_args: TFX's FnArgs. Used are train_files, eval_files (sealed), working_dir and custom_config: fields of
            TrainConfig and `labels` as in `run_fn`, and `search`: fields of tuner's SearchConfig, such as max_trials.

    Raises:
        UsageError: no example can be read, or a field or a value is wrong.
    """
    # The one place in kernorm that asks the tuner, since TFX wants both functions in one file.

    settings = settings_of(fn_args)
    search = (fn_args.custom_config or {}).get("search", {})
    return TunerFnResult(example_tuner(settings, search, Path(fn_args.working_dir), lambda: examples(fn_args)), {})
