"""The report of an evaluation: one page beside the model, without any file or address from elsewhere."""

from typing import TYPE_CHECKING

from kernorm.card import Card
from kernorm.gate import Change, Measure
from kernorm.report import environment
from kernorm.thresholds import METRICS, OVERALL

if TYPE_CHECKING:
    from kernorm.evaluate import ModelEvaluation

LABELS = {"accuracy": "Accuracy", "cross_entropy": "Cross-entropy, nats", "brier": "Brier score", "ece": "ECE"}


def render(found: "ModelEvaluation", card: Card) -> str:
    """Returns the page of an evaluation."""
    cells = {(measure.metric, measure.slice): measure for measure in found.measures}
    changes = {(change.metric, change.slice): change for change in found.changes}
    return (
        environment()
        .get_template("evaluation_report.html.j2")
        .render(
            found=found,
            card=card,
            accuracy=found.measured("accuracy"),
            metrics=list(METRICS.values()),
            labels=LABELS,
            slices=list(dict.fromkeys(measure.slice for measure in found.measures)),
            overall=OVERALL,
            cells=cells,
            changes=changes,
            shown=_shown,
            mean_loss=_mean_loss(found),
        )
    )


def _shown(found: Measure | Change) -> str:
    """Writes a measure or a change with its interval: accuracy in percent, its change in points."""
    sign = "+" if isinstance(found, Change) else ""
    scale, digits = (100, 2) if found.metric == "accuracy" else (1, 4)
    value, low, high = (f"{scale * number:{sign}.{digits}f}" for number in (found.value, *found.interval))
    return f"{value} [{low}, {high}]".replace("-", "−")


def _mean_loss(found: "ModelEvaluation") -> float | None:
    """Returns the mean loss of accuracy over all corruptions and severities."""
    losses = [row.clean - accuracy for row in found.robustness for accuracy in row.accuracies]
    return sum(losses) / len(losses) if losses else None
