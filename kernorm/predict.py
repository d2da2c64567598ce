"""Asks a served model, or a SavedModel here, which class each image shows.

    python -m kernorm.predict --endpoint http://localhost:8501/v1/models/kernorm seven.png
    python -m kernorm.predict --endpoint localhost:8500 seven.png four.png
    python -m kernorm.predict --model-path saved_models/kernorm/<version> seven.png

A small client for TF Serving's REST and gRPC interfaces. Images travel as PNG files and are decoded in the model.
"""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from kernorm import cli
from kernorm.card import FOLDER
from kernorm.errors import UsageError

PROG = "python -m kernorm.predict"
_PNG = b"\x89PNG\r\n\x1a\n"
# A server that is starting or full says so; waiting once, twice, four times as long helps it.
_FIRST_WAIT = 0.5


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Says which class each PNG file shows, by a served model or by a SavedModel here.

    A line a file: its name, the class, its probability.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG files of the size that the model takes."""

    endpoint: str | None = None
    """Of TF Serving: http://HOST:PORT/v1/models/NAME[/versions/N | /labels/L] for REST, HOST:PORT for gRPC."""

    model_path: Path | None = None
    """A SavedModel here, saved_models/<name>/<version>, instead of a server."""

    model: str = "kernorm"
    """Name of the model, for gRPC."""

    batch_size: int = 32
    """Images a request."""

    retries: int = 3
    """Times a request is sent again when the server is not reached, is starting or is full."""

    timeout: float = 10.0
    """Seconds that a request may take."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits, and more or less than one place to ask."""
        if (self.endpoint is None) == (self.model_path is None):
            received = "both" if self.endpoint else "neither"
            raise UsageError("Either --endpoint or --model-path is asked.", received, "Give one of them.")
        if not self.images:
            raise UsageError("There must be an image to ask about.", "none", "Give PNG files.")
        for name, low in (("batch_size", 1), ("retries", 0)):
            if getattr(self, name) < low:
                raise UsageError(
                    f"--{name.replace('_', '-')} must be at least {low}.", getattr(self, name), "Give more."
                )
        if not 0 < self.timeout < float("inf"):
            raise UsageError("--timeout is a time above 0.", self.timeout, "Give for example 10.")


@dataclass(frozen=True)
class Prediction:
    """A class by its number, and its probability."""

    class_id: int
    probability: float


Ask = Callable[[list[bytes]], list[Prediction]]


class _Again(Exception):  # noqa: N818
    """A failure that may pass; the message is the server's."""


def predict(config: PredictConfig, pngs: Sequence[bytes]) -> Iterator[Prediction]:
    """Yields a prediction a PNG file, asked for in batches.

    Raises:
        UsageError: the server cannot be reached or refuses the request, or the model is none.
    """
    ask = _local(config.model_path) if config.model_path else _rest(config) if _is_rest(config) else _grpc(config)
    for start in range(0, len(pngs), config.batch_size):
        yield from _patiently(ask, list(pngs[start : start + config.batch_size]), config)


def _patiently(ask: Ask, batch: list[bytes], config: PredictConfig) -> list[Prediction]:
    for attempt in range(config.retries + 1):
        try:
            return ask(batch)
        except _Again as error:
            if attempt == config.retries:
                raise UsageError(
                    "A server must answer.",
                    f"{config.endpoint}, asked {attempt + 1} times: {error}",
                    "Is it running, and has it loaded the model?",
                ) from None
            time.sleep(_FIRST_WAIT * 2**attempt)
    raise ValueError(f"Retries are at least 0. Received: {config.retries}.")


def _is_rest(config: PredictConfig) -> bool:
    return bool(config.endpoint and config.endpoint.startswith(("http://", "https://")))


def _rest(config: PredictConfig) -> Ask:
    if config.endpoint is None:
        raise ValueError("REST needs an endpoint.")
    address = config.endpoint.removesuffix("/").removesuffix(":predict") + ":predict"

    def ask(batch: list[bytes]) -> list[Prediction]:
        images = [{"b64": base64.b64encode(png).decode()} for png in batch]
        body = json.dumps({"signature_name": "serving_png", "inputs": {"image_bytes": images}}).encode()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=config.timeout) as response:
                outputs = json.loads(response.read())["outputs"]
                return _predictions(outputs["class_id"], outputs["probabilities"], len(batch))
        except urllib.error.HTTPError as error:
            told = _told(error.read())
            if error.code in (429, 503):
                raise _Again(told) from None
            raise _refused(config, f"HTTP {error.code}: {told}") from None
        except (OSError, urllib.error.URLError) as error:
            raise _Again(str(getattr(error, "reason", error))) from None
        except (ValueError, KeyError, TypeError) as error:
            raise _refused(config, f"an answer that is none of kernorm's models: {error!r}") from None

    return ask


def _grpc(config: PredictConfig) -> Ask:
    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis.predict_pb2 import PredictRequest
    from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

    stub = PredictionServiceStub(grpc.insecure_channel(config.endpoint))
    passing = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)

    def ask(batch: list[bytes]) -> list[Prediction]:
        request = PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = config.model, "serving_png"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(np.array(batch, object)))
        try:
            outputs = stub.Predict(request, timeout=config.timeout).outputs
            answer = {name: tf.make_ndarray(outputs[name]).tolist() for name in ("class_id", "probabilities")}
            return _predictions(answer["class_id"], answer["probabilities"], len(batch))
        except grpc.RpcError as error:
            if error.code() in passing:
                raise _Again(f"{error.code().name}: {error.details()}") from None
            raise _refused(config, f"{error.code().name}: {error.details()}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise _refused(config, f"an answer that is none of kernorm's models: {error!r}") from None

    return ask


def _local(path: Path) -> Ask:
    import numpy as np
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        raise UsageError(
            "--model-path takes a SavedModel.",
            f"{path}, which has no saved_model.pb",
            "Give saved_models/<name>/<version>.",
        )
    loaded = tf.saved_model.load(str(path))
    if "serving_png" not in loaded.signatures:
        raise UsageError(
            "A model answers serving_png.",
            f"{path} with {', '.join(loaded.signatures) or 'no signature'}",
            "Give one that kernorm exported.",
        )

    def ask(batch: list[bytes]) -> list[Prediction]:
        try:
            answer = loaded.signatures["serving_png"](image_bytes=tf.constant(np.array(batch, object), tf.string))
        except tf.errors.OpError as error:
            raise UsageError(
                "An image must be one that the model takes.", _one_line(error.message), "Convert it."
            ) from None
        return _predictions(answer["class_id"].numpy().tolist(), answer["probabilities"].numpy().tolist(), len(batch))

    return ask


def _predictions(classes: Any, probabilities: Any, count: int) -> list[Prediction]:
    if len(classes) != count or len(probabilities) != count:
        raise ValueError(f"{len(classes)} answers to {count} images")
    return [
        Prediction(int(number), float(row[int(number)])) for number, row in zip(classes, probabilities, strict=True)
    ]


def _refused(config: PredictConfig, told: str) -> UsageError:
    return UsageError(
        "A server must take the request.", f"{config.endpoint} says {told}", "Check the model's name and the images."
    )


def _told(body: bytes) -> str:
    try:
        return _one_line(str(json.loads(body)["error"]))
    except (ValueError, KeyError, TypeError):
        return _one_line(body.decode(errors="replace"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            "An image is a file that can be read.", f"{path}: {os.strerror(error.errno or 0)}", "Give another."
        ) from None
    if not content.startswith(_PNG):
        what = "which is empty" if not content else "which is none"
        raise UsageError("An image is a PNG file.", f"{path}, {what}", "Convert it to PNG.")
    return content


def main(config: PredictConfig) -> None:
    """Prints a line a file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    pngs = [_read(path) for path in config.images]
    labels: list[str] = []
    if config.model_path and (named := config.model_path / FOLDER / "labels.txt").is_file():
        labels = named.read_text().splitlines()
    for path, found in zip(config.images, predict(config, pngs), strict=True):
        name = labels[found.class_id] if labels else str(found.class_id)
        print(f"{path}  {name}  {found.probability:.4f}")


if __name__ == "__main__":
    sys.exit(cli.run(PredictConfig, main, prog=PROG))
