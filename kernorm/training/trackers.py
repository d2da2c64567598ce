"""Hands a run's epochs to TensorBoard, and to Weights & Biases or MLflow through their own Keras callbacks."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
from filelock import FileLock
from tensorboard.summary import Writer

from kernorm.config import TrainConfig, to_json
from kernorm.system.backend import without_tensorflow
from kernorm.system.files import disk_errors
from kernorm.training.tracking import Membership

# MLflow's offline store in a reports folder; what a tag of it, a tag and a group of W&B may hold.
STORE = "mlflow.db"
_MLFLOW_TAG, _WANDB_TAG, _WANDB_GROUP = 5000, 64, 128
Tracking = contextlib.AbstractContextManager[keras.callbacks.Callback]


@contextlib.contextmanager
def _wandb(
    config: TrainConfig, run_id: str, folder: Path, member: Membership | None
) -> Iterator[keras.callbacks.Callback]:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    os.environ.setdefault("WANDB_MODE", "offline")
    of_study: dict[str, Any] = {}
    if member:
        of_study = {"group": member.arm[:_WANDB_GROUP], "tags": [member.study[:_WANDB_TAG]], "notes": member.question}
    with wandb.init(
        project="kernorm", name=run_id, id=run_id, resume="allow", dir=folder, config=to_json(config), **of_study
    ):
        yield WandbMetricsLogger()


@contextlib.contextmanager
def _mlflow(
    config: TrainConfig, run_id: str, folder: Path, member: Membership | None
) -> Iterator[keras.callbacks.Callback]:
    import mlflow
    from mlflow.keras import MlflowCallback

    own = not os.environ.get("MLFLOW_TRACKING_URI")
    try:
        _open_store(config.reports_dir if own else None)
        with mlflow.start_run(run_name=run_id):
            # Not the text of an own net, which may be longer than a parameter of MLflow's.
            values = to_json(config) | {"net_source": None}
            mlflow.log_params({name: value for name, value in values.items() if value is not None})
            if member:
                tags = {"arm": member.arm, "study": member.study, "mlflow.note.content": member.question}
                mlflow.set_tags({name: value[:_MLFLOW_TAG] for name, value in tags.items()})
            yield MlflowCallback()
    finally:
        if own:  # MLflow has put it into the environment, where the next run would take it for the user's.
            mlflow.set_tracking_uri(None)


def _open_store(reports_dir: Path | None) -> None:
    """Makes the store of a reports folder, or the user's own (None), the current one, with the experiment kernorm.

    All runs share it, so that `mlflow ui` compares them; the first of several processes makes it.
    """
    import mlflow

    if reports_dir is None:
        mlflow.set_experiment("kernorm")
        return
    reports_dir = reports_dir.resolve()
    with FileLock(reports_dir / "mlflow.lock"):
        # Runs that write at once wait for each other, a minute at most.
        mlflow.set_tracking_uri(f"sqlite:///{reports_dir / STORE}?timeout=60")
        if mlflow.get_experiment_by_name("kernorm") is None:
            mlflow.create_experiment("kernorm", artifact_location=(reports_dir / "mlruns").as_uri())
        mlflow.set_experiment("kernorm")


TRACKERS: dict[str, Callable[[TrainConfig, str, Path, Membership | None], Tracking]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
}


class TensorBoardLog(keras.callbacks.Callback):
    """Writes every epoch's values where TensorBoard reads them, training and validation side by side.

    Keras' own callback needs TensorFlow; TensorBoard's writer does not.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.writers = {}
        for name in ("train", "validation"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            with disk_errors(folder), without_tensorflow():
                self.writers[name] = Writer(str(folder / name))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the means of an epoch, at its number from 1."""
        with disk_errors(self.folder):
            for name, value in (logs or {}).items():
                side = "validation" if name.startswith("val_") else "train"
                self.writers[side].add_scalar(name.removeprefix("val_"), float(value), epoch + 1)
            for writer in self.writers.values():
                writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        with disk_errors(self.folder):
            for writer in self.writers.values():
                writer.close()


@contextlib.contextmanager
def trackers(
    config: TrainConfig, run_id: str, folder: Path, member: Membership | None = None
) -> Iterator[list[keras.callbacks.Callback]]:
    """Yields the callbacks that log a run elsewhere; ends what they opened, as failed if the body fails.

    Args:
        config: of the run.
        run_id: its name there.
        folder: the run's, which takes what W&B writes.
        member: of which study it is.
    """
    with contextlib.ExitStack() as opened:
        found: list[keras.callbacks.Callback] = [TensorBoardLog(folder / "tensorboard")]
        if config.track != "none":
            found.append(opened.enter_context(TRACKERS[config.track](config, run_id, folder, member)))
        yield found
