"""Hands a run's epochs to TensorBoard, and to Weights & Biases or MLflow through their own Keras callbacks."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
from tensorboard.summary import Writer

from kernorm.config import TrainConfig, to_json
from kernorm.errors import UsageError
from kernorm.system.files import disk_errors

Tracking = contextlib.AbstractContextManager[keras.callbacks.Callback]


@contextlib.contextmanager
def _wandb(config: TrainConfig, run_id: str, folder: Path) -> Iterator[keras.callbacks.Callback]:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    os.environ.setdefault("WANDB_MODE", "offline")
    with wandb.init(project="kernorm", name=run_id, id=run_id, resume="allow", dir=folder, config=to_json(config)):
        yield WandbMetricsLogger()


@contextlib.contextmanager
def _mlflow(config: TrainConfig, run_id: str, folder: Path) -> Iterator[keras.callbacks.Callback]:
    import mlflow
    from mlflow.keras import MlflowCallback

    own = not os.environ.get("MLFLOW_TRACKING_URI")
    if own:
        mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        if mlflow.get_experiment_by_name("kernorm") is None:
            mlflow.create_experiment("kernorm", artifact_location=(folder / "mlruns").resolve().as_uri())
    try:
        mlflow.set_experiment("kernorm")
        with mlflow.start_run(run_name=run_id):
            # Not the text of an own net, which may be longer than a parameter of MLflow's.
            values = to_json(config) | {"net_source": None}
            mlflow.log_params({name: value for name, value in values.items() if value is not None})
            yield MlflowCallback()
    finally:
        if own:  # MLflow has put it into the environment, where the next run would take it for the user's.
            mlflow.set_tracking_uri(None)


TRACKERS: dict[str, Callable[[TrainConfig, str, Path], Tracking]] = {"wandb": _wandb, "mlflow": _mlflow}


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
            with disk_errors(folder):
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


def require_tracker(name: str) -> None:
    """Refuses a tracker that is not installed, before anything is trained.

    Raises:
        UsageError: its package is missing.
    """
    # wandb leaves a folder of its own name where it is run, which Python takes for a package without origin.
    spec = importlib.util.find_spec(name) if name in TRACKERS else None
    if name in TRACKERS and (spec is None or spec.origin is None):
        raise UsageError(
            "--track needs its package.",
            f"--track {name}, which is not installed",
            f"pip install {name}, or remove --track.",
        )


@contextlib.contextmanager
def trackers(config: TrainConfig, run_id: str, folder: Path) -> Iterator[list[keras.callbacks.Callback]]:
    """Yields the callbacks that log a run elsewhere; ends what they opened, as failed if the body fails."""
    with contextlib.ExitStack() as opened:
        found: list[keras.callbacks.Callback] = [TensorBoardLog(folder / "tensorboard")]
        if config.track != "none":
            found.append(opened.enter_context(TRACKERS[config.track](config, run_id, folder)))
        yield found
