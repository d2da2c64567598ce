import keras
import numpy as np
import pytest

from kernorm.optimizer import ScheduledSGD, TableSchedule

RATES = np.linspace(0.1, 0.01, 6).astype(np.float32)
MOMENTA = np.linspace(0.95, 0.85, 6).astype(np.float32)


def by_formula(gradients, rates, momenta, nesterov):
    """v ← μv + g, w ← w − lr·(g + μv) or w − lr·v, in double precision."""
    weight, velocity = np.ones(3), np.zeros(3)
    for gradient, rate, momentum in zip(gradients, rates, momenta, strict=True):
        velocity = momentum * velocity + gradient
        weight = weight - rate * (gradient + momentum * velocity if nesterov else velocity)
    return weight


@pytest.mark.parametrize("nesterov", [False, True])
def test_step_equals_formula_while_rate_and_momentum_change(rng, nesterov):
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    weight = keras.Variable(np.ones(3, np.float32))
    optimizer = ScheduledSGD(RATES, MOMENTA, nesterov=nesterov)
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    np.testing.assert_allclose(weight.numpy(), by_formula(gradients, RATES, MOMENTA, nesterov), rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_step_equals_pytorch_at_constant_rate(rng, nesterov):
    torch = pytest.importorskip("torch")
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.ones(3))
    sgd = torch.optim.SGD([theirs], lr=0.1, momentum=0.9, nesterov=nesterov)
    ours = keras.Variable(np.ones(3, np.float32))
    optimizer = ScheduledSGD(np.full(6, 0.1, np.float32), np.full(6, 0.9, np.float32), nesterov=nesterov)
    optimizer.build([ours])
    for gradient in gradients:
        theirs.grad = torch.from_numpy(gradient)
        sgd.step()
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5)


def test_without_momentum_it_is_plain_gradient_descent():
    weight = keras.Variable(np.ones(1, np.float32))
    optimizer = ScheduledSGD(RATES, np.zeros(6, np.float32))
    optimizer.build([weight])
    optimizer.apply([keras.ops.convert_to_tensor(np.full(1, 2, np.float32))], [weight])
    np.testing.assert_allclose(weight.numpy(), [1 - 0.1 * 2], rtol=1e-6)


def test_gradients_are_clipped_by_their_norm_over_all_weights():
    weights = [keras.Variable(np.zeros(2, np.float32)), keras.Variable(np.zeros(1, np.float32))]
    optimizer = ScheduledSGD(np.ones(1, np.float32), np.zeros(1, np.float32), global_clipnorm=1.0)
    optimizer.build(weights)
    # A norm of 13: every gradient is divided by it; a norm below 1 stays.
    for gradients, moved in (([[3, 4], [12]], np.array([3, 4, 12]) / 13), ([[0.3, 0.4], [0.0]], [0.3, 0.4, 0.0])):
        before = np.concatenate([weight.numpy() for weight in weights])
        optimizer.apply([keras.ops.convert_to_tensor(np.array(part, np.float32)) for part in gradients], weights)
        after = np.concatenate([weight.numpy() for weight in weights])
        np.testing.assert_allclose(before - after, moved, rtol=1e-5)


def test_table_gives_each_step_and_holds_its_last_value():
    schedule = TableSchedule(RATES)
    values = [float(schedule(keras.ops.convert_to_tensor(step))) for step in (0, 3, 5, 100)]
    np.testing.assert_allclose(values, [RATES[0], RATES[3], RATES[5], RATES[5]])


def test_config_round_trips():
    config = ScheduledSGD(RATES, MOMENTA, nesterov=True, global_clipnorm=2.0).get_config()
    again = ScheduledSGD.from_config(config)
    np.testing.assert_array_equal(again.momenta.table, MOMENTA)
    assert again.get_config() == config
