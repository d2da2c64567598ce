"""Asks a real TF Serving about a model, where there is one: the binary on PATH, or a server that runs already.

Used by validate. `tensorflow_model_server` is started with a copy of the model; else KERNORM_SERVING_ENDPOINT names a
server that serves this very version, as HOST:PORT of gRPC and http://HOST:PORT/v1/models/NAME of REST, with a comma
between them, or one of the two. Asked are status, metadata, Predict of three signatures, and Classify.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernorm.saved_model.card import Card
from kernorm.saved_model.parity import require_ranked
from kernorm.saved_model.versions import PUBLISHED

BINARY, ENDPOINT = "tensorflow_model_server", "KERNORM_SERVING_ENDPOINT"
# Not the empty batch: JSON gives it no shape, and a server that batches refuses it.
BATCHES = (1, 3, 128)
# TFX's InfraValidator waits as long for a model to be loaded.
LOAD_SECONDS = 300.0
_REQUEST_SECONDS = 30.0
_POLL_SECONDS = 0.2

Found = dict[str, NDArray[np.float32]]


class NotServed(Exception):  # noqa: N818
    """There is no server here that could be asked about this model; the message is the reason."""


@dataclass(frozen=True)
class Server:
    """Where a version of a model is served; an interface without address is not asked."""

    model: str
    version: int
    grpc: str | None
    rest: str | None


def ask(path: Path, card: Card, images: NDArray[np.uint8]) -> tuple[Found, str]:
    """Asks the available server about the first 1, 3 and 128 of the images (N, H, W, C).

    Returns:
        Logits (N, K) by interface, signature and batch size, and in words which server they are from.

    Raises:
        NotServed: there is no server, or it has no such version.
        ValueError: the server answers otherwise than the model card says.
    """
    if binary := shutil.which(BINARY):
        with _started(binary, path) as server:
            return _asked(server, card, images), _version(binary)
    server = _named(os.environ.get(ENDPOINT, ""), int(path.name))
    return _asked(server, card, images), f"at {os.environ[ENDPOINT]}"


def _named(text: str, version: int) -> Server:
    """Returns the server that KERNORM_SERVING_ENDPOINT names, if it serves that version."""
    if not text:
        raise NotServed(f"no {BINARY} on PATH and no {ENDPOINT}")
    parts = [part.strip().removesuffix("/") for part in text.split(",")]
    rest = next((part for part in parts if part.startswith(("http://", "https://"))), None)
    grpc = next((part for part in parts if part != rest), None)
    server = Server(rest.rpartition("/")[2] if rest else PUBLISHED, version, grpc, rest)
    try:
        state = _state_by_grpc(server) if grpc else _state_by_rest(server)
    except _Unreachable as error:
        raise NotServed(f"{text} does not answer: {error}") from None
    if state != "AVAILABLE":
        raise NotServed(f"{text} does not serve version {version} of {server.model}, which is {state or 'unknown'}")
    return server


@contextlib.contextmanager
def _started(binary: str, path: Path) -> Iterator[Server]:
    """Yields the binary's server of a copy of the model, once it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path, Path(folder) / PUBLISHED / path.name)
        ports = [_free_port(), _free_port()]
        command = [
            binary,
            f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}",
            f"--model_name={PUBLISHED}",
            f"--model_base_path={Path(folder) / PUBLISHED}",
        ]
        with (Path(folder) / "log").open("w+b") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                server = Server(
                    PUBLISHED,
                    int(path.name),
                    f"127.0.0.1:{ports[0]}",
                    f"http://127.0.0.1:{ports[1]}/v1/models/{PUBLISHED}",
                )
                _wait(server, process, Path(folder) / "log")
                yield server
            finally:
                process.kill()
                process.wait()


def _wait(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + LOAD_SECONDS
    state = ""
    while state != "AVAILABLE":
        with contextlib.suppress(_Unreachable):
            state = _state_by_grpc(server)
        if process.poll() is not None or state == "END" or time.monotonic() > end:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
            raise ValueError(f"{BINARY} does not load the model: {said[-1]}")
        time.sleep(_POLL_SECONDS)


class _Unreachable(Exception):  # noqa: N818
    """A server that does not answer."""


def _state_by_grpc(server: Server) -> str:
    """Returns the state of the version, as TF Serving names it; empty if it has none."""
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

    request = GetModelStatusRequest()
    _spec(request.model_spec, server)
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=_REQUEST_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return ""
            raise _Unreachable(error.details()) from None
    states = [ModelVersionStatus.State.Name(one.state) for one in status.model_version_status]
    return states[0] if states else ""


def _state_by_rest(server: Server) -> str:
    try:
        found = _got(f"{server.rest}/versions/{server.version}")["model_version_status"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise _Unreachable(str(error)) from None
    except OSError as error:
        raise _Unreachable(str(error)) from None
    return found[0]["state"] if found else ""


def _asked(server: Server, card: Card, images: NDArray[np.uint8]) -> Found:
    found: Found = {}
    if server.grpc:
        found |= _asked_by_grpc(server, card, images)
    if server.rest:
        found |= _asked_by_rest(server, card, images)
    return found


def _asked_by_grpc(server: Server, card: Card, images: NDArray[np.uint8]) -> Found:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc
    from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
    from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap
    from tensorflow_serving.apis.predict_pb2 import PredictRequest

    from kernorm.saved_model.warmup import encode_examples, encode_png

    found: Found = {}
    # 128 images with their answers stay far below gRPC's 4 MiB a message.
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        wanted = GetModelMetadataRequest(metadata_field=["signature_def"])
        _spec(wanted.model_spec, server)
        packed = stub.GetModelMetadata(wanted, timeout=_REQUEST_SECONDS).metadata["signature_def"]
        signatures = SignatureDefMap()
        packed.Unpack(signatures)
        _require_signatures(card, signatures.signature_def)
        for size in BATCHES:
            batch = images[:size]
            examples = encode_examples(batch)
            for name, key, values in (
                ("serving_default", "image", batch),
                ("serving_png", "image_bytes", np.array(encode_png(batch), object)),
                ("serving_tf_examples", "examples", np.array(examples, object)),
            ):
                request = PredictRequest()
                _spec(request.model_spec, server, name)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
                answer = stub.Predict(request, timeout=_REQUEST_SECONDS)
                found[f"grpc {name}:{size}"] = tf.make_ndarray(answer.outputs["logits"])
            ask = ClassificationRequest()
            _spec(ask.model_spec, server, "classify")
            ask.input.example_list.examples.extend(tf.train.Example.FromString(example) for example in examples)
            classified = stub.Classify(ask, timeout=_REQUEST_SECONDS).result.classifications
            scores = np.array([[one.score for one in image.classes] for image in classified])
            require_ranked(scores, found[f"grpc serving_default:{size}"])
    return found


def _asked_by_rest(server: Server, card: Card, images: NDArray[np.uint8]) -> Found:

    from kernorm.saved_model.warmup import encode_png

    found: Found = {}
    address = f"{server.rest}/versions/{server.version}"
    _require_signatures(card, _got(f"{address}/metadata")["metadata"]["signature_def"]["signature_def"])
    for size in BATCHES:
        batch = images[:size]
        encoded = [{"b64": base64.b64encode(png).decode()} for png in encode_png(batch)]
        column = {"signature_name": "serving_png", "inputs": {"image_bytes": encoded}}
        row = {"signature_name": "serving_default", "instances": [{"image": image.tolist()} for image in batch]}
        found[f"rest serving_png:{size}"] = np.array(
            _got(f"{address}:predict", column)["outputs"]["logits"], np.float32
        )
        found[f"rest serving_default:{size}"] = np.array(
            [one["logits"] for one in _got(f"{address}:predict", row)["predictions"]], np.float32
        )
        examples = {"signature_name": "classify", "examples": [{"image": image} for image in encoded]}
        results = _got(f"{address}:classify", examples)["results"]
        scores = np.array([[score for _, score in image] for image in results])
        require_ranked(scores, found[f"rest serving_default:{size}"])
    return found


def _require_signatures(card: Card, served: Any) -> None:
    for name, signature in card.signatures.items():
        if name not in served:
            raise ValueError(f"the server names no signature {name}")
        for side in ("inputs", "outputs"):
            there = served[name][side] if isinstance(served[name], dict) else getattr(served[name], side)
            if set(there) != set(getattr(signature, side)):
                raise ValueError(f"the server's {side} of {name} are {', '.join(sorted(there))}")


def _spec(spec: Any, server: Server, signature: str = "") -> None:
    spec.name, spec.signature_name = server.model, signature
    spec.version.value = server.version


def _got(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data), timeout=_REQUEST_SECONDS) as response:
        return json.loads(response.read())


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _version(binary: str) -> str:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")
    return said[0].strip()
