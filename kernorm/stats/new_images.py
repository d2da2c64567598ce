"""Scores on new images: intervals over runs and images at once, and what chance over the images implies.

A run is given by the images that it has wrong. Its score is a weighted share of images that are right: each counts
alike in an accuracy, and 1/(K·n_k) in a balanced accuracy, where n_k images are of its class, one of K.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from kernorm.stats.intervals import Interval, Values, as_interval
from kernorm.stats.strata import Strata


@dataclass(frozen=True, kw_only=True)
class VarianceParts:
    """Variance of a mean difference: `images`, over the choice of images, and `seeds`, of a pair of seeds.

    `images` is at least what the interval of `two_level_difference` allows for images unlike any at hand.
    """

    images: float
    seeds: float


Wrong = Sequence[Collection[int]]


def two_level_difference(
    wrong_a: Wrong, wrong_b: Wrong, images: int | Strata, *, paired: bool, alpha: float = 0.05
) -> Interval | None:
    """Returns the interval of the difference of scores a − b on new images and new seeds.

    Args:
        wrong_a: the images that each run of a has wrong, counted from 0.
        wrong_b: those of b; `paired` runs stand in the same order of seeds.
        images: what the score is made of; a number: so many images that count alike.
        paired: whether the runs are pairs.
        alpha: 1 − the level.

    Returns:
        The interval, see `_two_levels`; None below two runs an arm or two images a part.

    Raises:
        ValueError: an image lies outside the split, or paired arms differ in their number of runs.
    """
    strata = _strata(images)
    (a, b), places = _misses(strata, wrong_a, wrong_b)
    if paired and len(a) != len(b):
        raise ValueError(f"Paired arms have the same seeds. Received: {len(a)} and {len(b)} runs. Drop the others.")
    interval = _two_levels([b - a] if paired else [-a, b], strata, places, (-1.0, 1.0), alpha)
    return interval and as_interval(interval, (-1.0, 1.0))


def two_level_interval(wrong: Wrong, images: int | Strata) -> Interval | None:
    """Returns the 95 % interval of one arm's score on new images and new seeds, as `two_level_difference` does."""
    strata = _strata(images)
    (misses,), places = _misses(strata, wrong)
    interval = _two_levels([-misses], strata, places, (-1.0, 0.0), 0.05)
    return interval and as_interval((1 + interval[0], 1 + interval[1]), (0.0, 1.0))


def chance_variance(wrong: Wrong, images: int | Strata, baseline: Wrong | None = None) -> float:
    """Returns the variance of a run's score that independent errors over the images imply; with one run 0.

    Args:
        wrong: the images that each run has wrong.
        images: as in `two_level_difference`.
        baseline: runs of the same seeds, in the same order; then it is the variance of the difference of a pair.

    Returns:
        Σ w_h²/n_h of the residual mean square of part h, by the two-way analysis of variance, runs by images.

    Raises:
        ValueError: as `two_level_difference`.
    """
    strata = _strata(images)
    (mine, other), places = _misses(strata, wrong, baseline or ())
    return _chance(mine if baseline is None else mine - other, strata, places) if len(mine) > 1 else 0.0


def chance_variances(wrong: Wrong, images: int | Strata, baseline: Wrong) -> tuple[float, ...]:
    """Returns `chance_variance` of the differences of the first run, the first two, … of all runs."""
    strata = _strata(images)
    (mine, other), places = _misses(strata, wrong, baseline)
    found, runs = np.zeros(len(mine)), np.arange(1, len(mine) + 1)
    for part in _parts(strata, places):
        # The sums of `_residual`, over the first run, the first two, …
        differences = (mine - other)[:, part.columns]
        rows = differences.sum(axis=1) / part.size
        squares = np.cumsum(np.square(differences).sum(axis=1))
        columns = np.square(np.cumsum(differences, axis=0)).sum(axis=1)
        left = squares - columns / runs
        if part.size > 1:  # of a single image the runs explain nothing
            left -= part.size * (np.cumsum(rows * rows) - np.cumsum(rows) ** 2 / runs)
        found[1:] += part.share * (np.maximum(0.0, left) / np.maximum(runs - 1, 1) / max(part.size - 1, 1))[1:]
    return tuple(found.tolist())


def variance_parts(wrong: Wrong, images: int | Strata, baseline: Wrong, *, alpha: float = 0.05) -> VarianceParts:
    """Splits the variance of an arm's difference to its baseline, paired by seed; needs two runs, two images a part.

    The interval that `images` goes with is at the level 1 − `alpha`.
    """
    strata = _strata(images)
    (mine, other), places = _misses(strata, wrong, baseline)
    differences = mine - other
    over_images, runs = 0.0, np.zeros(len(differences))
    for part in _parts(strata, places):
        known = differences[:, part.columns]
        over_images += part.share * _spread(known.mean(axis=0), part.size)
        runs += part.weight * known.sum(axis=1) / part.size
    unseen = _unseen(differences.mean(axis=0), _parts(strata, places), (-1.0, 1.0), alpha)
    least = (unseen / float(stats.norm.isf(alpha / 2))) ** 2
    return VarianceParts(images=max(over_images, least), seeds=float(runs.var(ddof=1)))


class _Part(NamedTuple):
    """A part of the strata: the columns of its images that are held, n_h, w_h, and w_h²/n_h."""

    columns: slice
    size: int
    weight: float
    share: float


def _strata(images: int | Strata) -> Strata:
    return Strata.whole(images) if isinstance(images, int) else images


def _parts(strata: Strata, places: Sequence[int]) -> list[_Part]:
    """Returns the parts; the columns of part h begin at `places[h]`."""
    rows = zip(places[:-1], places[1:], strata.sizes, strata.weights, strict=True)
    return [_Part(slice(first, last), size, weight, weight**2 / size) for first, last, size, weight in rows]


def _two_levels(
    arms: Sequence[Values], strata: Strata, places: Sequence[int], within: Interval, alpha: float
) -> Interval | None:
    """Returns the interval of the sum of the arms' scores, each (runs, images), for new runs and new images.

    The arms are 0 on all images that they do not hold; `within` is what their sum can be on an image.

    The variance over images, of each image's share in the runs, holds each run's chance on each image too, which the
    variance over runs would count again (Owen 2007, doi:10.1214/07-AOAS122). So runs add only what their scores vary
    beyond that chance, by the two-way analysis of variance. Both are found within the parts and added by w_h², as in
    stratified sampling (Cochran 1977, chapter 5): that classes differ in how hard they are is no spread of a balanced
    accuracy. The interval is by Student's t with the degrees of freedom of the sum (Satterthwaite 1946): often a few
    images alone make a difference, and a spread that is of few is hardly known. It is at least as wide as
    `_unseen` says.
    """
    if min(map(len, arms)) < 2 or min(strata.sizes) < 2:
        return None
    known = sum(arm.mean(axis=0) for arm in arms)
    parts = _parts(strata, places)
    mean = sum(part.weight * float(known[part.columns].sum()) / part.size for part in parts)
    terms = []
    for part in parts:
        held = known[part.columns]
        terms.append((part.share * _spread(held, part.size), _spread_df(held, part.size)))
    for arm in arms:
        runs = len(arm)
        rows = sum(part.weight * arm[:, part.columns].sum(axis=1) / part.size for part in parts)
        excess = float(np.var(rows, ddof=1)) - _chance(arm, strata, places)
        terms.append((max(0.0, excess) / runs, runs - 1.0))
    half, total = _unseen(known, parts, within, alpha), sum(variance for variance, _ in terms)
    if total > 0:
        df = total**2 / sum(variance**2 / df for variance, df in terms)
        half = max(half, float(stats.t.isf(alpha / 2, df)) * math.sqrt(total))
    return mean - half, mean + half


def _unseen(known: Values, parts: Sequence[_Part], within: Interval, alpha: float) -> float:
    """Returns how far images unlike any at hand may move a score; they are taken to be at an end of what is possible.

    Of all images a share of q_h may be unlike those of part h, as long as the chance that none of them was drawn,
    Π (1 − q_h)^n_h, is at least α/2; of one part that is Clopper and Pearson's bound (1934). A share q_h moves the
    score by c_h·q_h, where c_h is w_h times the way from the mean of the part to that end. The sum is greatest where
    −log(1 − q_h) = log(c_h/(λ·n_h)), or 0 where that is negative; λ is what the chance leaves. So a few images that are
    alike, or none of which tells the runs apart, do not show that the next ones will be so.
    """
    moved = np.empty(len(parts))
    for place, part in enumerate(parts):
        mean = float(known[part.columns].sum()) / part.size
        moved[place] = part.weight * max(mean - within[0], within[1] - mean)
    sizes = np.array([part.size for part in parts], dtype=np.float64)
    order = np.argsort(-moved / sizes, kind="stable")
    moved, sizes = moved[order], sizes[order]
    gain = np.log(moved / sizes)
    # With the first m parts: Σ n_h·(gain_h − log λ) = log(2/α). The most parts that all gain decide.
    level = (np.cumsum(sizes * gain) - math.log(2 / alpha)) / np.cumsum(sizes)
    most = int(np.flatnonzero(gain > level)[-1])
    return float(moved[: most + 1] @ -np.expm1(level[most] - gain[: most + 1]))


def _spread(known: Values, count: int) -> float:
    """Returns the variance over `count` images, some of which are held and all others 0."""
    mean = float(known.sum()) / count
    return (float(known @ known) - count * mean**2) / (count - 1)


def _spread_df(known: Values, count: int) -> float:
    """Returns the degrees of freedom of that variance, by Satterthwaite 1946: 2·σ⁴/Var(s²).

    Var(s²) = (μ₄ − σ⁴·(N−3)/(N−1))/N: about twice the number of those that are held, where few count alike.
    """
    mean, others = float(known.sum()) / count, count - len(known)
    second, fourth = (float(((known - mean) ** power).sum() + others * mean**power) / count for power in (2, 4))
    return 2 * count / (fourth / second**2 - (count - 3) / (count - 1)) if second > 0 else math.inf


def _chance(arm: Values, strata: Strata, places: Sequence[int]) -> float:
    """Returns what a run's score varies by chance, from misses or their differences, (runs, images)."""
    found = 0.0
    for part in _parts(strata, places):
        held = arm[:, part.columns]
        residual = _residual(float((held * held).sum()), held.sum(axis=0), held.sum(axis=1) / part.size, part.size)
        found += part.share * residual
    return found


def _residual(squares: float, columns: Values, rows: Values, count: int) -> float:
    """Returns the residual mean square of runs by images, from sums of squares and of images, and means of runs.

    What neither the means of the images nor those of the runs explain; images that are not held are 0 everywhere. Of
    a single image the runs explain nothing.
    """
    runs, middle = len(rows), float(rows.mean())
    left = squares - float(columns @ columns) / runs
    if count == 1:
        return max(0.0, left) / (runs - 1)
    left -= count * float(rows @ rows) - runs * count * middle**2
    return max(0.0, left) / (runs - 1) / (count - 1)


def _misses(strata: Strata, *arms: Wrong) -> tuple[list[Values], list[int]]:
    """Returns for each arm 1 where a run is wrong, (runs, images), over the images that any run has wrong.

    The images stand part by part; also returned is where each part begins, and the end.
    """
    held = sorted({image for runs in arms for images in runs for image in images})
    if held and (held[0] < 0 or held[-1] >= strata.count):
        received = f"{held[0]} to {held[-1]}"
        raise ValueError(f"Images count from 0 to {strata.count - 1}. Received: {received}. Give their split's size.")
    places = [0, len(held)]
    if strata.part is not None:
        parts = strata.part[held]
        held = np.asarray(held, np.int64)[np.argsort(parts, kind="stable")].tolist()
        places = [0, *np.cumsum(np.bincount(parts, minlength=len(strata.sizes))).tolist()]
    place = {image: column for column, image in enumerate(held)}
    found = []
    for runs in arms:
        misses = np.zeros((len(runs), len(held)))
        for row, images in zip(misses, runs, strict=True):
            row[[place[image] for image in images]] = 1.0
        found.append(misses)
    return found, places
