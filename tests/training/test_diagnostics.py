import os
from shutil import disk_usage

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.nets.model import build_model_for
from kernorm.nets.weights import save_weights
from kernorm.records.record import THRESHOLDS
from kernorm.training.diagnostics import layer_table, prune_table, pruned_logits


@pytest.fixture
def make(mnist_info, rng):
    """A net whose kernels reach below every threshold."""

    def made(**settings):
        config = TrainConfig(**{"net": "eva6", **settings})
        model = build_model_for(config, mnist_info)
        for layer in model.layers:
            if hasattr(layer, "kernel"):
                shape = layer.kernel.shape
                layer.kernel.assign(rng.normal(size=shape) * 10.0 ** rng.integers(-6, 1, shape))
        return model, config

    return made


def test_the_table_describes_every_layer_with_weights(make):
    model, config = make(norm="gn", groups=2, norm_at=("conv1=ln", "conv2=none"), l1=1e-3, penalty_at=("conv3=0,0.5",))
    rows = {row.name: row for row in layer_table(model, config)}
    assert list(rows) == [layer.name for layer in model.layers if layer.trainable_variables]
    assert "conv2_norm" not in rows
    assert sum(row.parameters for row in rows.values()) == sum(np.prod(v.shape) for v in model.trainable_variables)
    for name in ("conv1", "conv3", "conv7"):
        kernel = np.array(model.get_layer(name).kernel).astype(np.float64)
        row = rows[name]
        assert row.kernel_norm == pytest.approx(np.linalg.norm(kernel.ravel()), rel=1e-12)
        assert row.near_zero == tuple((np.abs(kernel) < threshold).mean() for threshold in THRESHOLDS)
        assert 0 < row.near_zero[0] < row.near_zero[1] < row.near_zero[2] < 1
        assert (row.norm, row.axes, row.groups) == ("", "", None)
        assert row.output_shape == model.get_layer(name).output.shape[1:]
    assert [(rows[name].l1, rows[name].l2) for name in ("conv1", "conv3")] == [(1e-3, 0.0), (0.0, 0.5)]
    first, third = rows["conv1_norm"], rows["conv3_norm"]
    assert (first.norm, first.axes, first.groups) == ("ln", "H,W,C", None)
    assert (third.norm, third.axes, third.groups) == ("gn", "H,W,C/groups", 2)
    assert (third.l1, third.kernel_norm, third.near_zero) == (None, None, None)
    assert third.parameters == 16


def test_penalized_norms_are_shown_as_such(make):
    model, config = make(l2=0.01, penalize="all")
    assert {(row.l1, row.l2) for row in layer_table(model, config)} == {(0.0, 0.01)}


def test_pruning_is_that_of_numpy_and_leaves_the_model_as_it_was(make, digits):
    images, labels = digits[0][:96], digits[1][:96]
    model, _ = make(norm="ln")
    before = [np.array(variable) for variable in model.variables]
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    rows = prune_table(model, pruned_logits(model, images, 40), labels, "validation")
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)
    trained = [np.array(kernel) for kernel in kernels]
    assert [row.threshold for row in rows] == list(THRESHOLDS)
    for row in rows:
        small = [np.abs(values) < row.threshold for values in trained]
        for kernel, values, zero in zip(kernels, trained, small, strict=True):
            kernel.assign(values * ~zero)
        predicted = model.predict(images, batch_size=96, verbose=0).argmax(axis=1)
        assert row.split == "validation"
        assert row.share == pytest.approx(np.concatenate([zero.ravel() for zero in small]).mean(), rel=1e-12)
        assert row.accuracy == pytest.approx((predicted == labels).mean(), abs=1e-12)
    assert 0 < rows[0].share < rows[1].share < rows[2].share


def test_the_model_is_as_it_was_even_if_predicting_fails(make, digits):
    model, _ = make()
    before = [np.array(variable) for variable in model.variables]
    with pytest.raises(ValueError, match="incompatible|expected"):
        pruned_logits(model, digits[0][:8, :, :, [0, 0]], 8)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_weights_are_written_whole_or_not_at_all(make, tmp_path, monkeypatch):
    (model, _), (other, _) = make(), make()
    path = tmp_path / "model.weights.h5"
    save_weights(model, path)
    other.load_weights(path)
    for ours, theirs in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: disk_usage(folder)._replace(free=2**20))
        with pytest.raises(OSError, match="No space left on device: '.*model.weights.h5'"):
            save_weights(other, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.weights.h5"]
