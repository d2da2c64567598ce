"""What may be shown of a study with a fixed number of seeds before all its runs have ended: means and progress.

A verdict, a p-value or an interval of a difference would be a look, and who looks and goes on finds differences that
are not there. So an incomplete study has none of them, and showing it is no look.
"""

from collections.abc import Mapping
from dataclasses import replace

from kernorm.studies.definition import Study
from kernorm.studies.design import Design
from kernorm.studies.ledger import Result
from kernorm.studies.summary import ArmSummary, Factor, StudySummary


def is_complete(study: Study, design: Design, results: Mapping[str, Result]) -> bool:
    """Tells whether verdicts may be shown: always of a study that may be looked at at any time, else at its end."""
    return design.until_resolved or all(run.config.run_id in results for run in study.runs())


def without_verdicts(summary: StudySummary) -> StudySummary:
    """Returns what may be shown of an incomplete study."""
    return replace(
        summary,
        provisional=True,
        arms=tuple(map(_arm, summary.arms)),
        factors=tuple(map(_factor, summary.factors)),
        answers=(),
    )


def _arm(arm: ArmSummary) -> ArmSummary:
    last = arm.last and replace(arm.last, compared=None, p_adjusted=None, verdict=None)
    return replace(
        arm,
        comparisons={},
        p_adjusted=None,
        verdict=None,
        last=last,
        exhausted=False,
        mcnemar=None,
        generalization_difference=None,
    )


def _factor(factor: Factor) -> Factor:
    return replace(factor, levels=tuple(replace(level, effect=None, interval=None) for level in factor.levels))
