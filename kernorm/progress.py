"""A progress bar over the steps of a run with ETA, and one line an epoch; without a terminal, the lines alone."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from kernorm.record import Epoch


class RunProgress:
    """Shows where a run stands, on stderr."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, done: int) -> None:
        # FORCE_COLOR, which CI sets, would make rich take a log for a terminal.
        terminal = sys.stderr.isatty()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=terminal)
        self.epochs, self.steps, self.first = epochs, steps_per_epoch, done
        self.begun = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("ETA"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # Takes what the others leave, so that a narrow terminal cuts this one first.
            TextColumn("{task.fields[values]}", table_column=Column(no_wrap=True, ratio=1)),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=epochs * steps_per_epoch, completed=done * steps_per_epoch, values="")

    def __enter__(self) -> "RunProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, epoch: int, step: int, values: str) -> None:
        """Moves the bar to a step of an epoch, both from 0."""
        if not self.bar.disable:
            description = f"epoch {epoch + 1}/{self.epochs}"
            self.bar.update(self.task, completed=epoch * self.steps + step + 1, description=description, values=values)

    def line(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(text, markup=False)

    def epoch(self, row: Epoch, monitored: str) -> None:
        """Prints the line of a finished epoch."""
        self.line(describe(row, self.epochs, monitored) + self._remaining(row.epoch))

    def _remaining(self, epoch: int) -> str:
        left = (time.monotonic() - self.begun) / max(epoch - self.first, 1) * (self.epochs - epoch)
        return f"  ETA {left // 60:.0f}:{left % 60:02.0f}" if left >= 1 else ""


def describe(row: Epoch, epochs: int, monitored: str) -> str:
    """Puts an epoch's row into words: the loss split into its parts, accuracies in percent, the rate, the time."""
    text = f"epoch {row.epoch}/{epochs}  {split_loss(row.loss or 0, row.cross_entropy or 0)}"
    text += f" (l1 {row.l1_penalty:.4f}, l2 {row.l2_penalty:.4f})  accuracy {100 * (row.accuracy or 0):.2f} %"
    if row.val_accuracy is not None and row.val_cross_entropy is not None:
        text += f"  {monitored}: cross-entropy {row.val_cross_entropy:.4f}, accuracy {100 * row.val_accuracy:.2f} %"
    return text + f"  lr {row.learning_rate:.4g}  {row.seconds:.0f} s"


def split_loss(loss: float, cross_entropy: float) -> str:
    """Writes a loss as its cross-entropy and what penalties add."""
    return f"loss {loss:.4f} = cross-entropy {cross_entropy:.4f} + penalties {max(loss - cross_entropy, 0):.4f}"
