"""Keras' global settings, as a notebook or ~/.keras/keras.json leaves them: no result of kernorm depends on them."""

import keras
import numpy as np
import pytest

import kernorm
from kernorm.saved_model.inference import load_saved_model, rebuild
from kernorm.system import backend

SETTINGS = {
    "channels first": {"image_data_format": "channels_first"},
    "float16": {"floatx": "float16", "dtype_policy": "float16"},
    "float64": {"floatx": "float64", "dtype_policy": "float64"},
    "mixed precision": {"dtype_policy": "mixed_float16"},
    "a coarse epsilon": {"epsilon": 0.1},
    "few steps": {"max_epochs": 1, "max_steps_per_epoch": 1},
}
ALL = {name: value for settings in SETTINGS.values() for name, value in settings.items()}
TINY = {"net": "eva6", "l2": 1e-3, "dropout": 0.05, "epochs": 2, "batch_size": 40, "report": False}
PLAIN = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
    "max_epochs": None,
    "max_steps_per_epoch": None,
}


def give(settings):
    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)


def given():
    found = {name: getattr(keras.config, name)() for name in PLAIN}
    return found | {"dtype_policy": keras.config.dtype_policy().name}


@pytest.fixture
def foreign():
    """Sets what a notebook set, and takes it back after the test."""
    before = given()
    yield give
    give(before)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_net_is_the_same_under_any_global_setting(foreign, settings):
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 3), np.uint8)
    words = {"image_shape": (20, 24, 3), "net": "eva6", "norm": "gn", "dropout": 0.1, "penalize": "all", "l2": 0.1}
    wanted = kernorm.build_model(**words)(images)
    foreign(settings)
    before = given()
    model = kernorm.build_model(**words)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    np.testing.assert_array_equal(model(images), wanted)
    assert given() == before


def test_settings_are_put_back_after_an_error(foreign):
    foreign({"floatx": "float16"})
    before = given()
    with pytest.raises(kernorm.UsageError, match="at least two classes"):
        kernorm.build_model(num_classes=1)
    assert given() == before


def test_inside_they_are_keras_own(foreign):
    foreign(ALL)
    with backend.keras_settings():
        assert given() == PLAIN | {"dtype_policy": "float32"}


@pytest.mark.slow
def test_a_run_and_its_export_are_the_same_under_any_global_setting(foreign, boxes_cache, tmp_path):
    words = {**TINY, "norm": "gbn", "dataset": "boxes", "validation_size": 32}
    places = [{key: tmp_path / part / key for key in ("reports_dir", "saved_models_dir")} for part in ("a", "b")]
    plain = kernorm.train_model(**words, **places[0], export=False)
    foreign(ALL)
    before = given()
    run = kernorm.train_model(**words, **places[1])
    assert run.status == "finished"
    for name in ("loss", "val_cross_entropy"):
        np.testing.assert_array_equal(run.history[name], plain.history[name])
    exported = run.export()
    images, _ = run.load_validation()
    logits = load_saved_model(exported.path)(images)
    np.testing.assert_allclose(np.asarray(run.load_model()(images)), logits, atol=1e-5)
    np.testing.assert_allclose(np.asarray(rebuild(exported.path)(images)), logits, atol=1e-5)
    assert len(exported.predict(images)) == 32
    assert exported.evaluate(robustness=False).count == 64
    assert given() == before
