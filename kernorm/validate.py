"""Tries an exported model in the runtimes of this machine, in fresh processes: INFRA_BLESSED or not.

    python -m kernorm.validate saved_models/<run id>/<version>

takes about half a minute. `kernorm.push` does it, too.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from kernorm.limits import check_settings
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.validate"


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Tries an exported model in the runtimes of this machine: TensorFlow, OpenVINO, ONNX Runtime, TF Serving.

    TF Serving is the tensorflow_model_server on PATH, or what KERNORM_SERVING_ENDPOINT names: a server of this very
    version, as localhost:8500,http://localhost:8501/v1/models/kernorm.

    It writes validation.json and INFRA_BLESSED or INFRA_NOT_BLESSED into assets.extra/kernorm/ of the model. Exit code
    1 if it is not blessed.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>, or saved_models/<run id> for its newest version."""

    data_dir: Path | None = None
    """Where tensorflow-datasets keeps its sets, for their record files. None: its default."""

    def __post_init__(self) -> None:
        """Refuses values of another type."""
        check_settings(self)


def main(config: ValidateConfig) -> int:
    """Validates a model and prints what came of each runtime; returns 1 if one of them failed."""
    use_tensorflow_on_cpu(load=False)
    from kernorm.saved_model.versions import model_of
    from kernorm.serving.validation import INFRA_BLESSED, INFRA_NOT_BLESSED, format_validation, validate_model

    found = validate_model(model_of(config.path), config.data_dir)
    print("\n".join([*format_validation(found), INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED]))
    return 0 if found.blessed else 1


if __name__ == "__main__":
    sys.exit(
        cli.run(
            ValidateConfig, main, prog=PROG, interrupted="The model has no new verdict; run the same command again."
        )
    )
