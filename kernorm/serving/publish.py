"""From an exported model to TF Serving: evaluated against the published one, validated, published.

What --push of `kernorm.train`, `kernorm.study` and `tuner.search` runs.
"""

import logging
from pathlib import Path

from kernorm.errors import Refused, UsageError
from kernorm.evaluation.evaluator import evaluate_model
from kernorm.evaluation.result import format_evaluation
from kernorm.evaluation.thresholds import packaged_thresholds
from kernorm.saved_model.card import read_card
from kernorm.serving.registry import Registry

_LOG = logging.getLogger("kernorm")


def require_thresholds(dataset: str) -> str:
    """Returns the name of the thresholds that come with a data set.

    Raises:
        UsageError: there are none; they say how good a model must be, which nobody but its user knows.
    """
    name = dataset.partition(":")[0]
    if name in packaged_thresholds():
        return name
    raise UsageError(
        "--push compares with the thresholds that come with a set.",
        f"{dataset}, which has none",
        "Remove it; then python -m kernorm.evaluate PATH --thresholds accuracy=BOUND, and python -m kernorm.push PATH.",
    )


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
        UsageError: no thresholds come with its data set; or see `evaluate_model` and `Registry.push`.
    """
    registry, thresholds = Registry(saved_models_dir), require_thresholds(read_card(path).data.name)
    found = evaluate_model(
        path,
        baseline="latest",
        published=registry.base,
        thresholds=thresholds,
        manual_dir=manual_dir,
        data_dir=data_dir,
    )
    for line in format_evaluation(found, path):
        _LOG.info(line)
    if not found.blessed:
        failed = [decision.sentence for decision in found.decisions if not decision.passed]
        raise Refused(f"{path}: {'; '.join(failed)}")
    return registry.push(path)
