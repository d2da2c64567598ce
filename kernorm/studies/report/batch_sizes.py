"""The charts of a study of batch sizes: a score over them, by norm and by the rule for the learning rate."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import NullLocator

from kernorm.reporting.figures import LETTERS, LOOKS, PALETTE, WIDTH, Panel, interval, legend, legend_columns, plain
from kernorm.reporting.hover import of_arm, say
from kernorm.reporting.scales import stretch_axis
from kernorm.studies.report.arms import Arm, penalties
from kernorm.studies.wording import half, score

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
    """Test accuracy against batch size: a panel a rule by which the learning rate follows it, of up to eight lines."""
    lines = batch_lines(arms)
    exponents = [exponent for exponent in RULES if any(line.exponent == exponent for line in lines)]
    found: list[Panel] = []
    for exponent in exponents:
        inside = [line for line in lines if line.exponent == exponent]
        title = "Accuracy against batch size" + (f": {RULES[exponent]}" if len(exponents) > 1 else "")
        parts = [inside[start : start + len(LOOKS)] for start in range(0, len(inside), len(LOOKS))]
        found += [_panel(part, lines, title, len(found) + place) for place, part in enumerate(parts)]
    return tuple(found)


def _panel(inside: Sequence[Line], lines: Sequence[Line], title: str, place: int) -> Panel:
    """Draws some lines on the axes of all of them."""
    labels = [line.label for line in inside]
    sizes = sorted({arm.summary.config.batch_size for line in lines for arm in line.arms})

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes if len(sizes) <= 6 else sizes[:: -(-len(sizes) // 6)])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlim=(sizes[0] / 1.25, sizes[-1] * 1.25), xlabel="batch size")
        axes.set_ylabel("test accuracy, % (stretched)")
        stretch_axis(axes, _shown(lines))
        for line, look in zip(inside, _line_looks(inside), strict=False):
            # Side by side, so that intervals at one batch size do not hide each other.
            aside = 2 ** (0.07 * (labels.index(line.label) - (len(labels) - 1) / 2))
            _batch_line(axes, line, look, aside)
        _dropped(axes, [arm for line in inside for arm in line.arms])
        legend(axes)

    listed = "; ".join(
        f"{line.label} "
        + ", ".join(
            f"{100 * arm.summary.scores['accuracy'].mean:.2f} at {arm.summary.config.batch_size}" for arm in line.arms
        )
        for line in inside
    )
    size = (WIDTH, 3.1 + 0.2 * -(-len(labels) // legend_columns(labels)))
    return Panel(f"batch-size-{place}", title, f"In percent: {listed}.", size, draw)


def _line_looks(lines: Sequence[Line]) -> Sequence[tuple[str, str]]:
    """Returns a colour and a marker for each line: those of its arms in other charts, if that tells lines apart."""
    found = [{(arm.look.colour, arm.look.marker) for arm in line.arms} - {LOOKS[0]} for line in lines]
    own = [next(iter(looks)) for looks in found if len(looks) == 1]
    return own if len(set(own)) == len(lines) else (*LOOKS[1:], LOOKS[0])


def _shown(lines: Sequence[Line]) -> list[float]:
    """Returns the accuracies that the axis has to hold: of all arms that are not far worse than the others."""
    errors = {arm: 1 - arm.summary.scores["accuracy"].mean for line in lines for arm in line.arms}
    limit = max(10 * median_low(errors.values()), 4 * min(errors.values()))
    fair = [arm for arm, error in errors.items() if error <= limit]
    ends = [end for arm in fair for end in arm.summary.scores["accuracy"].interval or ()]
    return [1 - errors[arm] for arm in fair] + [end for end in ends if 1 - limit <= end <= 1]


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


def _batch_line(axes: Axes, line: Line, look: tuple[str, str], aside: float) -> None:
    colour, marker = PALETTE[look[0]], look[1]
    sizes = [aside * arm.summary.config.batch_size for arm in line.arms]
    scores = [arm.summary.scores["accuracy"] for arm in line.arms]
    means = [found.mean for found in scores]
    # Markers belong to arms, the line between them to none.
    axes.plot(sizes, means, color=colour, marker=marker, markersize=5, markevery=[], label=plain(line.label))
    for arm, size, found in zip(line.arms, sizes, scores, strict=True):
        gid = of_arm(arm.place)
        if found.interval:
            ends = (max(found.interval[0], 0.0), min(found.interval[1], 1.0))
            interval(axes, ends, size, across=False, color=colour, linewidth=1.1, gid=gid)
        axes.plot([size], [found.mean], marker, color=colour, markersize=5, gid=gid)
        told = (
            f"{arm.name}, batch {arm.summary.config.batch_size}: {score(found.mean)} % {half(found.interval)}".rstrip()
        )
        say(axes, [(size, found.mean)], [f"{told}, n = {found.n}"], arm.place)


def _dropped(axes: Axes, arms: Sequence[Arm]) -> None:
    """Writes the accuracy of what lies below the axis at its foot, arms of one batch size above each other."""
    low, _ = axes.get_ylim()
    below = [arm for arm in arms if arm.summary.scores["accuracy"].mean < low]
    seen: Counter[int] = Counter()
    for arm in below:
        size = arm.summary.config.batch_size
        axes.annotate(
            f"▾ {score(arm.summary.scores['accuracy'].mean)}",
            (size, 0),
            (0, 3 + (LETTERS + 2) * seen[size]),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            color=PALETTE["muted"],
            gid=of_arm(arm.place),
        )
        seen[size] += 1
