import numpy as np
import pytest
from scipy import stats

from kernorm.stats.intervals import clopper_pearson, wilson

CASES = [
    (successes, count)
    for count in (1, 2, 3, 7, 29, 980, 10_000, 59_999)
    for successes in sorted({*range(min(count, 9) + 1), count // 3, round(0.9941 * count), count - 1, count})
]


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_wilsons_interval_is_scipys(alpha):
    for successes, count in CASES:
        expected = stats.binomtest(successes, count).proportion_ci(1 - alpha, method="wilson")
        assert wilson(successes, count, alpha) == pytest.approx(tuple(expected), rel=1e-12, abs=1e-15)
    assert wilson(0, 3)[0] == 0
    assert wilson(3, 3)[1] == 1
    assert wilson(0, 0) == (0, 1)
    assert {type(end) for end in wilson(np.int64(1), np.int64(3))} == {float}


def test_the_exact_interval_is_scipys():
    for successes, count in CASES:
        expected = stats.binomtest(successes, count).proportion_ci(0.95, method="exact")
        assert clopper_pearson(successes, count) == pytest.approx(tuple(expected), abs=1e-11)


def test_the_rate_of_failures_is_exact():
    # Solves P(X ≥ k) = 2.5 % and P(X ≤ k) = 2.5 % for the rate.
    low, high = clopper_pearson(1, 6)
    assert stats.binom.sf(0, 6, low) == pytest.approx(0.025)
    assert stats.binom.cdf(1, 6, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 6)[0] == 0
    assert clopper_pearson(0, 0) == (0, 1)
