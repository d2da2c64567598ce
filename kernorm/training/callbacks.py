"""Follows a fit: data order by epoch, the history, the stop on a diverged loss, and the state after every epoch."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import keras
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets.batches import Batches
from kernorm.nets.penalties import measure
from kernorm.records.history import write_history
from kernorm.records.record import Epoch
from kernorm.reporting.progress import RunProgress, split_loss
from kernorm.training import checkpoint
from kernorm.training.averages import averaged
from kernorm.training.schedules import Table

if TYPE_CHECKING:
    from kernorm.training.diagnostics import Watch


class Diverged(Exception):
    """The loss stopped being a finite number."""

    @classmethod
    def at(cls, step: int, epoch: int, batch: int, loss: float) -> "Diverged":
        """Says where, all counted from 0 as they come, and from 1 in the message."""
        return cls(f"diverged at step {step + 1} (epoch {epoch + 1}, batch {batch + 1}): the loss is {loss}")


@dataclass(kw_only=True)
class TrainingState:
    """What has been reached: the history from row 0, and the epoch selected so far with its variables."""

    history: list[Epoch] = field(default_factory=list)
    selected: int = 0
    kept: list[NDArray] = field(default_factory=list)

    def add(self, row: Epoch, select: str) -> bool:
        """Adds an epoch's row; tells whether its variables are to be kept, as those of the best epoch so far.

        Ties go to the earlier, as in the studies. The last epoch's variables need not be kept.
        """
        best = max((past.val_accuracy or 0 for past in self.history), default=-1.0)
        self.history.append(row)
        if select == "last":
            self.selected = row.epoch
            return False
        if self.selected and (row.val_accuracy or 0) <= best:
            return False
        self.selected = row.epoch
        return True

    def stalled(self, config: TrainConfig) -> bool:
        """Tells whether `patience` epochs in a row had no better validation accuracy, as Keras' EarlyStopping counts.

        A function of the history alone, so that a resumed run ends where an uninterrupted one does.
        """
        best, waited = -math.inf, 0
        for row in self.history[1:]:
            accuracy = row.val_accuracy or 0
            better = accuracy - config.min_delta > best
            best, waited = (accuracy, 0) if better else (best, waited + 1)
        return config.patience is not None and waited >= config.patience


class RunLog(keras.callbacks.Callback):
    """Keeps `reached` and the run's folder up to date while `fit` runs, after all others of fit's callbacks.

    Args:
        config: of the run.
        reached: what earlier epochs left; extended by every epoch.
        batches: get the epoch before each one.
        tables: learning rate and momentum by step.
        folder: gets history.csv after every epoch.
        monitored: the split that `validation_data` is, for the printed line.
        watch: measures what the net is like after every epoch.
        save: called with the model after every epoch, to write the state that a resumed run begins with.
        progress: shows steps and epochs.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        reached: TrainingState,
        batches: Batches,
        tables: tuple[Table, Table],
        folder: Path,
        monitored: str,
        watch: "Watch",
        save: Callable[[keras.Model], None],
        progress: RunProgress,
    ) -> None:
        super().__init__()
        self.config, self.reached, self.batches, self.tables = config, reached, batches, tables
        self.folder, self.monitored, self.watch = folder, monitored, watch
        self.save, self.progress = save, progress
        self._evaluated = contextlib.ExitStack()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Sets the data order and starts the clocks."""
        self.batches.epoch = epoch
        self.epoch, self.begun, self.cpu_begun = epoch, time.perf_counter(), time.process_time()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops on a loss that is not finite, and moves the bar."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        step = self.epoch * self.batches.num_batches + batch
        if not math.isfinite(values["loss"]):
            raise Diverged.at(step, self.epoch, batch, values["loss"])
        weighted = values.get("weighted_cross_entropy")
        loss = split_loss(values["loss"], values["cross_entropy"], self.progress.rest, weighted)
        shown = f"{loss}  accuracy {100 * values['accuracy']:.2f} %"
        self.progress.step(self.epoch, batch, f"{shown}  lr {self.tables[0][step]:.4g}")

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Evaluates the averages of the weights, where there are any."""
        self._evaluated.enter_context(averaged(self.model))

    def on_test_end(self, logs: dict | None = None) -> None:
        """Restores the weights themselves."""
        self._evaluated.close()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the epoch's row, selects, writes history.csv and the checkpoint, and stops where nothing gets better."""
        values = {name: float(value) for name, value in (logs or {}).items()}
        penalty = measure(self.model, self.config)
        with averaged(self.model):
            watched, variables = self.watch.measure(), checkpoint.variables_of(self.model)
        last_step = (epoch + 1) * self.batches.num_batches - 1
        row = Epoch(
            epoch=epoch + 1,
            loss=values["loss"],
            cross_entropy=values["cross_entropy"],
            weighted_cross_entropy=values.get("weighted_cross_entropy"),
            l1_penalty=penalty.l1,
            l2_penalty=penalty.l2,
            own_losses=self.watch.own.measure(),
            accuracy=values["accuracy"],
            val_cross_entropy=values.get("val_cross_entropy"),
            val_accuracy=values.get("val_accuracy"),
            learning_rate=float(self.tables[0][last_step]),
            momentum=float(self.tables[1][last_step]),
            seconds=time.perf_counter() - self.begun,
            cpu_seconds=time.process_time() - self.cpu_begun,
            watched=watched,
        )
        if self.reached.add(row, self.config.select):
            self.reached.kept = variables
        write_history(self.reached.history, self.folder / "history.csv")
        self.save(self.model)
        self.progress.epoch(row, self.monitored)
        if self.reached.stalled(self.config):
            self.progress.line(f"stopped: {self.config.patience} epochs without a better validation accuracy")
            self.model.stop_training = True
