"""L1L2 penalties on a net's weights: built by Keras, measured by formula, proven in the loss.

`l1·Σ|w| + l2·Σw²` over every kernel, Keras' convention. PyTorch's weight_decay=λ equals l2=λ/2.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.by_layer import layer_settings, parse_penalty
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.nets.contents import kernels, own_variables, set_regularizer


def layer_penalties(config: TrainConfig, layers: list[str]) -> dict[str, tuple[float, float]]:
    """Returns λ1 and λ2 of every named layer with a kernel.

    Raises:
        UsageError: `--penalty-at` names a layer that the net does not have.
    """
    penalties = dict.fromkeys(layers, (config.l1, config.l2))
    for layer, setting in layer_settings("penalty_at", config.penalty_at).items():
        if layer not in penalties:
            raise UsageError("--penalty-at takes a layer with a kernel.", f"{layer!r}", nearest(layer, layers))
        penalties[layer] = parse_penalty(setting)
    return penalties


def regularizer(penalty: tuple[float, float]) -> keras.regularizers.Regularizer | None:
    """Returns the regularizer of (λ1, λ2), or None if both are 0, so that an unpenalized kernel has none at all."""
    return keras.regularizers.L1L2(l1=penalty[0], l2=penalty[1]) if any(penalty) else None


def set_penalties(model: keras.Model, config: TrainConfig) -> None:
    """Puts the configured penalty on every weight that is to have one.

    Raises:
        UsageError: `--penalty-at` names another layer, the net has no kernel, or a weight to be penalized has a
            regularizer of its own.
    """
    if not kernels(model):
        raise UsageError("A net has kernels that are trained.", f"{model.name} without one", "Add a convolution.")
    owners = {id(variable): layer for layer, variable in own_variables(model)}
    names = {id(variable): name for name, variable in kernels(model)}
    for variable, (l1, l2) in zip(model.trainable_variables, lambdas(model, config), strict=True):
        penalty = regularizer((float(l1), float(l2)))
        if penalty is None:
            continue
        if variable.regularizer is not None:
            layer, kind = names.get(id(variable)), type(variable.regularizer).__name__
            raise UsageError(
                "A weight has one penalty.",
                f"{layer or variable.path} of {config.net} with {kind} of its own, and l1={l1:g}, l2={l2:g}",
                f"Remove {f'one, or keep its own by --penalty-at {layer}=0,0' if layer else 'one'}.",
            )
        set_regularizer(owners[id(variable)], variable, penalty)


@dataclass(frozen=True)
class Penalty:
    """The two parts of a penalty, in nats."""

    l1: float
    l2: float

    @property
    def total(self) -> float:
        """The sum that is added to the cross-entropy."""
        return self.l1 + self.l2


def lambdas(model: keras.Model, config: TrainConfig) -> NDArray[np.float64]:
    """Returns λ1 and λ2 of each of the model's trainable variables as the config says, (V, 2).

    It asks the config and not the regularizers in the model, so that a forgotten one shows.
    """
    layer_of = {id(variable): name for name, variable in kernels(model)}
    by_layer = layer_penalties(config, list(layer_of.values()))
    others = (config.l1, config.l2) if config.penalize == "all" else (0.0, 0.0)
    rows = [
        by_layer[layer_of[id(variable)]] if id(variable) in layer_of else others
        for variable in model.trainable_variables
    ]
    return np.array(rows, np.float64).reshape(-1, 2)


def measure(model: keras.Model, config: TrainConfig) -> Penalty:
    """Computes the penalty of the model's present weights from the formula, in double precision."""
    return penalty_of([ops.convert_to_numpy(value) for value in model.trainable_variables], lambdas(model, config))


def penalty_of(weights: list[NDArray[np.float32]], by_weight: NDArray[np.float64]) -> Penalty:
    """Computes the penalty of weights with their λ's, as `lambdas` gives them, in double precision."""
    sums = [
        (l1 * np.abs(value.astype(np.float64)).sum(), l2 * np.square(value.astype(np.float64)).sum())
        for value, (l1, l2) in zip(weights, by_weight, strict=True)
        if l1 or l2
    ]
    return Penalty(l1=float(sum(l1 for l1, _ in sums)), l2=float(sum(l2 for _, l2 in sums)))


def prove(
    model: keras.Model,
    config: TrainConfig,
    images: NDArray[np.uint8],
    labels: NDArray,
    own: float = 0.0,
    weights: NDArray[np.float32] | None = None,
) -> tuple[float, float]:
    """Proves on one batch that the penalty is in the loss that training minimizes.

    Args:
        model: compiled.
        config: what was asked for.
        images: (N, H, W, C).
        labels: (N,).
        own: losses of the net's own for these images, in nats.
        weights: of the classes, (K,), where the loss has them.

    Returns:
        The compiled loss minus the net's own losses and its cross-entropy, with smoothed targets and weighted classes
        if configured, and the penalty by formula; in nats.

    Raises:
        RuntimeError: the two differ, or a λ above 0 adds nothing.
    """
    model._clear_losses()
    logits = model(images, training=False)
    total = float(model.compute_loss(x=images, y=ops.convert_to_tensor(labels), y_pred=logits))
    images_weigh = ops.ones(len(labels)) if weights is None else ops.convert_to_tensor(weights[np.asarray(labels)])
    each = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    cross_entropy = float(ops.mean(images_weigh * each))
    if config.label_smoothing:
        even = -float(ops.mean(images_weigh[:, None] * ops.log_softmax(logits)))
        cross_entropy += config.label_smoothing * (even - cross_entropy)
    model._clear_losses()
    asked = bool(lambdas(model, config).any())
    return check_penalty(total, cross_entropy, measure(model, config), config, asked, own)


def check_penalty(
    total: float, cross_entropy: float, penalty: Penalty, config: TrainConfig, asked: bool, own: float = 0.0
) -> tuple[float, float]:
    """Compares the measured penalty with the formula, `asked` if any λ is above 0; see `prove`."""
    found, expected = total - cross_entropy - own, penalty.total
    # The difference of two single-precision sums carries their rounding.
    if abs(found - expected) > 1e-3 * expected + 1e-5 * max(1.0, abs(total)) or (asked and expected == 0):
        raise RuntimeError(
            f"A penalty must be in the loss as configured. Received: {found:.6g} in the loss, {expected:.6g} by "
            f"formula (l1={config.l1:g}, l2={config.l2:g}). The run stops, since its result would be mislabelled."
        )
    # Between two ways to sum smoothed targets, or a net's own losses, there is rounding, which is no penalty.
    rounded = not asked and (own or config.label_smoothing)
    return 0.0 if rounded else found, expected
