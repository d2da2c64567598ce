"""README's command for TF Serving: what the server that it starts answers, by the twin, which takes its flags."""

import json
import os
import re
import shlex
import subprocess
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from kernorm.saved_model.warmup import encode_png
from kernorm.serving.server_files import BATCHING_FLAGS, FILES, FLAGS, FOLDER, docker_command
from tests.serving_twin import Twin
from tests.twin_batching import read_parameters
from tests.twin_models import Failed

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "saved_models"


def readme_command():
    text = (ROOT / "README.md").read_text()
    return shlex.split(re.search(r"docker run (?:.*\\\n)*.*", text)[0].replace("\\\n", " "))


def flags():
    words = readme_command()
    return words[words.index("tensorflow/serving") + 1 :]


@pytest.fixture
def clients():
    """Asks a server by a number of clients at once, each with a connection of its own."""
    with ThreadPoolExecutor(64 + 4 * os.cpu_count()) as pool:

        def ask(twin, batches):
            return [pool.submit(predict, twin, batch) for batch in batches]

        yield ask


def predict(twin, values):
    """Returns how many answers came, or the name of the error."""
    request = PredictRequest()
    pixels = values.dtype != object
    request.model_spec.name, request.model_spec.signature_name = (
        "kernorm",
        "serving_default" if pixels else "serving_png",
    )
    request.inputs["image" if pixels else "image_bytes"].CopyFrom(tf.make_tensor_proto(values))
    with grpc.insecure_channel(twin.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            answer = PredictionServiceStub(channel).Predict(request)
            return answer.outputs["class_id"].tensor_shape.dim[0].size
        except grpc.RpcError as error:
            return error.code().name


def files_of(images, size):
    return np.array(encode_png(images[np.arange(size) % len(images)]), object)


def test_the_readme_shows_the_command_that_push_prints():
    shown = [word.replace("$PWD", str(ROOT)) for word in readme_command()]
    assert shown == shlex.split(docker_command(PUBLISHED))
    assert docker_command(Path("/a b")).startswith(
        "docker run -p 8500:8500 -p 8501:8501 -v '/a b:/models' tensorflow/s"
    )
    assert " --mount 'type=bind,source=/a :b,target=/models' tensorflow/s" in docker_command(Path("/a :b"))


def test_the_readmes_curl_line_is_answered(tmp_path, digits):
    """The shell writes the payload, as README shows it; the twin answers by the signature."""
    line = re.search(r"^echo '\{.*\n *curl .*$", (ROOT / "README.md").read_text(), re.MULTILINE)[0]
    payload, _, curl = line.partition("|\n")
    (tmp_path / "seven.png").write_bytes(encode_png(digits[0][:1])[0])
    body = subprocess.run(["bash", "-c", payload], cwd=tmp_path, capture_output=True, check=True).stdout
    address = urllib.parse.urlsplit(shlex.split(curl)[-1])
    with Twin.of_flags(flags(), PUBLISHED) as twin:
        asked = urllib.request.Request(twin.rest.replace("/v1/models/kernorm", address.path), body)
        with urllib.request.urlopen(asked) as response:
            outputs = json.load(response)["outputs"]
    assert outputs["class_id"] == [int(digits[1][0])]
    assert np.shape(outputs["logits"]) == (1, 10)


def test_a_bad_image_an_empty_batch_and_a_large_one_are_each_answered_for_themselves(digits, clients):
    images = digits[0]
    bad, many = np.array([b"no image"], object), images[np.arange(300) % len(images)]
    with Twin.of_flags(flags(), PUBLISHED) as twin:
        batches = [files_of(images, 2), bad, files_of(images, 3), many[:0], many]
        answers = [answer.result() for answer in clients(twin, batches)]
    assert answers == [2, "INVALID_ARGUMENT", 3, 0, 300]


def test_sixteen_clients_at_once_are_all_answered(digits, clients):
    with Twin.of_flags(flags(), PUBLISHED) as twin:
        twin.gate.clear()
        asked = clients(twin, [digits[0][:1]] * 16)
        for _ in asked:
            twin.arrived.acquire()
        twin.gate.set()
        assert [one.result() for one in asked] == [1] * 16


def test_without_the_flag_a_server_refuses_more_than_four_requests_a_core(digits, clients):
    """What --grpc_max_threads is there for."""
    with Twin.of_flags([flag for flag in flags() if "grpc_max_threads" not in flag], PUBLISHED) as twin:
        twin.gate.clear()
        asked = clients(twin, [digits[0][:1]] * (4 * os.cpu_count()))
        for _ in asked:
            twin.arrived.acquire()
        assert predict(twin, digits[0][:1]) == "RESOURCE_EXHAUSTED"
        twin.gate.set()
        assert [one.result() for one in asked] == [1] * len(asked)


def test_batching_takes_large_batches(digits, clients):
    images = digits[0][np.arange(1025) % len(digits[0])]
    with Twin.of_flags([*flags(), *BATCHING_FLAGS], PUBLISHED) as twin:
        answers = [one.result() for one in clients(twin, [images[:129], images[:1024], images])]
    assert answers == [129, 1024, "INVALID_ARGUMENT"]


def test_batching_costs_what_the_file_says(digits, clients):
    bad = np.array([b"no image"], object)
    with Twin.of_flags([*flags(), *BATCHING_FLAGS], PUBLISHED) as twin:
        twin.batching.gate.clear()
        asked = clients(twin, [files_of(digits[0], 1), bad, files_of(digits[0], 2)])
        twin.batching.wait_for(3)
        empty = clients(twin, [digits[0][:0]])[0]
        twin.batching.wait_for(4)
        twin.batching.gate.set()
        told = {one.result() for one in asked}
        assert not empty.done()
    assert told == {"INVALID_ARGUMENT"}
    for words in ("one bad image fails", "an empty batch is never answered"):
        assert words in " ".join(FILES["batching.config"].replace("#", "").split())
        assert words in " ".join((ROOT / "README.md").read_text().split())


def test_the_batching_that_was_shown_before_refused_129_images():
    """The check of the twin that would show it: without splitting, the largest batch is the largest request."""
    text = FILES["batching.config"]
    assert read_parameters(text)["max_batch_size"] == 1024
    for before, after in (
        ("allowed_batch_sizes: 1024\n", ""),
        ("enable_large_batch_splitting { value: true }\n", ""),
        ("max_execution_batch_size { value: 128 }", "max_execution_batch_size { value: 2048 }"),
    ):
        with pytest.raises(Failed, match="INVALID_ARGUMENT"):
            read_parameters(text.replace(before, after))


def test_the_repository_holds_the_files_that_push_writes():
    assert {name: (PUBLISHED / FOLDER / name).read_text() for name in FILES} == FILES
    assert "--enable_batching" not in FLAGS
