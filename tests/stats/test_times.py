import dataclasses
import json
import math

import numpy as np
import pytest

from kernorm.stats.times import time_to


def test_time_to_counts_what_was_not_reached():
    # S falls to 4/5 at 2 and 3/5 at 3, one run is lost at 4, then 3/5 · 1/2 at 6: the median. Without it, it were 3.
    result = time_to([2, 3, None, 6, 8], [10, 10, 4, 10, 10])
    assert (result.n, result.reached, result.median) == (5, 4, 6)
    half = time_to([1, 2, None, None], [9] * 4)
    assert (half.reached, half.median, half.interval, half.level) == (2, 2, None, None)
    few = time_to([None, 1.5, None], [9.0] * 3)
    assert (few.reached, few.median) == (1, None)
    for values in ([], [None, None]):
        never = time_to(values, [5] * len(values))
        assert (never.reached, never.median, never.interval) == (0, None, None)
    assert time_to([3.0], [5]).interval is None
    assert json.loads(json.dumps(dataclasses.asdict(few), allow_nan=False))["median"] is None
    with pytest.raises(ValueError, match="1 runs, 2 budgets"):
        time_to([1], [2, 3])
    with pytest.raises(ValueError, match="run 0: inf"):
        time_to([None], [math.inf])


@pytest.mark.parametrize(
    ("n", "places", "level"),
    [(5, None, None), (6, (1, 6), 0.96875), (9, (2, 8), 0.9609375), (12, (3, 10), 0.961426), (20, (6, 15), 0.958611)],
)
def test_the_medians_interval_lies_between_order_statistics(n, places, level):
    """Places and levels as the tables of the sign test have them (Conover 1999, A3)."""
    found = time_to(np.random.default_rng(n).permutation(np.arange(1.0, n + 1)).tolist(), [99] * n)
    assert found.interval == places
    assert found.level == (None if level is None else pytest.approx(level, abs=1e-6))


def test_the_medians_interval_covers_and_knows_runs_that_never_got_there():
    late = time_to([1, 2, 3, 4, 5, None], [9] * 6)
    assert late.interval == (1, None)
    assert time_to([None] * 6, [9] * 6).interval is None
    generator = np.random.default_rng(7)
    found = [time_to(times.tolist(), [99] * 7).interval for times in generator.exponential(1, (2000, 7))]
    covered = np.mean([low <= math.log(2) <= high for low, high in found])
    assert abs(covered - (1 - 2 / 128)) < 3 * math.sqrt(2 / 128 * (1 - 2 / 128) / 2000)  # standard errors
