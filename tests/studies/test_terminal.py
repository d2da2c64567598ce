from types import SimpleNamespace

import pytest

from kernorm.config import TrainConfig
from kernorm.studies.terminal import AROUND, STEP_MS, cost


@pytest.mark.parametrize(("net", "milliseconds"), [("eva6", 0.25), ("eva4", 0.45), ("of the user's", 0.45)])
def test_the_cost_of_a_run_is_that_of_its_images_and_steps(net, milliseconds):
    config = SimpleNamespace(net=net, epochs=3, train_size=1010, validation_size=0, batch_size=100)
    assert cost(config) == pytest.approx(AROUND + 3 * (milliseconds * 1010 + STEP_MS * 11) / 1000)


def test_without_a_size_it_is_mnists_training_split():
    assert cost(TrainConfig()) == cost(TrainConfig(train_size=50_000))
