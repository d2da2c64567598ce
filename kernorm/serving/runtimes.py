"""The runtimes that a model is tried in, in fresh processes of `-m kernorm.serving.runtimes NAME[,NAME] PATH FOLDER`.

Used by validate. Asks the SavedModel in PATH about the first 0, 1, 3 and 128 images of FOLDER/images.npy, uint8
(N, H, W, C), which the first process takes from the warm-up file, and writes the logits to FOLDER/NAME.npz by signature
and batch size, with the runtime's version. Where `wanted:<key>` is there too, that is what they are compared with
instead of the net in Keras. A runtime without an answer writes the reason, as the last line, to FOLDER/NAME.failed, or
to FOLDER/NAME.not_run if it is installed but has no such model. FOLDER/refused.json holds a user's error, with which
nothing is asked.
"""

import json
import os
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kernorm.errors import UsageError
from kernorm.saved_model import onnx
from kernorm.saved_model.answers import recorded_answers
from kernorm.saved_model.card import read_card
from kernorm.saved_model.formats import load_onnx, load_openvino
from kernorm.saved_model.inference import SIGNATURE, rebuild
from kernorm.saved_model.parity import BATCHES, Logits, PredictLogits, require_ranked
from kernorm.saved_model.paths import literal_path
from kernorm.serving import tfserving
from kernorm.serving.tfserving import NotServed
from kernorm.system.backend import import_tensorflow
from kernorm.system.children import exit_when_ended

Found: TypeAlias = dict[str, Logits]

IMAGES, RECORDS, REFUSED = "images.npy", "records.tfrecord", "refused.json"


def keras(path: Path, folder: Path) -> tuple[Found, str]:
    """Asks the net as kernorm's code builds it, with the weights that are in the SavedModel: the reference.

    Of an own net, whose Python does not run here, it is what the net answered at its export.
    """
    import keras

    if (answers := recorded_answers(path)) is not None:
        return {str(size): answers[:size] for size in BATCHES}, keras.__version__
    images, model = np.load(folder / IMAGES), rebuild(path)
    none = np.zeros((0, model.output_shape[-1]), np.float32)
    return {
        str(size): np.asarray(model(images[:size], training=False)) if size else none for size in BATCHES
    }, keras.__version__


def graph(path: Path, folder: Path) -> tuple[Found, str]:
    """Looks which operations the card's signatures reach; runs none.

    Raises:
        ValueError: a signature is missing.
        RuntimeError: a refused operation is reached, such as Python, XLA, or an assignment.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from kernorm.saved_model.graph import check_graph  # TensorFlow

    promised = read_card(path).signatures
    there = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
    if missing := sorted(set(promised) - set(there)):
        raise ValueError(f"no signature {', '.join(missing)}, which the model card names")
    check_graph(path, promised)
    return {}, tf.__version__


def tensorflow(path: Path, folder: Path) -> tuple[Found, str]:
    """Asks every signature through TensorFlow's C++ loader and session, as TF Serving does, in a graph of its own.

    Every warm-up request is answered too, since one that fails fails the load.
    """
    import tensorflow as tf

    from kernorm.saved_model.warmup import PATH, PredictionLog, encode_examples, encode_png  # TensorFlow

    images = np.load(folder / IMAGES)
    found: Found = {}
    # Encoded before the session's graph takes every operation.
    encoded = {
        size: [np.array(encode(images[:size]), object) for encode in (encode_png, encode_examples)] for size in BATCHES
    }
    warmup = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path / PATH))]
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        ask = _asked_in(session, path)
        for size in BATCHES:
            batch = images[:size]
            png, examples = encoded[size]
            for name, values in (("serving_default", batch), ("serving_png", png), ("serving_tf_examples", examples)):
                found[f"{name}:{size}"] = ask(name, values)["logits"]
            require_ranked(ask("classify", examples)["scores"], found[f"serving_default:{size}"])
        for log in warmup:
            if log.HasField("classify_log"):
                request = log.classify_log.request
                listed = [example.SerializeToString() for example in request.input.example_list.examples]
                ask(request.model_spec.signature_name, np.array(listed, object))
            else:
                (value,) = log.predict_log.request.inputs.values()
                ask(log.predict_log.request.model_spec.signature_name, tf.make_ndarray(value))
    return found, tf.__version__


def records(path: Path, folder: Path) -> tuple[Found, str]:
    """Feeds a record file of tensorflow-datasets, unparsed, to `serving_tf_examples`, by TensorFlow's session.

    Compared with `serving_default`, asked about the images as tensorflow-datasets itself decodes them.

    Raises:
        NotServed: there is no such file, or it calls its images otherwise.
    """
    if not (folder / RECORDS).exists():
        raise NotServed("no prepared set; give its --data-dir")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    file = (folder / RECORDS).resolve()
    features = tfds.builder_from_directory(file.parent).info.features
    serialized = [record.numpy() for record in tf.data.TFRecordDataset(str(file)).take(max(BATCHES))]
    key = next(key for key in features if isinstance(features[key], tfds.features.Image))
    if key != "image":
        raise NotServed(f"the set calls its images {key!r}, the signature 'image'")
    images = np.stack([features.deserialize_example(record)[key].numpy() for record in serialized])
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        ask = _asked_in(session, path)
        found = {"serving_tf_examples": ask("serving_tf_examples", np.array(serialized, object))["logits"]}
        found["wanted:serving_tf_examples"] = ask("serving_default", images)["logits"]
    return found, tfds.__version__


def openvino(path: Path, folder: Path) -> tuple[Found, str]:
    """Asks `serving_default` through OpenVINO, which reads the SavedModel itself."""
    import openvino

    return _by_size(load_openvino(path), folder), openvino.__version__.partition("-")[0]


def onnxruntime(path: Path, folder: Path) -> tuple[Found, str]:
    """Asks `serving_default` through ONNX Runtime, after a conversion by tf2onnx."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as converted:
        onnx.convert(path, Path(converted) / "model.onnx")
        return _by_size(load_onnx(Path(converted) / "model.onnx"), folder), onnxruntime.__version__


def tensorflow_serving(path: Path, folder: Path) -> tuple[Found, str]:
    """Asks a real TF Serving: the binary on PATH or the server in KERNORM_SERVING_ENDPOINT."""
    return tfserving.ask(path, read_card(path), np.load(folder / IMAGES))


def _asked_in(session: Any, path: Path) -> Callable[[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    import tensorflow as tf

    loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

    def ask(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        signature = loaded.signature_def[name]
        (entry,) = signature.inputs.values()
        fetched = {key: output.name for key, output in signature.outputs.items()}
        return session.run(fetched, {entry.name: values})

    return ask


def _by_size(ask: PredictLogits, folder: Path) -> Found:

    images = np.load(folder / IMAGES)
    return {f"{SIGNATURE}:{size}": ask(images[:size]) for size in BATCHES}


RUNTIMES: dict[str, Callable[[Path, Path], tuple[Found, str]]] = {
    "keras": keras,
    "graph": graph,
    "tensorflow": tensorflow,
    "tensorflow_datasets_records": records,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
    "tensorflow_serving": tensorflow_serving,
}
# What must be installed for each, by module.
NEEDS = {
    "keras": ("keras",),
    "graph": ("tensorflow",),
    "tensorflow": ("tensorflow",),
    "tensorflow_datasets_records": ("tensorflow_datasets",),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "tf2onnx"),
    "tensorflow_serving": ("tensorflow_serving",),
}
# Those that share a process, which imports TensorFlow once for all of them.
TOGETHER = ("keras", "graph", "tensorflow", "tensorflow_datasets_records", "onnxruntime")


def _write_images(path: Path, folder: Path) -> None:
    import_tensorflow()
    from kernorm.saved_model.warmup import recorded_images  # TensorFlow

    np.save(folder / "part.npy", recorded_images(path, max(BATCHES)))
    (folder / "part.npy").rename(folder / IMAGES)


def _reason(error: Exception) -> str:
    """Returns an error in one line; of TensorFlow's, which hold graph and stack as well, what the operation says."""
    lines = [line for line in str(getattr(error, "message", error)).splitlines() if "{{node" not in line]
    start = max((at + 1 for at, line in enumerate(lines) if line.startswith(("Node: ", "Graph execution"))), default=0)
    return textwrap.shorten(f"{type(error).__name__}: {' '.join(lines[start:])}", width=500, placeholder=" …")


def main(words: list[str]) -> int:
    """Asks one runtime after the other; leaves a file of each."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

    names, path, folder = words[0].split(","), Path(words[1]), Path(words[2])
    try:
        if not (folder / IMAGES).exists():
            _write_images(path, folder)
    except UsageError as error:
        (folder / REFUSED).write_text(json.dumps([error.rule, error.received, error.fix]), encoding="utf-8")
        return 2
    for name in names:
        try:
            if name in TOGETHER:
                import_tensorflow()
            with literal_path(path) as literal:
                logits, version = RUNTIMES[name](literal, folder)
            # Under another name until it is whole: the process may be killed, or the disk full.
            np.savez(folder / "part.npz", **logits, version=np.array(version))  # type: ignore[arg-type]
            (folder / "part.npz").rename(folder / f"{name}.npz")
        except NotServed as reason:
            (folder / f"{name}.not_run").write_text(str(reason), encoding="utf-8")
        except Exception as error:
            (folder / f"{name}.failed").write_text(f"{traceback.format_exc()}{_reason(error)}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    exit_when_ended()
    sys.exit(main(sys.argv[1:]))
