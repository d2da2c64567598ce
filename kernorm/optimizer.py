"""SGD whose rate and momentum follow tables, in PyTorch's form of the momentum step."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kernorm.schedules import Table


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


@keras.saving.register_keras_serializable(package="kernorm")
class ScheduledSGD(keras.optimizers.SGD):
    """SGD with momentum: v ← μv + g, then w ← w − lr·v, or w ← w − lr·(g + μv) with Nesterov.

    This is PyTorch's form (Sutskever et al. 2013 with the rate outside the velocity). Keras folds the rate into the
    velocity, which differs as soon as the rate changes. The momentum follows a table like the rate.
    """

    def __init__(
        self, rates: Table, momenta: Table, *, nesterov: bool = False, global_clipnorm: float | None = None
    ) -> None:
        super().__init__(
            TableSchedule(rates), momentum=float(np.max(momenta)), nesterov=nesterov, global_clipnorm=global_clipnorm
        )
        self.momenta = TableSchedule(momenta)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable against its gradient; both have the variable's shape."""
        if self.momentum == 0:
            self.assign_sub(variable, learning_rate * gradient)
            return
        momentum = self.momenta(self.iterations)
        velocity = self.momentums[self._get_variable_index(variable)]
        moved = momentum * velocity + gradient
        self.assign(velocity, moved)
        self.assign_sub(variable, learning_rate * (gradient + momentum * moved if self.nesterov else moved))

    def get_config(self) -> dict[str, Any]:
        """Returns both tables, the form of the step and the clipping."""
        return {
            "rates": self._learning_rate.table.tolist(),
            "momenta": self.momenta.table.tolist(),
            "nesterov": self.nesterov,
            "global_clipnorm": self.global_clipnorm,
        }
