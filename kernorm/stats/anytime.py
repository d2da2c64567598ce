"""Tests and intervals that stay valid however often one looks: t-mixture e-processes of paired differences.

An e-value measures evidence against a mean: under it, the chance that the e-value ever reaches 1/α is at most α, at
whichever number of seeds one stops (Ville's inequality). The normal mixture over effect sizes with an unknown spread is
of Lai 1976, its anytime validity of Wang and Ramdas 2023 (arXiv:2310.03722) and Lindon et al. 2022 (arXiv:2210.08589).

With differences x₁…xₙ in the order of their seeds, m their mean, S = Σ(xᵢ−m)², at least (n−1)·v, r = 1/(1+nτ²),
A = S + n(m−μ)² and Q = S + r·n(m−μ)²:

    E_τ(μ) = √r·(A/Q)^(n/2)
    E_τ^±(μ) = 2·E_τ(μ)·T_n(±[n(m−μ)/(n+τ⁻²)] / √(Q/(n(n+τ⁻²))))        T_n: Student's cdf, n degrees of freedom

and each is the mean of τ = 1 and τ = 10 by MIXTURE: the second part sees a collapse at once.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import optimize, special

from kernorm.stats.intervals import Interval
from kernorm.stats.planning import POWER

# Weights of τ, the sd of the effect size that is looked for, in units of the spread.
MIXTURE = {1.0: 0.9, 10.0: 0.1}
# The first number of seeds that may decide.
FIRST = 3
# What c/E is multiplied by where the most seeds are declared beforehand, since the process then ends (by simulation).
CAPS = {20: 0.47, 30: 0.52, 50: 0.57}

Side = Literal["two-sided", "greater", "less"]


def cap_constant(cap: int | None) -> float:
    """Returns the c of c/E for a declared number of most seeds; 1 without, and for any that CAPS does not list."""
    return CAPS.get(cap or 0, 1.0)


def log_e_value(
    differences: Sequence[float], mean: float = 0.0, *, floor: float = 0.0, side: Side = "two-sided"
) -> float:
    """Returns the natural logarithm of the e-value against a mean difference.

    Args:
        differences: of one pair a seed, in the order of the seeds.
        mean: the μ that is tested.
        floor: the least variance of a difference, v.
        side: `greater` gathers evidence that the truth is above `mean`, `less` that it is below.

    Raises:
        ValueError: there is no difference, or a number is not finite.
    """
    return _log_e_value(tuple(differences), float(mean), float(floor), side)


@lru_cache(maxsize=8192)  # a study asks for all looks again after each round
def _log_e_value(differences: tuple[float, ...], mean: float, floor: float, side: Side) -> float:
    sample = np.asarray(differences, dtype=np.float64)
    if not (len(sample) and np.isfinite(sample).all() and math.isfinite(mean) and 0 <= floor < math.inf):
        received = f"differences={list(differences)!r}, mean={mean!r}, floor={floor!r}"
        raise ValueError(f"An e-value is of finite differences. Received: {received}. Give at least one.")
    n, middle = len(sample), float(sample.mean())
    squares = max(float(np.square(sample - middle).sum()), (n - 1) * floor)
    return _log_mixture(n, middle - mean, squares, side)


def anytime_p(
    differences: Sequence[float],
    mean: float = 0.0,
    *,
    floors: Sequence[float],
    c: float = 1.0,
    side: Side = "two-sided",
) -> float | None:
    """Returns the p-value that is valid at any number of seeds: the least of c/E over all looks, at most 1.

    Args:
        differences: as in `log_e_value`, (n,).
        mean: as in `log_e_value`.
        floors: the least variance of a difference as it was known at each number of seeds from 1, (n,).
        c: see CAPS.
        side: as in `log_e_value`.

    Returns:
        p; None below FIRST seeds.
    """
    looks = range(FIRST, len(differences) + 1)
    values = [log_e_value(differences[:n], mean, floor=floors[n - 1], side=side) for n in looks]
    return min(1.0, math.exp(math.log(c) - max(values))) if values else None


def confidence_sequence(
    differences: Sequence[float], *, floors: Sequence[float], alpha: float, c: float = 1.0
) -> Interval | None:
    """Returns the means that no look so far refutes: those with an anytime p above `alpha`.

    Args:
        differences: as in `log_e_value`, (n,).
        floors: as in `anytime_p`.
        alpha: 1 − the level.
        c: see CAPS.

    Returns:
        The interval; None while every mean is possible.
    """
    low, high = -math.inf, math.inf
    for n in range(FIRST, len(differences) + 1):
        sample = np.asarray(differences[:n], dtype=np.float64)
        middle = float(sample.mean())
        squares = max(float(np.square(sample - middle).sum()), (n - 1) * floors[n - 1])
        half = _half_width(n, squares, math.log(c / alpha))
        # Looks that exclude each other have probability alpha; the later one then counts.
        low, high = max(low, middle - half), min(high, middle + half)
        if low > high:
            low, high = middle - half, middle + half
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def visible_anytime(sd_of_difference: float, seeds: int, alpha: float, c: float = 1.0) -> float:
    """Returns the least true difference that a look at so many pairs shows with power POWER, by the noncentral t.

    An e-value passes c/α where |m|·√n passes a multiple of the spread, as in a t-test with a higher critical value.

    Args:
        sd_of_difference: of one pair.
        seeds: n.
        alpha: the level of one arm.
        c: see CAPS.

    Returns:
        The difference; inf where no difference would be shown, as below FIRST pairs.
    """
    if seeds < FIRST:
        return math.inf
    # From units of √(S/n) to those of √(S/(n−1)/n).
    critical = _half_width(seeds, float(seeds), math.log(c / alpha)) * math.sqrt(seeds - 1)
    if math.isinf(critical):
        return math.inf
    return float(special.nctdtrinc(seeds - 1, 1 - POWER, critical)) * sd_of_difference / math.sqrt(seeds)


@lru_cache(maxsize=8192)
def _half_width(n: int, squares: float, wanted: float) -> float:
    """Returns the distance from the mean at which the logarithm of the e-value is `wanted`; inf if it is nowhere."""
    most = float(np.logaddexp.reduce([math.log(w) - (n - 1) / 2 * _log_r(n, tau) for tau, w in MIXTURE.items()]))
    if most <= wanted:
        return math.inf
    if squares == 0:
        return 0.0

    def above(z: float) -> float:
        # In units of √(squares/n), so that the root is found alike for every metric.
        return _log_mixture(n, z, float(n), "two-sided") - wanted

    high = 1.0
    while above(high) < 0:
        high *= 2
    return float(optimize.brentq(above, 0.0, high, xtol=1e-14, rtol=1e-14)) * math.sqrt(squares / n)


def _log_mixture(n: int, distance: float, squares: float, side: Side) -> float:
    parts = [math.log(weight) + _log_e(n, distance, squares, tau, side) for tau, weight in MIXTURE.items()]
    return float(np.logaddexp.reduce(parts))


def _log_e(n: int, distance: float, squares: float, tau: float, side: Side) -> float:
    """Returns log E_τ, or log E_τ^±, of a mean at `distance` below the observed one; `squares` is S."""
    log_r = _log_r(n, tau)
    shift = n * distance**2
    a, q = squares + shift, squares + math.exp(log_r) * shift
    # Differences that are all exactly the tested mean have neither.
    two_sided = log_r / 2 + (n / 2 * (math.log(a) - math.log(q)) if a else 0.0)
    if side == "two-sided":
        return two_sided
    sign = 1.0 if side == "greater" else -1.0
    prior = n + tau**-2
    if q == 0:
        return two_sided
    t = sign * (n * distance / prior) / math.sqrt(q / (n * prior))
    # −∞ where the share is too small for a double: strong evidence to the contrary.
    share = float(special.stdtr(n, t))
    return math.log(2) + two_sided + math.log(share) if share else -math.inf


def _log_r(n: int, tau: float) -> float:
    return -math.log1p(n * tau**2)
