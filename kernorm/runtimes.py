"""The runtimes that a model is tried in, each in a fresh process: `python -m kernorm.runtimes NAME PATH FOLDER`.

Used by validate. Reads FOLDER/images.npy, uint8 (N, H, W, C), asks the SavedModel in PATH about its first 0, 1, 3 and
128 images, and writes the logits to FOLDER/NAME.npz by signature and batch size, with the runtime's version.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Logits = dict[str, NDArray[np.float32]]

BATCHES = (0, 1, 3, 128)
OPSET = 18


def keras(path: Path, images: "Images") -> "tuple[Logits, str]":
    """Asks the net as kernorm's code builds it, with the weights that are in the SavedModel: the reference."""
    import keras
    import numpy as np
    import tensorflow as tf
    from pydantic import TypeAdapter

    from kernorm.card import read_card
    from kernorm.config import TrainConfig
    from kernorm.model import build_model

    card = read_card(path)
    model = build_model(TypeAdapter(TrainConfig).validate_python(card.config), card.data)
    stored = tf.saved_model.load(str(path)).variables
    shapes = [[tuple(variable.shape) for variable in variables] for variables in (model.variables, stored)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the variables of the net are {shapes[0]}, those in the SavedModel {shapes[1]}")
    for variable, value in zip(model.variables, stored, strict=True):
        variable.assign(value)
    classes = model.output_shape[-1]
    found = {
        str(size): np.asarray(model(images[:size], training=False)) if size else np.zeros((0, classes), np.float32)
        for size in BATCHES
    }
    return found, keras.__version__


def tensorflow(path: Path, images: "Images") -> "tuple[Logits, str]":
    """Asks every signature through TensorFlow's C++ loader and session, as TF Serving does, without Keras.

    Every warm-up request is answered too, since one that fails fails the load.
    """
    import numpy as np
    import tensorflow as tf

    from kernorm.warmup import PATH, PredictionLog, encode_examples, encode_png

    found: Logits = {}
    # Encoded before the session's graph takes every operation.
    encoded = {
        size: [np.array(encode(images[:size]), object) for encode in (encode_png, encode_examples)] for size in BATCHES
    }
    warmup = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path / PATH))]
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

        def ask(name: str, values: "NDArray[Any]") -> "dict[str, NDArray[Any]]":
            signature = loaded.signature_def[name]
            (entry,) = signature.inputs.values()
            fetched = {key: output.name for key, output in signature.outputs.items()}
            return session.run(fetched, {entry.name: values})

        for size in BATCHES:
            batch = images[:size]
            png, examples = encoded[size]
            for name, values in (("serving_default", batch), ("serving_png", png), ("serving_tf_examples", examples)):
                found[f"{name}:{size}"] = ask(name, values)["logits"]
            scores, logits = ask("classify", examples)["scores"], found[f"serving_default:{size}"]
            powers = np.exp(logits - logits.max(-1, keepdims=True, initial=-np.inf))
            ranked = -np.sort(-powers / powers.sum(-1, keepdims=True), axis=-1)
            if not np.allclose(scores, ranked, rtol=0, atol=1e-5):
                raise ValueError(f"classify does not rank by probability at batch size {size}")
        for log in warmup:
            if log.HasField("classify_log"):
                request = log.classify_log.request
                listed = [example.SerializeToString() for example in request.input.example_list.examples]
                ask(request.model_spec.signature_name, np.array(listed, object))
            else:
                (value,) = log.predict_log.request.inputs.values()
                ask(log.predict_log.request.model_spec.signature_name, tf.make_ndarray(value))
    return found, tf.__version__


def openvino(path: Path, images: "Images") -> "tuple[Logits, str]":
    """Asks `serving_default` through OpenVINO, which reads the SavedModel itself; at float32, not bfloat16."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = {f"serving_default:{size}": compiled({"image": images[:size]})["logits"] for size in BATCHES if size}
    return found, openvino.__version__.partition("-")[0]


def onnxruntime(path: Path, images: "Images") -> "tuple[Logits, str]":
    """Asks `serving_default` through ONNX Runtime, after a conversion by tf2onnx."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        converted = str(Path(folder) / "model.onnx")
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(path), "--signature_def",
                   "serving_default", "--opset", str(OPSET), "--output", converted]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        session = onnxruntime.InferenceSession(converted, providers=["CPUExecutionProvider"])
    found = {
        f"serving_default:{size}": session.run(["logits"], {"image": images[:size]})[0] for size in BATCHES if size
    }
    return found, onnxruntime.__version__


RUNTIMES: "dict[str, Callable[[Path, Images], tuple[Logits, str]]]" = {
    "keras": keras,
    "tensorflow": tensorflow,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
}
# What must be installed for each, by module.
NEEDS = {
    "keras": ("keras",),
    "tensorflow": ("tensorflow",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "tf2onnx"),
}


def main(words: list[str]) -> None:
    """Runs one runtime."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import numpy as np

    name, path, folder = words[0], Path(words[1]), Path(words[2])
    logits, version = RUNTIMES[name](path, np.load(folder / "images.npy"))
    np.savez(folder / f"{name}.npz", **logits, version=np.array(version))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
