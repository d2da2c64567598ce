import dataclasses

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.model import build_model_for
from kernorm.nets.weights import load_model
from kernorm.records.record import Environment, Record

CONFIG = TrainConfig(net="eva6", norm="brn", dropout=0.05)


@pytest.fixture
def record(mnist_info):
    return Record(
        run_id=CONFIG.run_id,
        status="finished",
        started="2026-01-01T00:00:00+00:00",
        config=CONFIG,
        data=mnist_info,
        environment=Environment(backend="tensorflow", device="cpu", threads=2, versions={}),
        parameters=7288,
        parameters_total=7288,
    )


@pytest.fixture
def weights(mnist_info, tmp_path):
    model = build_model_for(CONFIG, mnist_info)
    for index, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, 0.01 * (index + 1)))
    model.compile(optimizer="sgd")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "model.weights.h5")
    return tmp_path / "model.weights.h5"


def test_every_weight_comes_back(record, weights):
    model = load_model(record, weights)
    assert len(model.weights) > 30
    for index, variable in enumerate(model.weights):
        np.testing.assert_array_equal(variable, np.full(variable.shape, 0.01 * (index + 1), np.float32))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"net": "eva4"}, r"/vars/0 is \(8,\) in the file and \(14,\) in the net"),
        ({"norm": "none"}, r"normalization/vars/0 is \(8,\) in the file and missing in the net"),
        ({"norm": "ln"}, r"/batch_normalization/vars/0 is \(8,\) in the file and missing in the net"),
        ({"norm": "bn"}, r"normalization/vars/\d is \(8,\) in the file and missing in the net"),
        ({"norm_at": ("conv6=none",)}, r"normalization_5/vars/0 is \(16,\) in the file and missing in the net"),
    ],
)
def test_weights_of_another_net(record, weights, changes, difference):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(UsageError, match=rf"^Weights must be whole .* Received: .*{difference}\. Train the run once"):
        load_model(dataclasses.replace(record, config=config), weights)


def test_weights_that_lack_a_layer(record, weights):
    config = dataclasses.replace(CONFIG, norm_at=("conv6=none",))
    fewer = build_model_for(config, record.data)
    fewer.save_weights(weights)
    with pytest.raises(UsageError, match=r"normalization_5/vars/0 is missing in the file and \(16,\) in the net"):
        load_model(record, weights)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_weights(record, weights, share):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=r"^Weights must be whole and of the net that .* Received: .*weights\.h5: "):
        load_model(record, weights)
