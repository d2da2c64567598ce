"""The panels of a study over epochs: accuracy and cross-entropy, penalties, kernels, activations.

Between the study's arms and study_plots, which puts all its panels together. Lines are means over an arm's finished
runs, bands one standard deviation to either side.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import FigureBase

from kernorm.records.record import PERCENTILES, THRESHOLDS
from kernorm.reporting.figures import PALETTE, Panel, concise, legend, legend_columns, plain
from kernorm.studies.report.arms import Arm, compared_groups, readable
from kernorm.studies.report.axes import AXES, axis_of, draw_band, draw_line, epoch_axis, name_absent, write_note

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
    """Small multiples of accuracy or cross-entropy: an arm a panel, with its baseline.

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


def _overlay(arms: Sequence[Arm], measure: str, title: str) -> Panel | None:
    curves = {arm: curve for arm in arms if (curve := arm.curve(measure))}
    if not curves:
        return None
    axis = axis_of(measure)
    labels = dict.fromkeys(plain(arm.look.label) for arm in curves)

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), axis.label)
        for label in labels:  # in the order of the study, whatever is drawn last
            arm = next(arm for arm in curves if plain(arm.look.label) == label)
            axes.plot([], [], color=PALETTE[arm.look.colour], marker=arm.look.marker, markersize=4, label=label)
        for arm, curve in reversed(curves.items()):
            draw_line(axes, curve, arm, axis.factor, strong=arm.look.alone)
        axis.limit(axes, curves.values())
        name_absent(
            axes, {arm.name: axis.factor * curve.mean for arm, curve in curves.items()}, axis is AXES["accuracy"]
        )
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
        axes = epoch_axis(figure.subplots(), [curve for curve in (mine, training, against) if curve], "")
        if against:
            axes.plot(against.epochs, against.mean, color=PALETTE["muted"], linewidth=1.2)
        if training and mine:
            axes.plot(
                training.epochs, training.mean, color=PALETTE[arm.look.colour], linewidth=1, linestyle=(0, (3, 2))
            )
        if main:
            draw_band(axes, main, arm.look.colour)
            axes.plot(main.epochs, main.mean, color=PALETTE[arm.look.colour])
            fair = axis.fair(others)
            usual = any(np.array_equal(main.mean, curve.mean) for curve in fair)
            axis.limit(axes, fair if usual else [main])
            if not usual:
                write_note(axes, "axis of its own")

    value = f" {100 * main.mean[-1]:.2f} percent" if measure == "accuracy" and main else ""
    value = value or (f" {main.mean[-1]:.4f} nats" if main else "")
    words = f"{measure.replace('_', '-')} over epochs, at the last one{value}."
    return Panel(f"{measure.replace('_', '-')}-{place}", arm.name, words.capitalize(), SMALL, draw)


def _group(group: Sequence[Arm], measure: str, place: int) -> Panel:
    axis = axis_of(measure)
    curves = {arm: curve for arm in group if (curve := arm.curve(f"val_{measure}") or arm.curve(measure))}

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), "")
        for arm, curve in curves.items():
            draw_line(axes, curve, arm, axis.factor, strong=True, label=plain(arm.look.label))
        axis.limit(axes, curves.values())
        name_absent(axes, {arm.name: curve.mean for arm, curve in curves.items()}, measure == "accuracy")
        legend(axes, room=40)

    names = ", ".join(arm.name for arm in group)
    return Panel(f"{measure.replace('_', '-')}-{place}", group[0].name, f"Over epochs: {names}.", SMALL, draw)


def _penalty(arm: Arm, place: int, values: Sequence[float]) -> Panel:
    curves = {part: arm.curve(part) for part, _, _ in PENALTIES}

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), [curve for curve in curves.values() if curve], "")
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
                draw_band(axes, curve, colour)
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
        axes = epoch_axis(figure.subplots(), curves, "")
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
            write_note(axes, "axis of its own")

    last = ", ".join(f"{mark} percent {curve.mean[-1]:.3g}" for mark, curve in zip(PERCENTILES, curves, strict=True))
    return Panel(f"activations-{place}", arm.name, f"Percentiles at the last epoch: {last}.", SMALL, draw)
