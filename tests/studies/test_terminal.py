from types import SimpleNamespace

import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.datasets import cache
from kernorm.datasets.counts import count_test_classes, train_shape
from kernorm.studies.terminal import AROUND, STEP_MS, _time, cost


@pytest.mark.parametrize(("net", "milliseconds"), [("eva6", 0.25), ("eva4", 0.45), ("of the user's", 0.45)])
def test_the_cost_of_a_run_is_that_of_its_images_and_steps(net, milliseconds):
    config = SimpleNamespace(dataset="mnist", net=net, epochs=3, train_size=1010, validation_size=0, batch_size=100)
    assert cost(config) == pytest.approx(AROUND + 3 * (milliseconds * 1010 + STEP_MS * 11) / 1000)


def test_without_a_size_it_is_mnists_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("KERNORM_CACHE_DIR", str(tmp_path))
    assert cost(TrainConfig()) == cost(TrainConfig(train_size=50_000))


def test_another_set_costs_what_its_images_are(boxes_cache):
    """Its own number and size of images, read without the pixels; MNIST's are no guess for it."""
    arrays = cache.read(cache.cached_path("boxes"))
    assert train_shape("boxes") == arrays.train_images.shape
    assert count_test_classes("boxes") == tuple(np.bincount(arrays.test_labels))
    count, height, width, _ = arrays.train_images.shape
    config = TrainConfig(dataset="boxes", net="eva6", epochs=2, validation_size=0.25, batch_size=40)
    images = count - round(0.25 * count)
    image = 0.25 * height * width / 28**2
    assert cost(config) == pytest.approx(AROUND + 2 * (image * images + STEP_MS * -(-images // 40)) / 1000)
    unknown = TrainConfig(dataset="emnist/balanced")
    assert (cost(unknown), train_shape("emnist/balanced")) == (None, None)
    assert count_test_classes("emnist/balanced", prepare=False) is None
    assert _time([60.0, None], 2).endswith("known once the set is prepared: python -m kernorm.data NAME")
    assert _time([600.0, 600.0], 2) == "about 10 minutes with 2 workers"
