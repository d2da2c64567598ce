"""What the weights look like: the table of layers, pruning, and what is recorded after every epoch."""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.nets.norms import NORMS, norm_of
from kernorm.nets.penalties import layer_penalties
from kernorm.records.record import PERCENTILES, THRESHOLDS, Layer, Pruned, Watched


def layer_table(model: keras.Model, config: TrainConfig) -> tuple[Layer, ...]:
    """Describes every layer that has weights, in the model's order."""
    kernels = [layer.name for layer in model.layers if hasattr(layer, "kernel")]
    penalties = layer_penalties(config, kernels)
    return tuple(_row(layer, config, penalties) for layer in model.layers if layer.trainable_variables)


def _row(layer: keras.layers.Layer, config: TrainConfig, penalties: dict[str, tuple[float, float]]) -> Layer:
    shape = tuple(size for size in layer.output.shape if size is not None)
    parameters = int(sum(np.prod(variable.shape) for variable in layer.trainable_variables))
    kind = type(layer).__name__
    if not hasattr(layer, "kernel"):
        norm = norm_of(config, layer.name.removesuffix("_norm"))
        l1, l2 = (config.l1, config.l2) if config.penalize == "all" else (None, None)
        return Layer(
            name=layer.name,
            kind=kind,
            output_shape=shape,
            parameters=parameters,
            norm=norm,
            axes=NORMS[norm].axes,
            groups=layer.groups if norm == "gn" else None,
            l1=l1,
            l2=l2,
        )
    kernel = ops.convert_to_numpy(layer.kernel).astype(np.float64)
    return Layer(
        name=layer.name,
        kind=kind,
        output_shape=shape,
        parameters=parameters,
        l1=penalties[layer.name][0],
        l2=penalties[layer.name][1],
        kernel_norm=float(np.sqrt(np.square(kernel).sum())),
        near_zero=tuple(float(np.mean(np.abs(kernel) < threshold)) for threshold in THRESHOLDS),
    )


def pruned_logits(model: keras.Model, images: NDArray[np.uint8], batch_size: int) -> list[NDArray[np.float32]]:
    """Sets kernel weights of |w| < threshold to 0 and predicts, for each of THRESHOLDS.

    Args:
        model: left as it was.
        images: (N, H, W, C).
        batch_size: images a prediction step.

    Returns:
        Logits (N, K), one array a threshold.
    """
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    trained = [ops.convert_to_numpy(kernel).copy() for kernel in kernels]
    found = []
    try:
        for threshold in THRESHOLDS:
            for kernel, values in zip(kernels, trained, strict=True):
                kernel.assign(pruned(values, threshold))
            found.append(model.predict(images, batch_size=batch_size, verbose=0))
    finally:
        for kernel, values in zip(kernels, trained, strict=True):
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
    kernels = np.abs(
        np.concatenate(
            [ops.convert_to_numpy(layer.kernel).ravel() for layer in model.layers if hasattr(layer, "kernel")]
        )
    )
    return tuple(
        Pruned(
            threshold=threshold,
            count=int((kernels < threshold).sum()),
            share=float((kernels < threshold).mean()),
            accuracy=float(np.mean(predicted.argmax(axis=1) == labels)),
            split=split,
        )
        for threshold, predicted in zip(THRESHOLDS, logits, strict=True)
    )


PROBE = 256


class Watch:
    """Watches one model in inference mode on the same images, (N, H, W, C), of which it takes the first PROBE.

    The activations are those of the last spatial convolution, before its norm, as in Wu and He 2018 (arXiv:1803.08494,
    figure 6); percentiles over images, positions and channels.
    """

    def __init__(self, model: keras.Model, config: TrainConfig, images: NDArray[np.uint8]) -> None:
        self.kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
        spatial = [layer for layer in model.layers if hasattr(layer, "kernel") and max(layer.kernel_size) > 1]
        self.layer = spatial[-1].name
        self.activations = keras.Model(model.input, spatial[-1].output)
        self.images = images[:PROBE]

    def measure(self) -> Watched:
        """Returns what the model is like now."""
        values = ops.convert_to_numpy(self.activations(self.images, training=False))
        kernels = [ops.convert_to_numpy(kernel) for kernel in self.kernels]
        return self.describe(kernels, np.percentile(values, PERCENTILES))

    def describe(self, kernels: list[NDArray[np.float32]], percentiles: NDArray) -> Watched:
        """Describes these kernels, and PERCENTILES of the activations."""
        weights = np.concatenate([kernel.ravel() for kernel in kernels]).astype(np.float64)
        return Watched(
            layer=self.layer,
            kernel_norm=float(np.sqrt(np.square(weights).sum())),
            near_zero=tuple(float(np.mean(np.abs(weights) < threshold)) for threshold in THRESHOLDS),
            activations=tuple(percentiles.tolist()),
        )
