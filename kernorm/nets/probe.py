"""Measures what a compiled model minimizes and applies: its loss, and the gradient of one training step.

The model is left as it was, also by Ctrl-C and SIGTERM, which wait for the end of a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from kernorm.nets.contents import own_variables
from kernorm.system.interrupts import deferred


def loss_of(model: Any, x: Any, y: Any) -> float:
    """Returns the compiled loss of a batch, in inference mode."""
    model._clear_losses()
    loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False), sample_weight=None, training=False)
    model._clear_losses()
    return float(loss)


@contextmanager
def without_regularizers(model: Any, *, activities: bool = False, weights: bool = False) -> Iterator[None]:
    """Takes regularizers away inside the context."""
    layers = [layer for layer in model._flatten_layers() if activities and layer.activity_regularizer is not None]
    variables = [variable for _, variable in own_variables(model) if weights and variable.regularizer is not None]
    kept = [layer.activity_regularizer for layer in layers], [variable.regularizer for variable in variables]
    try:
        for layer in layers:
            layer.activity_regularizer = None
        for variable in variables:
            variable.regularizer = None
        yield
    finally:
        for layer, activity in zip(layers, kept[0], strict=True):
            layer.activity_regularizer = activity
        for variable, regularizer in zip(variables, kept[1], strict=True):
            variable.regularizer = regularizer


class Recorder(keras.optimizers.Optimizer):
    """Writes each gradient into its variable, instead of taking a step."""

    def __init__(self) -> None:
        super().__init__(learning_rate=1.0, name="recorder")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Assigns the gradient."""
        self.assign(variable, gradient)


def gradients_of(model: Any, x: Any, y: Any) -> dict[int, Any]:
    """Returns what a training step hands to the optimizer, by variable; the state of the model is put back."""
    recorder = Recorder()
    recorder.build(model.trainable_variables)
    count = keras.tree.flatten(x)[0].shape[0]
    kept = {name: getattr(model, name, None) for name in ("optimizer", "train_function", "history")}
    model.optimizer, model.train_function = recorder, None
    with restored(model), deferred():
        try:
            model.fit(x, y, batch_size=count, epochs=1, shuffle=False, verbose=0)
            return {id(v): ops.convert_to_numpy(v).astype(np.float64) for v in model.trainable_variables}
        finally:
            for name, value in kept.items():
                setattr(model, name, value)


@contextmanager
def restored(model: Any) -> Iterator[None]:
    """Puts back all state of a model after the context, constraints of its variables included, which it lifts."""
    variables = {id(v): v for v in (*model.variables, *model.metrics_variables)}
    values = [(variable, ops.convert_to_numpy(variable)) for variable in variables.values()]
    constraints = [(variable, variable.constraint) for variable in variables.values() if variable.constraint]
    try:
        for variable, _ in constraints:
            variable.constraint = None
        yield
    finally:
        for variable, constraint in constraints:
            variable.constraint = constraint
        for variable, value in values:
            variable.assign(value)
