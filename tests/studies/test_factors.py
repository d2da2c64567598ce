"""Factors and their main effects, against means written out."""

import numpy as np
import pytest
from scipy import stats

from kernorm.config import TrainConfig
from kernorm.studies.factors import factors_of
from kernorm.studies.judged import Judged
from tests.builders import a_study

VALUES = {
    "bn-0": (0.90, 0.92, 0.91),
    "bn-1": (0.93, 0.95, 0.94),
    "gn-0": (0.80, 0.81, 0.85),
    "gn-1": (0.85, 0.87, 0.86),
}
ARMS = {
    f"{norm}-{place}": TrainConfig(norm=norm, l2=l2) for norm in ("bn", "gn") for place, l2 in enumerate((0.0, 1e-3))
}


def judged(values=VALUES):
    return {arm: Judged(values=dict(enumerate(row)), wrong={}) for arm, row in values.items()}


def test_main_effects_are_differences_of_means_over_the_arms():
    norm, l2 = factors_of(a_study(ARMS), judged())
    assert (norm.name, l2.name, norm.follows, l2.follows) == ("norm", "l2", ("learning_rate",), ())
    assert [level.value for level in norm.levels + l2.levels] == ["bn", "gn", "0.0", "0.001"]
    bn0, bn1, gn0, gn1 = (np.array(row) for row in VALUES.values())
    for (first, second), wanted in (
        (norm.levels, (gn0 + gn1) / 2 - (bn0 + bn1) / 2),
        (l2.levels, (bn1 + gn1) / 2 - (bn0 + gn0) / 2),
    ):
        assert (first.effect, first.interval) == (None, None)
        assert second.effect == pytest.approx(wanted.mean())
        assert second.interval == pytest.approx(stats.t.interval(0.95, 2, wanted.mean(), stats.sem(wanted)))
    assert norm.levels[1].arms == ("gn-0", "gn-1")
    assert norm.levels[1].mean == pytest.approx((gn0 + gn1).mean() / 2)


def test_only_seeds_that_every_arm_has_count():
    values = VALUES | {"gn-1": VALUES["gn-1"][:1]}
    norm, _ = factors_of(a_study(ARMS), judged(values))
    assert norm.levels[0].mean == pytest.approx((0.90 + 0.93) / 2)
    assert norm.levels[1].interval is None
    (norm, _) = factors_of(a_study(ARMS), judged(VALUES | {"gn-1": ()}))
    assert (norm.levels[0].mean, norm.levels[1].effect) == (None, None)


@pytest.mark.parametrize(
    "arms",
    [
        {name: ARMS[name] for name in ("bn-0", "bn-1", "gn-0")},  # one combination is missing
        {name: ARMS[name] for name in ("bn-0", "gn-0")},  # one factor, which the table of arms shows
        ARMS | {"more": TrainConfig(norm="ln", l2=0.1)},
    ],
)
def test_arms_that_are_no_product_have_none(arms):
    assert factors_of(a_study(arms), judged({arm: (0.9, 0.8) for arm in arms})) == ()
