"""A search for TensorBoard's HParams view: `tensorboard --logdir reports/searches/<name>/tensorboard`."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from kernorm.system.backend import without_tensorflow
from tuner.trials import Trial

FOLDER = "tensorboard"


def write_hparams(trials: Sequence[Trial], folder: Path) -> None:
    """Writes each completed trial's settings and validation scores as a run."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    for trial in trials:
        if trial.score is None:
            continue
        place = str(folder / FOLDER / trial.trial_id)
        with without_tensorflow():
            settings, scores = EventFileWriter(place), Writer(place)
        # Writer takes scalars alone.
        summary = hparams_pb(trial.settings, trial_id=trial.trial_id)
        settings.add_event(Event(wall_time=time.time(), summary=summary))
        settings.close()
        accuracy = sum(repeat.accuracy for repeat in trial.repeats) / len(trial.repeats)
        scores.add_scalar("validation cross-entropy", trial.score, trial.epochs)
        scores.add_scalar("validation accuracy", accuracy, trial.epochs)
        scores.close()
