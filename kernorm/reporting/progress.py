"""Progress bars with ETA over the steps of a run and over the runs of a study; without a terminal, lines alone."""

import logging
import sys
import time
from collections.abc import Sequence
from html import escape
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from kernorm.records.record import Epoch

_REFRESH_SECONDS = 0.3

_LOG = logging.getLogger("kernorm")


class _NotebookBar:
    """A bar in the output of a notebook's cell, which is empty again once it is done."""

    def __init__(self, total: int) -> None:
        from IPython.display import HTML, display  # in a notebook alone

        self._html, self._total, self._shown = HTML, max(total, 1), 0.0
        self._handle = display(HTML(""), display_id=True)

    @staticmethod
    def wanted() -> bool:
        """Tells whether this is a notebook's kernel."""
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        return hasattr(shell, "kernel")

    def update(self, completed: int, text: str) -> None:
        """Moves the bar, a few times a second at most."""
        if time.monotonic() - self._shown > _REFRESH_SECONDS:
            self._shown = time.monotonic()
            bar = f'<progress value="{completed}" max="{self._total}"></progress> {completed}/{self._total}'
            self._handle.update(self._html(f"{bar} {escape(text)}"))

    def clear(self) -> None:
        """Empties the output."""
        self._handle.update(self._html(""))


class _Bar:
    """A bar on stderr or in a notebook, with lines above it; the lines alone where there is neither."""

    def __init__(self, *, total: int, done: int, remaining: Sequence[ProgressColumn] = ()) -> None:
        # FORCE_COLOR, which CI sets, would make rich take a log for a terminal.
        terminal = sys.stderr.isatty()
        self.console = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=terminal)
        self.begun = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            *remaining,
            # Takes what the others leave, so that a narrow terminal cuts this one first.
            TextColumn("{task.fields[values]}", table_column=Column(no_wrap=True, ratio=1)),
            console=self.console,
            transient=True,
            expand=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=done, values="")
        self.notebook = _NotebookBar(total) if _NotebookBar.wanted() else None

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def move(self, completed: int, description: str, values: str) -> None:
        """Moves the bar and shows what it stands at."""
        if self.notebook:
            self.notebook.update(completed, f"{description}  {values}")
        elif not self.bar.disable:
            self.bar.update(self.task, completed=completed, description=description, values=values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.notebook:
            self.notebook.clear()

    def line(self, text: str) -> None:
        """Prints a line above the bar; without a terminal it is a message of the log."""
        if not self.console.is_terminal:
            _LOG.info(text)
        elif _LOG.isEnabledFor(logging.INFO):
            self.console.print(text, markup=False)


class RunProgress(_Bar):
    """Shows where a run stands; `rest` names what is in the loss next to the cross-entropy."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, done: int, rest: str = "penalties") -> None:
        remaining = (TextColumn("ETA"), TimeRemainingColumn(table_column=Column(no_wrap=True)))
        super().__init__(total=epochs * steps_per_epoch, done=done * steps_per_epoch, remaining=remaining)
        self.epochs, self.steps, self.first, self.rest = epochs, steps_per_epoch, done, rest

    def step(self, epoch: int, step: int, values: str) -> None:
        """Moves the bar to a step of an epoch, both from 0."""
        self.move(epoch * self.steps + step + 1, f"epoch {epoch + 1}/{self.epochs}", values)

    def epoch(self, row: Epoch, monitored: str) -> None:
        """Prints the line of a finished epoch."""
        self.line(describe(row, self.epochs, monitored, self.rest) + self._remaining(row.epoch))

    def _remaining(self, epoch: int) -> str:
        left = (time.monotonic() - self.begun) / max(epoch - self.first, 1) * (self.epochs - epoch)
        return f"  ETA {clock(left)}" if left >= 1 else ""


class StudyProgress(_Bar):
    """Shows how many runs of a study have ended, the latest scores, and the time that is left by those of this start.

    Runs under way count half, so that the estimate does not jump with each one that ends. `what` they are: runs of a
    study, or a search's trials.
    """

    def __init__(self, *, total: int, done: int, slots: int, what: str = "runs") -> None:
        super().__init__(total=total, done=done)
        self.total, self.first, self.done, self.slots, self.what = total, done, done, slots, what

    def ended(self, text: str, best: str = "") -> float:
        """Counts a run, and prints its line, with the best so far if there is one; returns the seconds left."""
        text += f"  {best}" if best else ""
        self.done += 1
        under_way = max(min(self.slots, self.total - self.done), 0)
        worked = self.done - self.first + under_way / 2
        left = (time.monotonic() - self.begun) / worked * (self.total - self.done - under_way / 2)
        self.line(f"{self.done}/{self.total}  {text}" + (f"  ETA {clock(left)}" if left >= 1 else ""))
        self.move(self.done, self.what, f"ETA {clock(left)}  {best}")
        return left


def clock(seconds: float) -> str:
    """Writes a time as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def describe(row: Epoch, epochs: int, monitored: str, rest: str = "penalties") -> str:
    """Puts an epoch's row into words: the loss split into its parts, accuracies in percent, the rate, the time."""
    parts = split_loss(row.loss or 0, row.cross_entropy or 0, rest, row.weighted_cross_entropy)
    text = f"epoch {row.epoch}/{epochs}  {parts}"
    text += f" (l1 {row.l1_penalty:.4f}, l2 {row.l2_penalty:.4f})  accuracy {100 * (row.accuracy or 0):.2f} %"
    if row.val_accuracy is not None and row.val_cross_entropy is not None:
        text += f"  {monitored}: cross-entropy {row.val_cross_entropy:.4f}, accuracy {100 * row.val_accuracy:.2f} %"
    return text + f"  lr {row.learning_rate:.4g}  {row.seconds:.0f} s"


def split_loss(loss: float, cross_entropy: float, rest: str = "penalties", weighted: float | None = None) -> str:
    """Writes a loss as its cross-entropy and the rest; `weighted` by class, what is not penalties."""
    if weighted is not None:
        return f"loss {loss:.4f} = weighted cross-entropy {weighted:.4f} + penalties {max(loss - weighted, 0):.4f}"
    return f"loss {loss:.4f} = cross-entropy {cross_entropy:.4f} + {rest} {max(loss - cross_entropy, 0):.4f}"
