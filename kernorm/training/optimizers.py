"""SGD, in PyTorch's form of the momentum step, Muon and AdamW; rate and momentum follow tables."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kernorm.config import TrainConfig
from kernorm.training.schedules import Table

# Adam's rate for scales and offsets, as a share of Muon's for kernels.
_ADAM_SHARE = 0.25


def build_optimizer(config: TrainConfig, rates: Table, momenta: Table) -> keras.optimizers.Optimizer:
    """Returns the optimizer that a config names, with the rate and the momentum of every step, (steps,) each."""
    adamw = config.optimizer == "adamw"
    own: dict[str, Any] = {"weight_decay": config.weight_decay} if adamw else {"nesterov": config.nesterov}
    return OPTIMIZERS[config.optimizer](rates, momenta, clip_ratio=config.clip_ratio, ema=config.ema, **own)


@keras.saving.register_keras_serializable(package="kernorm")
class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Reads the learning rate of a step from a table, (steps,); the last value holds from there on."""

    def __init__(self, table: Table) -> None:
        self.table = np.asarray(table, np.float32)

    def __call__(self, step: Any) -> Any:
        """Returns the value at `step`, a scalar integer tensor."""
        return ops.take(self.table, ops.minimum(step, len(self.table) - 1))

    def get_config(self) -> dict[str, Any]:
        """Returns the table as a list."""
        return {"table": self.table.tolist()}


class _Scheduled(keras.optimizers.Optimizer):
    """What all optimizers share: a momentum that follows a table, clipping, and averages of the weights.

    Gradients are scaled down together where their norm is more than `clip_ratio` of the norm of all kernels. As Brock
    et al. 2021 (arXiv:2102.06171, equation 3), but over the whole net and not unit by unit: a penalty that shrinks
    kernels before a norm raises their gradients as it lowers what they may be. Kernels that all begin at zero would
    never move; their norm is taken to be at least that of kernels by Glorot and Bengio 2010.
    """

    momenta: TableSchedule
    clip_ratio: float | None = None
    # The least norm of the kernels that clipping counts with, where they all begin at zero.
    least_norm: float = 0.0
    # Of the step that is taken or traced, read once for all variables as Keras reads the rate; None between steps.
    momentum_now: Any = None

    def build(self, variables: list) -> None:
        """Makes the state of the variables, which have their initial values."""
        begun = self.built
        super().build(variables)
        if self.clip_ratio is not None and not begun:
            kernels = [kernel for kernel in variables if len(kernel.shape) > 1]
            with _outside_of_graphs():
                begin_at_zero = not any(np.any(ops.convert_to_numpy(kernel)) for kernel in kernels)
            if begin_at_zero:
                self.least_norm = math.sqrt(sum(_usual_square(kernel.shape) for kernel in kernels))

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Moves the variables against their gradients, once these are clipped."""
        if not self.built and trainable_variables:  # as Keras does below, which is too late for the clipping
            with keras.src.backend.name_scope(self.name, caller=self):
                self.build(trainable_variables)
        if self.clip_ratio is not None:
            kernels = [kernel for kernel in trainable_variables or self._trainable_variables if len(kernel.shape) > 1]
            norm = _norm(kernels)
            longest = self.clip_ratio * (ops.maximum(norm, self.least_norm) if self.least_norm else norm)
            share = ops.minimum(1.0, longest / ops.maximum(_norm(grads), 1e-30))
            grads = [gradient * share for gradient in grads]
        self.momentum_now = self.momenta(self.iterations)
        try:
            super().apply(grads, trainable_variables)
        finally:
            self.momentum_now = None

    @contextlib.contextmanager
    def following(self, rates: Any, momenta: Any) -> Iterator[None]:
        """Lets steps that are traced in the body follow these tables, (steps,) each, which may be traced themselves."""
        schedules = (self._learning_rate, self.momenta)
        before = [schedule.table for schedule in schedules]
        try:
            for schedule, table in zip(schedules, (rates, momenta), strict=True):
                schedule.table = table
            yield
        finally:
            for schedule, table in zip(schedules, before, strict=True):
                schedule.table = table

    def get_config(self) -> dict[str, Any]:
        """Returns both tables, the clipping and the averages' momentum."""
        return {
            "rates": self._learning_rate.table.tolist(),
            "momenta": self.momenta.table.tolist(),
            "clip_ratio": self.clip_ratio,
            "ema": self.ema_momentum if self.use_ema else 0.0,
        }


def _outside_of_graphs() -> contextlib.AbstractContextManager:
    """Lets values be read although TensorFlow may be tracing a step, as in the first one of `fit`."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()


def _averaging(ema: float) -> dict[str, Any]:
    """Returns Keras' arguments for averages of the weights; none for a momentum of 0."""
    return {"use_ema": True, "ema_momentum": ema} if ema else {}


def _usual_square(shape: tuple[int, ...]) -> float:
    """Returns the expected square of the norm of a kernel by Glorot and Bengio 2010, equation 16."""
    return 2 * math.prod(shape) / (math.prod(shape[:-2]) * (shape[-2] + shape[-1]))


def _norm(tensors: list) -> Any:
    """Returns the Euclidean norm over all values of all tensors."""
    return ops.sqrt(sum(ops.sum(ops.square(tensor)) for tensor in tensors))


@keras.saving.register_keras_serializable(package="kernorm")
class ScheduledSGD(_Scheduled, keras.optimizers.SGD):
    """SGD with momentum: v ← μv + g, then w ← w − lr·v, or w ← w − lr·(g + μv) with Nesterov.

    This is PyTorch's form (Sutskever et al. 2013 with the rate outside the velocity). Keras folds the rate into the
    velocity, which differs as soon as the rate changes. The momentum follows a table like the rate.
    """

    def __init__(
        self,
        rates: Table,
        momenta: Table,
        *,
        nesterov: bool = False,
        clip_ratio: float | None = None,
        ema: float = 0.0,
    ) -> None:
        momentum = float(np.max(momenta))
        super().__init__(TableSchedule(rates), momentum=momentum, nesterov=nesterov, **_averaging(ema))
        self.clip_ratio = clip_ratio
        self.momenta = TableSchedule(momenta)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable against its gradient; both have the variable's shape."""
        if self.momentum == 0:
            self.assign_sub(variable, learning_rate * gradient)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        moved = self.momentum_now * velocity + gradient
        self.assign(velocity, moved)
        self.assign_sub(variable, learning_rate * (gradient + self.momentum_now * moved if self.nesterov else moved))

    def get_config(self) -> dict[str, Any]:
        """Adds the form of the step."""
        return {**super().get_config(), "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(package="kernorm")
class ScheduledMuon(_Scheduled, keras.optimizers.Muon):
    """Muon for kernels (Jordan et al. 2024, kellerjordan.github.io/posts/muon), Adam for scales and offsets.

    v ← μv + g; a kernel (h, w, cin, cout), seen as a matrix of h·w·cin rows, moves by the orthogonal factor of v, or of
    g + μv with Nesterov, found by Newton and Schulz's iteration. The step's root mean square is 0.2 of the rate, as in
    Liu et al. 2025 (arXiv:2502.16982), whatever the kernel's shape and the loss's scale.
    """

    def __init__(
        self,
        rates: Table,
        momenta: Table,
        *,
        nesterov: bool = False,
        clip_ratio: float | None = None,
        ema: float = 0.0,
    ) -> None:
        super().__init__(
            TableSchedule(rates),
            nesterov=nesterov,
            adam_lr_ratio=_ADAM_SHARE,
            weight_decay=None,
            adam_weight_decay=None,
            **_averaging(ema),
        )
        self.clip_ratio = clip_ratio
        self.momenta = TableSchedule(momenta)

    def _should_use_adamw(self, variable: Any) -> bool:
        """Keras' own takes matrices alone for Muon."""
        return len(variable.shape) < 2

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        velocity = self.momentum_now * m + gradient
        self.assign(m, velocity)
        moved = gradient + self.momentum_now * velocity if self.nesterov else velocity
        matrix = ops.reshape(moved, (-1, variable.shape[-1]))
        step = self.lr_adjust(self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, lr * ops.reshape(step, variable.shape))

    def get_config(self) -> dict[str, Any]:
        """Adds the form of the step."""
        return {**super().get_config(), "nesterov": self.nesterov}


@keras.saving.register_keras_serializable(package="kernorm")
class ScheduledAdamW(_Scheduled, keras.optimizers.AdamW):
    """Adam with decoupled weight decay of kernels (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

    w ← w − lr·λ·w, then w ← w − lr·m̂/(√v̂ + ε); Keras adds ε before the correction of v. The momentum is β1, which
    follows a table as under PyTorch's OneCycleLR.
    """

    def __init__(
        self,
        rates: Table,
        momenta: Table,
        *,
        weight_decay: float = 0.0,
        clip_ratio: float | None = None,
        ema: float = 0.0,
    ) -> None:
        super().__init__(TableSchedule(rates), weight_decay=weight_decay, **_averaging(ema))
        self.clip_ratio = clip_ratio
        self.momenta = TableSchedule(momenta)

    def _use_weight_decay(self, variable: Any) -> bool:
        """Keras' own takes scales and offsets too."""
        return len(variable.shape) > 1

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable by Adam; both have the variable's shape. Keras' own has a constant β1."""
        index, step = self._get_variable_index(variable), ops.cast(self.iterations + 1, "float32")
        mean, square, momentum = self._momentums[index], self._velocities[index], self.momentum_now
        self.assign_add(mean, (gradient - mean) * (1 - momentum))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        size = learning_rate * ops.sqrt(1 - ops.power(self.beta_2, step)) / (1 - ops.power(momentum, step))
        self.assign_sub(variable, size * mean / (ops.sqrt(square) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Adds the weight decay."""
        return {**super().get_config(), "weight_decay": self.weight_decay}


OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": ScheduledSGD,
    "muon": ScheduledMuon,
    "adamw": ScheduledAdamW,
}
