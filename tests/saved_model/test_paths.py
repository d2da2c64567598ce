"""Folders whose names hold what TensorFlow takes for a pattern: a model there is exported, asked and validated."""

import numpy as np
import pytest

import kernorm
from kernorm.predict import PredictConfig
from kernorm.predict import main as predict
from kernorm.saved_model.inference import load_saved_model, rebuild
from kernorm.saved_model.warmup import encode_png, recorded_images
from kernorm.serving.validation import validate_model
from tests.builders import asked_here, candidate

# One folder with each of the signs, and one that the pattern of another would match.
NAMES = ["[ab]", "a*", "a?", "a\\b"]
TINY = {"net": "eva6", "dataset": "boxes", "validation_size": 32, "epochs": 1, "batch_size": 40, "report": False}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_loaded_from_any_folder(tmp_path, name):
    path = candidate(tmp_path / name / "1")
    images = recorded_images(path, 3)
    np.testing.assert_allclose(load_saved_model(path)(images), np.asarray(rebuild(path)(images)), atol=1e-5)


@pytest.mark.slow
def test_a_model_is_exported_evaluated_and_predicts_in_any_folder(tmp_path, boxes_cache, capsys):
    folder = tmp_path / "".join(NAMES)
    run = kernorm.train_model(**TINY, reports_dir=folder / "reports", saved_models_dir=folder / "saved_models")
    exported = run.export()
    assert exported.path.is_relative_to(folder)
    assert exported.evaluate(robustness=False).count == 64
    png = folder / "digit.png"
    png.write_bytes(encode_png(run.load_validation()[0][:1])[0])
    predict(PredictConfig(images=(png,), model_path=exported.path))
    assert capsys.readouterr().out.startswith(f"{png}  ")


@pytest.mark.slow
def test_a_good_model_is_blessed_in_any_folder(tmp_path, monkeypatch):
    path = candidate(tmp_path / "".join(NAMES) / "1")
    asked_here(monkeypatch)
    found = validate_model(path, tmp_path)
    assert found.blessed, found
    passed = {one.runtime for one in found.tried if one.status == "passed"}
    assert passed >= {"graph", "tensorflow", "openvino", "onnxruntime"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litert", "onnx", "openvino"])
def test_a_model_is_converted_in_any_folder(tmp_path, name):
    path = candidate(tmp_path / "".join(NAMES) / "1")
    assert kernorm.load_exported(path).convert(name).is_file()
