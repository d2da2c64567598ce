"""Other formats of an exported model, next to its SavedModel: ONNX, OpenVINO and LiteRT."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernorm.config import FormatName
from kernorm.errors import UsageError
from kernorm.saved_model.inference import SIGNATURE, load_saved_model
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.parity import BATCHES, Images, PredictLogits, largest_difference, largest_tolerated
from kernorm.saved_model.paths import literal_path
from kernorm.saved_model.versions import named
from kernorm.system.files import sync_folder


@dataclass(frozen=True)
class Format:
    """One format: its files, the modules it needs, what writes it from a SavedModel, what asks it, in which batches."""

    suffixes: tuple[str, ...]
    needs: tuple[str, ...]
    write: Callable[[Path, Path], object]
    load: Callable[[Path], PredictLogits]
    batches: tuple[int, ...] = BATCHES


def convert(path: Path, name: FormatName) -> Path:
    """Writes the SavedModel in `path` in another format next to it, and returns the new file.

    The files are made and checked in a temporary folder; the first suffix's file appears last.

    Raises:
        UsageError: a package is missing, or the path is no model of kernorm's or was changed after its export.
        RuntimeError: the converted model does not answer as the SavedModel; nothing is left.
    """
    from kernorm.saved_model.warmup import recorded_images  # TensorFlow

    kind, path = require_format(name), named(path)
    verify_integrity(path)
    images = recorded_images(path, max(BATCHES))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        made = Path(folder) / f"{path.name}{kind.suffixes[0]}"
        with literal_path(path) as literal:
            kind.write(literal, made)
        _require_parity(name, load_saved_model(path), kind.load(made), [images[:size] for size in kind.batches])
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
            f"Install it by pip install {' '.join(missing).replace('_', '-')}.",
        )
    return FORMATS[name]


def write_onnx(path: Path, target: Path) -> None:
    """Writes `serving_default` of a SavedModel as ONNX, by tf2onnx in a process of its own."""
    command = [sys.executable, "-m", "kernorm.saved_model.onnx", str(path), str(target)]
    subprocess.run(command, check=True, capture_output=True)


def load_onnx(file: Path) -> PredictLogits:
    """Returns what asks an ONNX file through ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0]


def write_openvino(path: Path, target: Path) -> None:
    """Writes `serving_default` of a SavedModel as OpenVINO's two files, weights in float32."""
    import openvino

    openvino.save_model(openvino.Core().read_model(str(path)), str(target), compress_to_fp16=False)


def load_openvino(file: Path) -> PredictLogits:
    """Returns what asks OpenVINO, of its own file or of a SavedModel's folder; at float32, not bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled({"image": images})["logits"]


def write_litert(path: Path, target: Path) -> None:
    """Writes the net of a SavedModel as a LiteRT file in float32, with the outputs of `serving_default`.

    From its graph, without what spares TensorFlow an empty batch there, which has no counterpart in LiteRT.
    """
    import tensorflow as tf

    from kernorm.saved_model.signatures import answer, net_of_graph  # TensorFlow

    loaded = tf.saved_model.load(str(path))
    net, spec = net_of_graph(loaded.signatures[SIGNATURE])
    asked = tf.function(lambda image: answer(net(image)), input_signature=[spec]).get_concrete_function()
    target.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([asked], loaded).convert())


def load_litert(file: Path) -> PredictLogits:
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


def _require_parity(name: str, model: PredictLogits, converted: PredictLogits, batches: list[Images]) -> None:
    for batch in batches:
        wanted = model(batch)
        difference = largest_difference(converted(batch), wanted)
        if difference > largest_tolerated(wanted):
            raise RuntimeError(
                f"A converted model must answer as its SavedModel. Received: logits of {name} that "
                f"differ by {difference:.3g} at batch size {len(batch)}. Report this."
            )


def convert_all(path: Path, names: Sequence[FormatName]) -> dict[FormatName, Path]:
    """Writes the SavedModel in `path` in several formats; returns the new files by format.

    Raises:
        UsageError: as `convert`; nothing is written if a package of any of them is missing.
        RuntimeError: as `convert`.
    """
    for name in names:
        require_format(name)
    return {name: convert(path, name) for name in names}
