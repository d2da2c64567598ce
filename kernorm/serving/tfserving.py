"""Asks a real TF Serving about a model, where there is one: the binary on PATH, or a server that runs already.

Used by validate. `tensorflow_model_server` is started with a copy of the model; else KERNORM_SERVING_ENDPOINT names a
server that serves this very version, as HOST:PORT of gRPC and http://HOST:PORT/v1/models/NAME[/versions/N] of REST,
with a comma between them, or one of the two. Asked are status, metadata, Predict of three signatures, and Classify.
"""

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernorm.errors import UsageError
from kernorm.saved_model.card import Card
from kernorm.saved_model.integrity import copy_model
from kernorm.saved_model.parity import require_ranked
from kernorm.saved_model.versions import PUBLISHED, version_number
from kernorm.serving.endpoint import NoAnswer, ask_rest, from_grpc, read_endpoint
from kernorm.serving.status import LOAD_SECONDS, REQUEST_SECONDS, Server, set_spec, version_state
from kernorm.system.interrupts import deferred

BINARY, ENDPOINT = "tensorflow_model_server", "KERNORM_SERVING_ENDPOINT"
# Not the empty batch: JSON gives it no shape, and a server that batches never answers it.
BATCHES = (1, 3, 128)
_POLL_SECONDS = 0.2
# What TF Serving writes before the reason, of one or more lines.
_NOT_STARTED = "Failed to start server"
_LOG_LINES = 20

Found = dict[str, NDArray[np.float32]]


class NotServed(Exception):  # noqa: N818
    """There is no server here that could be asked about this model; the message is the reason."""


def ask(path: Path, card: Card, images: NDArray[np.uint8]) -> tuple[Found, str]:
    """Asks the available server about the first 1, 3 and 128 of the images (N, H, W, C).

    Returns:
        Logits (N, K) by interface, signature and batch size, and in words which server they are from.

    Raises:
        NotServed: there is no server, or it has no such version.
        ValueError: the server answers otherwise than the model card says.
    """
    named = version_number(path.name)
    version = card.version if named is None else named
    if binary := shutil.which(BINARY):
        with _started(binary, path, version) as server:
            try:
                return _asked(server, card, images), _version(binary)
            except NoAnswer as error:
                raise ValueError(f"{error.code or BINARY}: {error}") from None
    server = _named(os.environ.get(ENDPOINT, ""), version)
    try:
        return _asked(server, card, images), f"at {os.environ[ENDPOINT]}"
    except NoAnswer as error:
        if error.passing or not error.code:  # it is gone or full, which is not the model's fault
            raise NotServed(f"{os.environ[ENDPOINT]} stopped answering: {error}") from None
        raise ValueError(f"{error.code}: {error}") from None


def _named(text: str, version: int) -> Server:
    """Returns the server that KERNORM_SERVING_ENDPOINT names, if it serves that version."""
    if not text:
        raise NotServed(f"no {BINARY} on PATH and no {ENDPOINT}")
    try:
        found = [read_endpoint(part.strip(), ENDPOINT) for part in text.split(",")]
    except UsageError as error:
        raise NotServed(str(error)) from None
    rest = next((one for one in found if one.rest), None)
    grpc = next((one.address for one in found if not one.rest), None)
    if rest and rest.version not in (None, version):
        raise NotServed(f"{text} names version {rest.version}, the model is version {version}")
    server = Server((rest and rest.model) or PUBLISHED, version, grpc, rest.address if rest else None)
    try:
        state, _ = version_state(server)
    except NoAnswer as error:
        raise NotServed(f"{text} does not answer: {error}") from None
    if state != "AVAILABLE":
        raise NotServed(f"{text} does not serve version {version} of {server.model}, which is {state or 'unknown'}")
    return server


@contextlib.contextmanager
def _started(binary: str, path: Path, version: int) -> Iterator[Server]:
    """Yields the binary's server of a copy of the model, once it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / PUBLISHED / str(version)
        copied.mkdir(parents=True)
        copy_model(path, copied)
        ports = [_free_port(), _free_port()]
        command = [
            binary,
            f"--port={ports[0]}",
            f"--rest_api_port={ports[1]}",
            f"--model_name={PUBLISHED}",
            f"--model_base_path={Path(folder) / PUBLISHED}",
            # Else a model that does not load is tried again five times, a minute apart.
            "--max_num_load_retries=0",
        ]
        with (Path(folder) / "log").open("w+b") as log:
            process = None
            try:
                with deferred():  # an interrupt waits until there is a process to end
                    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
                server = Server(
                    PUBLISHED,
                    version,
                    f"127.0.0.1:{ports[0]}",
                    f"http://127.0.0.1:{ports[1]}/v1/models/{PUBLISHED}",
                )
                _wait(server, process, Path(folder) / "log")
                yield server
            finally:
                if process:
                    process.kill()
                    process.wait()


def _wait(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + LOAD_SECONDS
    state = ""
    while state != "AVAILABLE":
        with contextlib.suppress(NoAnswer):
            state, _ = version_state(replace(server, rest=None))
        if process.poll() is not None or state == "END" or time.monotonic() > end:
            raise ValueError(
                f"{BINARY} does not load the model: {_reason(log.read_text(encoding='utf-8', errors='replace'))}"
            )
        time.sleep(_POLL_SECONDS)


def _reason(log: str) -> str:
    """Returns what a server's log says about its failed start, in one line; else the log's last lines."""
    lines = log.strip().splitlines() or ["nothing"]
    start = next((at for at, line in enumerate(lines) if _NOT_STARTED in line), max(len(lines) - _LOG_LINES, 0))
    return " ".join(" ".join(lines[start : start + _LOG_LINES]).split())


def _asked(server: Server, card: Card, images: NDArray[np.uint8]) -> Found:
    import grpc

    found: Found = {}
    if server.grpc:
        try:
            found |= _asked_by_grpc(server, card, images)
        except grpc.RpcError as error:
            raise from_grpc(error, server.grpc) from None
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
        set_spec(wanted.model_spec, server)
        packed = stub.GetModelMetadata(wanted, timeout=REQUEST_SECONDS).metadata["signature_def"]
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
                set_spec(request.model_spec, server, name)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
                answer = stub.Predict(request, timeout=REQUEST_SECONDS)
                found[f"grpc {name}:{size}"] = tf.make_ndarray(answer.outputs["logits"])
            ask = ClassificationRequest()
            set_spec(ask.model_spec, server, "classify")
            ask.input.example_list.examples.extend(tf.train.Example.FromString(example) for example in examples)
            classified = stub.Classify(ask, timeout=REQUEST_SECONDS).result.classifications
            scores = np.array([[one.score for one in image.classes] for image in classified])
            require_ranked(scores, found[f"grpc serving_default:{size}"])
    return found


def _asked_by_rest(server: Server, card: Card, images: NDArray[np.uint8]) -> Found:

    from kernorm.saved_model.warmup import encode_png

    found: Found = {}
    address = f"{server.rest}/versions/{server.version}"
    _require_signatures(card, ask_rest(f"{address}/metadata")["metadata"]["signature_def"]["signature_def"])
    for size in BATCHES:
        batch = images[:size]
        encoded = [{"b64": base64.b64encode(png).decode()} for png in encode_png(batch)]
        column = {"signature_name": "serving_png", "inputs": {"image_bytes": encoded}}
        row = {"signature_name": "serving_default", "instances": [{"image": image.tolist()} for image in batch]}
        found[f"rest serving_png:{size}"] = np.array(
            ask_rest(f"{address}:predict", column)["outputs"]["logits"], np.float32
        )
        found[f"rest serving_default:{size}"] = np.array(
            [one["logits"] for one in ask_rest(f"{address}:predict", row)["predictions"]], np.float32
        )
        examples = {"signature_name": "classify", "examples": [{"image": image} for image in encoded]}
        results = ask_rest(f"{address}:classify", examples)["results"]
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


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _version(binary: str) -> str:
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout.split("\n")
    return said[0].strip()
