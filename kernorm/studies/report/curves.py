"""The panels of a study over epochs: accuracy and cross-entropy, penalties, kernels, activations.

Between the study's arms and study_plots, which puts all its panels together. Lines are means over an arm's finished
runs, bands one standard deviation to either side.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from kernorm.records.record import PERCENTILES, THRESHOLDS
from kernorm.reporting.figures import PALETTE, Panel, concise, legend, legend_columns, logarithmic, plain, stretch_axis
from kernorm.studies.report.arms import Arm, Curve, compared_groups, readable

WIDE, SMALL = (5.3, 3.5), (3.3, 2.4)
# Small multiples up to which a page stays readable.
MOST = 25
PENALTIES = (("l1_penalty", "purple", "λ1·Σ|w|"), ("l2_penalty", "green", "λ2·Σw²"))


def watched_split(arms: Iterable[Arm]) -> str:
    """Names the splits behind the val_ columns of the arms' histories; empty where no split was watched."""
    names = sorted({record.monitored for arm in arms for record in arm.records.values()} - {"none"})
    return " or ".join(names)


def overlays(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """All arms in one axes: accuracy and cross-entropy, of the watched split and of training."""
    watched = watched_split(arms)
    watched += " (used for selection)" if watched == "test" else ""
    panels = (
        _overlay(arms, "val_accuracy", f"Accuracy: {watched}"),
        _overlay(arms, "val_cross_entropy", f"Cross-entropy: {watched}"),
        _overlay(arms, "accuracy", "Accuracy: training, augmented"),
        _overlay(arms, "cross_entropy", "Cross-entropy: training, augmented"),
    )
    return tuple(panel for panel in panels if panel)


def multiples(arms: Sequence[Arm], measure: str) -> tuple[Panel, ...]:
    """Small multiples of accuracy or cross-entropy: an arm a panel beside its baseline.

    Where there are several baselines, a panel holds one of them and all that is compared with it.
    """
    shown = [arm for arm in arms if arm.records]
    groups = compared_groups(shown)
    if apart(groups):
        return tuple(_group(group, measure, place) for place, group in enumerate(groups[:MOST]))
    by_name = {arm.name: arm for arm in shown}
    return tuple(
        _single(arm, by_name.get(arm.summary.baseline or ""), measure, place, shown)
        for place, arm in enumerate(shown[:MOST])
    )


def apart(groups: Sequence[Sequence[Arm]]) -> bool:
    """Tells whether several baselines are compared with something."""
    return sum(len(group) > 1 for group in groups) > 1


def penalties(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """λ1·Σ|w| and λ2·Σw² of each arm, on one axis that has a zero; of many arms, those for which it matters."""
    shown = [arm for arm in arms if arm.records]
    if len(shown) > MOST:
        shown = [arm for arm in shown if arm.summary.claims or any(map(any, arm.summary.penalties or ()))]
    curves = [curve for arm in shown for part, _, _ in PENALTIES if (curve := arm.curve(part))]
    values = [value for curve in curves for value in curve.mean.tolist() if 0 < value < np.inf]
    return tuple(_penalty(arm, place, values) for place, arm in enumerate(shown[:MOST]))


def kernels(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """Norm and near-zero shares of all kernels together."""
    panels = [_overlay(arms, "kernel_norm", "Norm of all kernels")]
    panels += [_overlay(arms, f"near_zero_{mark:g}", f"Kernel weights of |w| < {mark:g}") for mark in THRESHOLDS[::-1]]
    return tuple(panel for panel in panels if panel)


def activations(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """Percentiles of a layer's output before its norm, an arm a panel."""
    spans = {arm: span for arm in arms if (span := _span(arm))}
    usual = readable({arm: high - low for arm, (low, high) in spans.items()})
    ends = [end for arm in usual for end in spans[arm]]
    return tuple(
        _activation(arm, place, ends if arm in usual else list(spans[arm]), arm in usual)
        for place, arm in enumerate(list(spans)[:MOST])
    )


@dataclass(frozen=True)
class _Axis:
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
    "accuracy": _Axis("accuracy, % (stretched scale)", 1, lambda accuracy: 1 - accuracy, 1 / 3, 1, stretch_axis),
    "cross_entropy": _Axis("cross-entropy, nats", 1, lambda loss: loss, 1 / 3, np.inf, _logarithmic_loss),
    "kernel_norm": _Axis("‖w‖₂", 1, lambda norm: norm, 0, np.inf, _from_zero),
    "near_zero": _Axis("share of all kernel weights, %", 100, lambda share: 0.0, 0, 1, _from_zero),
}


def axis_of(measure: str) -> _Axis:
    """Returns the axis of one of the arms' measures."""
    return next(axis for name, axis in AXES.items() if name in measure)


def late(curve: Curve, share: float, side: int = 0) -> list[float]:
    """Returns the finite means after `share` of the epochs, or the ends of their band on one side, -1 or 1."""
    kept = (curve.mean + side * curve.sd)[curve.epochs >= share * curve.epochs[-1]]
    return kept[np.isfinite(kept)].tolist()


def _overlay(arms: Sequence[Arm], measure: str, title: str) -> Panel | None:
    curves = {arm: curve for arm in arms if (curve := arm.curve(measure))}
    if not curves:
        return None
    axis = axis_of(measure)
    labels = dict.fromkeys(plain(arm.look.label) for arm in curves)

    def draw(figure: FigureBase) -> None:
        axes = _epochs(figure.subplots(), curves.values(), axis.label)
        for label in labels:  # in the order of the study, whatever is drawn last
            arm = next(arm for arm in curves if plain(arm.look.label) == label)
            axes.plot([], [], color=PALETTE[arm.look.colour], marker=arm.look.marker, markersize=4, label=label)
        for arm, curve in reversed(curves.items()):
            _line(axes, curve, arm, axis.factor, strong=arm.look.alone)
        axis.limit(axes, curves.values())
        _absent(axes, {arm.name: axis.factor * curve.mean for arm, curve in curves.items()}, axis is AXES["accuracy"])
        legend(axes)

    rows = -(-len(labels) // legend_columns(list(labels)))
    unit = 100 if axis is AXES["accuracy"] else axis.factor
    ends = "; ".join(f"{arm.name} {unit * curve.mean[-1]:.4g}" for arm, curve in list(curves.items())[:12])
    return Panel(
        measure.replace("_", "-").replace(".", ""),
        title,
        f"{axis.label.partition(' (')[0]}, over epochs; at the last epoch: {ends}.",
        (WIDE[0], WIDE[1] + 0.17 * (rows - 1)),
        draw,
    )


def _single(arm: Arm, baseline: Arm | None, measure: str, place: int, shown: Sequence[Arm]) -> Panel:
    axis, watched = axis_of(measure), f"val_{measure}"
    mine, training = arm.curve(watched), arm.curve(measure)
    others = [curve for other in shown if (curve := other.curve(watched) or other.curve(measure))]
    against = baseline.curve(watched) or baseline.curve(measure) if baseline else None
    main = mine or training

    def draw(figure: FigureBase) -> None:
        axes = _epochs(figure.subplots(), [curve for curve in (mine, training, against) if curve], "")
        if against:
            axes.plot(against.epochs, against.mean, color=PALETTE["muted"], linewidth=1.2)
        if training and mine:
            axes.plot(
                training.epochs, training.mean, color=PALETTE[arm.look.colour], linewidth=1, linestyle=(0, (3, 2))
            )
        if main:
            _band(axes, main, arm.look.colour)
            axes.plot(main.epochs, main.mean, color=PALETTE[arm.look.colour])
            fair = axis.fair(others)
            usual = any(np.array_equal(main.mean, curve.mean) for curve in fair)
            axis.limit(axes, fair if usual else [main])
            if not usual:
                _note(axes, "axis of its own")

    value = f" {100 * main.mean[-1]:.2f} percent" if measure == "accuracy" and main else ""
    value = value or (f" {main.mean[-1]:.4f} nats" if main else "")
    words = f"{measure.replace('_', '-')} over epochs, at the last one{value}."
    return Panel(f"{measure.replace('_', '-')}-{place}", arm.name, words.capitalize(), SMALL, draw)


def _group(group: Sequence[Arm], measure: str, place: int) -> Panel:
    axis = axis_of(measure)
    curves = {arm: curve for arm in group if (curve := arm.curve(f"val_{measure}") or arm.curve(measure))}

    def draw(figure: FigureBase) -> None:
        axes = _epochs(figure.subplots(), curves.values(), "")
        for arm, curve in curves.items():
            _line(axes, curve, arm, axis.factor, strong=True, label=plain(arm.look.label))
        axis.limit(axes, curves.values())
        _absent(axes, {arm.name: curve.mean for arm, curve in curves.items()}, measure == "accuracy")
        legend(axes, room=40)

    names = ", ".join(arm.name for arm in group)
    return Panel(f"{measure.replace('_', '-')}-{place}", group[0].name, f"Over epochs: {names}.", SMALL, draw)


def _penalty(arm: Arm, place: int, values: Sequence[float]) -> Panel:
    curves = {part: arm.curve(part) for part, _, _ in PENALTIES}

    def draw(figure: FigureBase) -> None:
        axes = _epochs(figure.subplots(), [curve for curve in curves.values() if curve], "")
        for part, colour, label in PENALTIES:
            if curve := curves[part]:
                off = not curve.mean.any()
                course = " = 0" if off else f": {concise(curve.mean[0])} → {concise(curve.mean[-1])}"
                axes.plot(
                    curve.epochs,
                    curve.mean,
                    color=PALETTE[colour],
                    label=label + course,
                    linestyle=(0, (4, 4)) if off and part == "l2_penalty" else "-",
                )
                _band(axes, curve, colour)
        if values:
            low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)))
            axes.set_yscale("symlog", linthresh=10**low, linscale=0.7)
            decades = np.arange(low, high + 1, np.ceil((high - low + 1) / 4))
            axes.set_yticks([0, *10**decades], ["0", *map(concise, 10**decades)])
            axes.set_yticks([], minor=True)
            axes.set_ylim(-0.12 * 10**low, 1.3 * 10**high)
        else:
            axes.set(yticks=[0], ylim=(-0.05, 1))
        legend(axes, room=24)

    words = "; ".join(
        f"{label} from {concise(curve.mean[0])} to {concise(curve.mean[-1])}"
        for part, _, label in PENALTIES
        if (curve := curves[part])
    )
    return Panel(f"penalties-{place}", arm.name, f"{words}, in nats over epochs.", (SMALL[0], SMALL[1] + 0.2), draw)


def _span(arm: Arm) -> tuple[float, float] | None:
    low, high = arm.curve(f"activation_p{PERCENTILES[0]}"), arm.curve(f"activation_p{PERCENTILES[-1]}")
    if not (low and high and np.isfinite([low.mean, high.mean]).any()):
        return None
    return float(np.nanmin(low.mean)), float(np.nanmax(high.mean))


def _activation(arm: Arm, place: int, ends: Sequence[float], usual: bool) -> Panel:
    curves = [curve for mark in PERCENTILES if (curve := arm.curve(f"activation_p{mark}"))]

    def draw(figure: FigureBase) -> None:
        axes = _epochs(figure.subplots(), curves, "")
        for pair, alpha in (((0, -1), 0.15), ((1, -2), 0.3)):
            low, high = (curves[at] for at in pair)
            axes.fill_between(low.epochs, low.mean, high.mean, color=PALETTE["blue"], alpha=alpha, linewidth=0)
        for curve, mark in zip(curves, PERCENTILES, strict=True):
            axes.plot(curve.epochs, curve.mean, color=PALETTE["blue"], linewidth=1.2)
            axes.annotate(
                f"{mark}",
                (curve.epochs[-1], curve.mean[-1]),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=PALETTE["muted"],
                annotation_clip=False,
            )
        margin = 0.05 * (max(ends) - min(ends))
        axes.set_ylim(min(ends) - margin, max(ends) + margin)
        if not usual:
            _note(axes, "axis of its own")

    last = ", ".join(f"{mark} percent {curve.mean[-1]:.3g}" for mark, curve in zip(PERCENTILES, curves, strict=True))
    return Panel(f"activations-{place}", arm.name, f"Percentiles at the last epoch: {last}.", SMALL, draw)


def _epochs(axes: Axes, curves: Iterable[Curve], label: str) -> Axes:
    listed = list(curves)
    first = min((int(curve.epochs[0]) for curve in listed), default=0)
    last = max((int(curve.epochs[-1]) for curve in listed), default=1)
    edge = 0.02 * max(last - first, 1)
    axes.set(xlim=(first - edge, max(last, first + 1) + edge), xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    return axes


def _line(axes: Axes, curve: Curve, arm: Arm, factor: float, *, strong: bool, label: str = "") -> None:
    """Draws an arm's mean; with its band and markers where few arms look like this one."""
    every = max(1, len(curve.epochs) // 8)
    marker = arm.look.marker if strong else ""
    axes.plot(
        curve.epochs,
        factor * curve.mean,
        color=PALETTE[arm.look.colour],
        marker=marker,
        markersize=4,
        markevery=every,
        linewidth=1.7 if strong else 1.0,
        label=label or "_",
    )
    if strong:
        _band(axes, curve, arm.look.colour, factor)


def _band(axes: Axes, curve: Curve, colour: str, factor: float = 1) -> None:
    if curve.runs > 1:
        low, high = factor * (curve.mean - curve.sd), factor * (curve.mean + curve.sd)
        axes.fill_between(curve.epochs, low, high, color=PALETTE[colour], alpha=0.15, linewidth=0)


def _absent(axes: Axes, values: Mapping[str, np.ndarray], percent: bool) -> None:
    """Names what lies outside the axes at every epoch."""
    low, high = axes.get_ylim()
    for side, place, outside in (("below", 0.03, lambda v: v < low), ("above", 0.92, lambda v: v > high)):
        names = {name: value[-1] for name, value in values.items() if outside(value).all()}
        if names:
            shown = ", ".join(
                f"{plain(name)} ({100 * end:.1f} %)" if percent else f"{plain(name)} ({end:.3g})"
                for name, end in list(names.items())[:2]
            )
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            behind = {"facecolor": PALETTE["paper"], "edgecolor": "none", "pad": 1.5}
            axes.text(
                0.985,
                place,
                f"{side} the axis: {shown}{more}",
                transform=axes.transAxes,
                fontsize=8,
                ha="right",
                color=PALETTE["muted"],
                bbox=behind,
            )


def _note(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="right", fontsize=8.5, color=PALETTE["muted"])
