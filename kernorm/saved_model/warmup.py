"""Requests that TF Serving answers by itself when it loads a model, so that the first user does not wait for it.

A request that fails fails the whole load, so each is answered by the reloaded model before it is written. Used by
export.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from kernorm.errors import UsageError

Signatures = Mapping[str, Callable[..., dict[str, tf.Tensor]]]

PATH = Path("assets.extra/tf_serving_warmup_requests")
BATCHES = (1, 4, 16, 64)  # Times five signatures; TF Serving refuses a model with more than 1,000 records.


def encode_png(images: NDArray[np.uint8]) -> list[bytes]:
    """Encodes images (N, H, W, C) as PNG files."""
    return [tf.io.encode_png(image).numpy() for image in images]


def encode_examples(images: NDArray[np.uint8]) -> list[bytes]:
    """Encodes images (N, H, W, C) as serialized tf.Example records of the layout of tensorflow-datasets, unlabelled."""
    return [_example(png).SerializeToString() for png in encode_png(images)]


def requests(name: str, images: NDArray[np.uint8], *, files: bool = False) -> Iterator[PredictionLog]:
    """Yields requests to a model of that name: for each signature one of every batch size that `images` suffice for.

    `files` asks `serving_image` too, which models of own images have.
    """
    for size in sorted({min(size, len(images)) for size in BATCHES}):
        batch = images[:size]
        yield _predict(name, "serving_default", "image", batch)
        yield _predict(name, "serving_png", "image_bytes", np.array(encode_png(batch), object))
        yield _predict(name, "serving_tf_examples", "examples", np.array(encode_examples(batch), object))
        yield _classify(name, batch)
        if files:
            yield _predict(name, "serving_image", "image_bytes", np.array(encode_png(batch), object))


def answer(log: PredictionLog, signatures: Signatures) -> dict[str, tf.Tensor]:
    """Answers a recorded request as TF Serving would, by the signature that it names.

    Raises:
        tf.errors.OpError: the model cannot answer it.
    """
    if log.HasField("classify_log"):
        request = log.classify_log.request
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        return signatures[request.model_spec.signature_name](inputs=tf.constant(examples))
    request = log.predict_log.request
    inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
    return signatures[request.model_spec.signature_name](**inputs)


def write_warmup(folder: Path, name: str, images: NDArray[np.uint8], signatures: Signatures) -> None:
    """Writes the warm-up file of the SavedModel in `folder`, each request answered first.

    `images` (N, H, W, C) become readable to everybody who has the model: never test images, never private ones.

    Raises:
        tf.errors.OpError: a request fails.
    """
    path = folder / PATH
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in requests(name, images, files="serving_image" in signatures):
            answer(log, signatures)
            writer.write(log.SerializeToString())


def recorded_images(folder: Path, count: int) -> NDArray[np.uint8]:
    """Returns `count` images (N, H, W, C) of the largest request for `serving_default` in a model's warm-up file.

    Raises:
        UsageError: there is no such request.
    """
    found: list[NDArray[np.uint8]] = []
    try:
        for record in tf.data.TFRecordDataset(str(folder / PATH)):
            request = PredictionLog.FromString(record.numpy()).predict_log.request
            if request.model_spec.signature_name == "serving_default":
                found.append(tf.make_ndarray(request.inputs["image"]))
        images = max(found, key=len)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UsageError(
            "A model has a warm-up file.", f"{folder} with none that can be read: {error}", "Export it again."
        ) from None
    return images[np.arange(count) % len(images)]


def _example(png: bytes) -> tf.train.Example:
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
    return tf.train.Example(features=tf.train.Features(feature={"image": image}))


def _predict(name: str, signature: str, key: str, values: NDArray[np.generic]) -> PredictionLog:
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    return log


def _classify(name: str, images: NDArray[np.uint8]) -> PredictionLog:
    log = PredictionLog()
    request = log.classify_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = "classify"
    request.input.example_list.examples.extend(_example(png) for png in encode_png(images))
    return log
