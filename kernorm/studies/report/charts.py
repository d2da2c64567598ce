"""The charts of a study: differences, single seeds, batch sizes, curves, misclassified images.

Behind the analysis, before the study's report. As in a run's report, the same panels are PNG files next to the page and
SVG inside it.
"""

from collections.abc import Callable, Sequence
from statistics import median_low
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from kernorm.reporting.figures import LETTERS, PALETTE, WIDTH, Panel, interval, plain
from kernorm.reporting.hover import of_arm, say
from kernorm.stats.comparison import Comparison
from kernorm.stats.intervals import Interval
from kernorm.studies.metrics import METRICS
from kernorm.studies.report import curves
from kernorm.studies.report.activations import activations
from kernorm.studies.report.arms import Arm, readable
from kernorm.studies.report.batch_sizes import batch_sizes
from kernorm.studies.wording import compared, half, score, signed

# Verdicts by colour and marker; what is not resolved, or not for new images, is hollow.
MARKS = {
    "better": ("green", "^"),
    "worse": ("orange", "v"),
    "better on these images": ("green", "^"),
    "worse on these images": ("orange", "v"),
    "equivalent": ("blue", "s"),
    "as selected": ("muted", "o"),
    "not resolved": ("muted", "o"),
    "no verdict": ("muted", "o"),
}
# Scores that are drawn, the factor and the name of their unit, and how bad a value is.
UNITS: dict[str, tuple[float, str, Callable[[float], float]]] = {
    **{name: (100, "pp", lambda share: 1 - share) for name, metric in METRICS.items() if metric.in_percent},
    "cross_entropy": (1, "nats", lambda loss: loss),
    "brier": (1, "", lambda loss: loss),
    "ece": (1, "", lambda error: error),
}
# Scores that are always drawn, next to the primary one.
DRAWN = ("accuracy", "cross_entropy")


def charts(arms: Sequence[Arm], primary: str = "accuracy") -> dict[str, tuple[Panel, ...]]:
    """Returns every chart that the arms have runs for, by the name of its PNG file; images are `hard_images`.

    `primary` is the metric that has verdicts.
    """
    finished = [arm for arm in arms if arm.records]
    if not finished:
        return {}
    found = {
        "differences": differences(finished, primary),
        "seeds": tuple(seeds(finished, metric) for metric in drawn_metrics(primary)),
        "batch_size": batch_sizes(finished),
        "curves": curves.overlays(finished),
        "accuracy": curves.multiples(finished, "accuracy"),
        "cross_entropy": curves.multiples(finished, "cross_entropy"),
        "penalties": curves.penalties(finished),
        "kernels": curves.kernels(finished),
        "kernel_norms": curves.kernel_norms(finished),
        "near_zero": curves.near_zero(finished),
        "activations": activations(finished),
    }
    return {name: panels for name, panels in found.items() if panels}


def drawn_metrics(primary: str) -> list[str]:
    """Returns the scores that are drawn, the primary one first."""
    return list(dict.fromkeys((primary, *DRAWN)))


def differences(arms: Sequence[Arm], primary: str = "accuracy") -> tuple[Panel, ...]:
    """Forest plots: each arm's difference to its baseline, with the interval over seeds and the one on new images."""
    return tuple(panel for metric in drawn_metrics(primary) if (panel := _forest(arms, metric, primary)))


def _forest(arms: Sequence[Arm], metric: str, primary: str) -> Panel | None:
    found = {arm: _drawn(arm, metric, primary) for arm in arms}
    rows = {arm: one for arm, one in found.items() if one and one.difference is not None}
    if not rows:
        return None
    factor, unit, _ = UNITS[metric]
    margin, higher = next(iter(rows.values())).margin, METRICS[metric].higher_is_better
    # The interval for new images is of the primary metric, or of the accuracy where that is no mean over images.
    with_new = metric == (primary if METRICS[primary].mean_over else "accuracy")

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        ends = [_ends(one, _new_images(arm, with_new)) for arm, one in rows.items()]
        low, high = (factor * end for end in _reach(ends, margin or 0.0))
        axes.set(xlim=(low, high), xlabel=f"difference to the baseline, {unit}".rstrip(", "))
        if margin:
            axes.axvspan(-factor * margin, factor * margin, color=PALETTE["grid"], linewidth=0, zorder=0.1)
        axes.axvline(0, color=PALETTE["muted"], linewidth=1, zorder=0.2)
        for row, (arm, one) in enumerate(rows.items()):
            _forest_row(axes, row, arm, one, metric, primary, _new_images(arm, with_new))
        better, worse = ("better →", "← worse") if higher else ("worse →", "← better")
        axes.set_title(worse, loc="left", fontsize=LETTERS, color=PALETTE["muted"])
        axes.set_title(better, loc="right", fontsize=LETTERS, color=PALETTE["muted"])
        _rows(axes, list(rows))

    listed = "; ".join(f"{arm.name} {factor * (one.difference or 0):+.3g}" for arm, one in list(rows.items())[:20])
    title = f"Differences in {METRICS[metric].label}"
    if any(arm.summary.last for arm in rows):
        title += ", by the last epoch" if metric == primary else ", as selected on test"
    words = f"{f'In {unit}' if unit else 'Differences'}: {listed}."
    return Panel(f"difference-{metric.replace('_', '-')}", title, words, _tall(len(rows)), draw)


def _drawn(arm: Arm, metric: str, primary: str) -> Comparison | None:
    """Returns the comparison that a forest plot shows: of the primary metric the one that has the verdict."""
    return compared(arm.summary, metric) if metric == primary else arm.summary.comparisons.get(metric)


def _new_images(arm: Arm, with_new: bool) -> Interval | None:
    """Returns the interval on new images, which is known of weights as they were selected."""
    return arm.summary.generalization_difference if with_new and not arm.summary.last else None


def _forest_row(
    axes: Axes, row: int, arm: Arm, comparison: Comparison, metric: str, primary: str, new: Interval | None
) -> None:
    """Draws an arm's difference with its intervals; one that lies beyond the axis is written at its edge instead."""
    factor, unit, _ = UNITS[metric]
    verdict = arm.summary.decided
    # Other metrics than the primary one have no verdict.
    outcome = verdict.name if verdict and metric == primary else "no verdict"
    colour, marker = MARKS[outcome]
    difference, gid = factor * (comparison.difference or 0.0), of_arm(arm.place)
    told = f"{arm.name}: {signed(comparison.difference, metric)} {unit}".rstrip()
    low, high = axes.get_xlim()
    if low <= difference <= high:
        for ends, below, width, ink, name in (
            (new, 0.2, 1.2, "muted", "new images"),
            (comparison.interval, 0, 3.0, colour, "interval"),
        ):
            if ends:
                look: dict[str, Any] = {"color": PALETTE[ink], "linewidth": width, "label": name, "gid": gid}
                interval(axes, (factor * ends[0], factor * ends[1]), row + below, **look)
        face = "paper" if marker == "o" or outcome.endswith("images") else colour
        axes.plot(
            [difference],
            [row],
            marker,
            color=PALETTE[colour],
            markersize=7,
            label="difference",
            markerfacecolor=PALETTE[face],
            markeredgewidth=1.4,
            gid=gid,
        )
    else:
        _beyond(axes, difference, row, _with_interval(comparison.difference, comparison.interval, metric), colour, gid)
    told += f", 95 % {_ends_in_words(comparison.interval, metric)} over seeds" if comparison.interval else ""
    told += f", {_ends_in_words(new, metric)} for new images" if new else ""
    told += f"; {outcome}" if verdict and metric == primary else ""
    say(axes, [(difference, row)], [told], arm.place)


def _ends_in_words(ends: Interval, metric: str) -> str:
    return f"{signed(ends[0], metric)} to {signed(ends[1], metric)}"


def _with_interval(value: float | None, ends: Interval | None, metric: str) -> str:
    return signed(value, metric) + (f" [{signed(ends[0], metric)}, {signed(ends[1], metric)}]" if ends else "")


def seeds(arms: Sequence[Arm], metric: str) -> Panel:
    """The score of every run as a point, and each arm's mean with its interval."""
    factor, unit, error = UNITS[metric]
    unit = "%" if METRICS[metric].in_percent else unit

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        fair = readable({arm: error(arm.summary.scores[metric].mean) for arm in arms})
        values = {arm: [factor * METRICS[metric].value(record) for record in arm.records.values()] for arm in arms}
        ends = [value for arm in fair for value in values[arm]]
        span = max(ends) - min(ends)
        for arm in fair:  # an interval of two or three seeds can be many times as wide as all points
            ends += [
                factor * end
                for end in arm.summary.scores[metric].interval or ()
                if min(ends) - span / 2 <= factor * end <= max(ends) + span / 2
            ]
        margin = 0.06 * (max(ends) - min(ends)) or 0.01 * max(ends) or 0.01
        most = 100 + margin / 10 if METRICS[metric].in_percent else np.inf  # room for half a mark
        axes.set(
            xlim=(min(ends) - margin, min(max(ends) + margin, most)),
            xlabel=f"{METRICS[metric].label}, {unit}".rstrip(", "),
        )
        for row, arm in enumerate(arms):
            _seeds_row(axes, row, arm, metric, values[arm])
        _rows(axes, arms)

    means = "; ".join(f"{arm.name} {factor * arm.summary.scores[metric].mean:.4g}" for arm in arms[:20])
    title = f"{METRICS[metric].label[:1].upper()}{METRICS[metric].label[1:]} of every seed"
    return Panel(
        f"seeds-{metric.replace('_', '-')}",
        title,
        f"Means{f' in {unit}' if unit else ''}: {means}.",
        _tall(len(arms)),
        draw,
    )


def _seeds_row(axes: Axes, row: int, arm: Arm, metric: str, values: Sequence[float]) -> None:
    found, gid = arm.summary.scores[metric], of_arm(arm.place)
    factor, unit, _ = UNITS[metric]
    unit = "%" if METRICS[metric].in_percent else unit
    mean, (low, high) = factor * found.mean, axes.get_xlim()
    offsets = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
    look: dict[str, Any] = {"color": PALETTE[arm.look.colour], "markeredgewidth": 0, "gid": gid}
    small: dict[str, Any] = {"markersize": 4.5, "alpha": 0.8, "label": "seeds", **look}
    if low <= mean <= high:
        if found.interval:
            ends = (factor * found.interval[0], factor * found.interval[1])
            interval(axes, ends, row, color=PALETTE["line"], linewidth=3, label="interval", gid=gid)
        axes.plot(values, row + offsets, "o", **small)
        for value, offset in zip(values, offsets, strict=True):
            if not low <= value <= high:
                side = "<" if value < low else ">"
                axes.plot(np.clip(value, low, high), row + offset, side, markersize=4.5, clip_on=False, **look)
        axes.plot([mean] * 2, [row - 0.2, row + 0.2], color=PALETTE["ink"], linewidth=1.6, label="mean", gid=gid)
    else:
        inside = [(value, row + offset) for value, offset in zip(values, offsets, strict=True) if low <= value <= high]
        axes.plot([value for value, _ in inside], [place for _, place in inside], "o", **small)
        _beyond(axes, -1 if mean < low else 1, row, f"{mean:.4g}", arm.look.colour, gid)
    mean_told = " ".join(filter(None, (score(found.mean, metric), unit, half(found.interval, metric))))
    say(axes, [(mean, row)], [f"{arm.name}: mean {mean_told}, n = {found.n}"], arm.place)
    runs = zip(arm.records, values, strict=True)
    told = [f"{arm.name}, seed {seed}: {score(value / factor, metric)} {unit}" for seed, value in runs]
    say(axes, zip(values, row + offsets, strict=True), told, arm.place)


def _ends(comparison: Comparison, new: Interval | None) -> list[float]:
    """Returns what an arm's row of the forest has to hold."""
    return [comparison.difference or 0.0, *(comparison.interval or ()), *(new or ())]


def _reach(rows: Sequence[Sequence[float]], margin: float) -> Interval:
    """Returns the ends of an axis that holds 0, the margin, and the rows that do not reach much farther than others."""
    most = 5 * median_low(max(map(abs, ends)) for ends in rows)
    usual = [end for ends in rows if max(map(abs, ends)) <= most for end in ends]
    low, high = min([*usual, -1.5 * margin]), max([*usual, 1.5 * margin])
    span = (high - low) or 1.0
    return min(low - 0.06 * span, -0.2 * span), max(high + 0.06 * span, 0.2 * span)


def _beyond(axes: Axes, side: float, row: int, text: str, colour: str, gid: str) -> None:
    """Marks a row whose value lies beyond the axis, at the edge on its side, with the value in words."""
    left = side < 0
    axes.text(
        0.01 if left else 0.99,
        row,
        f"◂ {text}" if left else f"{text} ▸",
        ha="left" if left else "right",
        va="center",
        transform=axes.get_yaxis_transform(),
        color=PALETTE[colour],
        gid=gid,
    )


def _rows(axes: Axes, arms: Sequence[Arm]) -> None:
    """Names each row above its marks, which then have the whole width."""
    # Places of the labels, half a line above what they name.
    axes.set_yticks([row - 0.44 for row in range(len(arms))], [plain(arm.name, 44) for arm in arms])
    axes.tick_params("y", length=0, pad=-2)
    for label, arm in zip(axes.get_yticklabels(), arms, strict=True):
        label.set(ha="left", va="center", color=PALETTE["ink"], gid=of_arm(arm.place))
        label.set_bbox({"facecolor": PALETTE["paper"], "edgecolor": "none", "pad": 0.5})
    axes.set(ylim=(len(arms) - 0.5, -0.75))
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    axes.grid(axis="y", visible=False)


def _tall(rows: int) -> tuple[float, float]:
    return WIDTH, 0.9 + 0.47 * rows
