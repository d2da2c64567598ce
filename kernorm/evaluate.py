"""Evaluates an exported model on the test split, against thresholds and a baseline: BLESSED or not.

    python -m kernorm.evaluate saved_models/<run id>/<version> --baseline latest --thresholds mnist

takes about half a minute on MNIST. What is evaluated is the reloaded
SavedModel, asked through `serving_default`, not the model that was trained.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from kernorm.limits import check_settings
from kernorm.saved_model.versions import PUBLISHED
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.evaluate"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluates an exported model on the test split, overall and by class, and decides whether it is blessed.

    It writes evaluation.json, report.html and, with thresholds, BLESSED or NOT_BLESSED into assets.extra/kernorm/ of
    the model. Exit code 1 if it is not blessed.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>, or saved_models/<run id> for its newest version."""

    baseline: str | None = None
    """A model to compare with, on the same images: saved_models/<name>/<version>, saved_models/<name> for its newest
    version, or 'latest', the newest published one that was blessed, is of the same data and is not this very model."""

    thresholds: str | None = None
    """What must hold: 'mnist', for models of that set; bounds of the whole split, such as balanced_accuracy=0.9; or a
    file in TFMA's form of EvalConfig. None: no blessing."""

    model: str = PUBLISHED
    """Name under which models are published, for --baseline latest."""

    beside: tuple[Path, ...] = ()
    """Other models whose robustness is shown for comparison, such as one of each norm. Nothing else is measured."""

    robustness: bool = True
    """Measure accuracy on corrupted images too, twelve kinds in five strengths, on 2,000 images of the split."""

    saved_models_dir: Path = Path("saved_models")
    """Where <model>/<version>/ lie."""

    manual_dir: Path | None = None
    """Folder with the files of a data set that must be fetched by hand."""

    data_dir: Path | None = None
    """Where tensorflow-datasets keeps its sets."""

    def __post_init__(self) -> None:
        """Refuses values of another type."""
        check_settings(self)


def main(config: EvaluateConfig) -> int:
    """Evaluates a model and prints the verdict; returns 1 if it is not blessed."""
    use_tensorflow_on_cpu()
    from kernorm.evaluation.evaluator import evaluate_model
    from kernorm.evaluation.result import format_evaluation
    from kernorm.saved_model.versions import model_of

    path = model_of(config.path)
    found = evaluate_model(
        path,
        baseline=config.baseline,
        published=config.saved_models_dir / config.model,
        thresholds=config.thresholds,
        others=config.beside,
        robustness=config.robustness,
        manual_dir=config.manual_dir,
        data_dir=config.data_dir,
    )
    print("\n".join(format_evaluation(found, path)))
    return 1 if found.blessed is False else 0


if __name__ == "__main__":
    sys.exit(
        cli.run(
            EvaluateConfig, main, prog=PROG, interrupted="The model has no new verdict; run the same command again."
        )
    )
