"""Residual nets of kernorm's: parameters by formula, and images of many sizes."""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.arrays import Arrays, content_sha256
from kernorm.datasets.cache import write
from kernorm.errors import UsageError
from kernorm.nets.model import build_model
from kernorm.records.record import read_record
from kernorm.saved_model.formats import FORMATS
from kernorm.saved_model.inference import load_saved_model
from tests.processes import ON_JAX


def build(net, shape=(32, 32, 3), classes=10, **settings):
    return build_model(TrainConfig(net=net, **settings), image_shape=shape, num_classes=classes)


def parameters(blocks, channels, classes, affine):
    """He et al. 2016, section 4.2, with a 1x1 convolution in each of the two shortcuts that change the map."""
    count = 9 * channels * 16 + affine * 16
    before = 16
    for filters in (16, 32, 64):
        for _ in range(blocks):
            count += 9 * before * filters + 9 * filters * filters + 2 * affine * filters
            if before != filters:
                count += before * filters + affine * filters
            before = filters
    return count + 64 * classes + classes


@pytest.mark.parametrize(("net", "blocks"), [("resnet8", 1), ("resnet20", 3)])
@pytest.mark.parametrize(("norm", "affine"), [("bn", 2), ("none", 0)])
def test_parameter_counts_are_those_of_the_formula(net, blocks, norm, affine):
    for channels, classes in ((3, 10), (1, 7)):
        model = build(net, (8, 8, channels), classes, norm=norm)
        found = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        assert found == parameters(blocks, channels, classes, affine)
    weighted = [layer for layer in model.layers if layer.trainable_variables and hasattr(layer, "kernel")]
    # The depth counts the layers of the longest path, without the shortcuts' own.
    assert len([layer for layer in weighted if getattr(layer, "kernel_size", (3, 3)) != (1, 1)]) == 6 * blocks + 2


@pytest.mark.parametrize("shape", [(3, 3, 1), (5, 7, 3), (28, 28, 1), (33, 64, 3)])
def test_images_of_any_size_from_3x3(shape, rng):
    model = build("resnet8", shape, norm="ln")
    assert np.isfinite(model(rng.integers(0, 256, (2, *shape), np.uint8))).all()


def test_an_image_that_is_too_small_is_refused_by_the_layer():
    message = r"large enough for the net\. Received: a map of 1x1 before the stride of conv7 of resnet8\. Use larger"
    with pytest.raises(UsageError, match=message):
        build("resnet8", (2, 2, 1))


def test_a_shortcut_that_halves_the_map_averages_it_first():
    """ResNet-D (He et al. 2019, figure 2c): no value of the map is skipped, as a stride of 2 would."""
    model = build("resnet8", norm="none")
    shortcut = model.get_layer("conv4")
    assert (shortcut.kernel_size, shortcut.strides) == ((1, 1), (1, 1))
    assert isinstance(shortcut.input._keras_history.operation, keras.layers.AveragePooling2D)
    strides = {layer.name: layer.strides for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    assert {name for name, value in strides.items() if value == (2, 2)} == {"conv5", "conv8"}
    assert not hasattr(model.get_layer("conv1"), "bias") or model.get_layer("conv1").bias is None


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """A cache with 2,000 training images of noise, 16x16x3, and their labels by chance."""
    generator = np.random.default_rng(0)
    labels = tuple("0123456789")
    values = {}
    for part, count in (("train", 2000), ("test", 200)):
        values[f"{part}_images"] = generator.integers(0, 256, (count, 16, 16, 3), np.uint8)
        values[f"{part}_labels"] = generator.permutation(np.arange(count, dtype=np.int32) % 10)
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path / "cache"))
    write(Arrays(name="noise", version="1.0.0", labels=labels, sha256=content_sha256(labels, values), **values))
    monkeypatch.chdir(tmp_path)
    return values["test_images"], values["test_labels"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_resnet8_trains_and_answers_alike_in_every_runtime(backend, noise, tmp_path, start):
    words = ["--net", "resnet8", "--dataset", "noise", "--epochs", "2", "--batch-size", "100", "--no-report"]
    process = start(
        [sys.executable, "-m", "kernorm.train", *words, "--format", *FORMATS],
        **(ON_JAX if backend == "jax" else {"KERAS_BACKEND": backend}),
        KERNORM_CACHE_DIR=os.environ["KERNORM_CACHE_DIR"],
    )
    _, said = process.communicate()
    assert process.returncode == 0, said
    (path,) = tmp_path.glob("reports/runs/*/record.json")
    record = read_record(path)
    assert record.environment.backend == backend
    assert record.history[-1].cross_entropy < record.history[1].cross_entropy  # noise can be learned by heart
    exported = Path(record.export.path)
    images, labels = noise
    wanted = load_saved_model(exported)(images)
    assert (wanted.argmax(-1) != labels).sum() == record.test.errors
    for form in FORMATS.values():
        found = form.load(exported.with_name(exported.name + form.suffixes[0]))(images)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))
