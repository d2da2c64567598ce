"""The report of an evaluation: one page in the model's folder, without any file or address from elsewhere."""

from typing import TYPE_CHECKING

from kernorm.evaluation.gate import Change, Measure
from kernorm.evaluation.latency import Latency
from kernorm.evaluation.thresholds import BY_IMAGE, WHOLE
from kernorm.records.data import OVERALL
from kernorm.reporting.page import page_data, page_renderer
from kernorm.saved_model.card import Card

if TYPE_CHECKING:
    from kernorm.evaluation.result import ModelEvaluation

LABELS = {
    "accuracy": "Accuracy",
    "cross_entropy": "Cross-entropy, nats",
    "brier": "Brier score",
    "ece": "ECE",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "worst_recall": "Worst recall",
}


def render(found: "ModelEvaluation", card: Card, latency: Latency | None = None) -> str:
    """Returns the page of an evaluation."""
    cells = {(measure.metric, measure.slice): measure for measure in found.measures}
    changes = {(change.metric, change.slice): change for change in found.changes}
    return (
        page_renderer()
        .get_template("evaluation_report.html.j2")
        .render(
            found=found,
            card=card,
            accuracy=found.measured("accuracy"),
            metrics=list(BY_IMAGE.values()),
            whole=[metric for metric in WHOLE.values() if (metric, OVERALL) in cells],
            labels=LABELS,
            slices=list(dict.fromkeys(measure.slice for measure in found.measures)),
            overall=OVERALL,
            cells=cells,
            changes=changes,
            shown=_shown,
            mean_loss=_mean(_losses(found)[0][2]) if found.robustness else None,
            own=[row for row in found.robustness if row.run_id == found.run_id],
            losses=_losses(found),
            mean=_mean,
            latency=latency,
            data=page_data(),
        )
    )


def _shown(found: Measure | Change) -> str:
    """Writes a measure or a change with its interval: accuracy in percent, its change in points."""
    sign = "+" if isinstance(found, Change) else ""
    scale, digits = (100, 2) if found.metric == "accuracy" else (1, 4)
    value, low, high = (f"{scale * number:{sign}.{digits}f}" for number in (found.value, *found.interval))
    return f"{value} [{low}, {high}]".replace("-", "−")


def _losses(found: "ModelEvaluation") -> list[tuple[str, str, dict[str, float]]]:
    """Returns for each model its norm, its run, and its mean loss of accuracy over severities, by corruption."""
    models: dict[tuple[str, str], dict[str, float]] = {}
    for row in found.robustness:
        losses = models.setdefault((row.norm, row.run_id), {})
        losses[row.corruption] = row.clean - sum(row.accuracies) / len(row.accuracies)
    return [(norm, run_id, losses) for (norm, run_id), losses in models.items()]


def _mean(losses: dict[str, float]) -> float:
    return sum(losses.values()) / len(losses)
