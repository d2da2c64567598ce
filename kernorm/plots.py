"""The charts of one run: the same panels as PNG files beside the report and as SVG inside it.

Behind the record, before the report. A panel is drawn once, in the colours of PALETTE; for the page each of them
becomes the CSS property of its name, so that one drawing serves light, dark and print.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from kernorm.metrics import class_accuracies, wilson
from kernorm.record import THRESHOLDS, Epoch, Evaluation, Layer, Record

# Blue, orange, green and purple keep apart under the common colour blindnesses (after Okabe and Ito 2008), and each
# has a contrast of at least 4.5 to the paper; heat fills cells behind ink. Every hex value occurs once: it is also the
# mark that CSS replaces.
PALETTE = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "line": "#c3cad2",
    "grid": "#e8ebef",
    "paper": "#ffffff",
    "blue": "#0b6bb0",
    "orange": "#bf4a05",
    "green": "#0a7d5a",
    "purple": "#8e4a9e",
    "heat": "#ee8434",
}
GRID = 25  # misclassified images shown, 5 x 5
FEW = 20  # classes up to which a chart of them is drawn at ease

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["line"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": PALETTE["muted"],
    "axes.labelsize": 10,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["line"],
    "ytick.color": PALETTE["line"],
    "xtick.labelcolor": PALETTE["muted"],
    "ytick.labelcolor": PALETTE["muted"],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Panel:
    """One chart: a name unique in the page, a title, what it shows in words, its size in inches, and how to draw it."""

    name: str
    title: str
    description: str
    size: tuple[float, float]
    draw: Callable[[FigureBase], None]


def to_svg(panel: Panel) -> str:
    """Returns the panel as an `<svg>` element for a page that defines PALETTE's names and `font` as CSS properties."""
    text = io.StringIO()
    # The salt makes matplotlib's ids depend on nothing but the drawing, so the same record gives the same page.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": panel.name}):
        figure = Figure(figsize=panel.size, layout="constrained")
        panel.draw(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<defs>\s*<style.*?</style>\s*</defs>\s*", ""),
        (r'\bid="', f'id="{panel.name}-'),
        (r'href="#', f'href="#{panel.name}-'),
        (r"url\(#", f"url(#{panel.name}-"),
        (r"'DejaVu Sans'[^;\"]*", "var(--font)"),
    ):
        drawing = re.sub(pattern, replacement, drawing, flags=re.DOTALL)
    for name, colour in PALETTE.items():
        drawing = drawing.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="[^"]+"', drawing)
    label = escape(f"{panel.title}. {panel.description}", quote=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box and box[0]}'
    return re.sub(r"<svg.*?>", lambda _: f'{head} role="img" aria-label="{label}">', drawing, count=1, flags=re.DOTALL)


def to_png(panels: Sequence[Panel], caption: str, columns: int = 2) -> bytes:
    """Returns panels side by side as one PNG file, light, 150 dots an inch, with a caption such as the run's id."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = panels[0].size
    data = io.BytesIO()
    with mpl.rc_context(_STYLE | {"savefig.dpi": 150}):
        figure = Figure(figsize=(columns * width, rows * (height + 0.3) + 0.25), layout="constrained")
        figure.supxlabel(caption, fontsize=7.5, color=PALETTE["muted"], x=0.99, ha="right")
        places = np.ravel(figure.subfigures(rows, columns, squeeze=False))
        for panel, place in zip(panels, places, strict=False):
            place.suptitle(panel.title, x=0.02, ha="left", fontsize=11, fontweight="bold")
            panel.draw(place)
        figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def charts(record: Record, mistakes: NDArray[np.uint8]) -> dict[str, tuple[Panel, ...]]:
    """Returns every chart that the record has data for, by the name of its PNG file.

    `mistakes` (M, H, W, C) are the images of the first mistakes of the test split. What only an evaluation can show
    is drawn of the test split, or of the validation split where the test split was never opened.
    """
    found = {"curves": curves(record)} if record.history else {}
    evaluation = record.test or record.validation
    if record.test:
        found["misclassified"] = (misclassified(record.test, record.data.labels, mistakes),)
    if evaluation:
        found["confusion"] = (confusion(evaluation, record.data.labels),)
        found["reliability"] = (reliability(evaluation),)
        found["classes"] = (classes(evaluation, record.data.labels),)
    if any(layer.near_zero for layer in record.layers):
        found["weights"] = (weights(record.layers),)
    return found


def curves(record: Record) -> tuple[Panel, ...]:
    """Four panels over epochs: cross-entropy, accuracy, penalties, and learning rate with momentum."""
    size = (5.3, 3.3)
    watched = {"test": "test (used for selection)", "none": ""}.get(record.monitored, record.monitored)
    rows = record.history

    def cross_entropy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "cross-entropy, nats")
        values = _line(axes, rows, "cross_entropy", "blue", "training, augmented")
        values += _line(axes, rows, "val_cross_entropy", "orange", watched)
        _logarithmic(axes, values, over=5)
        _legend(axes)

    def accuracy(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "accuracy, % (stretched scale)")
        _line(axes, rows, "accuracy", "blue", "training, augmented")
        _line(axes, rows, "val_accuracy", "orange", watched)
        # Row 0 is chance: its line may come from below the axis, which belongs to what was learned.
        learned = rows[1:] or rows
        values = [value for row in learned for value in (row.accuracy, row.val_accuracy) if value is not None]
        if record.test and record.monitored != "test":
            values += _test_point(axes, record.test, record.selected_epoch or rows[-1].epoch)
        _stretch(axes, [value for value in values if np.isfinite(value)])
        _legend(axes)

    def penalties(figure: FigureBase) -> None:
        axes = _epoch_axes(figure.subplots(), record, "penalty in the loss")
        values: list[float] = []
        for field, colour, label in (("l1_penalty", "purple", "λ1·Σ|w|"), ("l2_penalty", "green", "λ2·Σw²")):
            if any(getattr(row, field) for row in rows):
                values += _line(axes, rows, field, colour, label)
        if values:
            axes.set_ylim(bottom=0)
            _logarithmic(axes, values, over=30)
        else:
            axes.set(yticks=[])
            axes.text(0.5, 0.5, "off: every λ is 0", transform=axes.transAxes, ha="center", color=PALETTE["muted"])
        _legend(axes)

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
    axes.errorbar([epoch], [test.accuracy], [[test.accuracy - low], [high - test.accuracy]], fmt="D", markersize=5,
                  color=PALETTE["green"], capsize=3, label="test, 95 % interval")  # fmt: skip
    return [low, high]


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1, handlelength=1.4, columnspacing=1
        )


def _logarithmic(axes: Axes, values: Sequence[float], over: float) -> None:
    """Makes the y axis logarithmic, ticks at 1, 2 and 5, where its values span more than the factor `over`."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low <= 0 or high < over * low:
        return
    axes.set(yscale="log", ylim=(low / 1.2, high * 1.2))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=(1,)))


def stretch(accuracy: Any) -> Any:
    """Maps accuracies so that errors show by their ratio: −log10(1 − a + 0.001), at 100 % still finite.

    From 98.5 to 100 % it is as far as from 50 to 98.5 %, near enough to read a tenth of a point.
    """
    return -np.log10(np.maximum(1.001 - np.asarray(accuracy, float), 1e-9))


def _stretch(axes: Axes, values: Sequence[float]) -> None:
    """Puts the y axis on the stretched scale, with limits and ticks chosen from the values shown."""
    low, high = stretch(min(values, default=0.0)), stretch(max(values, default=1.0))
    margin = 0.05 * (high - low) + 0.02
    low, high = low - margin, high + margin
    axes.set_yscale("function", functions=(stretch, lambda stretched: 1.001 - 10.0 ** -np.asarray(stretched)))
    axes.set_ylim(1.001 - 10**-low, 1.001 - 10**-high)
    ticks: list[float] = []
    for tick in _ACCURACY_TICKS:
        place = stretch(tick / 100)
        if low <= place <= high and all(abs(place - stretch(other / 100)) > 0.08 * (high - low) for other in ticks):
            ticks.append(tick)
    axes.set_yticks([tick / 100 for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


# In percent and in order of preference: a tick is set where it lies far enough from those before it.
_ACCURACY_TICKS: tuple[float, ...] = (
    *(100, 99, 90, 50, 0, 98, 95, 99.5, 80, 97, 98.5, 99.8, 70, 99.2, 99.4, 99.3, 99.1, 99.6, 85, 96, 98.8),
    *(93, 60, 40, 30, 20, 10, 87, 88, 92, 94, 99.7, 5),
)


def misclassified(test: Evaluation, labels: Sequence[str], images: NDArray[np.uint8]) -> Panel:
    """The first mistakes of the test split, in its order, with target, prediction and confidence."""
    shown, every = len(images), len(test.mistakes)

    def draw(figure: FigureBase) -> None:
        if not shown:
            axes = figure.subplots()
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"No mistake on {test.count:,} images", ha="center", fontsize=11)
            return
        axes = figure.subplots()
        for place, (image, mistake) in enumerate(zip(images, test.mistakes, strict=False)):
            row, column = divmod(place, 5)
            extent = (column, column + 1, 1.35 * row + 1, 1.35 * row)
            axes.imshow(picture(image), cmap="gray_r", vmin=0, vmax=255, interpolation="nearest", extent=extent)
            target, prediction = name_of(mistake.target, labels), name_of(mistake.prediction, labels)
            axes.text(column + 0.5, 1.35 * row - 0.03, f"{target} → {prediction}\n{share(mistake.confidence)}",
                      ha="center", va="bottom", fontsize=8)  # fmt: skip
        axes.set(xlim=(-0.1, 5.1), ylim=(1.35 * (-(-shown // 5)) - 0.25, -0.35))
        axes.set_axis_off()

    return Panel(
        "misclassified",
        f"Misclassified: {shown} of {every:,}",
        "Images with target → prediction and the probability given to the prediction.",
        (6.4, 1.75 * -(-shown // 5)) if shown else (6.4, 1.2),
        draw,
    )


def confusion(evaluation: Evaluation, labels: Sequence[str]) -> Panel:
    """The confusion counts; the diagonal is pale, so that the errors are what is seen."""
    counts = np.array(evaluation.confusion)
    many = len(counts)
    side = float(np.clip(1.3 + 0.24 * many, 5.3, 13.0))
    errors = counts - np.diag(counts.diagonal())
    strongest = max(errors.max(), 1)
    small = 9.5 if many <= FEW else 6.5

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for target, prediction in np.argwhere(counts):
            wrong = target != prediction
            count = counts[target, prediction]
            # The root lets single mistakes stay visible beside a frequent one.
            alpha = 0.2 + 0.8 * np.sqrt(count / strongest) if wrong else 1.0
            colour = PALETTE["heat" if wrong else "grid"]
            axes.add_patch(
                Rectangle((prediction - 0.5, target - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0)
            )
            axes.text(prediction, target, str(count), ha="center", va="center_baseline", fontsize=small,
                      color=PALETTE["ink" if wrong else "muted"])  # fmt: skip
        names = [name_of(label, labels) for label in range(many)]
        axes.set(xlim=(-0.5, many - 0.5), ylim=(many - 0.5, -0.5), xlabel="predicted", ylabel="target", aspect="equal")
        axes.set_xticks(range(many), names, fontsize=small)
        if max(map(len, names)) > 2:
            axes.tick_params("x", rotation=60)
            for name in axes.get_xticklabels():
                name.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(many), names, fontsize=small)
        axes.set_xticks(np.arange(1, many) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, many) - 0.5, minor=True)
        axes.grid(visible=False)
        axes.grid(which="minor", linewidth=0.6)
        axes.tick_params(which="both", length=0)

    description = (
        f"Counts of {evaluation.count} images of the {evaluation.split} split, {errors.sum()} off the diagonal."
    )
    return Panel("confusion", f"Confusion on the {evaluation.split} split", description, (side, side), draw)


def reliability(evaluation: Evaluation) -> Panel:
    """Accuracy against confidence in 15 bins with Wilson intervals, over the histogram of confidences."""
    scores = f"ECE {evaluation.ece:.4f} · NLL {evaluation.cross_entropy:.4f} nats · Brier {evaluation.brier:.4f}"

    def draw(figure: FigureBase) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.1))
        upper.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for bin_ in evaluation.bins:
            lower.bar((bin_.low + bin_.high) / 2, bin_.count, 0.92 * (bin_.high - bin_.low), color=PALETTE["blue"])
            if bin_.count:
                low, high = wilson(round(bin_.accuracy * bin_.count), bin_.count)
                upper.plot([bin_.confidence] * 2, [low, high], color=PALETTE["blue"], linewidth=1.2)
                upper.plot([bin_.confidence], [bin_.accuracy], "o", color=PALETTE["blue"], markersize=5)
        upper.text(0.05, 0.07, "as sure as right", rotation=45, rotation_mode="anchor", transform_rotates_text=True,
                   fontsize=9, color=PALETTE["muted"])  # fmt: skip
        upper.set_title(scores, loc="left", fontsize=9.5)
        upper.set(xlim=(0, 1.01), ylim=(0, 1.03), ylabel="accuracy in the bin")
        lower.set(xlabel="confidence: probability given to the prediction", ylabel="images", yscale="symlog")
        lower.set_ylim(bottom=0)
        decades = range(0, 1 + int(np.log10(evaluation.count)), 2)
        lower.set_yticks([10**decade for decade in decades], [f"{10**decade:,}" for decade in decades])
        lower.yaxis.set_minor_locator(NullLocator())
        figure.align_ylabels()

    description = f"Accuracy in {len(evaluation.bins)} bins of confidence. {scores}."
    return Panel("reliability", f"Reliability on the {evaluation.split} split", description, (5.3, 4.6), draw)


def classes(evaluation: Evaluation, labels: Sequence[str]) -> Panel:
    """Accuracy of each class with its Wilson interval, beside the accuracy of the whole split."""
    accuracies = class_accuracies(evaluation.confusion)
    rows = len(accuracies)
    pitch = 0.34 if rows <= FEW else 0.2

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.axvspan(*[100 * end for end in evaluation.interval], color=PALETTE["grid"], linewidth=0)
        axes.axvline(100 * evaluation.accuracy, color=PALETTE["muted"], linewidth=1)
        for row, (value, interval) in enumerate(zip(accuracies, evaluation.class_intervals, strict=True)):
            if value is not None:
                axes.plot([100 * end for end in interval], [row, row], color=PALETTE["blue"], linewidth=1.4)
                axes.plot([100 * value], [row], "o", color=PALETTE["blue"], markersize=5)
        axes.set_yticks(range(rows), [name_of(row, labels) for row in range(rows)], fontsize=9.5 if rows <= FEW else 8)
        axes.set(ylim=(rows - 0.4, -0.6), xlabel="accuracy, % (line and band: all classes)")
        axes.set_xlim(right=min(axes.get_xlim()[1], 100.05))
        axes.grid(axis="y", visible=False)

    known = [value for value in accuracies if value is not None]
    description = f"From {100 * min(known):.1f} to {100 * max(known):.1f} percent over {len(known)} classes."
    title = f"Accuracy by class on the {evaluation.split} split"
    return Panel("classes", title, description, (5.3, 1.0 + pitch * rows), draw)


def weights(layers: Iterable[Layer]) -> Panel:
    """The share of near-zero weights in each layer's kernel, at each of THRESHOLDS."""
    shown = [(layer.name, layer.near_zero) for layer in layers if layer.near_zero]
    looks = tuple(zip(("orange", "purple", "blue"), ("o", "s", "D"), strict=True))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for place, threshold in reversed(list(enumerate(THRESHOLDS))):
            colour, marker = looks[place]
            shares = [100 * near_zero[place] for _, near_zero in shown]
            label = f"|w| < {threshold:g}"
            axes.plot(shares, range(len(shown)), marker, color=PALETTE[colour], markersize=5.5, label=label,
                      markeredgecolor=PALETTE["paper"], markeredgewidth=0.6)  # fmt: skip
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="share of the kernel's weights, %")
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        _legend(axes)

    description = f"Share of weights below {', '.join(f'{threshold:g}' for threshold in THRESHOLDS)} in each layer."
    return Panel("weights", "Near-zero weights", description, (5.3, 1.3 + 0.3 * len(shown)), draw)


def name_of(label: int, labels: Sequence[str]) -> str:
    """Returns the name of a class, or its number where the data set has no name for it."""
    return labels[label] if label < len(labels) else str(label)


def share(confidence: float) -> str:
    """Returns a probability in percent with one decimal, never rounded up to certainty."""
    return ">99.9 %" if 0.9995 <= confidence < 1 else f"{100 * confidence:.1f} %"


def picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image (H, W, C) as (H, W, 3) where it has colours, else its first channel (H, W)."""
    return image if image.shape[-1] == 3 else image[..., 0]
