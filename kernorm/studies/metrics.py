"""The metrics of a study: scores of a run, which direction is better, and over which images they are means.

Verdicts are by one of them, the primary one; the others are described.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernorm.records.record import Evaluation, Record
from kernorm.stats.scores import balanced_accuracy, macro_f1, worst_recall
from kernorm.stats.strata import Strata
from kernorm.stats.verdict import percentage_points

MARGIN = 0.0005  # 0.05 percentage points


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score of a run.

    Attributes:
        label: what it is called.
        of: takes it from an evaluation.
        worst: what a failed run has, where no finished run has a worse one; by the number of classes.
        higher_is_better: which direction is better.
        margin: what counts as no difference.
        mean_over: the images, each alike, or the classes, if the score is such a mean of right images; so there are
            verdicts for new ones. None: it is not.
        why_not: why it is none, in words.
        rounding: the variance of a difference that whole images round, by the test images of each class.
        in_percent: a share, shown in percent, and differences in points.
        most: what is possible, from 0; None: there is no end.
    """

    label: str
    of: Callable[[Evaluation], float]
    worst: Callable[[int], float]
    higher_is_better: bool = False
    margin: float | None = None
    mean_over: Literal["images", "classes"] | None = None
    why_not: str = "it is not kept image by image"
    rounding: Callable[[Sequence[int]], float] = lambda _: 0.0
    in_percent: bool = False
    most: float | None = None

    @property
    def within(self) -> tuple[float, float]:
        """The values that are possible."""
        return 0.0, self.most or math.inf

    @property
    def show(self) -> Callable[[float], str]:
        """Writes a difference."""
        return percentage_points if self.in_percent else "{:.2g}".format

    def value(self, record: Record) -> float:
        """Returns the score of a finished run, as it was selected."""
        return self.of(tested(record))

    def strata(self, classes: NDArray[np.integer]) -> Strata | None:
        """Returns what the score is made of, from the class of each test image, (N,)."""
        if self.mean_over is None:
            return None
        return Strata.whole(len(classes)) if self.mean_over == "images" else Strata.by_class(classes)


def _by_class(sizes: Sequence[int]) -> float:
    return Strata.by_class(np.repeat(np.arange(len(sizes)), sizes)).rounding


METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        label="test accuracy",
        of=lambda test: test.accuracy,
        worst=lambda _: 0.0,
        higher_is_better=True,
        margin=MARGIN,
        mean_over="images",
        rounding=lambda sizes: Strata.whole(sum(sizes)).rounding,
        in_percent=True,
        most=1.0,
    ),
    "balanced_accuracy": Metric(
        label="balanced accuracy",
        of=lambda test: float(balanced_accuracy(test.confusion)),
        worst=lambda _: 0.0,
        higher_is_better=True,
        mean_over="classes",
        rounding=_by_class,
        in_percent=True,
        most=1.0,
    ),
    "macro_f1": Metric(
        label="macro F1",
        of=lambda test: float(macro_f1(test.confusion)),
        worst=lambda _: 0.0,
        higher_is_better=True,
        why_not="it is no mean over images",
        rounding=_by_class,
        in_percent=True,
        most=1.0,
    ),
    "worst_recall": Metric(
        label="worst recall",
        of=lambda test: float(worst_recall(test.confusion)),
        worst=lambda _: 0.0,
        higher_is_better=True,
        why_not="it is no mean over images",
        rounding=lambda sizes: Strata.whole(min(size for size in sizes if size)).rounding,
        in_percent=True,
        most=1.0,
    ),
    "cross_entropy": Metric(
        label="cross-entropy (NLL)", of=lambda test: test.cross_entropy, worst=lambda classes: math.log(classes)
    ),
    "brier": Metric(label="Brier score", of=lambda test: test.brier, worst=lambda _: 2.0, most=2.0),
    "ece": Metric(
        label="calibration error (ECE)",
        of=lambda test: test.ece,
        worst=lambda _: 1.0,
        why_not="it is no mean over images",
        most=1.0,
    ),
}


def tested(record: Record) -> Evaluation:
    """Returns the test scores of a finished run.

    Raises:
        ValueError: it was not tested.
    """
    if record.test is None:
        raise ValueError(f"A finished run has been tested. Received: {record.run_id}, which was not.")
    return record.test
