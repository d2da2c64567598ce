"""L1L2 penalties on a net's weights: built by Keras, measured by formula, proven in the loss.

`l1·Σ|w| + l2·Σw²` over every kernel, Keras' convention. PyTorch's weight_decay=λ equals l2=λ/2.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig, UsageError, layer_settings, nearest, parse_penalty


def layer_penalties(config: TrainConfig, layers: list[str]) -> dict[str, tuple[float, float]]:
    """Returns λ1 and λ2 of every named layer with a kernel.

    Raises:
        UsageError: `--penalty-at` names a layer that the net does not have.
    """
    penalties = dict.fromkeys(layers, (config.l1, config.l2))
    for layer, setting in layer_settings("penalty_at", config.penalty_at).items():
        if layer not in penalties:
            raise UsageError(f"--penalty-at takes a layer with a kernel. Received: {layer!r}. {nearest(layer, layers)}")
        penalties[layer] = parse_penalty(setting)
    return penalties


def regularizer(penalty: tuple[float, float]) -> keras.regularizers.Regularizer | None:
    """Returns the regularizer of (λ1, λ2), or None if both are 0, so that an unpenalized kernel has none at all."""
    return keras.regularizers.L1L2(l1=penalty[0], l2=penalty[1]) if any(penalty) else None


@dataclass(frozen=True)
class Penalty:
    """The two parts of a penalty, in nats."""

    l1: float
    l2: float

    @property
    def total(self) -> float:
        """The sum that is added to the cross-entropy."""
        return self.l1 + self.l2


def penalized_variables(model: keras.Model, config: TrainConfig) -> list[tuple[NDArray[np.float32], float, float]]:
    """Returns the weights that the config says are penalized, with their λ1 and λ2.

    It asks the config and not the regularizers in the model, so that a forgotten one shows.
    """
    kernels = {layer.name: layer.kernel for layer in model.layers if hasattr(layer, "kernel")}
    by_layer = layer_penalties(config, list(kernels))
    found = [(ops.convert_to_numpy(kernel), *by_layer[name]) for name, kernel in kernels.items()]
    if config.penalize == "all":
        in_kernels = {id(kernel) for kernel in kernels.values()}
        rest = [variable for variable in model.trainable_variables if id(variable) not in in_kernels]
        found += [(ops.convert_to_numpy(variable), config.l1, config.l2) for variable in rest]
    return found


def measure(model: keras.Model, config: TrainConfig) -> Penalty:
    """Computes the penalty of the model's present weights from the formula, in double precision."""
    weights = [(value.astype(np.float64), l1, l2) for value, l1, l2 in penalized_variables(model, config)]
    return Penalty(
        l1=float(sum(l1 * np.abs(value).sum() for value, l1, _ in weights)),
        l2=float(sum(l2 * np.square(value).sum() for value, _, l2 in weights)),
    )


def prove(model: keras.Model, config: TrainConfig, images: NDArray[np.uint8], labels: NDArray) -> tuple[float, float]:
    """Proves on one batch that the penalty is in the loss that training minimizes.

    Args:
        model: compiled.
        config: what was asked for.
        images: (N, H, W, C).
        labels: (N,).

    Returns:
        The compiled loss minus its cross-entropy, and the penalty by formula, in nats.

    Raises:
        RuntimeError: the two differ, or a λ above 0 adds nothing.
    """
    logits = model(images, training=False)
    total = float(model.compute_loss(x=images, y=ops.convert_to_tensor(labels), y_pred=logits))
    cross_entropy = float(ops.mean(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)))
    found, expected = total - cross_entropy, measure(model, config).total
    asked = any(l1 > 0 or l2 > 0 for _, l1, l2 in penalized_variables(model, config))
    # The difference of two single-precision sums carries their rounding.
    if abs(found - expected) > 1e-3 * expected + 1e-5 * max(1.0, abs(total)) or (asked and expected == 0):
        raise RuntimeError(
            f"A penalty must be in the loss as configured. Received: {found:.6g} in the loss, {expected:.6g} by "
            f"formula (l1={config.l1:g}, l2={config.l2:g}). The run stops, since its result would be mislabelled."
        )
    return found, expected
