"""Asks a served model, or a SavedModel here, which class each image shows.

A small client for TF Serving's REST and gRPC interfaces. Images travel as files and are decoded in the model: PNG files
of its size by `serving_png`, and by `serving_image`, which models of own images have, also JPEG and any size.
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernorm.errors import UsageError
from kernorm.saved_model.paths import literal_path
from kernorm.saved_model.versions import PUBLISHED
from kernorm.serving.endpoint import NoAnswer, ask_rest, from_grpc, read_endpoint, shortened
from kernorm.system.backend import import_tensorflow

PNG, JPEG, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
# How `serving_png` begins to refuse a PNG of another size or kind.
_OTHER_PNG = "An image must be an 8-bit"
# A server that is starting or full says so; waiting once, twice, four times as long helps it.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# Numbers of float32 may lie this far beyond the limits of a probability.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Prediction:
    """A class by its number, its probability, and its name, which models of earlier versions do not answer."""

    class_id: int
    probability: float
    class_name: str | None = None


class _NoSignature(UsageError):
    """The model answers, but not by this signature."""


# Asks about a batch of files by a signature.
Ask = Callable[[list[bytes], str], list[Prediction]]


def predict(
    files: Sequence[bytes],
    *,
    endpoint: str | None = None,
    model_path: Path | None = None,
    model: str = PUBLISHED,
    batch_size: int = 32,
    retries: int = 3,
    timeout: float = 10.0,
) -> Iterator[Prediction]:
    """Yields a prediction an image file, asked for in batches.

    Args:
        files: their contents: PNG of the size that the model takes; of a model of own images JPEG, PNG or BMP of any
            size, upright: see `datasets.decode.upright`.
        endpoint: of TF Serving: http://HOST:PORT/v1/models/NAME for REST, HOST:PORT for gRPC.
        model_path: a SavedModel here, instead of a server.
        model: name of the model, for gRPC.
        batch_size: images a request.
        retries: times a request is sent again when the server is not reached, is starting or is full.
        timeout: seconds that a request may take.

    Raises:
        UsageError: neither or both of endpoint and model_path are given, the server cannot be reached, refuses the
            request or answers with no class or no probability, or the model is none.
    """
    if (endpoint is None) == (model_path is None):
        raise UsageError(
            "Either --endpoint or --model-path is asked.", "both" if endpoint else "neither", "Give one of them."
        )
    if model_path:
        ask = _local(model_path)
    else:
        server = read_endpoint(str(endpoint))
        ask = _rest(server.full, timeout) if server.rest else _grpc(server.address, model, timeout)
    signature = "serving_png" if all(file.startswith(PNG) for file in files) else "serving_image"
    where = str(endpoint or model_path)
    for start in range(0, len(files), batch_size):
        batch = list(files[start : start + batch_size])
        try:
            yield from _patiently(ask, batch, signature, retries, where)
        except UsageError as error:
            if signature == "serving_image" or _OTHER_PNG not in str(error):
                raise
            try:
                found = _patiently(ask, batch, "serving_image", retries, where)
            except _NoSignature:  # the first answer says more
                raise error from None
            signature = "serving_image"
            yield from found


def _patiently(ask: Ask, batch: list[bytes], signature: str, retries: int, where: str) -> list[Prediction]:
    for attempt in range(retries + 1):
        try:
            return ask(batch, signature)
        except NoAnswer as error:
            if error.code and f'"{signature}" not found' in str(error):
                raise _lacking(signature, f"{where} says {error.code}: {error}") from None
            if error.code and not error.passing:
                raise UsageError(
                    "A server must take the request.",
                    f"{where} says {error.code}: {error}",
                    "Check the model's name and the images.",
                ) from None
            if not error.passing:
                raise UsageError(
                    "An endpoint is one of TF Serving's.", f"{where}: {error}", "Check the address."
                ) from None
            if attempt == retries:
                raise UsageError(
                    "A server must answer.",
                    f"{where}, asked {attempt + 1} times: {f'{error.code}: ' if error.code else ''}{error}",
                    "Is it running, and has it loaded the model?",
                ) from None
            time.sleep(_wait(attempt))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                "An answer has a class and a probability of each class.",
                f"{where} with an answer that is none of kernorm's models: {error!r}",
                "Check the address and the model.",
            ) from None
    raise ValueError(f"Retries are at least 0. Received: {retries}.")


def _wait(attempt: int) -> float:
    """Returns the seconds to wait after an attempt, counted from 0."""
    return min(_FIRST_WAIT * 2.0 ** min(attempt, 20), _LONGEST_WAIT)


def _lacking(signature: str, told: str) -> _NoSignature:
    if signature == "serving_image":
        return _NoSignature(
            "A model that was not trained on own images takes PNG files.", f"others; {told}", "Convert them."
        )
    return _NoSignature(f"A model answers {signature}.", told, "Give one that kernorm exported.")


def _rest(address: str, timeout: float) -> Ask:
    def ask(batch: list[bytes], signature: str) -> list[Prediction]:
        images = [{"b64": base64.b64encode(png).decode()} for png in batch]
        body = {"signature_name": signature, "inputs": {"image_bytes": images}}
        return _predictions(ask_rest(f"{address}:predict", body, timeout)["outputs"], len(batch))

    return ask


def _grpc(endpoint: str, model: str, timeout: float) -> Ask:
    import grpc
    import numpy as np

    import_tensorflow()
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    stub = PredictionServiceStub(grpc.insecure_channel(endpoint))

    def ask(batch: list[bytes], signature: str) -> list[Prediction]:
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(np.array(batch, object)))
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            raise from_grpc(error, endpoint) from None
        return _predictions({name: tf.make_ndarray(value).tolist() for name, value in outputs.items()}, len(batch))

    return ask


def _local(path: Path) -> Ask:
    import numpy as np

    import_tensorflow()
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        raise UsageError(
            "--model-path takes a SavedModel.",
            f"{path}, which has no saved_model.pb",
            "Give saved_models/<name>/<version>.",
        )
    with literal_path(path) as literal:
        loaded = tf.saved_model.load(str(literal))
    if "serving_png" not in loaded.signatures:
        raise _lacking("serving_png", f"{path} with {', '.join(loaded.signatures) or 'no signature'}")

    def ask(batch: list[bytes], signature: str) -> list[Prediction]:
        if signature not in loaded.signatures:
            raise _lacking(signature, f"{path} with {', '.join(loaded.signatures)}")
        try:
            answer = loaded.signatures[signature](image_bytes=tf.constant(np.array(batch, object), tf.string))
        except tf.errors.OpError as error:
            raise UsageError(
                "An image must be one that the model takes.", shortened(error.message), "Convert it."
            ) from None
        return _predictions({name: value.numpy().tolist() for name, value in answer.items()}, len(batch))

    return ask


def _predictions(outputs: Mapping[str, Any], count: int) -> list[Prediction]:
    classes, probabilities = outputs["class_id"], outputs["probabilities"]
    names = outputs.get("class_name", [None] * count)
    if not len(classes) == len(probabilities) == len(names) == count:
        raise ValueError(f"{len(classes)} answers to {count} images")
    return [_prediction(*answer) for answer in zip(classes, probabilities, names, strict=True)]


def _prediction(number: Any, row: Sequence[Any], name: Any) -> Prediction:
    class_id = int(number)
    if class_id != number or not 0 <= class_id < len(row):
        raise ValueError(f"class {number!r} of {len(row)}")
    if wrong := [value for value in row if not -_ROUNDING <= value <= 1 + _ROUNDING]:
        raise ValueError(f"a probability of {wrong[0]!r}")
    name = name.decode() if isinstance(name, bytes) else name
    if not isinstance(name, str | None):
        raise ValueError(f"a class named {name!r}")
    return Prediction(class_id, float(row[class_id]), name)
