"""The panels of a run over its epochs: cross-entropy, accuracy, penalties, learning rate and momentum.

Between the record and plots, which puts all panels of a run together.
"""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from kernorm.records.record import Epoch, Evaluation, Record
from kernorm.reporting.figures import PALETTE, Panel, legend, logarithmic, stretch_axis


def curves(record: Record) -> tuple[Panel, ...]:
    """Four panels over epochs: cross-entropy, accuracy, penalties, and learning rate with momentum."""
    size = (5.3, 3.3)
    watched = {"test": "test (used for selection)", "none": ""}.get(record.monitored, record.monitored)
    rows = record.history

    def cross_entropy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "cross-entropy, nats")
        values = _line(axes, rows, "cross_entropy", "blue", "training, augmented")
        values += _line(axes, rows, "val_cross_entropy", "orange", watched)
        logarithmic(axes, values, over=5)
        legend(axes)

    def accuracy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "accuracy, % (stretched scale)")
        _line(axes, rows, "accuracy", "blue", "training, augmented")
        _line(axes, rows, "val_accuracy", "orange", watched)
        # Row 0 is chance: its line may come from below the axis, which belongs to what was learned.
        learned = rows[1:] or rows
        values = [value for row in learned for value in (row.accuracy, row.val_accuracy) if value is not None]
        if record.test and record.monitored != "test":
            values += _test_point(axes, record.test, record.selected_epoch or rows[-1].epoch)
        stretch_axis(axes, [value for value in values if np.isfinite(value)])
        legend(axes)

    def penalties(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "penalty in the loss")
        values: list[float] = []
        off = []
        for field, colour, label in (("l1_penalty", "purple", "λ1·Σ|w|"), ("l2_penalty", "green", "λ2·Σw²")):
            if any(getattr(row, field) for row in rows):
                values += _line(axes, rows, field, colour, label)
            else:
                off.append(label)
        values += _line(axes, rows, "own_losses", "gold", "the net’s own losses")
        if values:
            axes.set_ylim(0, 1.06 * max(values))
            logarithmic(axes, values, over=30)
        else:
            axes.set(yticks=[])
            axes.text(0.5, 0.5, "off: every λ is 0", transform=axes.transAxes, ha="center", color=PALETTE["muted"])
        if len(off) == 1:
            axes.set_title(f"{off[0]} = 0", loc="right", fontsize=9, color=PALETTE["muted"])
        legend(axes)

    def schedule(figure: FigureBase) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        rates = _line(_epoch_axes(upper, record, "learning rate"), rows, "learning_rate", "blue", "")
        _line(_epoch_axes(lower, record, "momentum"), rows, "momentum", "blue", "")
        upper.set(xlabel="")
        upper.set_ylim(bottom=-0.04 * max(rates, default=0.0))
        lower.yaxis.set_major_locator(MaxNLocator(3))
        figure.align_ylabels()

    over = f"over epochs 0 to {rows[-1].epoch}"
    return (
        Panel("cross-entropy", "Cross-entropy", f"Cross-entropy in nats {over}, without penalty.", size, cross_entropy),
        Panel("accuracy", "Accuracy", f"Accuracy in percent {over}.", size, accuracy),
        Panel("penalties", "Penalties", f"L1 and L2 penalty {over}, measured on the weights.", size, penalties),
        Panel(
            "schedule", "Learning rate and momentum", f"Both at the last step of each epoch, {over}.", size, schedule
        ),
    )


def _epoch_axes(axes: Axes, record: Record, label: str) -> Axes:
    last, kept = record.history[-1].epoch, record.selected_epoch
    edge = 0.02 * max(last, 1)
    axes.set(xlim=(-edge, max(last, 1) + edge), xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    if kept is not None and kept != last:
        _mark(axes, kept, "kept")
    return axes


def _mark(axes: Axes, epoch: int, word: str) -> None:
    axes.axvline(epoch, color=PALETTE["muted"], linewidth=1, linestyle=":")
    axes.text(
        epoch, 0.01, f"{word} ", transform=axes.get_xaxis_transform(), ha="right", fontsize=8, color=PALETTE["muted"]
    )


def _line(axes: Axes, rows: Iterable[Epoch], field: str, colour: str, label: str) -> list[float]:
    """Draws one column of the history where it is finite, marks where it first is not, and returns what it drew."""
    points = [(row.epoch, getattr(row, field)) for row in rows if getattr(row, field) is not None]
    finite = [(epoch, value) for epoch, value in points if np.isfinite(value)]
    if finite:
        marker = "o" if len(finite) <= 30 else ""
        axes.plot(*zip(*finite, strict=True), color=PALETTE[colour], label=label, marker=marker, markersize=3.5)
    for epoch, _ in [point for point in points if not np.isfinite(point[1])][:1]:
        _mark(axes, epoch, "not finite")
    return [value for _, value in finite]


def _test_point(axes: Axes, test: Evaluation, epoch: int) -> list[float]:
    low, high = test.interval
    axes.errorbar(
        [epoch],
        [test.accuracy],
        [[test.accuracy - low], [high - test.accuracy]],
        fmt="D",
        markersize=5,
        color=PALETTE["green"],
        capsize=3,
        label="test, 95 % interval",
    )
    return [low, high]
