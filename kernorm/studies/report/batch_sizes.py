"""The charts of a study of batch sizes: a score over them, by norm and by the rule for the learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import NullLocator

from kernorm.reporting.figures import PALETTE, Panel, legend, legend_columns, plain, stretch_axis
from kernorm.studies.report.arms import COLOURS, MARKERS, Arm, penalties

# Exponents of the batch size by which a learning rate may follow it.
RULES = {0.0: "same learning rate", 0.5: "learning rate ∝ √batch", 1.0: "learning rate ∝ batch"}


@dataclass(frozen=True)
class Line:
    """Arms that differ in the batch size, and in a learning rate that follows it by one of RULES."""

    exponent: float
    label: str
    arms: tuple[Arm, ...]


def batch_lines(arms: Sequence[Arm]) -> list[Line]:
    """Finds lines over the batch size: of all that is alike but for batch size and rate, those a rule connects."""
    alike: dict[str, list[Arm]] = {}
    for arm in arms:
        identity = {
            key: value
            for key, value in arm.summary.config.identity.items()
            if key not in ("batch_size", "learning_rate", "seed")
        }
        alike.setdefault(repr(sorted(identity.items())), []).append(arm)
    families = [(group[0].summary.config, _families(group)) for group in alike.values()]
    families = [(config, found) for config, found in families if found]
    labels: list[str] = [config.norm for config, _ in families]
    if len({penalties(config) for config, _ in families}) > 1 or len(set(labels)) < len(labels):
        labels = [f"{config.norm}, {penalties(config)}" for config, _ in families]
    return [
        Line(exponent, label if labels.count(label) == 1 else f"{label} ({family[0].name})", family)
        for label, (_, found) in zip(labels, families, strict=True)
        for exponent, family in found
    ]


def batch_sizes(arms: Sequence[Arm]) -> tuple[Panel, ...]:
    """Test accuracy against batch size, a line a norm; a panel a rule by which the learning rate follows it."""
    lines = batch_lines(arms)
    labels = list(dict.fromkeys(line.label for line in lines))
    colours = dict(zip(labels, zip((*COLOURS, "ink"), (*MARKERS, "o"), strict=True), strict=False))
    exponents = [exponent for exponent in RULES if any(line.exponent == exponent for line in lines)]
    errors = {arm: 1 - arm.summary.scores["accuracy"].mean for line in lines for arm in line.arms}
    limit = max(10 * median_low(errors.values()), 4 * min(errors.values())) if errors else 0.0
    shown = [1 - error for error in errors.values() if error <= limit]
    shown += [
        end
        for arm, error in errors.items()
        if error <= limit
        for end in arm.summary.scores["accuracy"].interval or ()
        if 1 - limit <= end <= 1
    ]

    def panel(exponent: float) -> Panel:
        inside = [line for line in lines if line.exponent == exponent]

        def draw(figure: FigureBase) -> None:
            axes = figure.subplots()
            for line in inside:
                colour, marker = colours.get(line.label, ("muted", "o"))
                # Side by side, so that intervals at one batch size do not hide each other.
                aside = 2 ** (0.07 * (labels.index(line.label) - (len(labels) - 1) / 2))
                _batch_line(axes, line, PALETTE[colour], marker, aside)
            stretch_axis(axes, shown)
            _dropped(axes, [arm for line in inside for arm in line.arms])
            sizes = sorted({arm.summary.config.batch_size for line in lines for arm in line.arms})
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes if len(sizes) <= 10 else sizes[:: -(-len(sizes) // 10)])
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(xlim=(sizes[0] / 1.25, sizes[-1] * 1.25), xlabel="batch size")
            axes.set_ylabel("test accuracy, % (stretched scale)")
            legend(axes)

        listed = "; ".join(
            f"{line.label} "
            + ", ".join(
                f"{100 * arm.summary.scores['accuracy'].mean:.2f} at {arm.summary.config.batch_size}"
                for arm in line.arms
            )
            for line in inside
        )
        title = "Accuracy against batch size" + (f": {RULES[exponent]}" if len(exponents) > 1 else "")
        size = (5.3, 3.4 + 0.17 * -(-len(labels) // legend_columns(labels)))
        return Panel(f"batch-size-{exponents.index(exponent)}", title, f"In percent: {listed}.", size, draw)

    return tuple(panel(exponent) for exponent in exponents)


def _families(arms: Sequence[Arm]) -> list[tuple[float, tuple[Arm, ...]]]:
    """Returns, for each rule, the most arms of different batch sizes that it connects, if they are a good part."""
    found = []
    for exponent in RULES:
        by_rate: dict[str, dict[int, Arm]] = {}
        for arm in arms:
            config = arm.summary.config
            constant = f"{config.peak_rate / config.batch_size**exponent:.3g}"
            by_rate.setdefault(constant, {})[config.batch_size] = arm
        family = max(by_rate.values(), key=len)
        found.append((exponent, tuple(family[size] for size in sorted(family))))
    most = max(len(family) for _, family in found)
    return [(exponent, family) for exponent, family in found if len(family) > 1 and 2 * len(family) > most]


def _batch_line(axes: Axes, line: Line, colour: str, marker: str, aside: float) -> None:
    sizes = [aside * arm.summary.config.batch_size for arm in line.arms]
    scores = [arm.summary.scores["accuracy"] for arm in line.arms]
    axes.plot(
        sizes, [score.mean for score in scores], color=colour, marker=marker, markersize=5, label=plain(line.label)
    )
    for size, score in zip(sizes, scores, strict=True):
        if score.interval:
            low, high = max(score.interval[0], 0.0), min(score.interval[1], 1.0)
            axes.plot([size, size], [low, high], color=colour, linewidth=1.1)


def _dropped(axes: Axes, arms: Sequence[Arm]) -> None:
    """Writes the accuracy of what lies below the axis at its foot."""
    low, _ = axes.get_ylim()
    below = [arm for arm in arms if arm.summary.scores["accuracy"].mean < low]
    for place, arm in enumerate(below):
        mean = 100 * arm.summary.scores["accuracy"].mean
        axes.text(
            arm.summary.config.batch_size,
            0.02 + 0.05 * (place % 3),
            f"▾ {mean:.1f}",
            fontsize=8,
            transform=axes.get_xaxis_transform(),
            ha="center",
            color=PALETTE["muted"],
        )
