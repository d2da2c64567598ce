"""Other formats of an exported model, next to its SavedModel: ONNX, OpenVINO and LiteRT.

    python -m kernorm.convert saved_models/<run id>/<version> --format onnx openvino litert

takes about 20 seconds. Writes saved_models/<run id>/<version>.onnx, .xml with .bin, or .tflite, which TF Serving does
not take for versions. Converted from `serving_default`, and only kept if the format's own runtime answers as the
SavedModel does. After export; `kernorm.export` and `kernorm.train` do the same with --format.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from kernorm.config import FormatName
from kernorm.limits import check_settings
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.convert"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Writes an exported model in other formats next to its SavedModel, each checked against it.

    onnx needs tf2onnx and onnxruntime, openvino openvino, litert ai-edge-litert: pip install them.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>, or saved_models/<run id> for its newest version."""

    format: tuple[FormatName, ...] = ("onnx", "openvino", "litert")
    """onnx (ONNX, opset 18), openvino (OpenVINO IR, float32), litert (LiteRT, once TensorFlow Lite)."""

    def __post_init__(self) -> None:
        """Refuses values of another type."""
        check_settings(self)


def main(config: ConvertConfig) -> None:
    """Converts a model and prints the new files."""
    use_tensorflow_on_cpu()
    from kernorm.saved_model.formats import convert_all
    from kernorm.saved_model.versions import model_of

    for name, path in convert_all(model_of(config.path), config.format).items():
        print(f"{name:8} {path}")


if __name__ == "__main__":
    sys.exit(
        cli.run(ConvertConfig, main, prog=PROG, interrupted="Nothing is left half written; run the same command again.")
    )
