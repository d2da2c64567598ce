"""Intervals: of proportions, and what all intervals have in common."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats would add a sixth to the start of every run

Interval = tuple[float, float]
ANYWHERE: Interval = (-math.inf, math.inf)
Values = NDArray[np.float64]

# What rounding leaves of the difference of equal numbers, relative to them.
ROUNDING = 1e-9


def wilson(successes: int, count: int, alpha: float = 0.05) -> Interval:
    """Returns Wilson's score interval of a proportion (Wilson 1927), by default 95 %; (0, 1) if nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    z = float(special.ndtri(1 - alpha / 2))
    scale = 2 * (count + z**2)
    centre = (2 * count * share + z**2) / scale
    half = z / scale * math.sqrt(4 * count * share * (1 - share) + z**2)
    # Where nothing or everything succeeded, one end is exact, whatever rounding leaves.
    return float(centre - half) if successes else 0.0, float(centre + half) if successes < count else 1.0


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a proportion (Clopper and Pearson 1934); (0, 1) when nothing was counted."""
    failures = count - successes
    low = float(special.betaincinv(successes, failures + 1, 0.025)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, failures, 0.975)) if failures else 1.0
    return low, high


def as_interval(limits: Any, within: Interval = ANYWHERE) -> Interval:
    """Returns two limits of any library as an interval, cut to what is possible."""
    low, high = (min(max(float(end), within[0]), within[1]) for end in limits)
    return low, high


def finite_values(values: Mapping[Any, float], what: str) -> Values:
    """Returns the values as an array, (N,).

    Raises:
        ValueError: one is not finite; `what` says what the keys are.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"Numbers must be finite. Received: {what} {name}: {value!r}. Name a diverged run apart.")
    return np.array(list(values.values()), dtype=np.float64)
