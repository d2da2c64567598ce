"""A small server of TF Serving's two interfaces, for tests of clients: it speaks the protocol, but is not TF Serving.

`python -m tests.serving_twin FLAGS` takes the server's flags. It answers by TensorFlow, with the versions, labels,
batching and thread limit that the flags ask for; the clock is the test's: `models.poll()` reads models.config again.
"""

import base64
import json
import os
import re
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from tests.twin_batching import Batching, read_parameters
from tests.twin_models import Failed, Models

CODES = {"NOT_FOUND": 404, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 412, "RESOURCE_EXHAUSTED": 429}


class Twin:
    """Serves a version of a model, or what `models` holds.

    `changed` is what an answer goes through; `asked` is called before it answers for a version's state; `gate` holds
    every Predict while it is not set, and `arrived` counts them.
    """

    def __init__(
        self,
        path=None,
        version=0,
        changed=lambda answer: answer,
        *,
        models=None,
        ports=(0, 0),
        batching=None,
        threads=0,
    ):
        if models is None:
            models = Models(entry=ModelConfig(name="kernorm", base_path=str(path.parent)))
            if version and version not in models.versions:  # under another number than its folder's
                models.versions = {version: next(iter(models.versions.values()))}
        self.models, self.changed, self.asked, self.gate = models, changed, lambda: None, threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.batching = Batching(self.run, batching) if batching else None
        threads = threads or 4 * (os.cpu_count() or 1)
        self.server = grpc.server(futures.ThreadPoolExecutor(threads), maximum_concurrent_rpcs=threads)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{ports[0]}")
        self.http = ThreadingHTTPServer(("127.0.0.1", ports[1]), type("Handler", (_Rest,), {"twin": self}))
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever)

    @classmethod
    def of_flags(cls, words, root=None):
        """Returns the server that these flags start; `root` is the folder that they call /models."""
        flags = {word.removeprefix("--").partition("=")[0]: word.partition("=")[2] or "true" for word in words}

        def file(name):
            return Path(flags[name].replace("/models", str(root), 1) if root else flags[name])

        if "model_config_file" in flags:
            allow = flags.get("allow_version_labels_for_unavailable_models") == "true"
            models = Models(config=file("model_config_file"), root=root, allow=allow)
        else:
            models = Models(entry=ModelConfig(name=flags["model_name"], base_path=flags["model_base_path"]))
        if "monitoring_config_file" in flags and not file("monitoring_config_file").is_file():
            raise Failed("NOT_FOUND", f"{file('monitoring_config_file')}; No such file or directory")
        batching = None
        if flags.get("enable_batching") == "true":
            batching = read_parameters(file("batching_parameters_file").read_text())
        ports = int(flags.get("port", 0)), int(flags.get("rest_api_port", 0))
        return cls(models=models, ports=ports, batching=batching, threads=int(flags.get("grpc_max_threads", 0)))

    @property
    def grpc(self):
        return f"127.0.0.1:{self.port}"

    @property
    def rest(self):
        return f"http://127.0.0.1:{self.http.server_port}/v1/models/kernorm"

    def __enter__(self):
        self.server.start()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        if self.batching:
            self.batching.close()
        self.server.stop(0).wait()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def run(self, version, name, values):
        return self.models.versions[version].run(name, values)

    def predict(self, version, name, values):
        self.arrived.release()
        self.gate.wait()
        answer = (self.batching.run if self.batching else self.run)(version, name or "serving_default", values)
        return self.changed(answer)

    def classify(self, version, examples):
        answer = self.run(version, "classify", np.array(examples, object))
        return [
            list(zip(*rows, strict=True)) for rows in zip(*(answer[key] for key in ("classes", "scores")), strict=True)
        ]

    def metadata(self, version):
        return SignatureDefMap(signature_def=dict(self.models.versions[version].signatures))


def _answering(method):
    """Turns what the server refuses into gRPC's errors; hands over the version that the request reaches."""

    def answer(self, request, context):
        spec = request.model_spec
        try:
            return method(self, request, self.twin.models.resolve(spec.name, spec.version.value, spec.version_label))
        except Failed as error:
            context.abort(grpc.StatusCode[error.status], error.message)

    return answer


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, twin):
        self.twin = twin

    @_answering
    def Predict(self, request, version):  # noqa: N802
        ((_, value),) = request.inputs.items()
        response = PredictResponse()
        answer = self.twin.predict(version, request.model_spec.signature_name, tf.make_ndarray(value))
        for key, array in answer.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(array))
        return response

    @_answering
    def Classify(self, request, version):  # noqa: N802
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        response = ClassificationResponse()
        for row in self.twin.classify(version, examples):
            one = response.result.classifications.add()
            for label, score in row:
                one.classes.add(label=label.decode(), score=score)
        return response

    @_answering
    def GetModelMetadata(self, request, version):  # noqa: N802
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(self.twin.metadata(version))
        return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, twin):
        self.twin = twin

    def GetModelStatus(self, request, context):  # noqa: N802
        self.twin.asked()
        version = request.model_spec.version.value
        try:
            state, message = self.twin.models.state(request.model_spec.name, version)
        except Failed as error:
            context.abort(grpc.StatusCode[error.status], error.message)
        response = GetModelStatusResponse()
        response.model_version_status.add(version=version, state=state, status={"error_message": message})
        return response


class _Rest(BaseHTTPRequestHandler):
    twin: Twin
    ADDRESS = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata|:\w+)?")

    def do_GET(self):  # noqa: N802
        self.answer({"/metadata": self.metadata, None: self.status})

    def do_POST(self):  # noqa: N802
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({":predict": self.predict, ":classify": self.classify})

    def answer(self, methods):
        found = self.ADDRESS.fullmatch(self.path)
        if not found or found[4] not in methods:
            return self.reply({"error": f"Malformed request: {self.command} {self.path}"}, 400)
        try:
            reply = methods[found[4]](found[1], int(found[2] or 0), found[3])
        except Failed as error:
            return self.reply({"error": error.message}, CODES[error.status])
        self.reply(reply)

    def metadata(self, *spec):
        content = self.twin.metadata(self.twin.models.resolve(*spec))
        return {
            "metadata": {
                "signature_def": json_format.MessageToDict(content, preserving_proto_field_name=True),
            }
        }

    def status(self, name, version, label):
        self.twin.asked()
        version = version or self.twin.models.resolve(name, version, label)
        state, message = self.twin.models.state(name, version)
        status = {"error_code": "UNKNOWN" if message else "OK", "error_message": message}
        return {"model_version_status": [{"version": str(version), "state": state, "status": status}]}

    def classify(self, *spec):
        examples = [_example(base64.b64decode(one["image"]["b64"])) for one in json.loads(self.body)["examples"]]
        rows = self.twin.classify(self.twin.models.resolve(*spec), examples)
        return {"results": [[[label.decode(), float(score)] for label, score in row] for row in rows]}

    def predict(self, *spec):
        body, version = json.loads(self.body), self.twin.models.resolve(*spec)
        if "instances" in body:
            values = np.array([one["image"] for one in body["instances"]], np.uint8)
            answer = self.twin.predict(version, body["signature_name"], values)
            rows = zip(*(array.tolist() for array in answer.values()), strict=True)
            return {"predictions": [dict(zip(answer, row, strict=True)) for row in rows]}
        (images,) = body["inputs"].values() if isinstance(body["inputs"], dict) else [body["inputs"]]
        if isinstance(images, dict) and set(images) == {"b64"}:  # one object is a scalar, json_tensor.cc
            values = np.array(base64.b64decode(images["b64"]), object)
        else:
            values = np.array([base64.b64decode(image["b64"]) for image in images], object)
        answer = self.twin.predict(version, body["signature_name"], values)
        decoded = {
            key: np.char.decode(value.astype("S")) if value.dtype == object else value for key, value in answer.items()
        }
        return {"outputs": {key: value.tolist() for key, value in decoded.items()}}

    def reply(self, content, code=200):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


def _decoded(values):
    return np.char.decode(values.astype("S")) if values.dtype == object else values


def _example(png):
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
    return tf.train.Example(features=tf.train.Features(feature={"image": image})).SerializeToString()


def main(words):
    """Serves until it is ended; a model that does not load is tried again and again, unless a flag forbids it."""
    try:
        twin = Twin.of_flags(words)
        failed = list(twin.models.errors.values())
    except Failed as error:
        failed = [error]
    if failed and "--max_num_load_retries=0" in words:
        print(f"Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {failed[0]}\nbye")
        return 255
    if failed:
        print("Encountered an error for servable: retrying in 60 s", flush=True)
        threading.Event().wait()
    with twin:
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
