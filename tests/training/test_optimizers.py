import keras
import numpy as np
import pytest

from kernorm.config import TrainConfig
from kernorm.training.optimizers import (
    OPTIMIZERS,
    ScheduledAdamW,
    ScheduledMuon,
    ScheduledSGD,
    TableSchedule,
    build_optimizer,
)

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


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_a_step_reads_its_momentum_once_whatever_the_number_of_variables(kind, monkeypatch):
    optimizer = kind(RATES, MOMENTA)
    weights = [keras.Variable(np.ones((2, 2), np.float32)) for _ in range(3)]
    optimizer.build(weights)
    read = []
    monkeypatch.setattr(TableSchedule, "__call__", lambda table, _: read.append(table) or 0.1)
    optimizer.apply([keras.ops.ones((2, 2))] * 3, weights)
    assert [table for table in read if table is optimizer.momenta] == [optimizer.momenta]
    assert not np.allclose(weights[2], np.ones((2, 2)))


@pytest.mark.extra
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


def test_gradients_are_clipped_to_a_share_of_the_kernels_norm():
    # A kernel of norm 5 and a scale, which does not count: with a ratio of 0.2 gradients may have a norm of 1.
    kernel, scale = keras.Variable(np.array([[3, 4]], np.float32)), keras.Variable(np.full(1, 100, np.float32))
    optimizer = ScheduledSGD(np.full(1, 0.01, np.float32), np.zeros(1, np.float32), clip_ratio=0.2)
    optimizer.build([kernel, scale])
    for gradients, moved in (([[[3, 4]], [12]], np.array([3, 4, 12]) / 13), ([[[0.3, 0.4]], [0]], [0.3, 0.4, 0])):
        kernel.assign([[3, 4]])
        scale.assign([100])
        optimizer.apply(
            [keras.ops.convert_to_tensor(np.array(part, np.float32)) for part in gradients], [kernel, scale]
        )
        after = np.concatenate([kernel.numpy().ravel(), scale.numpy()])
        np.testing.assert_allclose(np.array([3, 4, 100]) - after, 0.01 * np.array(moved), rtol=2e-3)


def test_kernels_that_all_begin_at_zero_move():
    """Clipped by their own norm they never would; by Glorot's, √(2·12/(3 + 4)) for 3 by 4, they do."""
    kernel, bias = keras.Variable(np.zeros((3, 4), np.float32)), keras.Variable(np.ones(4, np.float32))
    optimizer = ScheduledSGD(np.full(1, 0.01, np.float32), np.zeros(1, np.float32), clip_ratio=0.2)
    optimizer.build([kernel, bias])
    gradients = [np.full((3, 4), 100, np.float32), np.zeros(4, np.float32)]
    for steps in (1, 2):
        optimizer.apply([keras.ops.convert_to_tensor(one) for one in gradients], [kernel, bias])
        assert np.linalg.norm(kernel) == pytest.approx(steps * 0.01 * 0.2 * np.sqrt(24 / 7), rel=1e-5)
    convolution = keras.Variable(np.zeros((3, 3, 4, 6), np.float32))
    optimizer = ScheduledSGD(RATES, MOMENTA, clip_ratio=0.2)
    optimizer.build([convolution])
    drawn = keras.initializers.GlorotUniform(seed=1)((3, 3, 4, 6))
    assert optimizer.least_norm == pytest.approx(np.linalg.norm(drawn), rel=0.15)
    # One kernel that begins elsewhere tells how long the others may be.
    optimizer = ScheduledSGD(RATES, MOMENTA, clip_ratio=0.2)
    optimizer.build([keras.Variable(np.zeros((3, 4), np.float32)), keras.Variable(np.ones((2, 2), np.float32))])
    assert optimizer.least_norm == 0


@pytest.mark.parametrize("start", ["zeros", "ones"])
def test_keras_own_fit_takes_the_optimizer_as_it_is_made(start):
    """It builds the optimizer while the first step is traced."""
    head = keras.layers.Dense(2, kernel_initializer=start)
    model = keras.Sequential([keras.Input((4,)), head])
    model.compile(ScheduledSGD(RATES, np.zeros(6, np.float32), clip_ratio=0.2), loss="mse")
    before = np.array(head.kernel)
    model.fit(np.eye(4, dtype=np.float32), np.ones((4, 2), np.float32) * 50, epochs=2, verbose=0)
    assert np.abs(np.array(head.kernel) - before).max() > 1e-3
    assert (model.optimizer.least_norm > 0) == (start == "zeros")


def test_gradients_of_nothing_are_not_divided_by():
    kernel = keras.Variable(np.ones((2, 2), np.float32))
    optimizer = ScheduledSGD(RATES, MOMENTA, clip_ratio=0.1)
    optimizer.build([kernel])
    optimizer.apply([keras.ops.zeros((2, 2))], [kernel])
    np.testing.assert_array_equal(kernel.numpy(), np.ones((2, 2)))


def newton_schulz(matrix):
    """Jordan et al.'s quintic iteration, five times, in double precision: every singular value comes near 1."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (1, 1, 8, 10), (5, 7)])
def test_muon_moves_kernels_by_the_orthogonal_factor_of_the_velocity(rng, nesterov, shape):
    gradients = rng.normal(size=(6, *shape)).astype(np.float32)
    weight = keras.Variable(np.ones(shape, np.float32))
    optimizer = ScheduledMuon(RATES, MOMENTA, nesterov=nesterov)
    optimizer.build([weight])
    expected, velocity = np.ones(shape), np.zeros(shape)
    for gradient, rate, momentum in zip(gradients, RATES, MOMENTA, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        velocity = momentum * velocity + gradient
        moved = (gradient + momentum * velocity if nesterov else velocity).reshape(-1, shape[-1]).astype(np.float64)
        factor = newton_schulz(moved)
        spectrum = np.linalg.svd(factor, compute_uv=False)
        assert 0.6 < spectrum.min() < spectrum.max() < 1.3
        step = 0.2 * np.sqrt(max(moved.shape)) * factor
        # The orthogonal factor has a root mean square of 1/sqrt(max(rows, columns)): the step's is 0.2 of the rate.
        assert np.sqrt(np.square(step).mean()) == pytest.approx(0.2, rel=0.3)
        expected = expected - rate * step.reshape(shape)
    np.testing.assert_allclose(weight.numpy(), expected, atol=2e-5)


@pytest.mark.extra
def test_muon_equals_pytorch_on_a_matrix(rng):
    torch = pytest.importorskip("torch")
    gradients = rng.normal(size=(6, 9, 5)).astype(np.float32)
    theirs = torch.nn.Parameter(torch.ones(9, 5))
    muon = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    ours = keras.Variable(np.ones((9, 5), np.float32))
    optimizer = ScheduledMuon(np.full(6, 0.1, np.float32), np.full(6, 0.9, np.float32), nesterov=True)
    optimizer.build([ours])
    for gradient in gradients:
        theirs.grad = torch.from_numpy(gradient)
        muon.step()
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
    # PyTorch iterates in bfloat16.
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=6e-3)
    assert np.abs(ours.numpy() - 1).max() > 0.1


def test_muon_moves_scales_and_offsets_by_adam(rng):
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    ours, theirs = (keras.Variable(np.ones(3, np.float32)) for _ in range(2))
    optimizer = ScheduledMuon(RATES, MOMENTA)
    adam = keras.optimizers.Adam(TableSchedule(0.25 * RATES), beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    optimizer.build([ours])
    adam.build([theirs])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
        adam.apply([keras.ops.convert_to_tensor(gradient)], [theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


@pytest.mark.extra
@pytest.mark.parametrize(("shape", "decay"), [((4, 3), 0.3), ((5,), 0.0)])
def test_adamw_equals_pytorch_while_rate_and_beta_change(rng, shape, decay):
    """PyTorch's OneCycleLR cycles β1. Scales and offsets are not decayed, whatever is asked for."""
    torch = pytest.importorskip("torch")
    begin = rng.normal(size=shape).astype(np.float32)
    theirs, ours = torch.nn.Parameter(torch.from_numpy(begin.copy())), keras.Variable(begin)
    adamw = torch.optim.AdamW([theirs], lr=0.1, eps=1e-7, weight_decay=decay)
    optimizer = ScheduledAdamW(RATES, MOMENTA, weight_decay=0.3)
    optimizer.build([ours])
    for gradient, rate, momentum in zip(rng.normal(size=(6, *shape)).astype(np.float32), RATES, MOMENTA, strict=True):
        adamw.param_groups[0] |= {"lr": float(rate), "betas": (float(momentum), 0.999)}
        theirs.grad = torch.from_numpy(gradient)
        adamw.step()
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
    # Keras adds ε to √v before the correction of its bias, PyTorch after.
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), atol=3e-5)
    assert np.abs(ours.numpy() - begin).max() > 0.1


def test_adamw_without_decay_is_keras_own_adam(rng):
    ours, theirs = (keras.Variable(np.ones((3, 2), np.float32)) for _ in range(2))
    optimizer = build_optimizer(TrainConfig(optimizer="adamw"), RATES, np.full(6, 0.9, np.float32))
    adam = keras.optimizers.Adam(TableSchedule(RATES), beta_1=0.9, global_clipnorm=None)
    optimizer.clip_ratio = None
    optimizer.build([ours])
    adam.build([theirs])
    for gradient in rng.normal(size=(6, 3, 2)).astype(np.float32):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
        adam.apply([keras.ops.convert_to_tensor(gradient)], [theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


def test_adamw_steps_by_clipped_gradients(rng):
    """Adam divides by what it has seen: only a second, smaller gradient shows whether the first was clipped."""
    gradients = [np.full((2, 2), 30, np.float32), np.full((2, 2), 0.1, np.float32)]
    clipped, scaled = (keras.Variable(np.ones((2, 2), np.float32)) for _ in range(2))
    for weight, ratio, first in ((clipped, 0.2, gradients[0]), (scaled, None, gradients[0] / 150)):
        optimizer = ScheduledAdamW(RATES, np.full(6, 0.9, np.float32), clip_ratio=ratio)
        optimizer.build([weight])
        for gradient in (first, gradients[1]):
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    np.testing.assert_allclose(clipped.numpy(), scaled.numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_averages_follow_the_weights_by_keras_formula(rng, kind):
    weight = keras.Variable(rng.normal(size=(3, 2)).astype(np.float32))
    optimizer = kind(RATES, MOMENTA, ema=0.8)
    optimizer.build([weight])
    expected = None
    for gradient in rng.normal(size=(6, 3, 2)).astype(np.float32):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        expected = weight.numpy() if expected is None else 0.8 * expected + 0.2 * weight.numpy()
    optimizer.finalize_variable_values([weight])
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)


def test_table_gives_each_step_and_holds_its_last_value():
    schedule = TableSchedule(RATES)
    values = [float(schedule(keras.ops.convert_to_tensor(step))) for step in (0, 3, 5, 100)]
    np.testing.assert_allclose(values, [RATES[0], RATES[3], RATES[5], RATES[5]])


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_config_round_trips(kind):
    own = {"weight_decay": 0.1} if kind is ScheduledAdamW else {"nesterov": True}
    config = kind(RATES, MOMENTA, clip_ratio=2.0, ema=0.75, **own).get_config()
    again = kind.from_config(config)
    np.testing.assert_array_equal(again.momenta.table, MOMENTA)
    assert again.get_config() == config
    assert (again.use_ema, again.ema_momentum) == (True, 0.75)
