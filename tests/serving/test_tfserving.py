"""What validation asks of a TF Serving, against a small server of its protocol, which is not TF Serving."""

import sys

import numpy as np
import pytest

from kernorm.saved_model.card import read_card
from kernorm.saved_model.inference import load_saved_model
from kernorm.serving import tfserving
from tests.builders import SHOWN, candidate
from tests.serving_twin import Twin
from tests.twin_models import Failed

VERSION = int(SHOWN.name)
# The twin as a binary of a line in sh, which imports TensorFlow as quickly as kernorm's own processes do.
CODE = """
import sys
from kernorm.system import backend
backend.claim_process()
backend.import_tensorflow()
from tests import serving_twin
sys.exit(serving_twin.main(sys.argv[1:]))
"""
SERVER = f'[ "$1" = --version ] && echo twin 1 || exec {sys.executable} -c \'{CODE}\' "$@"'


@pytest.fixture(scope="module")
def twin():
    with Twin(SHOWN, VERSION) as server:
        yield server


@pytest.fixture
def images(digits):
    return digits[0][:128]


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv(tfserving.ENDPOINT, raising=False)


def test_a_named_server_is_asked_by_both_interfaces(twin, images, monkeypatch):
    monkeypatch.setenv(tfserving.ENDPOINT, f"{twin.grpc}, {twin.rest}")
    found, version = tfserving.ask(SHOWN, read_card(SHOWN), images)
    assert version == f"at {twin.grpc}, {twin.rest}"
    ways = (
        "grpc serving_default",
        "grpc serving_png",
        "grpc serving_tf_examples",
        "rest serving_png",
        "rest serving_default",
    )
    assert set(found) == {f"{way}:{size}" for way in ways for size in (1, 3, 128)}
    wanted = load_saved_model(SHOWN)(images)
    for key, logits in found.items():
        np.testing.assert_allclose(logits, wanted[: int(key.rpartition(":")[2])], rtol=0, atol=1e-5)


@pytest.mark.parametrize("interface", ["grpc", "rest"])
def test_one_interface_alone_is_enough(twin, images, monkeypatch, interface):
    monkeypatch.setenv(tfserving.ENDPOINT, getattr(twin, interface))
    found, _ = tfserving.ask(SHOWN, read_card(SHOWN), images)
    assert {key.split()[0] for key in found} == {interface}


@pytest.mark.parametrize("interface", ["grpc", "rest"])
def test_a_server_without_this_version_is_not_asked(twin, images, monkeypatch, tmp_path, interface):
    monkeypatch.setenv(tfserving.ENDPOINT, getattr(twin, interface))
    with pytest.raises(tfserving.NotServed, match=r"does not serve version 1000 of kernorm, which is unknown$"):
        tfserving.ask(tmp_path / "1000", read_card(SHOWN), images)


def test_without_a_server_nothing_is_asked(images, monkeypatch):
    with pytest.raises(tfserving.NotServed, match=r"^no tensorflow_model_server on PATH and no KERNORM_SERVING_END"):
        tfserving.ask(SHOWN, read_card(SHOWN), images)
    for address in ("127.0.0.1:9", "http://127.0.0.1:9/v1/models/kernorm"):
        monkeypatch.setenv(tfserving.ENDPOINT, address)
        with pytest.raises(tfserving.NotServed, match=rf"^{address} does not answer: "):
            tfserving.ask(SHOWN, read_card(SHOWN), images)


def test_a_server_of_another_net_or_order_is_told(twin, images, monkeypatch):
    monkeypatch.setenv(tfserving.ENDPOINT, twin.grpc)
    card = read_card(SHOWN)
    card.signatures["other"] = card.signatures["classify"]
    with pytest.raises(ValueError, match=r"^the server names no signature other$"):
        tfserving.ask(SHOWN, card, images)
    card = read_card(SHOWN)
    card.signatures["classify"] = card.signatures["serving_png"]
    with pytest.raises(ValueError, match=r"^the server's inputs of classify are inputs$"):
        tfserving.ask(SHOWN, card, images)
    monkeypatch.setattr(twin, "changed", lambda answer: answer | {"logits": 2 * answer["logits"]})
    with pytest.raises(ValueError, match=r"^classify does not rank by probability at batch size 1$"):
        tfserving.ask(SHOWN, read_card(SHOWN), images)


def on_path(folder, monkeypatch, command):
    """Puts a command called tensorflow_model_server on PATH."""
    script = folder / tfserving.BINARY
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.slow
def test_a_binary_is_started_with_the_model_and_ended(tmp_path, images, monkeypatch):
    on_path(tmp_path, monkeypatch, SERVER)
    processes = []
    popen = tfserving.subprocess.Popen
    monkeypatch.setattr(
        tfserving.subprocess, "Popen", lambda *a, **k: processes.append(popen(*a, **k)) or processes[-1]
    )
    found, version = tfserving.ask(candidate(tmp_path / "m" / "77"), read_card(SHOWN), images)
    assert version == "twin 1"
    assert len(found) == 15
    assert processes[0].returncode is not None


@pytest.mark.slow
def test_a_folder_that_is_no_version_is_served_as_the_cards(tmp_path, images, monkeypatch):
    on_path(tmp_path, monkeypatch, SERVER)
    for name in ("mine", "9" * 19):
        found, _ = tfserving.ask(candidate(tmp_path / "m" / name), read_card(SHOWN), images)
        assert len(found) == 15


@pytest.mark.slow
def test_a_model_that_does_not_load_is_told_at_once_with_the_reason(tmp_path, images, monkeypatch):
    """Without --max_num_load_retries=0 the server tries it again and again."""
    on_path(tmp_path, monkeypatch, SERVER)
    path = candidate(tmp_path / "m" / "77")
    (path / "saved_model.pb").unlink()
    reason = (
        r"^tensorflow_model_server does not load the model: Failed to start server\. Error: UNKNOWN: 1 servable\(s\) "
        r"did not become available: .*Could not find SavedModel \.pb or \.pbtxt at supplied export directory .*/77 bye$"
    )
    with pytest.raises(ValueError, match=reason):
        tfserving.ask(path, read_card(SHOWN), images)


def test_a_binary_that_does_not_start_is_told_by_its_log(tmp_path, images, monkeypatch):
    on_path(tmp_path, monkeypatch, "echo unknown argument; echo usage: server; exit 1")
    told = r"^tensorflow_model_server does not load the model: unknown argument usage: server$"
    with pytest.raises(ValueError, match=told):
        tfserving.ask(SHOWN, read_card(SHOWN), images)


def test_a_rest_address_may_name_the_version(twin, images, monkeypatch):
    monkeypatch.setenv(tfserving.ENDPOINT, f"{twin.rest}/versions/{VERSION}")
    found, _ = tfserving.ask(SHOWN, read_card(SHOWN), images)
    assert {key.split()[0] for key in found} == {"rest"}
    monkeypatch.setenv(tfserving.ENDPOINT, f"{twin.rest}/versions/7")
    with pytest.raises(tfserving.NotServed, match=rf" names version 7, the model is version {VERSION}$"):
        tfserving.ask(SHOWN, read_card(SHOWN), images)


def test_an_error_of_grpc_is_one_line(twin, images, monkeypatch):
    monkeypatch.setenv(tfserving.ENDPOINT, twin.grpc)
    monkeypatch.setattr("kernorm.saved_model.warmup.encode_png", lambda batch: [b"no image"] * len(batch))
    with pytest.raises(ValueError, match=r"^INVALID_ARGUMENT: .*An image must be an 8-bit greyscale PNG[^\n]*$"):
        tfserving.ask(SHOWN, read_card(SHOWN), images)


def test_a_named_server_that_goes_away_or_is_full_says_nothing_about_the_model(twin, images, monkeypatch):
    monkeypatch.setenv(tfserving.ENDPOINT, f"{twin.grpc}, {twin.rest}")

    def full(answer):
        raise Failed("RESOURCE_EXHAUSTED", "the batch scheduling queue is full")

    monkeypatch.setattr(twin, "changed", full)
    with pytest.raises(tfserving.NotServed, match=r" stopped answering: the batch scheduling queue is full$"):
        tfserving.ask(SHOWN, read_card(SHOWN), images)
