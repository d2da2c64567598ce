"""python -m kernorm.predict: a SavedModel here, and the contract of TF Serving's two interfaces against small servers.

The servers are of the test: they speak TF Serving's protocol and answer with the real model, but they are not it.
"""

import base64
import io
import json
import math
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from kernorm.predict import PROG, PredictConfig, main
from kernorm.saved_model.signatures import write_saved_model
from kernorm.serving import client
from kernorm.system.cli import run
from tests.builders import SHOWN
from tests.serving_twin import Twin


def asked(*words):
    return run(PredictConfig, main, prog=PROG, argv=[str(word) for word in words])


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def files(tmp_path, digits):
    """Seven PNG files of digits, and their labels."""
    paths = []
    for number, image in enumerate(digits[0][:7]):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(png(image[..., 0]))
    return paths, digits[1][:7].tolist()


@pytest.fixture(scope="module")
def loaded():
    return tf.saved_model.load(str(SHOWN))


@pytest.fixture(scope="module")
def serving(loaded):
    """A gRPC server of the test, the address, and what it got: a list of (model, signature, images)."""
    got, trouble = [], []

    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            images = tf.make_ndarray(request.inputs["image_bytes"])
            got.append((request.model_spec.name, request.model_spec.signature_name, len(images)))
            if trouble:
                context.abort(*trouble.pop())
            name = request.model_spec.signature_name
            if name not in loaded.signatures:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
            try:
                answer = loaded.signatures[name](image_bytes=tf.constant(images))
            except tf.errors.OpError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            response = PredictResponse()
            for name, value in answer.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", got, trouble
    server.stop(0).wait()


@pytest.fixture(scope="module")
def resting(loaded):
    """A REST server of the test, in TF Serving's column format: the address, what it got, the answers to give first."""
    got, trouble = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            images = [base64.b64decode(image["b64"]) for image in body["inputs"]["image_bytes"]]
            got.append((self.path, body["signature_name"], len(images)))
            code, content = trouble.pop() if trouble else (200, None)
            if content is None:
                answer = loaded.signatures["serving_png"](image_bytes=tf.constant(np.array(images, object)))
                content = {"outputs": {name: value.numpy().tolist() for name, value in answer.items()}}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/kernorm", got, trouble
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.0)


def classes(text):
    return [int(line.split()[-2]) for line in text.splitlines()]


def test_a_model_here_names_the_digits(files, capsys):
    paths, labels = files
    assert asked("--model-path", SHOWN, *paths) == 0
    told = capsys.readouterr().out
    assert classes(told) == labels
    assert [line.split()[0] for line in told.splitlines()] == [str(path) for path in paths]


def test_grpc_asks_in_batches_and_tells_the_same(files, serving, capsys):
    paths, labels = files
    address, got, _ = serving
    del got[:]
    assert asked("--endpoint", address, "--batch-size", 3, *paths) == 0
    assert classes(capsys.readouterr().out) == labels
    assert got == [("kernorm", "serving_png", size) for size in (3, 3, 1)]


def test_rest_asks_in_batches_and_tells_the_same(files, resting, capsys):
    paths, labels = files
    address, got, _ = resting
    del got[:]
    assert asked("--endpoint", f"{address}/labels/stable", "--batch-size", 4, *paths) == 0
    assert classes(capsys.readouterr().out) == labels
    assert got == [("/v1/models/kernorm/labels/stable:predict", "serving_png", size) for size in (4, 3)]


def test_what_may_pass_is_asked_again(files, serving, resting, capsys):
    (path, *_), (label, *_) = files
    serving[2].append((grpc.StatusCode.UNAVAILABLE, "still loading"))
    assert asked("--endpoint", serving[0], path) == 0
    resting[2].append((503, {"error": "still loading"}))
    assert asked("--endpoint", resting[0], path) == 0
    assert classes(capsys.readouterr().out) == [label, label]
    slow = (grpc.StatusCode.DEADLINE_EXCEEDED, "too slow"), (504, {"error": "too slow"}), (502, {"error": "a proxy"})
    for trouble in slow:
        where = resting if isinstance(trouble[0], int) else serving
        where[2].append(trouble)
        assert asked("--endpoint", where[0], path) == 0
    capsys.readouterr()
    resting[2].extend([(503, {"error": "still\nloading"})] * 2)
    assert asked("--endpoint", resting[0], "--retries", 1, path) == 2
    told = capsys.readouterr().err
    assert (
        f"A server must answer. Received: {resting[0]}, asked 2 times: HTTP 503: still loading. Is it running" in told
    )
    assert resting[2] == []


def test_what_the_server_refuses_is_told_in_its_words(files, serving, resting, capsys):
    path = files[0][0]
    serving[2].append((grpc.StatusCode.NOT_FOUND, "Servable not found"))
    assert asked("--endpoint", serving[0], path) == 2
    assert "says NOT_FOUND: Servable not found. Check the model's name" in capsys.readouterr().err
    resting[2].append((404, {"error": "Servable not found"}))
    assert asked("--endpoint", resting[0], path) == 2
    assert "says HTTP 404: Servable not found. Check the model's name" in capsys.readouterr().err
    resting[2].append((200, {"outputs": {"class_id": []}}))
    assert asked("--endpoint", resting[0], path) == 2
    assert "an answer that is none of kernorm's models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("class_id", "probabilities", "message"),
    [
        (-1, [0.25, 0.75], "class -1 of 2"),
        (2, [0.25, 0.75], "class 2 of 2"),
        (0.5, [0.25, 0.75], "class 0.5 of 2"),
        (1, [0.25, math.nan], "a probability of nan"),
        (1, [0.25, 75], "a probability of 75"),
        (1, [-0.25, 0.75], "a probability of -0.25"),
        (1, [None, 0.75], "TypeError"),
    ],
)
def test_an_answer_that_can_be_none_is_not_printed(files, resting, capsys, class_id, probabilities, message):
    resting[2].append((200, {"outputs": {"class_id": [class_id], "probabilities": [probabilities]}}))
    assert asked("--endpoint", resting[0], files[0][0]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: An answer has a class and a probability of each class. Received: ")
    assert message in told.err


def test_waits_double_up_to_half_a_minute(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.5)
    assert [client._wait(attempt) for attempt in (0, 1, 5, 6, 5000)] == [0.5, 1, 16, 30, 30]


def test_nobody_there_is_one_line(files, capsys):
    for endpoint in ("127.0.0.1:9", "http://127.0.0.1:9/v1/models/kernorm"):
        assert asked("--endpoint", endpoint, "--retries", 0, files[0][0]) == 2
        assert f"A server must answer. Received: {endpoint}, asked 1 times: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "An image is a PNG, JPEG or BMP file. Received: {path}, which is empty. Convert it."),
        (b"GIF89a", "An image is a PNG, JPEG or BMP file. Received: {path}, which is none. Convert it."),
        (png(np.zeros((28, 28), np.uint8))[:60], "An image must be one that the model takes. Received: "),
        (png(np.zeros((28, 28), np.uint8)).replace(b"IEND", b"IE\0D"), "An image must be one that the model takes. Re"),
        (png(np.zeros((14, 28), np.uint8)), "An image must be one that the model takes. Received: "),
        (png(np.zeros((28, 28), np.uint16)), "An image must be one that the model takes. Received: "),
        (png(np.zeros((28, 28, 4), np.uint8)), "An image must be one that the model takes. Received: "),
    ],
)
def test_refuses_images_that_are_none_of_the_models(tmp_path, serving, capsys, content, message):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    assert asked("--model-path", SHOWN, path) == 2
    told = capsys.readouterr().err
    assert message.format(path=path) in told
    assert "Traceback" not in told
    if "model takes" in message:  # a server refuses it too, and goes on
        assert asked("--endpoint", serving[0], path) == 2
        assert "says INVALID_ARGUMENT: " in capsys.readouterr().err


def test_the_service_goes_on_after_a_bad_image(files, serving, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(png(np.zeros((3, 3), np.uint8)))
    assert asked("--endpoint", serving[0], bad) == 2
    assert asked("--endpoint", serving[0], *files[0]) == 0
    assert classes(capsys.readouterr().out) == files[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.png"], "Either --endpoint or --model-path is asked. Received: neither."),
        (["--endpoint", "a:1", "--model-path", "b", "x.png"], "Received: both. Give one of them."),
        (["--endpoint", "a:1"], "There must be an image to ask about. Received: none."),
        (["--endpoint", "a:1", "--batch-size", "0", "x.png"], "--batch-size must be at least 1. Received: batch"),
        (["--endpoint", "a:1", "--timeout", "0", "x.png"], "--timeout must be a time above 0. Received: timeout=0.0."),
        (["--endpoint", "a:1", "x.png"], "An image is a file that can be read. Received: x.png: No such file"),
    ],
)
def test_refuses_in_one_line(capsys, words, message):
    assert asked(*words) == 2
    assert message in capsys.readouterr().err


def test_refuses_what_is_no_model(files, tmp_path, capsys):
    assert asked("--model-path", tmp_path, files[0][0]) == 2
    assert "--model-path takes a SavedModel. Received: " in capsys.readouterr().err
    other = tf.Module()
    other.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(other, str(tmp_path / "other"), signatures={"double": other.double})
    assert asked("--model-path", tmp_path / "other", files[0][0]) == 2
    assert "A model answers serving_png. Received: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model of own images, 14x14 by cutting from the middle, that answers by their mean colour."""
    image = keras.Input((14, 14, 3), dtype="uint8", name="image")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(image))
    folder = tmp_path_factory.mktemp("own") / "1"
    write_saved_model(keras.Model(image, mean), ("red", "green", "blue"), folder, resize="crop")
    (folder / "assets.extra" / "kernorm").mkdir(parents=True)
    (folder / "assets.extra" / "kernorm" / "labels.txt").write_text("red\ngreen\nblue\n")
    return folder


def test_a_model_of_own_images_takes_jpeg_and_png_of_any_size(own, tmp_path, capsys):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 0], wide[:, 20:40] = 200, (0, 180, 0)  # green in the middle, which `crop` keeps
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=95)
    Image.fromarray(np.full((14, 14, 3), (0, 0, 250), np.uint8)).save(tmp_path / "exact.png")
    for names in (("wide.jpg", "exact.png"), ("wide.png", "exact.png"), ("exact.png",)):
        assert not asked(*(tmp_path / name for name in names), "--model-path", own)
        said = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
        assert said == ["blue" if name == "exact.png" else "green" for name in names]


@pytest.mark.parametrize("interface", ["rest", "grpc", "here"])
def test_the_reason_is_that_of_the_signature_that_takes_the_file(own, tmp_path, capsys, interface):
    """serving_image takes any size, so the message says that a file is damaged, and nothing of its size."""
    (tmp_path / "damaged.png").write_bytes(png(np.zeros((20, 60, 3), np.uint8))[:60])
    with Twin(own, 1) as twin:
        place = ["--model-path", own] if interface == "here" else ["--endpoint", getattr(twin, interface)]
        assert asked(tmp_path / "damaged.png", *place) == 2
    told = capsys.readouterr().err
    assert "An image must be an 8-bit" not in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_a_server_that_lacks_the_signature_is_told_as_such(tmp_path, capsys, interface):
    Image.new("L", (28, 28)).save(tmp_path / "digit.jpg")
    (tmp_path / "small.png").write_bytes(png(np.zeros((3, 3), np.uint8)))
    with Twin(SHOWN, int(SHOWN.name)) as twin:
        place = ["--endpoint", getattr(twin, interface)]
        assert asked(tmp_path / "digit.jpg", *place) == 2
        assert "A model that was not trained on own images takes PNG files. Received: " in capsys.readouterr().err
        assert asked(tmp_path / "small.png", *place) == 2
        assert "An image must be an 8-bit greyscale PNG of 28x28" in capsys.readouterr().err


@pytest.mark.parametrize("interface", ["rest", "grpc"])
def test_a_server_of_own_images_is_asked_by_the_signature_that_takes_the_files(own, tmp_path, capsys, interface):
    """PNG files of the model's size go to serving_png; one of another size, and a JPEG, make it serving_image."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 0], wide[:, 20:40] = 200, (0, 180, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=95)
    for name, colour in (("blue", (0, 0, 250)), ("red", (250, 0, 0))):
        Image.fromarray(np.full((14, 14, 3), colour, np.uint8)).save(tmp_path / f"{name}.png")
    signatures = []
    with Twin(own, 1) as twin:
        predict = twin.predict
        twin.predict = lambda version, name, values: signatures.append(name) or predict(version, name, values)
        for names, wanted, used in (
            (("blue.png", "red.png"), ["blue", "red"], ["serving_png"]),
            (("blue.png", "wide.png", "red.png"), ["blue", "green", "red"], ["serving_png", "serving_image"]),
            (("blue.png", "wide.jpg"), ["blue", "green"], ["serving_image"]),
        ):
            files = [tmp_path / name for name in names]
            assert asked(*files, "--endpoint", getattr(twin, interface), "--batch-size", 2) == 0
            assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == wanted
            # A batch that serving_png refused is asked again, and those that follow go on by serving_image.
            assert list(dict.fromkeys(signatures)) == used
            assert len(signatures) == -(-len(files) // 2) + len(used) - 1
            signatures.clear()


def test_another_model_refuses_jpeg(tmp_path, capsys):
    Image.new("L", (28, 28)).save(tmp_path / "digit.jpg")
    assert asked(tmp_path / "digit.jpg", "--model-path", SHOWN) == 2
    told = "error: A model that was not trained on own images takes PNG files. Received: others; "
    assert capsys.readouterr().err.startswith(f"{told}{SHOWN} with ")
