"""How a study judges, as a user says it: the primary metric, its margin, targets of accuracy.

Imports neither NumPy nor the metrics, so that `--help` and every refusal answer at once.
"""

import math
from typing import Any, Literal

from kernorm.errors import UsageError, nearest
from kernorm.limits import flag_of

# Metrics that verdicts may be by; see `metrics.METRICS`.
PRIMARY = ("accuracy", "balanced_accuracy", "macro_f1", "worst_recall", "cross_entropy", "brier", "ece")
# What is resolved from the test split's class counts; see `primary.resolved`.
AUTO: Literal["auto"] = "auto"
# Settings of the command that say how to train.
_TRAINING = (
    *("seeds", "until_resolved", "time_budget", "max_seeds", "epochs", "only", "tune_rate"),
    *("push", "dry_run", "report_only"),
)


def primary(name: Any, source: str) -> str:
    """Returns a primary metric's name, or auto.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in (AUTO, *PRIMARY):
        known = (AUTO, *PRIMARY)
        raise UsageError("A primary metric is a known one.", f"{name!r} as {source}", nearest(str(name), known))
    return str(name)


def margin_of(value: Any, source: str) -> float | Literal["auto"]:
    """Returns a margin as a number, in the unit of its metric: of 0.5pp, of 0.005; or auto.

    Raises:
        UsageError: it is none, not above 0, or not below 1; `source` gave it.
    """
    if value == AUTO:
        return AUTO
    text = str(value).strip().lower()
    try:
        number = float(text.removesuffix("pp")) / (100 if text.endswith("pp") else 1)
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 < number < 1:
        raise UsageError(
            f"{source} is a difference above 0 and below 1, or in points, or auto.",
            f"{value!r}",
            "Give for example 0.5pp, which is 0.005.",
        )
    return number


def targets_of_text(value: Any, source: str) -> tuple[float, ...] | Literal["auto"]:
    """Returns target accuracies, as shares, from percent such as 90,95; or auto.

    Raises:
        UsageError: one is no number above 0 and up to 100; `source` gave them.
    """
    if value == AUTO:
        return AUTO
    try:
        shares = tuple(float(part) / 100 for part in str(value).split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"{source} takes accuracies in percent, or auto.", f"{value!r}", "Give for example 90,95.")
    return shares


def require_one_source(settings: Any) -> None:
    """Refuses two ways to say what a study is of, or none, and flags that train where runs that exist are compared.

    Args:
        settings: of the command.

    Raises:
        UsageError: it is so.
    """
    found = [repr(settings.study)] if settings.study else []
    found += [flag_of(name) for name in ("vary", "runs", "where") if getattr(settings, name)]
    if len(found) != 1:
        raise UsageError(
            "A study is named, or given by --vary, or of runs that exist, by --runs or --where.",
            " and ".join(found) or "none of them",
            "Give one of them, for example smoke.",
        )
    for name in _TRAINING if settings.runs or settings.where else ():
        if getattr(settings, name) not in (None, False, ()):
            raise UsageError("Runs that exist are compared as they are.", flag_of(name), "Remove it.")
