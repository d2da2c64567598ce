"""Moving averages of the weights, which Keras' optimizers keep: put into a model where it is evaluated and exported.

Between the trainer and the optimizer. A norm's moving statistics are averages of what the weights of many steps gave;
they fit averaged weights if they are averaged over as many steps.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.training import checkpoint

# What the first step's weights may still count in the last average.
_REMEMBERED = 0.1


def require_forgetting(config: TrainConfig, steps: int) -> None:
    """Refuses an average that would still be that of the first steps at the end of a run of so many.

    Raises:
        UsageError: its momentum is too high.
    """
    weight = config.ema**steps
    if weight <= _REMEMBERED:
        return
    highest = int(1e4 * _REMEMBERED ** (1 / steps)) / 1e4
    raise UsageError(
        "--ema must forget how training began.",
        f"ema={config.ema:g}, by which the first of {steps:,} steps would weigh {100 * weight:.0f} % at the end",
        f"Give at most {highest:g}, or more --epochs.",
    )


def average_statistics(model: keras.Model, config: TrainConfig) -> None:
    """Makes the moving statistics of a model's norms averages over as many steps as those of its weights."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = max(layer.momentum, config.ema)


def use_averages(model: keras.Model) -> None:
    """Puts the averages of the weights into a compiled model, if its optimizer keeps them."""
    if model.optimizer.use_ema:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        for variable in model.trainable_variables:
            if variable.constraint is not None:
                variable.assign(constrained(variable, variable))
        # In memory of their own: a step of JAX gives the model's away, and the averages with it where they are shared.
        checkpoint.set_variables(model, checkpoint.variables_of(model))


def constrained(variable: Any, values: Any) -> Any:
    """Returns values of a variable as its constraint leaves them, which Keras applies after it has averaged."""
    return values if variable.constraint is None else variable.constraint(values)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Lets a compiled model have the averages of its weights inside the context, if its optimizer keeps them."""
    if not model.optimizer.use_ema:
        yield
        return
    trained = checkpoint.variables_of(model)
    use_averages(model)
    try:
        yield
    finally:
        checkpoint.set_variables(model, trained)
