"""How a study's numbers and verdicts are written, in the terminal as in the report."""

import math
from collections.abc import Iterable

from kernorm.stats.comparison import Comparison
from kernorm.stats.intervals import Interval
from kernorm.stats.verdict import Verdict
from kernorm.studies.metrics import METRICS
from kernorm.studies.summary import ArmSummary, StudySummary, counted

# Names that a sentence lists before it only counts.
LISTED = 4


def compared(arm: ArmSummary, metric: str) -> Comparison | None:
    """Returns the comparison behind an arm's verdict: of last epochs, where the epoch was selected on test."""
    return arm.last.compared if arm.last else arm.comparisons.get(metric)


def failure_rate(arm: ArmSummary) -> str:
    """Says how many runs of an arm failed, with the exact interval of the rate."""
    found = arm.failures
    low, high = found.interval or (0.0, 1.0)
    kinds = f", {found.collapsed} of them by a collapse" if found.collapsed else ""
    rate = f"a rate of {100 * low:.0f} to {100 * high:.0f} %"
    return f"fails in {found.failed} of {counted(found.runs, 'run')}{kinds}: {rate}"


def decided_interval(verdict: Verdict, metric: str = "accuracy") -> str:
    """Says which interval decided a verdict, and at which level."""
    if verdict.alpha is None:
        return "no interval"
    level = f"{100 * (1 - verdict.alpha):.4g} %"
    if verdict.interval is None:
        return f"no bound yet at {level}"
    low, high = (unit(end, metric) for end in verdict.interval)
    return f"{level} interval for {verdict.of} {low} to {high}"


def unit(value: float, metric: str = "accuracy") -> str:
    """Returns a difference with its sign and unit."""
    return f"{signed(value, metric)} pp" if in_percent(metric) else signed(value, metric)


def in_percent(metric: str) -> bool:
    """Tells whether a metric is a share, shown in percent."""
    return metric in METRICS and METRICS[metric].in_percent


def score(value: float | None, metric: str = "accuracy") -> str:
    """Returns a score as tables show it: shares in percent with two decimals, others with four."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.2f}" if in_percent(metric) else f"{value:.4f}"


def signed(value: float | None, metric: str = "accuracy") -> str:
    """Returns a difference with its sign, in the unit of `score`."""
    if value is None or not math.isfinite(value):
        return "–"
    text = score(abs(value), metric)
    return ("" if not float(text) else "+" if value > 0 else "−") + text


def half(interval: Interval | None, metric: str = "accuracy") -> str:
    """Returns what stands behind a mean: ± half of its interval; the interval, where it ends at what is possible."""
    if interval is None:
        return ""
    low, high = interval
    if low == 0 < high or high == METRICS[metric].most != low:
        return f"[{score(low, metric)}, {score(high, metric)}]"
    return f"± {score((high - low) / 2, metric)}"


def p_value(value: float | None) -> str:
    """Returns a p-value with two digits that count."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.0995 else f"{value:.2f}"


def listed(names: Iterable[str]) -> str:
    """Lists a few names, and counts the rest."""
    names = list(names)
    if len(names) <= LISTED + 1:
        return ", ".join(names)
    return ", ".join(names[:LISTED]) + f" and {len(names) - LISTED} more"


def headline_interval(arm: ArmSummary, metric: str = "accuracy") -> Interval | None:
    """Returns what stands behind ± in a headline: for new test images where that is known, else over seeds."""
    if METRICS[metric].mean_over and arm.generalization_interval:
        return arm.generalization_interval
    return arm.scores[metric].interval if metric in arm.scores else None


def plus_minus(summary: StudySummary) -> str:
    """Says what ± is of in a headline."""
    scored = [arm for arm in summary.arms if arm.scores and arm.scores[summary.metric].interval]
    if METRICS[summary.metric].mean_over and (not scored or any(arm.generalization_interval for arm in scored)):
        return "is half of the 95 % interval for new seeds and new test images; one run has none"
    return "is half of the 95 % interval over seeds, on these test images; one run has none"
