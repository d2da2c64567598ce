"""The panels of a study over epochs: accuracy and cross-entropy, penalties, kernels, activations.

Between the study's arms and its charts. Lines are means over an arm's finished runs, bands one standard deviation to
either side. Arms with a look of their own lie in one axes; more of them have a panel each.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from kernorm.records.record import THRESHOLDS
from kernorm.reporting.figures import (
    LOOKS,
    PALETTE,
    SMALL,
    WIDTH,
    Panel,
    legend,
    legend_columns,
    plain,
)
from kernorm.reporting.format import concise
from kernorm.reporting.hover import follow, of_arm
from kernorm.reporting.scales import logarithmic
from kernorm.studies.report.arms import MEASURES, Arm, Curve, compared_groups
from kernorm.studies.report.axes import AXES, axis_of, draw_band, draw_line, epoch_axis, name_absent, write_note

HEIGHT, SMALL_HEIGHT = 3.1, 2.5
# A line of training next to lines of a split.
DASHES = (0, (3, 2))
# Characters of a line of a small panel's legend.
ROOM = 34
# Small multiples up to which a page stays readable.
MOST = 25
PENALTIES = (("l1_penalty", "purple", "λ1·Σ|w|"), ("l2_penalty", "green", "λ2·Σw²"))
NEAR_ZERO = tuple(
    (f"near_zero_{mark:g}", colour, f"|w| < {concise(mark)}")
    for mark, colour in zip(THRESHOLDS, ("orange", "purple", "blue"), strict=True)
)


def watched_split(arms: Iterable[Arm]) -> str:
    """Names the splits behind the val_ columns of the arms' histories; empty where no split was watched."""
    names = sorted({record.monitored for arm in arms for record in arm.records.values()} - {"none"})
    return " or ".join(names)


def overlays(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """All arms in one axes: accuracy and cross-entropy, of the watched split and of training; none of many arms."""
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

    Where there are several baselines, a panel holds one of them and all that is compared with it, if they are few.
    """
    shown = [arm for arm in arms if arm.records]
    groups = compared_groups(shown)
    if apart(groups):
        return tuple(_group(group, measure, place) for place, group in enumerate(groups[:MOST]))
    return _each(shown, lambda arm, place: _single(arm, shown, measure, place))


def apart(groups: Sequence[Sequence[Arm]]) -> bool:
    """Tells whether several baselines are compared with something, each with so little that a panel holds it."""
    return sum(len(group) > 1 for group in groups) > 1 and max(map(len, groups)) <= len(LOOKS)


def penalties(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """λ1·Σ|w| and λ2·Σw² of each arm that has a penalty, or should have one; on an axis of its own."""
    shown = [arm for arm in arms if arm.records and (arm.summary.claims or any(map(any, arm.summary.penalties or ())))]
    return _each(shown, _penalty)


def kernels(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """Norm and near-zero shares of all kernels together; none of many arms."""
    panels = [_overlay(arms, "kernel_norm", "Norm of all kernels")]
    panels += [_overlay(arms, measure, f"Kernel weights of {label}") for measure, _, label in NEAR_ZERO[::-1]]
    return tuple(panel for panel in panels if panel)


def kernel_norms(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """The norm of all kernels together, an arm a panel, where there are too many for one."""
    shown = [arm for arm in arms if arm.curve("kernel_norm") and not _together(arms)]
    return _each(shown, lambda arm, place: _single(arm, shown, "kernel_norm", place))


def near_zero(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """The shares of near-zero weights, an arm a panel, where there are too many for one."""
    shown = [arm for arm in arms if arm.curve("kernel_norm") and not _together(arms)]
    return _each(shown, _near_zero)


def _each(arms: Sequence[Arm], panel: Callable[[Arm, int], Panel]) -> tuple[Panel, ...]:
    return tuple(panel(arm, place) for place, arm in enumerate(arms[:MOST]))


def _together(arms: Sequence[Arm]) -> bool:
    """Tells whether arms are so few that each has a look of its own."""
    return len(arms) <= len(LOOKS) and all(arm.look.alone for arm in arms)


def _overlay(arms: Sequence[Arm], measure: str, title: str) -> Panel | None:
    curves = {arm: curve for arm in arms if (curve := arm.curve(measure))}
    if not curves or not _together(arms):
        return None
    axis = axis_of(measure)
    labels = [plain(arm.look.label) for arm in curves]

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), axis.label)
        for arm, curve in curves.items():
            draw_line(axes, curve, arm, measure, label=plain(arm.look.label))
        axis.limit(axes, curves.values())
        name_absent(axes, {arm: axis.factor * curve.mean for arm, curve in curves.items()}, axis is AXES["accuracy"])
        legend(axes)

    rows = -(-len(labels) // legend_columns(labels))
    unit = 100 if axis is AXES["accuracy"] else axis.factor
    ends = "; ".join(f"{arm.name} {unit * curve.mean[-1]:.4g}" for arm, curve in curves.items())
    return Panel(
        measure.replace("_", "-").replace(".", ""),
        title,
        f"{axis.label.partition(' (')[0]}, over epochs; at the last epoch: {ends}.",
        (WIDTH, HEIGHT + 0.2 * (rows - 1)),
        draw,
    )


def _single(arm: Arm, shown: Sequence[Arm], measure: str, place: int) -> Panel:
    """An arm next to its baseline, both on the watched split; dashed: training, all there is without a split."""
    axis = axis_of(measure)

    def main_of(one: Arm) -> tuple[str, Curve] | None:
        pairs = ((name, one.curve(name)) for name in (f"val_{measure}", measure) if name in MEASURES)
        return next(((name, curve) for name, curve in pairs if curve), None)

    baseline = next((one for one in shown if one.name == arm.summary.baseline), None)
    mine = main_of(arm)
    against = main_of(baseline) if baseline else None
    if baseline and mine and against and against[0] != mine[0]:
        # Like with like: the split of the one and the training of the other are no pair.
        same = baseline.curve(mine[0])
        against = (mine[0], same) if same else None
    training = arm.curve(measure) if mine and mine[0] != measure else None
    unwatched = bool(mine) and not training and any(main[0] != measure for one in shown if (main := main_of(one)))
    dashes = DASHES if unwatched else "-"
    others = [found[1] for one in shown if (found := main_of(one))]

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), [curve for _, curve in filter(None, (mine, against))], "")
        if baseline and against:
            axes.plot(
                against[1].epochs,
                axis.factor * against[1].mean,
                color=PALETTE["muted"],
                linewidth=1.2,
                linestyle=dashes,
                gid=of_arm(baseline.place),
            )
            follow(axes, against[0], baseline.place)
        if training:
            draw_plain(axes, arm, training, measure, arm.look.colour, linewidth=1, linestyle=DASHES)
        if mine:
            name, curve = mine
            draw_band(axes, curve, arm, arm.look.colour, axis.factor)
            draw_plain(axes, arm, curve, name, arm.look.colour, linestyle=dashes)
            fair = axis.fair(others)
            usual = any(np.array_equal(curve.mean, other.mean) for other in fair)
            axis.limit(axes, fair if usual else [curve])
            notes = {"training alone": unwatched, "axis of its own": not usual}
            write_note(axes, ", ".join(note for note, holds in notes.items() if holds))

    value = ""
    if mine:
        last = axis.factor * mine[1].mean[-1]
        value = f" {100 * last:.2f} percent" if axis is AXES["accuracy"] else f" {last:.4g}"
    words = f"{measure.replace('_', '-')} over epochs, at the last one{value}."
    name = f"{measure.replace('_', '-')}-{place}"
    return Panel(name, arm.name, words.capitalize(), (SMALL, SMALL_HEIGHT), draw, arm=arm.place)


def draw_plain(axes: Axes, arm: Arm, curve: Curve, measure: str, colour: str, **look: object) -> None:
    """Draws an arm's mean as a line without markers."""
    factor = axis_of(measure).factor
    axes.plot(curve.epochs, factor * curve.mean, color=PALETTE[colour], gid=of_arm(arm.place), **look)  # type: ignore[arg-type]
    follow(axes, measure, arm.place)


def _group(group: Sequence[Arm], measure: str, place: int) -> Panel:
    axis = axis_of(measure)
    names = {arm: f"val_{measure}" if arm.curve(f"val_{measure}") else measure for arm in group}
    curves = {arm: curve for arm in group if (curve := arm.curve(names[arm]))}
    # An arm without a watched split among others that have one.
    mixed = len({names[arm] for arm in curves}) > 1
    labels = {arm: plain(arm.name + " (training)" * (mixed and names[arm] == measure)) for arm in curves}

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), "")
        for (arm, curve), look in zip(curves.items(), LOOKS, strict=False):
            draw_line(axes, curve, arm, names[arm], look, label=labels[arm])
        axis.limit(axes, curves.values())
        name_absent(axes, {arm: curve.mean for arm, curve in curves.items()}, measure == "accuracy")
        legend(axes, ROOM)

    rows = -(-len(curves) // legend_columns(list(labels.values()), ROOM))
    listed = ", ".join(arm.name for arm in group)
    size = (SMALL, SMALL_HEIGHT + 0.2 * rows)
    return Panel(f"{measure.replace('_', '-')}-{place}", group[0].name, f"Over epochs: {listed}.", size, draw)


def _penalty(arm: Arm, place: int) -> Panel:
    curves = {part: curve for part, _, _ in PENALTIES if (curve := arm.curve(part))}
    on = [curve for curve in curves.values() if curve.mean.any()]

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), "")
        for part, colour, label in PENALTIES:
            if curve := curves.get(part):
                off = not curve.mean.any()
                course = " = 0" if off else f": {concise(curve.mean[0])} → {concise(curve.mean[-1])}"
                dashes = (0, (4, 4)) if off and part == "l2_penalty" else "-"
                draw_plain(axes, arm, curve, part, colour, label=label + course, linestyle=dashes)
                draw_band(axes, curve, arm, colour)
        values = [value for curve in on for value in curve.mean.tolist() if 0 < value < np.inf]
        high = max(values, default=1.0)
        axes.set_ylim(-0.05 * high, 1.08 * high)
        if len(on) == len(curves):
            logarithmic(axes, values, over=8)
        legend(axes, ROOM)

    words = "; ".join(
        f"{label} from {concise(curve.mean[0])} to {concise(curve.mean[-1])}"
        for part, _, label in PENALTIES
        if (curve := curves.get(part))
    )
    size = (SMALL, SMALL_HEIGHT + 0.25)
    return Panel(f"penalties-{place}", arm.name, f"{words}, in nats over epochs.", size, draw, arm=arm.place)


def _near_zero(arm: Arm, place: int) -> Panel:
    curves = {name: curve for name, _, _ in NEAR_ZERO if (curve := arm.curve(name))}

    def draw(figure: FigureBase) -> None:
        axes = epoch_axis(figure.subplots(), curves.values(), "")
        for name, colour, label in NEAR_ZERO[::-1]:
            if curve := curves.get(name):
                draw_plain(axes, arm, curve, name, colour, label=label)
                draw_band(axes, curve, arm, colour, axis_of(name).factor)
        axis_of("near_zero").limit(axes, curves.values())
        legend(axes, ROOM)

    ends = ", ".join(f"{label} {100 * curves[name].mean[-1]:.1f} %" for name, _, label in NEAR_ZERO if name in curves)
    size = (SMALL, SMALL_HEIGHT + 0.25)
    return Panel(f"near-zero-{place}", arm.name, f"At the last epoch: {ends}.", size, draw, arm=arm.place)
