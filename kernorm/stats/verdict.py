"""What a comparison allows to be said, as a name and as words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kernorm.stats.comparison import ALPHA, Comparison
from kernorm.stats.intervals import Interval

Outcome = Literal[
    "better",
    "worse",
    "better on these images",
    "worse on these images",
    "equivalent",
    "not resolved",
    "as selected",
    "no verdict",
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of an arm, as a name and as words for the report.

    `interval` is of the difference, at the level 1 − `alpha` that decided after the correction for several arms; `of`
    says of what images: `new images`, or `these images`, the ones of the test split. An interval of None has no bound
    yet.
    """

    name: Outcome
    sentence: str
    interval: Interval | None = None
    of: Literal["new images", "these images", ""] = ""
    alpha: float | None = None


def verdict(
    comparison: Comparison,
    p_adjusted: float | None,
    tost_adjusted: float | None = None,
    *,
    new_images: Interval | None = None,
    alpha: float = ALPHA,
    equivalence_alpha: float = ALPHA,
    show: Callable[[float], str] = "{:.3g}".format,
    plan: str = "",
    needed: int = 2,
) -> Verdict:
    """Says what a comparison allows to be said.

    A significant difference goes first. It is one of the recipes, better or worse, if the interval for new images
    leaves zero on the same side too, and else one on these images alone. Then equivalence. Without either the question
    is open, which is no evidence of "no difference".

    Args:
        comparison: of the arm with its baseline.
        p_adjusted: of no difference, as `holm` has adjusted it over the arms.
        tost_adjusted: of the equivalence test, adjusted as well.
        new_images: interval of the difference on images that were never seen, at the level for this arm.
        alpha: the level of this arm, as `holm_levels` gives it.
        equivalence_alpha: that of its equivalence test.
        show: writes a difference with its unit, as `percentage_points` does for shares.
        plan: what would resolve the question, in words.
        needed: the seeds that the test begins with.
    """
    if p_adjusted is None or comparison.difference is None:
        return Verdict(name="no verdict", sentence=f"no verdict: fewer than {needed} seeds in common with the baseline")
    equivalent = tost_adjusted is not None and tost_adjusted <= ALPHA
    margin = show(comparison.margin or 0.0)
    here: dict[str, Any] = {"interval": comparison.interval_at(alpha), "of": "these images", "alpha": alpha}
    if p_adjusted <= ALPHA:
        up = comparison.difference > 0
        side = "better" if up == comparison.higher_is_better else "worse"
        small = f", though by less than {margin}" if equivalent else ""
        if new_images is not None and (new_images[0] > 0 if up else new_images[1] < 0):
            name: Outcome = "better" if side == "better" else "worse"
            # The equivalence test is of these images; what is said of new ones must not contradict their interval.
            small = small if max(map(abs, new_images)) <= (comparison.margin or 0.0) else ""
            return Verdict(name=name, sentence=name + small, interval=new_images, of="new images", alpha=alpha)
        name = "better on these images" if side == "better" else "worse on these images"
        return Verdict(name=name, sentence=f"{name}{small}; not resolved for new ones", **here)
    if equivalent:
        here |= {"interval": comparison.interval_at(2 * equivalence_alpha), "alpha": 2 * equivalence_alpha}
        return Verdict(name="equivalent", sentence=f"equivalent within {margin} on these images", **here)
    return Verdict(name="not resolved", sentence=f"not resolved: {plan}" if plan else "not resolved", **here)


def percentage_points(share: float) -> str:
    """Writes a share, or a difference of two, in percentage points."""
    return f"{100 * share:.2g} pp"
