"""What the weights look like: the table of layers, pruning, and what is recorded after every epoch."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.nets.contents import is_kernel, kernels, trained_layers, up_to
from kernorm.nets.norms import NORMS, norm_of
from kernorm.nets.own_losses import OwnLosses
from kernorm.nets.penalties import lambdas
from kernorm.records.record import PERCENTILES, THRESHOLDS, Layer, Pruned, Watched
from kernorm.training.interruptible import predict


def layer_table(model: keras.Model, config: TrainConfig) -> tuple[Layer, ...]:
    """Describes every layer that is trained, in the model's order, those of nested models included."""
    layers = trained_layers(model)
    rows = lambdas(model, config)
    by_weight = {id(weight): row for weight, row in zip(model.trainable_variables, rows, strict=True)}
    return tuple(_row(name, layer, weights, config, by_weight) for name, (layer, weights) in layers.items())


def _row(
    name: str, layer: keras.layers.Layer, weights: list, config: TrainConfig, by_weight: dict[int, NDArray]
) -> Layer:
    values: dict[str, Any] = {
        "name": name,
        "kind": type(layer).__name__,
        "output_shape": _output_shape(layer),
        "parameters": int(sum(np.prod(weight.shape) for weight in weights)),
        "note": _note(layer, [weight for weight in weights if not by_weight[id(weight)].any()]),
    }
    own = [weight for weight in weights if is_kernel(weight)]
    if own:
        l1, l2 = map(float, by_weight[id(own[0])])
        kernel = _joined(own)
        return Layer(
            **values,
            l1=l1,
            l2=l2,
            kernel_norm=float(np.sqrt(np.square(kernel).sum())),
            near_zero=tuple(float(np.mean(np.abs(kernel) < threshold)) for threshold in THRESHOLDS),
        )
    norm = norm_of(layer, config)
    values |= {"l1": config.l1, "l2": config.l2} if config.penalize == "all" else {}
    groups = layer.groups if norm == "gn" else None
    return Layer(**values, norm=norm, axes=NORMS[norm].axes if norm else "", groups=groups)


def _note(layer: keras.layers.Layer, unpenalized: list) -> str:
    """Says which norm stood in a layer's place, and which regularizers it has by itself."""
    before = getattr(layer, "swapped_from", type(layer).__name__)
    swapped = [f"was {before}"] if before != type(layer).__name__ else []
    own = dict.fromkeys(type(weight.regularizer).__name__ for weight in unpenalized if weight.regularizer)
    activity = [layer.activity_regularizer] if layer.activity_regularizer else []
    own |= dict.fromkeys(f"{type(one).__name__} of its output" for one in activity)
    return ", ".join([*swapped, *(f"own {name}" for name in own)])


def _output_shape(layer: keras.layers.Layer) -> tuple[int, ...]:
    """Returns the shape of the first output without the batch; nothing for a layer inside one that is no graph."""
    if not layer._inbound_nodes:
        return ()
    return tuple(size for size in layer._inbound_nodes[0].outputs[0].shape if size is not None)


def _joined(weights: list) -> NDArray[np.float64]:
    return np.concatenate([ops.convert_to_numpy(weight).ravel() for weight in weights]).astype(np.float64)


def pruned_logits(model: keras.Model, images: NDArray[np.uint8], batch_size: int) -> list[NDArray[np.float32]]:
    """Sets kernel weights of |w| < threshold to 0 and predicts, for each of THRESHOLDS.

    Args:
        model: left as it was.
        images: (N, H, W, C).
        batch_size: images a prediction step.

    Returns:
        Logits (N, K), one array a threshold.
    """
    trained = [(kernel, ops.convert_to_numpy(kernel).copy()) for _, kernel in kernels(model)]
    found = []
    try:
        for threshold in THRESHOLDS:
            for kernel, values in trained:
                kernel.assign(pruned(values, threshold))
            found.append(predict(model, images, batch_size))
    finally:
        for kernel, values in trained:
            kernel.assign(values)
    return found


def pruned(kernel: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Returns the kernel with 0 where |w| < threshold."""
    return np.where(np.abs(kernel) < threshold, 0, kernel)


def prune_table(
    model: keras.Model, logits: list[NDArray[np.float32]], labels: NDArray, split: str
) -> tuple[Pruned, ...]:
    """Tells for each of THRESHOLDS how many kernel weights are below it, and the accuracy without them.

    Args:
        model: as trained.
        logits: of the split without them, as `pruned_logits` gives them.
        labels: (N,).
        split: the split's name.
    """
    weights = np.abs(np.concatenate([ops.convert_to_numpy(kernel).ravel() for _, kernel in kernels(model)]))
    return tuple(
        Pruned(
            threshold=threshold,
            count=int((weights < threshold).sum()),
            share=float((weights < threshold).mean()),
            accuracy=float(np.mean(predicted.argmax(axis=1) == labels)),
            split=split,
        )
        for threshold, predicted in zip(THRESHOLDS, logits, strict=True)
    )


PROBE = 256


class Watch:
    """Watches one model in inference mode on the same images, (N, H, W, C), of which it takes the first PROBE.

    The activations are those of the last spatial convolution, before its norm, as in Wu and He 2018 (arXiv:1803.08494,
    figure 6); percentiles over images, positions and channels. A net without one is watched at its last layer with a
    kernel that is not its head, or at its answers. `own` measures the losses that a net adds by itself.
    """

    def __init__(self, model: keras.Model, config: TrainConfig, images: NDArray[np.uint8]) -> None:
        self.kernels = [kernel for _, kernel in kernels(model)]
        self.layer, self.activations = _watched(model)
        self.images = images[:PROBE]
        self.own = OwnLosses(model, config, images)

    def measure(self) -> Watched:
        """Returns what the model is like now."""
        values = ops.convert_to_numpy(self.activations(self.images, training=False))
        return self.describe(
            [ops.convert_to_numpy(kernel) for kernel in self.kernels], np.percentile(values, PERCENTILES)
        )

    def describe(self, kernels: list[NDArray[np.float32]], percentiles: NDArray) -> Watched:
        """Describes these kernels, and PERCENTILES of the activations."""
        weights = np.concatenate([kernel.ravel() for kernel in kernels]).astype(np.float64)
        return Watched(
            layer=self.layer,
            kernel_norm=float(np.sqrt(np.square(weights).sum())),
            near_zero=tuple(float(np.mean(np.abs(weights) < threshold)) for threshold in THRESHOLDS),
            activations=tuple(percentiles.tolist()),
        )


def _watched(model: keras.Model) -> tuple[str, keras.Model]:
    """Returns the name of the layer whose output is watched, and the model up to there."""
    layers = trained_layers(model)
    with_kernel = [name for name, (_, weights) in layers.items() if any(map(is_kernel, weights))]
    spatial = [name for name in with_kernel if max(getattr(layers[name][0], "kernel_size", (1,))) > 1]
    for name in (*reversed(spatial), *reversed(with_kernel[:-1])):
        part = up_to(model, layers[name][0])
        if part is not None:
            return name, part
    return model.layers[-1].name, model
