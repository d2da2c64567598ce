"""Takes candidates all the way to TF Serving: chosen, exported, evaluated, validated, published.

What --push of `kernorm.train`, `kernorm.study` and `tuner.search` runs.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kernorm import evaluate, push
from kernorm.config import TrainConfig
from kernorm.errors import UsageError

if TYPE_CHECKING:
    from kernorm.record import Record

# Against these every candidate is held; they are MNIST's.
THRESHOLDS = Path(__file__).parent / "thresholds.json"


def ship(path: Path, config: TrainConfig) -> int:
    """Evaluates a candidate against the newest blessed version and publishes it; returns 1 if it is refused.

    Raises:
        UsageError: see `evaluate_model` and `push`.
    """
    refused = evaluate.main(
        evaluate.EvaluateConfig(
            path=path,
            baseline="latest",
            thresholds=THRESHOLDS,
            saved_models_dir=config.saved_models_dir,
            manual_dir=config.manual_dir,
            data_dir=config.data_dir,
        )
    )
    return refused or push.main(push.PushConfig(path=path, saved_models_dir=config.saved_models_dir))


def validation_score(record: "Record") -> float:
    """Returns what candidates are chosen by: the cross-entropy on the validation split, never a test score.

    Raises:
        UsageError: the run had no validation split.
    """
    if record.validation is None:
        raise UsageError(
            "A candidate is chosen by validation.",
            f"{record.run_id}, without a validation split",
            "Train with --validation-size 10000, or export a run by python -m kernorm.export.",
        )
    return record.validation.cross_entropy


def export_best(records: "Iterable[Record]", places: TrainConfig) -> "Record":
    """Exports the run of the lowest validation cross-entropy, with a report of its own; returns its record.

    Args:
        records: of finished runs in `places.reports_dir`.
        places: names the folders to read and write.
    """
    from kernorm.train import train

    best = min(records, key=validation_score)
    return train(
        replace(
            best.config,
            reports_dir=places.reports_dir,
            saved_models_dir=places.saved_models_dir,
            manual_dir=places.manual_dir,
            data_dir=places.data_dir,
            export=True,
            report=True,
        )
    )
