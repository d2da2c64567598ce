"""E-processes against closed forms, numerical integration of their definition, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from kernorm.stats import anytime
from kernorm.stats.anytime import (
    CAPS,
    FIRST,
    MIXTURE,
    anytime_p,
    cap_constant,
    confidence_sequence,
    log_e_value,
    visible_anytime,
)
from kernorm.stats.planning import visible_difference

EXAMPLE = (0.3, 1.2, 0.8, 0.1)


def integrated(x, mean, side):
    """The mixture by its definition: likelihoods integrated over the spread σ by dσ/σ and the effect size by its prior.

    Over log σ by the trapezoidal rule, over the effect size, half a line at a time, by Gauss and Legendre in panels.
    """
    x = np.asarray(x) - mean
    precision = np.exp(np.linspace(-16, 8, 1800)) / math.sqrt(np.mean(x**2))  # 1/σ
    fit = len(x) * np.log(precision) - precision**2 * np.square(x).sum() / 2
    nodes, weights = np.polynomial.legendre.leggauss(20)
    total = 0.0
    for tau, weight in MIXTURE.items():
        edges = np.linspace(0, 12 * tau, 61)
        half = (edges[1] - edges[0]) / 2
        effect = np.add.outer(edges[:-1] + half, half * nodes).ravel()
        prior = weight * stats.norm.pdf(effect, 0, tau) * np.tile(half * weights, 60)
        sides = {"two-sided": ((1, 1), (-1, 1)), "greater": ((1, 2),), "less": ((-1, 2),)}[side]
        for sign, share in sides:
            ratio = np.multiply.outer(sign * effect, precision) * x.sum() - len(x) * effect[:, None] ** 2 / 2
            total += share * (prior @ np.exp(fit + ratio)).sum()
    return total / np.exp(fit).sum()


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("mean", [0.0, 0.45, -0.3])
def test_an_e_value_is_the_mixture_of_likelihood_ratios(side, mean):
    for x in (EXAMPLE, (0.01, -0.02, 0.03), tuple(np.random.default_rng(0).normal(0.3, 1, 12))):
        assert math.exp(log_e_value(x, mean, side=side)) == pytest.approx(integrated(x, mean, side), rel=1e-9)


@pytest.fixture
def one_part(monkeypatch):
    """All weight on τ = 1; what was computed with other weights is forgotten, before and after."""
    kept = (anytime._log_e_value, anytime._half_width)
    monkeypatch.setitem(MIXTURE, 1.0, 1.0)
    monkeypatch.setitem(MIXTURE, 10.0, 1e-300)
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.usefixtures("one_part")
def test_an_e_value_of_one_part_is_the_published_one():
    assert math.exp(log_e_value(EXAMPLE, side="greater")) == pytest.approx(3.81782, abs=5e-6)
    # (1 + n)^-½ · ((1 + t²/(n−1)) / (1 + r·t²/(n−1)))^(n/2), as Wang and Ramdas write it.
    n, r = 4, 1 / 5
    t2 = n * np.mean(EXAMPLE) ** 2 / np.var(EXAMPLE, ddof=1)
    wanted = math.sqrt(r) * ((1 + t2 / (n - 1)) / (1 + r * t2 / (n - 1))) ** (n / 2)
    assert math.exp(log_e_value(EXAMPLE)) == pytest.approx(wanted, rel=1e-12)


def test_one_side_and_the_other_average_to_both():
    for mean in (0.0, 0.2, 2.0):
        both = np.mean([math.exp(log_e_value(EXAMPLE, mean, side=side)) for side in ("greater", "less")])
        assert both == pytest.approx(math.exp(log_e_value(EXAMPLE, mean)), rel=1e-12)


def test_a_single_difference_says_nothing_and_equal_ones_need_a_floor():
    assert log_e_value((0.7,)) == pytest.approx(0, abs=1e-15)
    same = (0.002,) * 5
    assert log_e_value(same) > log_e_value(same, floor=1e-8) > log_e_value(same, floor=1e-4)
    # The floor is the variance of differences that vary less: S = (n−1)·v.
    spread = 0.002 + np.array([-1, 1, -1, 1, 0]) * 1e-2
    assert log_e_value(same, floor=float(np.var(spread, ddof=1))) == pytest.approx(log_e_value(spread), rel=1e-12)
    assert log_e_value((0.0,) * 5) < 0  # evidence for the mean itself


def test_p_is_the_least_over_all_looks_and_none_before_the_third_seed():
    x = np.random.default_rng(3).normal(1.0, 1.0, 9)
    floors = np.linspace(0.1, 0.5, 9)
    for n in range(1, 10):
        p = anytime_p(x[:n], floors=floors[:n], c=0.57)
        looks = [0.57 / math.exp(log_e_value(x[:s], floor=floors[s - 1])) for s in range(FIRST, n + 1)]
        assert p == (pytest.approx(min(1.0, *looks, 1.0), rel=1e-12) if looks else None)
    assert anytime_p((0.0,) * 5, floors=(1.0,) * 5) == 1.0


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 11])
@pytest.mark.parametrize("c", [1.0, 0.57])
def test_the_interval_holds_the_means_that_no_look_refutes(alpha, c):
    x, floors = np.random.default_rng(5).normal(0.2, 1.0, 20), np.full(20, 0.3)
    low, high = confidence_sequence(x, floors=floors, alpha=alpha, c=c)
    assert low < x.mean() < high
    for end in (low, high):
        assert anytime_p(x, end, floors=floors, c=c) == pytest.approx(alpha, rel=1e-9)
        inside = end + 1e-6 * (x.mean() - end)
        assert anytime_p(x, inside, floors=floors, c=c) > alpha
    # The one-part closed form, m ± √(S/n·(a−1)/(1−a·r)), a = (α²r)^(−1/n), is close where nearly all weight is on it.
    n, r, m = 20, 1 / 21, x.mean()
    squares = max(np.square(x - m).sum(), 19 * 0.3)
    a = (alpha**2 * r) ** (-1 / n)
    half = math.sqrt(squares / n * (a - 1) / (1 - a * r))
    if c == 1.0:
        assert (high - low) / 2 == pytest.approx(half, rel=0.05)


@pytest.mark.usefixtures("one_part")
def test_the_closed_form_of_the_interval():
    x = np.random.default_rng(6).normal(0.0, 1.0, 3)
    n, r, alpha = 3, 1 / 4, 0.3
    squares = np.square(x - x.mean()).sum()
    a = (alpha**2 * r) ** (-1 / n)
    half = math.sqrt(squares / n * (a - 1) / (1 - a * r))
    found = confidence_sequence(x, floors=(0.0,) * 3, alpha=alpha)
    assert found == pytest.approx((x.mean() - half, x.mean() + half), rel=1e-9)
    assert confidence_sequence(x, floors=(0.0,) * 3, alpha=0.2) is None  # a·r ≥ 1: every mean is possible


@pytest.mark.parametrize(("seeds", "alpha"), [(4, 0.05), (10, 0.05 / 11)])
def test_the_least_visible_difference_is_shown_four_times_of_five(seeds, alpha):
    least = visible_anytime(0.7, seeds, alpha)
    x = np.random.default_rng(8).normal(least, 0.7, (4000, seeds))
    shown = np.mean([log_e_value(row) >= -math.log(alpha) for row in x])
    assert shown == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / len(x)))
    # A single look sees less: the test for many looks asks for more evidence.
    assert least > visible_difference(0.7**2 / 2, seeds, alpha)
    assert visible_anytime(1.4, seeds, alpha) == pytest.approx(2 * least, rel=1e-9)
    assert visible_anytime(0.7, seeds, alpha, 0.57) < least


def test_nothing_is_visible_where_no_difference_could_be_shown():
    assert visible_anytime(0.7, FIRST - 1, 0.05) == math.inf
    assert visible_anytime(0.7, FIRST, 0.001) == math.inf
    assert visible_anytime(0.7, 10, 0.001) < math.inf


def test_there_is_no_bound_before_the_third_seed():
    assert confidence_sequence((0.1, 0.2), floors=(0.0, 0.0), alpha=0.05) is None
    assert confidence_sequence(EXAMPLE[:3], floors=(0.0,) * 3, alpha=0.001) is None
    low, high = confidence_sequence((0.2, 0.2, 0.2, 0.2), floors=(0.0,) * 4, alpha=0.05)
    assert low == high == pytest.approx(0.2)


def test_a_cap_has_its_constant():
    assert [cap_constant(cap) for cap in (None, 20, 30, 50, 12)] == [1.0, CAPS[20], CAPS[30], CAPS[50], 1.0]


def test_it_is_wrong_as_seldom_as_it_says_however_often_one_looks():
    """P(E ≥ 20 by n = 50) is about .026 where there is no difference."""
    x = np.random.default_rng(1).standard_normal((2000, 50))
    sums, squares = x.cumsum(1), np.square(x).cumsum(1)
    n = np.arange(1, 51)
    means = sums / n
    crossed = np.zeros(2000, bool)
    for k in range(FIRST, 51):
        s = squares[:, k - 1] - k * means[:, k - 1] ** 2
        # Vectorized by the formula, checked against log_e_value below.
        log_e = [
            np.log(weight)
            - np.log1p(k * tau**2) / 2
            + k / 2 * np.log((s + k * means[:, k - 1] ** 2) / (s + k * means[:, k - 1] ** 2 / (1 + k * tau**2)))
            for tau, weight in MIXTURE.items()
        ]
        value = np.logaddexp(*log_e)
        assert value[7] == pytest.approx(log_e_value(x[7, :k]), abs=1e-9)
        crossed |= value >= math.log(20)
    rate = crossed.mean()
    assert abs(rate - 0.026) < 3 * math.sqrt(0.026 * 0.974 / 2000)


@pytest.mark.parametrize(
    "words", [{"differences": ()}, {"differences": (1.0, math.nan)}, {"differences": (1.0,), "floor": -1.0}]
)
def test_refuses_what_is_no_number(words):
    with pytest.raises(ValueError, match=r"An e-value is of finite differences\. Received: .*\. Give at least one\."):
        log_e_value(**words)


def test_overwhelming_evidence_to_the_contrary_is_no_evidence():
    """The share under t is below the least double there."""
    x = -0.89 + 0.001 * np.random.default_rng(0).normal(size=200)
    floors = (0.0,) * len(x)
    assert anytime_p(x, -0.0005, floors=floors, side="greater") == 1.0
    assert anytime_p(x, 0.0005, floors=floors, side="less") < 1e-30
