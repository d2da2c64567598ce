"""A small server of TF Serving's two interfaces, for tests of clients: it speaks the protocol, but is not TF Serving.

`python -m tests.serving_twin --port=P --rest_api_port=R --model_name=M --model_base_path=B` takes the server's flags.
It answers with the newest version in B, by TensorFlow.
"""

import base64
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictResponse

NAMES = {"serving_default": "image", "serving_png": "image_bytes", "serving_tf_examples": "examples"}


class Twin:
    """Serves one version of a model; `changed` is what an answer goes through."""

    def __init__(self, path, version, changed=lambda answer: answer, ports=(0, 0)):
        self.version, self.changed = version, changed
        self.loaded = tf.saved_model.load(str(path))
        self.signatures = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{ports[0]}")
        self.http = ThreadingHTTPServer(("127.0.0.1", ports[1]), type("Handler", (_Rest,), {"twin": self}))
        self.thread = threading.Thread(target=self.http.serve_forever)

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
        self.server.stop(0).wait()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()

    def predict(self, name, values):
        answer = self.loaded.signatures[name](**{NAMES[name]: tf.constant(values)})
        return self.changed({key: value.numpy() for key, value in answer.items()})

    def classify(self, examples):
        answer = self.loaded.signatures["classify"](inputs=tf.constant(examples))
        return [
            list(zip(*rows, strict=True))
            for rows in zip(*(answer[key].numpy() for key in ("classes", "scores")), strict=True)
        ]

    def metadata(self):
        return SignatureDefMap(signature_def=dict(self.signatures))


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, twin):
        self.twin = twin

    def Predict(self, request, context):  # noqa: N802
        ((_, value),) = request.inputs.items()
        response = PredictResponse()
        for key, array in self.twin.predict(request.model_spec.signature_name, tf.make_ndarray(value)).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(array))
        return response

    def Classify(self, request, context):  # noqa: N802
        examples = [example.SerializeToString() for example in request.input.example_list.examples]
        response = ClassificationResponse()
        for row in self.twin.classify(examples):
            one = response.result.classifications.add()
            for label, score in row:
                one.classes.add(label=label.decode(), score=score)
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(self.twin.metadata())
        return response


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, twin):
        self.twin = twin

    def GetModelStatus(self, request, context):  # noqa: N802
        if request.model_spec.version.value != self.twin.version:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find version")
        response = GetModelStatusResponse()
        response.model_version_status.add(version=self.twin.version, state="AVAILABLE")
        return response


class _Rest(BaseHTTPRequestHandler):
    twin: Twin

    def do_GET(self):  # noqa: N802
        if self.path.endswith("/metadata"):
            content = json_format.MessageToDict(self.twin.metadata(), preserving_proto_field_name=True)
            self.reply({"metadata": {"signature_def": content}})
        elif self.path.endswith(f"/versions/{self.twin.version}"):
            self.reply({"model_version_status": [{"version": str(self.twin.version), "state": "AVAILABLE"}]})
        else:
            self.reply({"error": "Could not find version"}, 404)

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith(":classify"):
            examples = [_example(base64.b64decode(one["image"]["b64"])) for one in body["examples"]]
            rows = self.twin.classify(examples)
            self.reply({"results": [[[label.decode(), float(score)] for label, score in row] for row in rows]})
            return
        if "instances" in body:
            values = np.array([one["image"] for one in body["instances"]], np.uint8)
            answer = self.twin.predict(body["signature_name"], values)
            rows = zip(*(array.tolist() for array in answer.values()), strict=True)
            self.reply({"predictions": [dict(zip(answer, row, strict=True)) for row in rows]})
            return
        images = [base64.b64decode(image["b64"]) for image in body["inputs"]["image_bytes"]]
        answer = self.twin.predict(body["signature_name"], np.array(images, object))
        self.reply({"outputs": {key: value.tolist() for key, value in answer.items()}})

    def reply(self, content, code=200):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_):
        pass


def _example(png):
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
    return tf.train.Example(features=tf.train.Features(feature={"image": image})).SerializeToString()


def main(words):
    flags = dict(word.removeprefix("--").split("=", 1) for word in words)
    (path,) = Path(flags["model_base_path"]).iterdir()
    with Twin(path, int(path.name), ports=(int(flags["port"]), int(flags["rest_api_port"]))):
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
