"""What is watched after every epoch beside the loss: kernels' norm and near-zero share, and a layer's activations.

Between the net and the record; nothing here changes a run.
"""

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.record import PERCENTILES, THRESHOLDS, Watched

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
