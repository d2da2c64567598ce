"""A search for TensorBoard's HParams view: `tensorboard --logdir reports/searches/<name>/tensorboard`."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from tuner.trials import Trial

FOLDER = "tensorboard"


def write_hparams(trials: Sequence[Trial], folder: Path) -> None:
    """Writes each completed trial's settings and validation scores as a run; nothing where TensorFlow is missing."""
    if importlib.util.find_spec("tensorflow") is None:
        return
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for trial in trials:
        if trial.score is None:
            continue
        accuracy = sum(repeat.accuracy for repeat in trial.repeats) / len(trial.repeats)
        with tf.summary.create_file_writer(str(folder / FOLDER / trial.trial_id)).as_default():
            api.hparams(trial.settings, trial_id=trial.trial_id)
            tf.summary.scalar("validation cross-entropy", trial.score, step=trial.epochs)
            tf.summary.scalar("validation accuracy", accuracy, step=trial.epochs)
