"""Anybody's numbers compared, for Python users."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from kernorm.api.display import page
from kernorm.errors import UsageError, with_type
from kernorm.stats.comparison import Comparison
from kernorm.stats.comparison import compare as compare_values
from kernorm.stats.intervals import Interval
from kernorm.stats.new_images import chance_variance, two_level_difference
from kernorm.stats.verdict import percentage_points, verdict
from kernorm.studies.choices import margin_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Two sets of runs, compared; by accuracy, unless told otherwise.

    Attributes:
        verdict: in words; a difference is one `on these images` unless the mistakes by image were given.
        comparison: difference, intervals and tests over the seeds in common.
        new_images: interval of the difference on images that were never seen; None without mistakes by image.
    """

    verdict: str
    comparison: Comparison
    new_images: Interval | None = None

    def __str__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        rows = {
            name: {"value": getattr(self.comparison, name)}
            for name in ("pairs", "difference", "interval", "p", "probability_better")
        }
        return page(self.verdict, pd.DataFrame.from_dict(rows, orient="index"))


def compare(
    arm: Mapping[int, float],
    baseline: Mapping[int, float],
    *,
    higher_is_better: bool = True,
    margin: str | float | None = None,
    wrong: tuple[Mapping[int, Collection[int]], Mapping[int, Collection[int]]] | None = None,
    count: int | None = None,
) -> Compared:
    """Compares two sets of runs that anybody made, each a value by seed, paired by the seeds in common.

    Args:
        arm: value by seed, accuracies as shares unless `higher_is_better` is False.
        baseline: value by seed.
        higher_is_better: which direction is better.
        margin: what counts as no difference, for a verdict of equivalence: a number, or points such as 0.5pp.
        wrong: of arm and baseline, the test images that each seed got wrong, by their index from 0; with it the verdict
            speaks of new images as well. The values are then accuracies, or error rates if lower is better.
        count: how many images the test split has; needed with `wrong`.

    Raises:
        ValueError: a value is not finite, or the margin is not positive.
        UsageError: values are not numbers by seed, or accuracies outside 0 to 1; the margin is no number; `wrong` comes
            without `count`, without the seeds that are compared, or is not of these values.
    """
    for values in (arm, baseline):
        _require_values(values, shares=higher_is_better)
    new_images, floor = None, 0.0
    if wrong is not None:
        common = sorted(arm.keys() & baseline.keys())
        if count is None or any(seed not in one for one in wrong for seed in common):
            raise UsageError(
                "Mistakes by image need every seed in common and the number of images.",
                f"count={count}, seeds {[sorted(one) for one in wrong]} for {common}",
                "Give wrong=({seed: images, …}, {seed: images, …}) and count=10000.",
            )
        mine, base = ([one[seed] for seed in common] for one in wrong)
        for values, mistakes in zip((arm, baseline), (mine, base), strict=True):
            rates = [len(set(one)) / count for one in mistakes]
            expected = [1 - rate for rate in rates] if higher_is_better else rates
            if not np.allclose([values[seed] for seed in common], expected, rtol=0, atol=0.5 / count):
                raise UsageError(
                    "With mistakes by image, the values are the accuracies that follow from them, or the error rates "
                    "if lower is better.",
                    f"{[values[seed] for seed in common]} where {[round(one, 6) for one in expected]} follow",
                    "Leave out wrong for another metric.",
                )
        new_images = two_level_difference(mine, base, count, paired=True)
        if new_images and not higher_is_better:  # of errors, where that is of accuracies
            new_images = -new_images[1], -new_images[0]
        floor = chance_variance(mine, count, base)
    comparison = compare_values(arm, baseline, higher_is_better=higher_is_better, margin=_number(margin), floor=floor)
    # Another metric has its own unit.
    show = percentage_points if higher_is_better or wrong is not None else "{:.3g}".format
    found = verdict(comparison, comparison.p, comparison.tost_p, new_images=new_images, show=show)
    return Compared(verdict=found.sentence, comparison=comparison, new_images=new_images)


def _require_values(values: Any, *, shares: bool) -> None:
    """Refuses what are no numbers by seed, and accuracies that are no shares."""
    if not (isinstance(values, Mapping) and all(isinstance(value, Real) for value in values.values())):
        raise UsageError(
            "Runs are given as numbers by seed.",
            with_type(values),
            "Write {0: 0.991, 1: 0.993}; of lists in the order of the same seeds, dict(enumerate(values)).",
        )
    for seed, value in values.items():
        if shares and math.isfinite(value) and not 0 <= value <= 1:
            raise UsageError(
                "Accuracies are shares from 0 to 1.",
                f"{value} of seed {seed}{', which looks like percent' if 1 < value <= 100 else ''}",
                "Divide percent by 100; give higher_is_better=False for what is better if it is lower.",
            )


def _number(margin: Any) -> float | None:
    """Returns a margin as a number, also of points such as 0.5pp."""
    if isinstance(margin, str) and margin.strip().lower().endswith("pp"):
        margin = margin_of(margin, "margin")
    if not isinstance(margin, Real | None):
        raise UsageError(
            "A margin is a number, or in points.", with_type(margin), 'Give for example "0.5pp", or 0.005.'
        )
    return None if margin is None else float(margin)
