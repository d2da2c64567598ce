"""From an exported model to TF Serving: evaluated against the published one, validated, published.

What --push of `kernorm.train`, `kernorm.study` and `tuner.search` runs.
"""

import logging
from pathlib import Path

from kernorm.errors import Refused
from kernorm.evaluation.evaluator import evaluate_model
from kernorm.evaluation.result import format_evaluation
from kernorm.serving.registry import Registry

# Every candidate is compared with these.
THRESHOLDS = "mnist"

_LOG = logging.getLogger("kernorm")


def publish(
    path: Path,
    *,
    saved_models_dir: Path = Path("saved_models"),
    manual_dir: Path | None = None,
    data_dir: Path | None = None,
) -> Path:
    """Evaluates the model in `path` against the newest blessed version and publishes it; returns the new folder.

    Args:
        path: the exported model.
        saved_models_dir: where models are published.
        manual_dir: folder with the original files of the data set.
        data_dir: folder of tensorflow-datasets.

    Raises:
        Refused: it is not blessed, or fails in a runtime.
        UsageError: see `evaluate_model` and `Registry.push`.
    """
    registry = Registry(saved_models_dir)
    found = evaluate_model(
        path,
        baseline="latest",
        published=registry.base,
        thresholds=THRESHOLDS,
        manual_dir=manual_dir,
        data_dir=data_dir,
    )
    for line in format_evaluation(found, path):
        _LOG.info(line)
    if not found.blessed:
        failed = [decision.sentence for decision in found.decisions if not decision.passed]
        raise Refused(f"{path}: {'; '.join(failed)}")
    return registry.push(path)
