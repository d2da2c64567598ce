"""Averages of the weights over a real run: by formula, evaluated, kept and resumed."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets.dataset import load
from kernorm.errors import UsageError
from kernorm.nets.weights import load_model
from kernorm.records.record import read_record
from kernorm.training import run, trainer
from kernorm.training.averages import average_statistics, averaged, require_forgetting
from kernorm.training.callbacks import RunLog
from kernorm.training.checkpoint import variables_of
from kernorm.training.optimizers import build_optimizer

pytestmark = pytest.mark.usefixtures("small_net")

EMA = 0.6


@pytest.fixture(scope="module")
def trained(tmp_path_factory, boxes):
    """A run of 2 epochs with averages: its record, its config, and the weights after every one of its steps."""
    steps = []

    class Noting(RunLog):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            steps.append([np.array(variable) for variable in self.model.trainable_variables])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNORM_CACHE_DIR", str(boxes))
        patch.setattr(trainer, "RunLog", Noting)
        config = TrainConfig(
            **{"net": "eva6", "dataset": "boxes", "validation_size": 32, "batch_size": 40, "epochs": 2, "l2": 1e-3},
            **{"ema": EMA, "label_smoothing": 0.1, "export": False, "report": False},
            reports_dir=tmp_path_factory.mktemp("averages"),
        )
        record = run.train(config)
    return record, config, steps


def average(steps):
    """a ← m·a + (1 − m)·w, from the weights after the first step on."""
    found = [weights.astype(np.float64) for weights in steps[0]]
    for weights in steps[1:]:
        found = [EMA * before + (1 - EMA) * now for before, now in zip(found, weights, strict=True)]
    return found


def kept(config):
    folder = config.reports_dir / "runs" / config.run_id
    return load_model(read_record(folder / "record.json"), folder / "model.weights.h5")


def test_what_is_kept_is_the_average_of_the_weights_over_steps(trained):
    _, config, steps = trained
    assert len(steps) == 8
    for found, expected, last in zip(kept(config).trainable_variables, average(steps), steps[-1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert (np.abs(found - last) > 1e-6).any()


def test_every_epoch_evaluates_the_averages(trained, boxes_cache):
    record, config, steps = trained
    images, labels = load(config).validation
    model = kept(config)
    found = model.predict(images, verbose=0)
    entropy = keras.ops.sparse_categorical_crossentropy(labels, found, from_logits=True)
    assert record.history[2].val_cross_entropy == pytest.approx(float(np.mean(entropy)), rel=1e-5)
    assert record.validation.cross_entropy == pytest.approx(record.history[2].val_cross_entropy, rel=1e-5)
    kernels = [np.square(weights).sum() for weights in average(steps) if weights.ndim > 1]
    assert record.history[2].watched.kernel_norm == pytest.approx(np.sqrt(sum(kernels)), rel=1e-4)


def test_penalties_are_those_of_the_weights_that_are_trained_and_proven_next_to_smoothed_targets(trained):
    record, _, steps = trained
    assert record.history[2].l2_penalty == pytest.approx(
        1e-3 * sum(np.square(weights).sum() for weights in steps[-1] if weights.ndim > 1), rel=1e-4
    )
    found, expected = record.penalty_proof
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected == record.history[0].l2_penalty > 0


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_averages(trained, boxes_cache, tmp_path):
    _, config, _ = trained
    parts = replace(config, reports_dir=tmp_path)
    assert run.train(replace(parts, stop_after=1)).status == "running"
    run.train(parts)
    for ours, theirs in zip(kept(parts).get_weights(), kept(config).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_has_its_averages_inside_the_context_alone():
    config = TrainConfig(ema=0.9)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(build_optimizer(config, np.full(3, 0.1, np.float32), np.zeros(3, np.float32)))
    model.optimizer.build(model.trainable_variables)
    values = []
    for _ in range(3):
        model.optimizer.apply([keras.ops.ones((2, 1))])
        values.append(np.array(model.trainable_variables[0]))
    with averaged(model):
        inside = np.array(model.trainable_variables[0])
    np.testing.assert_allclose(inside, 0.9 * (0.9 * values[0] + 0.1 * values[1]) + 0.1 * values[2], rtol=1e-6)
    np.testing.assert_array_equal(variables_of(model)[0], values[2])


def test_averages_keep_to_constraints():
    """Keras averages the values of a step before it applies them."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_constraint="non_neg")])
    model.compile(build_optimizer(TrainConfig(ema=0.5), np.full(9, 0.5, np.float32), np.zeros(9, np.float32)))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.clip_ratio = None
    for _ in range(4):
        model.optimizer.apply([keras.ops.convert_to_tensor(np.array([[1.0], [-1.0]], np.float32))])
    assert float(np.min(model.optimizer._model_variables_moving_average[0])) < 0
    with averaged(model):
        inside = np.array(model.trainable_variables[0])
    assert inside[0] == 0
    assert inside[1] > 0


def test_moving_statistics_are_averaged_as_long_in_nested_models_too():
    part = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.BatchNormalization(momentum=0.9)])
    image = keras.Input((4, 4, 2))
    model = keras.Model(image, keras.layers.BatchNormalization(momentum=0.9999)(part(image)))
    average_statistics(model, TrainConfig(ema=0.99))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert sorted(layer.momentum for layer in norms) == [0.99, 0.9999]
    average_statistics(model, TrainConfig())
    assert sorted(layer.momentum for layer in norms) == [0.99, 0.9999]


def test_an_average_that_would_still_be_the_first_steps_is_refused():
    require_forgetting(TrainConfig(ema=0.999), 2302)
    require_forgetting(TrainConfig(), 1)
    message = (
        r"^--ema must forget how training began\. Received: ema=0\.999, by which the first of 1,000 steps would weigh "
        r"37 % at the end\. Give at most 0\.9977, or more --epochs\.$"
    )
    with pytest.raises(UsageError, match=message):
        require_forgetting(TrainConfig(ema=0.999), 1000)
    require_forgetting(TrainConfig(ema=0.9977), 1000)
