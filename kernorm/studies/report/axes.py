"""What the curves of a study share: their axes, lines, bands and notes."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kernorm.reporting.figures import LETTERS, PALETTE, plain
from kernorm.reporting.hover import follow, of_arm
from kernorm.reporting.scales import logarithmic, stretch_axis
from kernorm.studies.report.arms import Arm, Curve, readable


@dataclass(frozen=True)
class Axis:
    """The y axis of a measure: its label, the factor of its unit, how bad a value is, and where its limits come from.

    `scale` sets the limits by what is shown after `share` of the epochs of the arms that are not much worse than the
    others; what is worse leaves the axes.
    """

    label: str
    factor: float
    error: Callable[[float], float]
    share: float
    most: float
    scale: Callable[[Axes, list[float]], None]

    def limit(self, axes: Axes, curves: Iterable[Curve]) -> None:
        """Sets the limits by the curves and, as far as these do not reach much farther, their bands."""
        fair = self.fair(curves)
        means = [value for curve in fair for value in late(curve, self.share)]
        bands = [value for curve in fair for side in (-1, 1) for value in late(curve, self.share, side)]
        room = 0.4 * (max(means) - min(means)) if means else 0.0
        means += [value for value in bands if max(min(means) - room, 0) < value <= min(max(means) + room, self.most)]
        self.scale(axes, [self.factor * value for value in means])

    def fair(self, curves: Iterable[Curve]) -> list[Curve]:
        """Returns the curves that are not much worse than the others, by the median of their last third."""
        listed = list(curves)
        errors = {curve: self.error(median(late(curve, 2 / 3) or [np.nan])) for curve in listed}
        fair = readable(errors)
        return [curve for curve in listed if curve in fair]


def _logarithmic_loss(axes: Axes, values: list[float]) -> None:
    if values and max(values) < 3 * min(values):
        low, high = min(values), max(values)
        axes.set_ylim(low - 0.1 * (high - low) - 0.02 * low, high + 0.1 * (high - low) + 0.02 * high)
    else:
        logarithmic(axes, values, over=1)


def _from_zero(axes: Axes, values: list[float]) -> None:
    high = max([*values, 1e-9])
    axes.set_ylim(-0.03 * high, 1.06 * high)


AXES = {
    "accuracy": Axis("accuracy, % (stretched)", 1, lambda accuracy: 1 - accuracy, 1 / 3, 1, stretch_axis),
    "cross_entropy": Axis("cross-entropy, nats", 1, lambda loss: loss, 1 / 3, np.inf, _logarithmic_loss),
    # A long run's norm is several times a short one's, and no worse; one that explodes leaves the axes.
    "kernel_norm": Axis("‖w‖₂", 1, lambda norm: norm**0.5, 0, np.inf, _from_zero),
    "near_zero": Axis("share of all kernel weights, %", 100, lambda share: 0.0, 0, 1, _from_zero),
}

# Of what each panel scales by itself.
_PLAIN = Axis("", 1, lambda value: 0.0, 0, np.inf, lambda axes, values: None)


def axis_of(measure: str) -> Axis:
    """Returns the axis of one of the arms' measures."""
    return next((axis for name, axis in AXES.items() if name in measure), _PLAIN)


def late(curve: Curve, share: float, side: int = 0) -> list[float]:
    """Returns the finite means after `share` of the epochs, or the ends of their band on one side, -1 or 1."""
    kept = (curve.mean + side * curve.sd)[curve.epochs >= share * curve.epochs[-1]]
    return kept[np.isfinite(kept)].tolist()


def epoch_axis(axes: Axes, curves: Iterable[Curve], label: str) -> Axes:
    """Prepares axes over the epochs of these curves, with a label on y; returns them."""
    listed = list(curves)
    first = min((int(curve.epochs[0]) for curve in listed), default=0)
    last = max((int(curve.epochs[-1]) for curve in listed), default=1)
    edge = 0.02 * max(last - first, 1)
    axes.set(xlim=(first - edge, max(last, first + 1) + edge), xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    return axes


def draw_line(
    axes: Axes, curve: Curve, arm: Arm, measure: str, look: tuple[str, str] | None = None, label: str = ""
) -> None:
    """Draws an arm's mean with its band and markers, in a look of this panel or its own."""
    colour, marker = look or (arm.look.colour, arm.look.marker)
    factor = axis_of(measure).factor
    axes.plot(
        curve.epochs,
        factor * curve.mean,
        color=PALETTE[colour],
        marker=marker,
        markersize=4,
        markevery=max(1, len(curve.epochs) // 8),
        linewidth=1.7,
        label=label or "_",
        gid=of_arm(arm.place),
    )
    draw_band(axes, curve, arm, colour, factor)
    follow(axes, measure, arm.place)


def draw_band(axes: Axes, curve: Curve, arm: Arm, colour: str, factor: float = 1) -> None:
    """Draws one standard deviation on either side of a curve's mean."""
    if curve.runs > 1:
        low, high = factor * (curve.mean - curve.sd), factor * (curve.mean + curve.sd)
        axes.fill_between(
            curve.epochs, low, high, color=PALETTE[colour], alpha=0.15, linewidth=0, gid=of_arm(arm.place)
        )


def name_absent(axes: Axes, values: Mapping[Arm, np.ndarray], percent: bool) -> None:
    """Names what lies outside the axes at every epoch, at the edge behind which it lies."""
    low, high = axes.get_ylim()
    behind = {"facecolor": PALETTE["paper"], "edgecolor": "none", "pad": 0.5}
    for above, outside in ((False, lambda v: v < low), (True, lambda v: v > high)):
        absent = {arm: value[-1] for arm, value in values.items() if outside(value).all()}
        for place, (arm, end) in enumerate(list(absent.items())[:3]):
            shown = f"{100 * end:.1f} %" if percent else f"{end:.3g}"
            axes.annotate(
                f"{'▴' if above else '▾'} {plain(arm.name, 26)} {shown}",
                (0.985, above),
                (0, (-1 if above else 1) * (4 + (LETTERS + 2) * place)),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="right",
                va="top" if above else "bottom",
                color=PALETTE["muted"],
                bbox=behind,
                gid=of_arm(arm.place),
            )


def write_note(axes: Axes, text: str) -> None:
    """Writes a small note above the right end of axes."""
    axes.set_title(text, loc="right", fontsize=LETTERS, color=PALETTE["muted"])
