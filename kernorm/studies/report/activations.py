"""The panels of a study's activations over epochs: percentiles of a layer's output before its norm, an arm a panel."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import FigureBase

from kernorm.records.record import PERCENTILES
from kernorm.reporting.figures import LETTERS, PALETTE, SMALL, Panel, spread
from kernorm.studies.report.arms import Arm, readable
from kernorm.studies.report.axes import epoch_axis, write_note
from kernorm.studies.report.curves import MOST, SMALL_HEIGHT, draw_plain


def activations(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """Percentiles of a layer's output before its norm, an arm a panel."""
    spans = {arm: span for arm in arms if (span := _span(arm))}
    usual = readable({arm: high - low for arm, (low, high) in spans.items()})
    ends = [end for arm in usual for end in spans[arm]]
    return tuple(
        _activation(arm, place, ends if arm in usual else list(spans[arm]), arm in usual)
        for place, arm in enumerate(list(spans)[:MOST])
    )


def _span(arm: Arm) -> tuple[float, float] | None:
    low, high = arm.curve(f"activation_p{PERCENTILES[0]}"), arm.curve(f"activation_p{PERCENTILES[-1]}")
    if not (low and high and np.isfinite([low.mean, high.mean]).any()):
        return None
    return float(np.nanmin(low.mean)), float(np.nanmax(high.mean))


def _activation(arm: Arm, place: int, ends: Sequence[float], usual: bool) -> Panel:
    curves = {mark: curve for mark in PERCENTILES if (curve := arm.curve(f"activation_p{mark}"))}
    margin = 0.06 * (max(ends) - min(ends))
    low, high = min(ends) - margin, max(ends) + margin

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), "")
        listed = list(curves.values())
        for pair, alpha in (((0, -1), 0.15), ((1, -2), 0.3)):
            first, last = (listed[at] for at in pair)
            axes.fill_between(first.epochs, first.mean, last.mean, color=PALETTE["blue"], alpha=alpha, linewidth=0)
        # A line of labels is about a tenth of the axis high.
        places = spread([curve.mean[-1] for curve in listed], 0.1 * (high - low))
        for (mark, curve), at in zip(curves.items(), places, strict=True):
            draw_plain(axes, arm, curve, f"activation_p{mark}", "blue", linewidth=1.2)
            axes.annotate(
                f"{mark}",
                (1, at),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontsize=LETTERS,
                color=PALETTE["muted"],
                annotation_clip=False,
            )
        axes.set_ylim(low, high)
        if not usual:
            write_note(axes, "axis of its own")

    ended = ", ".join(f"{mark} percent {curve.mean[-1]:.3g}" for mark, curve in curves.items())
    words = f"Percentiles at the last epoch: {ended}."
    return Panel(f"activations-{place}", arm.name, words, (SMALL, SMALL_HEIGHT), draw, arm=arm.place)
