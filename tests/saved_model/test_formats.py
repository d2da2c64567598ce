"""ONNX, OpenVINO and LiteRT beside a SavedModel, each asked by its own runtime."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kernorm import evaluate, push, validate
from kernorm.config import TrainConfig
from kernorm.convert import PROG, ConvertConfig, main
from kernorm.errors import UsageError
from kernorm.saved_model.formats import FORMATS, Format, convert
from kernorm.saved_model.inference import load_saved_model
from kernorm.saved_model.parity import softmax
from kernorm.saved_model.versions import versions
from kernorm.saved_model.warmup import recorded_images
from kernorm.system.cli import run
from tests.builders import candidate


@pytest.fixture
def model(tmp_path):
    return candidate(tmp_path / "run" / "1000")


def names(model):
    return sorted(path.name for path in model.parent.iterdir())


@pytest.mark.slow
def test_every_format_answers_as_the_saved_model(model, digits, capsys):
    assert run(ConvertConfig, main, prog=PROG, argv=[str(model)]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in told] == list(FORMATS)
    # TF Serving takes none of them for a version.
    assert names(model) == ["1000", "1000.bin", "1000.onnx", "1000.tflite", "1000.xml"]
    assert versions(model.parent) == [1000]
    other = digits[0][200:237]
    wanted = load_saved_model(model)(other)
    for name, path in told:
        np.testing.assert_allclose(FORMATS[name].load(path)(other), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_openvino_keeps_float32(model, digits):
    """OpenVINO would halve the weights when it saves: its file must hold the very kernels."""
    import openvino

    path = convert(model, "openvino")
    constants = [op for op in openvino.Core().read_model(str(path)).get_ops() if op.get_type_name() == "Constant"]
    assert "f16" not in {op.get_element_type().get_type_name() for op in constants}


@pytest.mark.parametrize("inside", ["", "variables"])
def test_the_model_may_be_the_current_folder_or_the_one_above(model, monkeypatch, inside):
    ask = load_saved_model(model)
    monkeypatch.setitem(FORMATS, "onnx", Format((".onnx",), (), lambda _, target: target.touch(), lambda _: ask))
    monkeypatch.chdir(model / inside)
    path = ".." if inside else "."
    assert convert(Path(path), "onnx") == model.with_name("1000.onnx")
    assert run(ConvertConfig, main, prog=PROG, argv=[path, "--format", "onnx"]) == 0
    assert names(model) == ["1000", "1000.onnx"]


def test_other_answers_leave_nothing(model, monkeypatch):
    changed = Format((".onnx",), (), lambda _, target: target.touch(), lambda path: lambda images: ask(images) + 1)
    ask = load_saved_model(model)
    monkeypatch.setitem(FORMATS, "onnx", changed)
    with pytest.raises(
        RuntimeError, match=r"^A converted model must answer .* Received: logits of onnx that differ by 1"
    ):
        convert(model, "onnx")
    assert names(model) == ["1000"]


def test_refuses_a_missing_package_and_a_changed_model(model, monkeypatch):
    (model / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UsageError, match=r"^A model must be as it was exported\."):
        convert(model, "onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^--format litert needs ai_edge_litert\. .* pip install ai-edge-litert\."):
        convert(model, "litert")
    assert names(model) == ["1000"]


def test_refuses_formats_of_what_is_not_exported():
    with pytest.raises(UsageError, match=r"^--format converts what is exported\. Received: --format with --no-export"):
        TrainConfig(format=("onnx",), export=False)


def test_an_unknown_format_is_told(tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "kernorm.convert", "x", "--format", "caffe"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "onnx" in told.stderr


def test_somebody_elses_saved_model_is_refused_by_every_command(tmp_path, capsys):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None], tf.float32)])
    path = tmp_path / "other" / "1"
    tf.saved_model.save(module, str(path), signatures={"double": module.double})
    with pytest.raises(UsageError, match=r"^A model answers serving_default\. Received: .* with double\. Export"):
        load_saved_model(path)
    for config, command in (
        (ConvertConfig, main),
        (evaluate.EvaluateConfig, evaluate.main),
        (validate.ValidateConfig, validate.main),
        (push.PushConfig, push.main),
    ):
        assert run(config, command, prog="x", argv=[str(path)]) == 2
        assert "A SavedModel must be one that kernorm exported. Received: " in capsys.readouterr().err


def test_openvino_needs_the_hint_where_it_computes_in_bfloat16(model):
    """What README and the card say: by default it may be off by more than the tolerance; with the hint it is not."""
    openvino = pytest.importorskip("openvino")
    images, wanted = recorded_images(model, 64), None
    for settings in ({"INFERENCE_PRECISION_HINT": "f32"}, {}):
        compiled = openvino.Core().compile_model(str(model), "CPU", settings)
        found = softmax(compiled({"image": images})["logits"])
        wanted = softmax(load_saved_model(model)(images)) if wanted is None else wanted
        exact = compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
        assert exact or not settings
        assert np.abs(found - wanted).max() < (1e-5 if exact else 2e-2)
