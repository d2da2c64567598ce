"""Takes a candidate all the way to TF Serving: evaluated, validated, published. What `kernorm.train --push` runs."""

from pathlib import Path

from kernorm import evaluate, push
from kernorm.config import TrainConfig

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
