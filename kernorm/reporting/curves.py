"""The panels of a run over its epochs: cross-entropy, accuracy, penalties, learning rate and momentum.

Between the record and plots, which puts all panels of a run together.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from kernorm.records.record import Epoch, Evaluation, Record
from kernorm.reporting.figures import LETTERS, PALETTE, WIDTH, Panel, legend
from kernorm.reporting.format import percent
from kernorm.reporting.hover import Column, Measure, follow, of_arm, say
from kernorm.reporting.scales import logarithmic, stretch_axis


def curves(record: Record) -> tuple[Panel, ...]:
    """Four panels over epochs: cross-entropy, accuracy, penalties, and learning rate with momentum."""
    size = (WIDTH, 3.1)
    parts = series(record)
    rows = record.history

    def cross_entropy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "cross-entropy, nats")
        values = _line(axes, rows, "cross_entropy", "blue", parts[0], arm=0)
        values += _line(axes, rows, "val_cross_entropy", "orange", parts[1], arm=1)
        logarithmic(axes, values, over=5)
        legend(axes)

    def accuracy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "accuracy, % (stretched)")
        _line(axes, rows, "accuracy", "blue", parts[0], arm=0)
        _line(axes, rows, "val_accuracy", "orange", parts[1], arm=1)
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
            axes.set_title(f"{off[0]} = 0", loc="right", fontsize=LETTERS, color=PALETTE["muted"])
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


def series(record: Record) -> tuple[str, ...]:
    """Names what a page about a run can show and hide: training, the split that was watched, test."""
    watched = {"test": "test (used for selection)", "none": ""}.get(record.monitored, record.monitored)
    apart = record.test and record.monitored != "test"
    return ("training, augmented", watched, *(["test"] if apart else []))


# Columns of the history that pages show over epochs; those of the watched split are the second series.
MEASURES = {
    "cross_entropy": Measure("cross-entropy", " nats", digits=4),
    "accuracy": Measure("accuracy", " %", factor=100, digits=2, most=1),
    "l1_penalty": Measure("λ1·Σ|w|", " nats"),
    "l2_penalty": Measure("λ2·Σw²", " nats"),
    "learning_rate": Measure("learning rate"),
    "momentum": Measure("momentum"),
}


def tables(record: Record) -> dict[str, Any]:
    """Returns what the lines of these panels hold, for the script of pages."""
    columns = {
        name: [_column(record.history, field) for field in (name, f"val_{name}") if hasattr(record.history[0], field)]
        for name in MEASURES
        if record.history
    }
    return {name: MEASURES[name].table(found) for name, found in columns.items()}


def _column(rows: Iterable[Epoch], field: str) -> Column | None:
    points = {row.epoch: value for row in rows if (value := getattr(row, field)) is not None}
    return Column(list(points), list(points.values())) if points else None


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
    left = epoch > sum(axes.get_xlim()) / 2
    axes.text(
        epoch,
        0.01,
        f"{word} " if left else f" {word}",
        transform=axes.get_xaxis_transform(),
        ha="right" if left else "left",
        fontsize=LETTERS,
        color=PALETTE["muted"],
    )


def _line(
    axes: Axes, rows: Iterable[Epoch], field: str, colour: str, label: str, arm: int | None = None
) -> list[float]:
    """Draws one column of the history where it is finite, marks where it first is not, and returns what it drew."""
    points = [(row.epoch, getattr(row, field)) for row in rows if getattr(row, field) is not None]
    finite = [(epoch, value) for epoch, value in points if np.isfinite(value)]
    if finite:
        marker = "o" if len(finite) <= 30 else ""
        gid = None if arm is None else of_arm(arm)
        axes.plot(
            *zip(*finite, strict=True), color=PALETTE[colour], label=label, marker=marker, markersize=3.5, gid=gid
        )
        follow(axes, field.removeprefix("val_"), arm)
    for epoch, _ in [point for point in points if not np.isfinite(point[1])][:1]:
        _mark(axes, epoch, "not finite")
    return [value for _, value in finite]


def _test_point(axes: Axes, test: Evaluation, epoch: int) -> list[float]:
    low, high = test.interval
    look: dict[str, Any] = {"color": PALETTE["green"], "gid": of_arm(2)}
    axes.plot([epoch, epoch], [low, high], marker="_", markersize=6, **look)
    axes.plot([epoch], [test.accuracy], "D", markersize=5, label="test, 95 % interval", **look)
    shown, *ends = (percent(value, test.count) for value in (test.accuracy, low, high))
    say(axes, [(epoch, test.accuracy)], [f"test, epoch {epoch}: {shown}, 95 % {' to '.join(ends)}"], arm=2)
    return [low, high]
