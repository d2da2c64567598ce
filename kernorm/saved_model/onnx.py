"""tf2onnx's converter, where TensorFlow starts as kernorm starts it: `-m kernorm.saved_model.onnx PATH TARGET`."""

import sys
from pathlib import Path

from kernorm.saved_model.inference import SIGNATURE
from kernorm.system.backend import import_tensorflow

OPSET = 18


def convert(path: Path, target: Path) -> None:
    """Writes `serving_default` of the SavedModel in `path` as ONNX; leaves tf2onnx's loggers and state behind."""
    import_tensorflow()
    import tf2onnx.convert

    words = ["--saved-model", path, "--signature_def", SIGNATURE, "--opset", OPSET, "--output", target]
    before, sys.argv = sys.argv, ["tf2onnx.convert", *map(str, words)]
    try:
        tf2onnx.convert.main()
    finally:
        sys.argv = before


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
