"""Other formats of an exported model, beside its SavedModel: ONNX, OpenVINO and LiteRT.

    python -m kernorm.formats saved_models/<run id>/<version> --format onnx openvino litert

takes about 20 seconds. Writes saved_models/<run id>/<version>.onnx, .xml with .bin, or .tflite, which TF Serving does
not take for versions. Converted from `serving_default`, and only kept if the format's own runtime answers as the
SavedModel does. After export; `kernorm.export` and `kernorm.train` do the same with --format.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from kernorm import cli
from kernorm.config import FormatName
from kernorm.errors import UsageError
from kernorm.files import sync_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Logits = NDArray[np.float32]
    Ask = Callable[[Images], Logits]

PROG = "python -m kernorm.formats"
SIGNATURE = "serving_default"
OPSET = 18
BATCHES = (0, 1, 3, 128)
# Of a logit, times the largest one if that is above 1: runtimes add in different orders.
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class FormatsConfig:
    """Writes an exported model in other formats beside its SavedModel, each checked against it.

    Needs the extra kernorm[runtimes].
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>."""

    format: tuple[FormatName, ...] = ("onnx", "openvino", "litert")
    """onnx (ONNX, opset 18), openvino (OpenVINO IR, float32), litert (LiteRT, once TensorFlow Lite)."""


@dataclass(frozen=True)
class Format:
    """One format: its files, the modules it needs, what writes it from a SavedModel, what asks it, in which batches."""

    suffixes: tuple[str, ...]
    needs: tuple[str, ...]
    write: Callable[[Path, Path], object]
    load: "Callable[[Path], Ask]"
    batches: tuple[int, ...] = BATCHES


def convert(path: Path, name: FormatName) -> Path:
    """Writes the SavedModel in `path` in another format beside it, and returns the new file.

    The files are made and checked in a temporary folder; the first suffix's file appears last.

    Raises:
        UsageError: a package is missing, or the path is no model of kernorm's or was changed after its export.
        RuntimeError: the converted model does not answer as the SavedModel; nothing is left.
    """
    from kernorm.evaluate import require_whole
    from kernorm.warmup import recorded_images

    kind = require_format(name)
    require_whole(path)
    images = recorded_images(path, max(BATCHES))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        made = Path(folder) / f"{path.name}{kind.suffixes[0]}"
        kind.write(path, made)
        _require_parity(name, saved_model(path), kind.load(made), [images[:size] for size in kind.batches])
        for suffix in reversed(kind.suffixes):
            with made.with_suffix(suffix).open("rb") as file:
                os.fsync(file.fileno())
            made.with_suffix(suffix).rename(path.with_name(f"{path.name}{suffix}"))
    sync_folder(path.parent)
    return path.with_name(f"{path.name}{kind.suffixes[0]}")


def require_format(name: FormatName) -> Format:
    """Returns a format that can be written here.

    Raises:
        UsageError: a package that it needs is not installed.
    """
    missing = [module for module in FORMATS[name].needs if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"--format {name} needs {' and '.join(missing)}.",
            "an environment without",
            "Install it by pip install 'kernorm[runtimes]'.",
        )
    return FORMATS[name]


def largest_difference(found: "Logits", wanted: "Logits") -> float:
    """Returns the largest difference of logits (N, K) that are alike; infinite for another shape or no numbers."""
    import numpy as np

    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - wanted).max(initial=0))


def tolerated(wanted: "Logits") -> float:
    """Returns the difference that logits (N, K) may have: TOLERANCE, times the largest one if that is above 1."""
    import numpy as np

    return TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0)))


def saved_model(path: Path) -> "Ask":
    """Returns what asks the SavedModel in `path` through TensorFlow for logits (N, K) of images (N, H, W, C)."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    if SIGNATURE not in loaded.signatures:
        there = ", ".join(loaded.signatures) or "no signature"
        raise UsageError(f"A model answers {SIGNATURE}.", f"{path} with {there}", "Export the run again.")

    def ask(images: "Images") -> "Logits":
        # By way of `loaded`, which must live as long as its signatures are asked.
        return loaded.signatures[SIGNATURE](image=tf.constant(images))["logits"].numpy()

    return ask


def write_onnx(path: Path, target: Path) -> None:
    """Writes `serving_default` of a SavedModel as ONNX, by tf2onnx."""
    command = [
        sys.executable,
        "-m",
        "tf2onnx.convert",
        "--saved-model",
        str(path),
        "--signature_def",
        SIGNATURE,
        "--opset",
        str(OPSET),
        "--output",
        str(target),
    ]
    subprocess.run(command, check=True, capture_output=True)


def load_onnx(file: Path) -> "Ask":
    """Returns what asks an ONNX file through ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0]


def write_openvino(path: Path, target: Path) -> None:
    """Writes `serving_default` of a SavedModel as OpenVINO's two files, weights in float32."""
    import openvino

    openvino.save_model(openvino.Core().read_model(str(path)), str(target), compress_to_fp16=False)


def load_openvino(file: Path) -> "Ask":
    """Returns what asks OpenVINO, of its own file or of a SavedModel's folder; at float32, not bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled({"image": images})["logits"]


def write_litert(path: Path, target: Path) -> None:
    """Writes the net of a SavedModel as a LiteRT file in float32, with the outputs of `serving_default`.

    From the net as kernorm's code builds it: what spares TensorFlow an empty batch there has no counterpart in LiteRT.
    """
    import keras
    import tensorflow as tf

    from kernorm.restore import rebuild
    from kernorm.signatures import answer

    net = rebuild(path)
    archive = keras.export.ExportArchive()
    archive.track(net)
    spec = tf.TensorSpec(net.input_shape, tf.uint8, name="image")
    archive.add_endpoint(SIGNATURE, lambda image: answer(net(image, training=False)), input_signature=[spec])
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        target.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE]).convert())


def load_litert(file: Path) -> "Ask":
    """Returns what asks a LiteRT file through its signature."""
    from ai_edge_litert.interpreter import Interpreter

    runner: Any = Interpreter(model_path=str(file)).get_signature_runner(SIGNATURE)
    return lambda images: runner(image=images)["logits"]


FORMATS: dict[FormatName, Format] = {
    "onnx": Format((".onnx",), ("tf2onnx", "onnxruntime"), write_onnx, load_onnx),
    "openvino": Format((".xml", ".bin"), ("openvino",), write_openvino, load_openvino),
    # LiteRT 2.3's convolution takes no empty batch.
    "litert": Format((".tflite",), ("ai_edge_litert",), write_litert, load_litert, BATCHES[1:]),
}


def _require_parity(name: str, model: "Ask", converted: "Ask", batches: "list[Images]") -> None:
    for batch in batches:
        wanted = model(batch)
        difference = largest_difference(converted(batch), wanted)
        if difference > tolerated(wanted):
            raise RuntimeError(
                f"A converted model must answer as its SavedModel. Received: logits of {name} that "
                f"differ by {difference:.3g} at batch size {len(batch)}. Report this."
            )


def main(config: FormatsConfig) -> None:
    """Converts a model and prints the new files."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    convert_all(config.path, config.format)


def convert_all(path: Path, names: Sequence[FormatName]) -> None:
    """Writes a model in several formats and says where they are; nothing is written if a package is missing."""
    for name in names:
        require_format(name)
    for name in names:
        print(f"{name:8} {convert(path, name)}")


if __name__ == "__main__":
    sys.exit(cli.run(FormatsConfig, main, prog=PROG))
