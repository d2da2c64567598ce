import numpy as np
import pytest
from keras.optimizers.schedules import CosineDecay

from kernorm.config import TrainConfig
from kernorm.recipes import recipe
from kernorm.training.schedules import schedule_tables

EVA4_STEPS = 469


def test_onecycle_gives_the_published_digits_of_eva4():
    rates, momenta = schedule_tables(recipe("eva4"), EVA4_STEPS)
    assert len(rates) == 18_760
    np.testing.assert_allclose([rates[0], rates[5627], rates[-1]], [4e-4, 0.01, 4e-8], rtol=1e-6)
    np.testing.assert_allclose([momenta[0], momenta[5627], momenta[-1]], [0.95, 0.85, 0.95], rtol=1e-6)
    assert rates.argmax() == 5627
    assert momenta.min() == momenta[5627]


def test_onecycle_is_the_cosine_formula_between_its_corners():
    rates, _ = schedule_tables(recipe("eva4"), EVA4_STEPS)
    for step, begin, end, part in ((2000, 4e-4, 0.01, 2000 / 5627), (9000, 0.01, 4e-8, (9000 - 5627) / 13132)):
        assert rates[step] == pytest.approx(end + (begin - end) / 2 * (1 + np.cos(np.pi * part)), rel=1e-5)


def test_step_drops_after_the_delay_as_published_for_eva6():
    rates, momenta = schedule_tables(recipe("eva6"), 2)
    by_epoch = rates[::2]
    expected = [0.04104] * 14 + [3.69e-3] * 2 + [3.32e-4] * 2 + [2.99e-5] * 2 + [2.7e-6] * 2
    np.testing.assert_allclose(by_epoch[:22], expected, rtol=3e-3)
    assert by_epoch[22:].max() < 2.5e-7
    np.testing.assert_allclose(momenta, 0.9, rtol=1e-6)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (2, 24), (0.25, 15)])
def test_cosine_equals_keras_at_every_step(warmup, steps):
    rates, momenta = schedule_tables(
        TrainConfig(schedule="cosine", epochs=5, learning_rate=0.3, warmup=warmup, momentum=0.8), 12
    )
    assert len(rates) == 60
    keras_own = CosineDecay(0.0, 60 - steps, warmup_target=0.3, warmup_steps=steps) if steps else CosineDecay(0.3, 60)
    np.testing.assert_allclose(rates, [float(keras_own(step)) for step in range(60)], rtol=1e-4, atol=1e-7)
    assert rates.argmax() == steps
    assert rates.max() == pytest.approx(0.3)
    np.testing.assert_allclose(momenta, 0.8, rtol=1e-6)


def test_constant_stays():
    rates, momenta = schedule_tables(TrainConfig(schedule="constant", epochs=3, learning_rate=0.1), 5)
    np.testing.assert_array_equal(rates, np.full(15, 0.1, np.float32))
    np.testing.assert_array_equal(momenta, np.full(15, 0.9, np.float32))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_cycle_is_finite_and_never_above_the_peak(steps):
    rates, momenta = schedule_tables(TrainConfig(epochs=1, pct_start=0.01, learning_rate=0.1), steps)
    assert np.isfinite(rates).all()
    assert np.isfinite(momenta).all()
    assert rates.max() <= np.float32(0.1)


@pytest.mark.extra
@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("base_momentum", [None, 0.85])
def test_onecycle_equals_pytorch_at_every_step(anneal, base_momentum):
    torch = pytest.importorskip("torch")
    config = TrainConfig(
        epochs=4, learning_rate=0.3, momentum=0.95, base_momentum=base_momentum, pct_start=0.4, anneal=anneal
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3, momentum=0.95)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        0.3,
        total_steps=48,
        pct_start=0.4,
        anneal_strategy=anneal,
        cycle_momentum=base_momentum is not None,
        base_momentum=base_momentum or 0.85,
        max_momentum=0.95,
    )
    expected = []
    for _ in range(48):
        expected.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(np.transpose(schedule_tables(config, 12)), expected, rtol=2e-6)
