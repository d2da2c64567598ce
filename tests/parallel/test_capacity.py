import importlib.util
from types import SimpleNamespace

import pytest

if importlib.util.find_spec("jax") is None:
    pytest.skip("needs the extra jax", allow_module_level=True)

import jax

from kernorm.config import TrainConfig
from kernorm.parallel import capacity
from kernorm.parallel.capacity import Placement


class Busy(Placement):
    """A device that others use now and then, so that some timings are longer."""

    def __init__(self, config, timings):
        data = SimpleNamespace(info=SimpleNamespace(image_shape=(28, 28, 1)))
        self.runs, self.data = [SimpleNamespace(config=config)], data
        self.timings, self.asked = {name: iter(values) for name, values in timings.items()}, []

    def _step_seconds(self, lowering):
        self.asked.append(lowering)
        found = next(self.timings[lowering])
        if found is None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return found


@pytest.mark.parametrize(
    ("grouped", "patches", "faster"),
    [
        ([90, 3, 9, 9, 9, 9], [80, 9, 9, 9, 9, 2], "patches"),
        ([1, 3, 9, 9, 9, 9], [80, 9, 9, 9, 9, 4], "grouped"),  # the first call of each compiles and does not count
        ([None], [80, 9, 9, 9, 9, 9], "patches"),
    ],
)
def test_lowerings_are_timed_in_turn_and_the_least_of_each_counts(monkeypatch, grouped, patches, faster):
    monkeypatch.setattr(capacity, "_FASTER", {})
    device = Busy(TrainConfig(), {"grouped": grouped, "patches": patches})
    assert device._faster(["grouped", "patches"]) == faster
    assert device.asked[:2] == ["grouped", "patches"]
    assert device.asked == [name for _ in range(6) for name in ("grouped", "patches")] or None in grouped
    calls = len(device.asked)
    assert device._faster(["grouped", "patches"]) == faster
    assert len(device.asked) == calls
    again = Busy(TrainConfig(batch_size=16), {"grouped": [1] * 6, "patches": [2] * 6})
    assert again._faster(["grouped", "patches"]) == "grouped"
    assert len(again.asked) == 12
