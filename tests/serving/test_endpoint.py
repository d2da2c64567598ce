"""What predict and validate say about an endpoint that is none, and the names of classes through a real export."""

import contextlib
import io
import itertools
import re
import socket
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from kernorm.predict import PROG, PredictConfig, main
from kernorm.saved_model.card import read_card
from kernorm.saved_model.signatures import write_saved_model
from kernorm.serving import client, tfserving
from kernorm.serving.endpoint import ask_rest
from kernorm.system.cli import run
from tests.builders import SHOWN
from tests.saved_model.test_signatures import net
from tests.serving_twin import Twin
from tests.twin_models import Models


def asked(*words):
    return run(PredictConfig, main, prog=PROG, argv=[str(word) for word in words])


@pytest.fixture
def seven(tmp_path, digits):
    path = tmp_path / "seven.png"
    Image.fromarray(digits[0][0][..., 0]).save(path)
    return path


@pytest.fixture(scope="module")
def twin():
    with Twin(SHOWN, int(SHOWN.name)) as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.0)
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def answering():
    """Starts a server that reads a request's head, answers with these bytes, and closes; returns its port."""
    opened, threads = [], []

    def start(content):
        server = socket.create_server(("127.0.0.1", 0))
        opened.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received = b""
                    while b"\r\n\r\n" not in received and (more := connection.recv(65536)):
                        received += more
                    length = int((re.search(rb"Content-Length: (\d+)", received) or [0, 0])[1])
                    left = length - len(received.partition(b"\r\n\r\n")[2])
                    while left > 0 and (more := connection.recv(left)):
                        left -= len(more)
                    connection.sendall(content)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return server.getsockname()[1]

    yield start
    for server in opened:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()


def refused_everywhere(endpoint, seven, monkeypatch, capsys, message):
    """Asks by predict, which ends in one line, and by validate, which does not hold it against the model."""
    assert asked("--endpoint", endpoint, "--retries", 1, seven) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    monkeypatch.setenv(tfserving.ENDPOINT, endpoint)
    with pytest.raises(tfserving.NotServed) as reason:
        tfserving.ask(SHOWN, read_card(SHOWN), np.zeros((128, 28, 28, 1), np.uint8))
    assert "\n" not in str(reason.value)
    return told


FORMS = "Give http://HOST:PORT/v1/models/NAME for REST, or HOST:PORT for gRPC."


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("localhost:8501/v1/models/kernorm", "For REST, write http://localhost:8501/v1/models/kernorm. For gRPC, w"),
        ("HTTP://localhost:8501/v1/models/kernorm", "For REST, write http://localhost:8501/v1/models/kernorm."),
        ("grpc://localhost:8500", f"Received: grpc://localhost:8500. {FORMS}"),
        ("http:/localhost:8501", FORMS),
        ("http://localhost:8501", FORMS),
        ("http://localhost:8501/v1/models/kernorm/versions/latest", FORMS),
        ("http://localhost:8501/v1/models/kernorm?a=b", FORMS),
        ("http://localhost:85o1/v1/models/kernorm", FORMS),
        ("http://localhost:99999/v1/models/kernorm", FORMS),
        ("http://local host:8501/v1/models/kernorm", "with a space or a letter that no address has"),
        ("http://a..b:8501/v1/models/kernorm", FORMS),
        ("http://[::1:8501/v1/models/kernorm", FORMS),
        ("http:///v1/models/kernorm", FORMS),
        ("localhost", f"Received: localhost. {FORMS}"),
        ("localhost:", FORMS),
        ("localhost:85000", FORMS),
        ("::1:8500", FORMS),
        ("lοcalhost:8500", "with a space or a letter that no address has"),
    ],
)
def test_a_mistyped_address_is_named(seven, monkeypatch, capsys, endpoint, message):
    told = refused_everywhere(endpoint, seven, monkeypatch, capsys, message)
    assert "error: --endpoint takes the address of a TF Serving. Received: " in told


def test_a_port_of_the_other_interface_is_named(twin, seven, monkeypatch, capsys):
    address = f"http://{twin.grpc}/v1/models/kernorm"
    message = f"Received: {address}: this is a gRPC port: give HOST:PORT without http://, or the port of REST. Check"
    refused_everywhere(address, seven, monkeypatch, capsys, message)
    address = twin.rest.removeprefix("http://").partition("/")[0]
    message = f"Received: {address}: this is no gRPC port, but one of REST: give http://{address}/v1/models/NAME. Check"
    refused_everywhere(address, seven, monkeypatch, capsys, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "asked 2 times: an answer that was cut. Is it running"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{", "asked 2 times: an answer that was cut."),
        (b"HTTP/1.1 404 No\r\nContent-Length: 900\r\n\r\n{", "says HTTP 404: an answer that was cut."),
        (b"", "asked 2 times: no answer before the connection was closed. Is it running"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP, but 'SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>a portal</html>", "an answer that is no JSON: b'<html>a portal</html>'. Check"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "no HTTP, but 'HTTP/1.1 abc OK"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 70000, "asked 2 times: got more than 65536 bytes"),
    ],
)
def test_an_answer_that_is_none_is_told(answering, seven, monkeypatch, capsys, content, message):
    endpoint = f"http://127.0.0.1:{answering(content)}/v1/models/kernorm"
    refused_everywhere(endpoint, seven, monkeypatch, capsys, message)


@pytest.mark.parametrize("part", [b" ", b"X: " + 60000 * b"a" + b"\r\n"], ids=["body", "head"])
def test_a_server_that_never_ends_its_answer_is_left(seven, capsys, part):
    """Each byte comes by itself, so that no single read takes long."""
    server, asked_for = socket.create_server(("127.0.0.1", 0)), []

    def drip():
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            asked_for.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n[" if part == b" " else b""))
            for byte in itertools.cycle(part):
                connection.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/v1/models/kernorm"
    try:
        assert asked("--endpoint", endpoint, "--timeout", 0.2, "--retries", 0, seven) == 2
    finally:
        server.close()
        thread.join()
    assert f"{endpoint}, asked 1 times: no whole answer within 0.2 s. Is it running" in capsys.readouterr().err
    assert asked_for


def test_a_redirect_of_a_post_is_told_and_one_of_a_get_is_followed(answering, twin, seven, capsys):
    moved = f"HTTP/1.1 302 Found\r\nLocation: {twin.rest}\r\nContent-Length: 0\r\n\r\n"
    endpoint = f"http://127.0.0.1:{answering(moved.encode())}/v1/models/kernorm"
    assert asked("--endpoint", endpoint, seven) == 2
    told = f"{endpoint}: HTTP 302, a redirect to {twin.rest}. Check the address."
    assert told in capsys.readouterr().err
    assert ask_rest(endpoint)["model_version_status"]


def test_json_that_is_none_of_tf_servings_is_told(answering, seven, monkeypatch, capsys):
    endpoint = f"http://127.0.0.1:{answering(b'HTTP/1.1 200 OK' + 2 * bytes([13, 10]) + b'[]')}/v1/models/kernorm"
    refused_everywhere(endpoint, seven, monkeypatch, capsys, "an answer that is none of kernorm's models")


def test_another_server_of_grpc_is_told(seven, monkeypatch, capsys):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    message = f"{address}: this server speaks gRPC, but is no TF Serving: Method not found! Check"
    refused_everywhere(address, seven, monkeypatch, capsys, message)
    server.stop(0).wait()


def test_a_proxy_is_named_without_its_password(answering, twin, seven, monkeypatch, capsys):
    proxy = answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
    named = f"(asked through the proxy 127.0.0.1:{proxy} of http_proxy; NO_PROXY names hosts to ask directly)"
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{proxy}")
    for endpoint in (twin.rest, twin.grpc):
        told = refused_everywhere(endpoint, seven, monkeypatch, capsys, named)
        assert "secret" not in told
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert asked("--endpoint", twin.rest, seven) == 0
    assert asked("--endpoint", twin.grpc, seven) == 0


def test_names_of_classes_come_by_every_way(tmp_path, capsys):
    """Of a model that is exported now; of an earlier one they are numbers."""
    folder = tmp_path / "kernorm" / "1"
    write_saved_model(net((2, 2, 1), 3), ("ä", "bird", "cat and dog"), folder)
    file = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    wanted = tf.saved_model.load(str(folder)).signatures["serving_png"](image_bytes=tf.constant([file.getvalue()]))
    name = wanted["class_name"].numpy()[0].decode()
    with Twin(models=Models(entry=ModelConfig(name="kernorm", base_path=str(folder.parent)))) as server:
        for words in (["--endpoint", server.grpc], ["--endpoint", server.rest], ["--model-path", folder]):
            assert asked(*words, tmp_path / "a.png") == 0
            assert capsys.readouterr().out.startswith(f"{tmp_path / 'a.png'}  {name}  0.")
