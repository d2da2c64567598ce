"""The charts of one run: the same panels as PNG files next to the report and as SVG inside it.

Behind the record, before the report.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from kernorm.records.data import Data
from kernorm.records.record import THRESHOLDS, Evaluation, Layer, Record
from kernorm.reporting.curves import curves
from kernorm.reporting.figures import LETTERS, PALETTE, WIDTH, Panel, legend, plain
from kernorm.reporting.format import concise, name_of, percent, share
from kernorm.reporting.hover import say
from kernorm.reporting.mistakes import drawn_mistakes
from kernorm.reporting.page import picture
from kernorm.stats.intervals import wilson
from kernorm.stats.scores import class_accuracies

_NAME = 200  # characters of a class name that are drawn
FEW = 20  # classes up to which a chart of them is drawn at ease
TINY = 10  # images below which a bin of the reliability diagram is drawn hollow: its interval is most of the axis


def charts(record: Record, mistakes: NDArray[np.uint8]) -> dict[str, tuple[Panel, ...]]:
    """Returns every chart that the record has data for, by the name of its PNG file.

    `mistakes` (M, H, W, C) are the images of the drawn mistakes of the test split. What only an evaluation can show
    is drawn of the test split, or of the validation split where the test split was never opened.
    """
    found = {"curves": curves(record)} if record.history else {}
    evaluation = record.test or record.validation
    if record.test and (len(mistakes) or not record.test.errors):
        found["misclassified"] = (misclassified(record.test, record.data, mistakes),)
    if evaluation:
        found["confusion"] = (confusion(evaluation, record.data.labels),)
        found["reliability"] = (reliability(evaluation),)
        found["classes"] = (classes(evaluation, record.data.labels),)
    if any(layer.near_zero for layer in record.layers):
        found["weights"] = (weights(record.layers),)
    return found


def misclassified(test: Evaluation, data: Data, images: NDArray[np.uint8]) -> Panel:
    """The drawn mistakes of the test split with target, prediction and confidence."""
    shown, every, labels = len(images), test.errors, data.labels
    rows = -(-shown // 5)

    def draw(figure: FigureBase) -> None:
        if not shown:
            axes = figure.subplots()
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"No mistake on {test.count:,} images", ha="center", fontsize=11)
            return
        axes = figure.subplots()
        for place, (image, mistake) in enumerate(zip(images, drawn_mistakes(test), strict=False)):
            left, top = 1.15 * (place % 5), 1.45 * (place // 5)
            axes.imshow(
                picture(image),
                cmap="gray_r" if data.strokes else "gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                extent=(left, left + 1, top + 1, top),
            )
            axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=PALETTE["line"], linewidth=0.6))
            target, prediction = (plain(name_of(one, labels), _NAME) for one in (mistake.target, mistake.prediction))
            axes.text(
                left + 0.5,
                top + 1.04,
                f"{target} → {prediction}\n{share(mistake.confidence)}",
                ha="center",
                va="top",
                fontsize=8,
            )
        axes.set(xlim=(-0.05, 5.65), ylim=(1.45 * rows - 0.03, -0.03))
        axes.set_axis_off()

    return Panel(
        "misclassified",
        f"Misclassified: {shown} of {every:,}",
        "Images with target → prediction and the probability given to the prediction.",
        (5.7, 1.45 * rows) if shown else (5.7, 1.2),
        draw,
    )


def confusion(evaluation: Evaluation, labels: Sequence[str]) -> Panel:
    """The confusion counts; the diagonal is pale, so that the errors are what is seen."""
    counts = np.array(evaluation.confusion)
    many = len(counts)
    side = _side(many)
    errors = counts - np.diag(counts.diagonal())
    strongest = max(errors.max(), 1)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for target, prediction in np.argwhere(counts):
            wrong = target != prediction
            count = counts[target, prediction]
            # The root keeps single mistakes visible next to a frequent one.
            alpha = 0.2 + 0.8 * np.sqrt(count / strongest) if wrong else 1.0
            colour = PALETTE["heat" if wrong else "grid"]
            axes.add_patch(
                Rectangle((prediction - 0.5, target - 0.5), 1, 1, facecolor=colour, alpha=alpha, linewidth=0)
            )
            if many <= FEW:
                axes.text(
                    prediction,
                    target,
                    str(count),
                    ha="center",
                    va="center_baseline",
                    fontsize=LETTERS,
                    color=PALETTE["ink" if wrong else "muted"],
                )
            images = "image" if count == 1 else "images"
            told = f"{name_of(int(target), labels)} → {name_of(int(prediction), labels)}: {count:,} {images}"
            say(axes, [(prediction, target)], [told])
        names = [plain(name_of(label, labels), _NAME) for label in range(many)]
        axes.set(xlim=(-0.5, many - 0.5), ylim=(many - 0.5, -0.5), xlabel="predicted", ylabel="target", aspect="equal")
        axes.set_xticks(range(many), names)
        if max(map(len, names)) > 2:
            axes.tick_params("x", rotation=60 if many <= FEW else 90)
            for name in axes.get_xticklabels():
                name.set(ha="right", va="center" if many > FEW else "baseline", rotation_mode="anchor")
        axes.set_yticks(range(many), names)
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
    scores = f"ECE {evaluation.ece:.4f} · NLL {evaluation.cross_entropy:.4f} · Brier {evaluation.brier:.4f}"

    def draw(figure: FigureBase) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.1))
        upper.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        for bin_ in evaluation.bins:
            lower.bar((bin_.low + bin_.high) / 2, bin_.count, 0.92 * (bin_.high - bin_.low), color=PALETTE["blue"])
            if bin_.count:
                low, high = wilson(round(bin_.accuracy * bin_.count), bin_.count)
                tiny = bin_.count < TINY
                told = f"accuracy {percent(bin_.accuracy, bin_.count)}, 95 % {percent(low, bin_.count)} to "
                told += f"{percent(high, bin_.count)}, at a confidence of {share(bin_.confidence)}, n = {bin_.count:,}"
                say(upper, [(bin_.confidence, bin_.accuracy)], [told])
                upper.plot([bin_.confidence] * 2, [low, high], color=PALETTE["blue"], linewidth=0.8 if tiny else 1.4)
                upper.plot(
                    [bin_.confidence],
                    [bin_.accuracy],
                    "o",
                    color=PALETTE["blue"],
                    markersize=5,
                    markerfacecolor=PALETTE["paper" if tiny else "blue"],
                )
        upper.text(
            0.03,
            0.07,
            "perfect calibration",
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
            fontsize=LETTERS,
            color=PALETTE["muted"],
        )
        upper.set_title(scores, loc="left", fontsize=LETTERS)
        upper.set(xlim=(0, 1.015), ylim=(-0.03, 1.04), ylabel="accuracy in the bin")
        lower.set(xlabel="confidence in the prediction", ylabel="images", yscale="symlog")
        lower.set_ylim(bottom=0)
        decades = range(0, 1 + int(np.log10(evaluation.count)), 2)
        lower.set_yticks([10**decade for decade in decades], [f"{10**decade:,}" for decade in decades])
        lower.yaxis.set_minor_locator(NullLocator())
        figure.align_ylabels()

    description = f"Accuracy in {len(evaluation.bins)} bins of confidence. {scores}."
    return Panel("reliability", f"Reliability on the {evaluation.split} split", description, (WIDTH, 4.3), draw)


def classes(evaluation: Evaluation, labels: Sequence[str]) -> Panel:
    """Accuracy of each class with its Wilson interval, next to the accuracy of the whole split."""
    accuracies = class_accuracies(evaluation.confusion)
    rows = len(accuracies)

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        axes.axvspan(*[100 * end for end in evaluation.interval], color=PALETTE["grid"], linewidth=0)
        axes.axvline(100 * evaluation.accuracy, color=PALETTE["muted"], linewidth=1)
        for row, (value, interval) in enumerate(zip(accuracies, evaluation.class_intervals, strict=True)):
            if value is not None:
                axes.plot([100 * end for end in interval], [row, row], color=PALETTE["blue"], linewidth=1.4)
                axes.plot([100 * value], [row], "o", color=PALETTE["blue"], markersize=5)
                told = f"{name_of(row, labels)}: {100 * value:.1f} %, 95 % {100 * interval[0]:.1f} to "
                say(axes, [(100 * value, row)], [f"{told}{100 * interval[1]:.1f}"])
        names = [plain(name_of(row, labels), _NAME) for row in range(rows)]
        axes.set_yticks(range(rows), names)
        axes.set(ylim=(rows - 0.4, -0.6), xlabel="accuracy, %")
        axes.set_xlim(right=min(axes.get_xlim()[1], 100.05))
        axes.grid(axis="y", visible=False)

    known = [value for value in accuracies if value is not None]
    description = f"From {100 * min(known):.1f} to {100 * max(known):.1f} percent over {len(known)} classes."
    title = f"Accuracy by class on the {evaluation.split} split"
    return Panel("classes", title, description, (WIDTH, 0.9 + (0.34 if rows <= FEW else 0.2) * rows), draw)


def weights(layers: Iterable[Layer]) -> Panel:
    """The share of near-zero weights in each layer's kernel, at each of THRESHOLDS."""
    shown = [(layer.name, layer.near_zero) for layer in layers if layer.near_zero]
    looks = tuple(zip(("orange", "purple", "blue"), ("o", "s", "D"), strict=True))

    def draw(figure: FigureBase) -> None:
        axes = figure.subplots()
        for place, threshold in reversed(list(enumerate(THRESHOLDS))):
            colour, marker = looks[place]
            shares = [100 * near_zero[place] for _, near_zero in shown]
            label = f"|w| < {concise(threshold)}"
            told = [
                f"{name}: {value:.1f} % of |w| < {concise(threshold)}"
                for (name, _), value in zip(shown, shares, strict=True)
            ]
            say(axes, zip(shares, range(len(shown)), strict=True), told)
            axes.plot(
                shares,
                range(len(shown)),
                marker,
                color=PALETTE[colour],
                markersize=5.5,
                label=label,
                markeredgecolor=PALETTE["paper"],
                markeredgewidth=0.6,
            )
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="share of the kernel’s weights, %")
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        legend(axes)

    description = f"Share of weights below {', '.join(map(concise, THRESHOLDS))} in each layer."
    return Panel("weights", "Near-zero weights", description, (WIDTH, 1.3 + 0.3 * len(shown)), draw)


def _side(classes: int) -> float:
    """Returns the side in inches of a chart with a cell for each pair of classes."""
    return float(np.clip(1.3 + 0.2 * classes, WIDTH, 24.0))
