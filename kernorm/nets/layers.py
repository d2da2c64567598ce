"""The layers that Keras does not have, or has with other axes. Inputs are (N, H, W, C), channels last.

Those named as Keras' take its arguments, also by position.
"""

from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="kernorm")


class Fusible(keras.layers.Layer):
    """Mixes in the choice between Keras' own operations and the compiled blocks of kernorm.nets.fused for training.

    `fused` says whether compiling is worth it; it costs seconds and pays after some ten thousand images.
    """

    def __init__(self, *args: Any, fused: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fused = fused

    def _fuses(self, inputs: Any, training: bool | None) -> bool:
        if not (self.fused and training and keras.backend.backend() == "tensorflow"):
            return False
        from kernorm.nets.fused import can_fuse

        return can_fuse(inputs)

    def get_config(self) -> dict[str, Any]:
        """Adds the choice."""
        return {**super().get_config(), "fused": self.fused}


def _scaled_last(layer: Any, inputs: Any) -> bool:
    """Tells whether a norm has a scale and an offset a channel, the last axis: what the compiled blocks compute."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return layer.center and layer.scale and [axis % len(inputs.shape) for axis in axes] == [len(inputs.shape) - 1]


def _transformed(layer: Any, centred: Any, variance: Any) -> Any:
    """Divides centred values by their deviation; scales and shifts them where the layer does."""
    factor = ops.rsqrt(variance + layer.epsilon)
    scaled = centred * (factor * layer.gamma if layer.scale else factor)
    return scaled + layer.beta if layer.center else scaled


@_register
class BatchNormalization(Fusible, keras.layers.BatchNormalization):
    """Batch normalization over N, H and W; fused in training where that pays."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes (N, H, W, C)."""
        plain = self.trainable and mask is None and not self.renorm and _scaled_last(self, inputs)
        if not (plain and self._fuses(inputs, training)):
            return super().call(inputs, training=training, mask=mask)
        from kernorm.nets.fused import normalize, over_batch

        y, mean, variance = normalize(inputs, self.gamma, self.beta, over_batch, self.epsilon)
        for moving, value in ((self.moving_mean, mean[0]), (self.moving_variance, variance[0])):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return y


@_register
class GroupNormalization(Fusible, keras.layers.GroupNormalization):
    """Group normalization over H, W and the channels of a group; fused in training where that pays."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalizes (N, H, W, C)."""
        if not (_scaled_last(self, inputs) and self._fuses(inputs, training)):
            return super().call(inputs)
        from kernorm.nets.fused import normalize, over_groups

        return normalize(inputs, self.gamma, self.beta, over_groups(self.groups), self.epsilon)[0]


@_register
class Dropout(Fusible, keras.layers.Dropout):
    """Dropout of single activations; fused in training where that pays."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops elements of (N, H, W, C)."""
        if not (0 < self.rate < 1 and self.noise_shape is None and self._fuses(inputs, training)):
            return super().call(inputs, training=training)
        from kernorm.nets.fused import dropout

        return dropout(inputs, ops.cast(self.seed_generator.next(), "uint32"), self.rate)


@_register
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over ghost batches in training (Hoffer et al. 2017, arXiv:1705.08741, algorithm 1).

    Images i with the same i // ghost_batch_size share statistics; the last ghost batch may be smaller. The moving
    statistics are the whole batch's, and inference uses them as ordinary batch normalization does, at any batch size.
    """

    def __init__(self, *args: Any, ghost_batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ghost_batch_size = ghost_batch_size

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes (N, H, W, C) or (N, C)."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        places = tuple(range(1, len(inputs.shape) - 1))
        mean, variance = ops.moments(inputs, axes=(0, *places))
        self.moving_mean.assign(self.momentum * self.moving_mean + (1 - self.momentum) * mean)
        self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * variance)
        share = self._share_of_ghost_batch(ops.shape(inputs)[0])

        def mean_of_ghosts(values: Any) -> Any:
            means = ops.matmul(share, ops.mean(values, axis=places) if places else values)
            return means[:, None, None, :] if places else means

        centred = inputs - mean_of_ghosts(inputs)
        return _transformed(self, centred, mean_of_ghosts(ops.square(centred)))

    def _share_of_ghost_batch(self, count: Any) -> Any:
        """Returns (N, N): row i averages over the images of i's ghost batch."""
        ghost = ops.arange(count) // self.ghost_batch_size
        same = ops.cast(ghost[:, None] == ghost[None, :], self.compute_dtype)
        return same / ops.sum(same, axis=1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """Adds the ghost batch size."""
        return {**super().get_config(), "ghost_batch_size": self.ghost_batch_size}


@_register
class LayerNormalization(Fusible, keras.layers.LayerNormalization):
    """Layer normalization over H, W and C of each image, with one scale and offset a channel.

    This is the LN of the GroupNorm paper (Wu & He 2018, arXiv:1803.08494) and of both published studies; it equals
    GroupNormalization(groups=1). Keras' own layer either takes each pixel alone (axis=-1) or learns H·W·C scales.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes scale and offset, (C,) each."""
        self.axis = [len(input_shape) - 1]
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalizes (N, H, W, C)."""
        if _scaled_last(self, inputs) and self._fuses(inputs, training):
            from kernorm.nets.fused import normalize, over_groups

            return normalize(inputs, self.gamma, self.beta, over_groups(1), self.epsilon)[0]
        mean, variance = ops.moments(inputs, axes=(1, 2, 3), keepdims=True)
        return _transformed(self, inputs - mean, variance)


@_register
class FilterResponseNormalization(keras.layers.Layer):
    """Filter response normalization with its thresholded linear unit, max(γ·x/√(ν² + ε) + β, τ), ν² over H and W.

    Singh & Krishnan 2020 (arXiv:1911.09737), equations 1 to 3, with a fixed ε.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes scale γ, offset β and threshold τ, (C,) each."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")
        self.tau = self.add_weight(shape=shape, initializer="zeros", name="tau")

    def call(self, inputs: Any) -> Any:
        """Normalizes (N, H, W, C)."""
        power = ops.mean(ops.square(inputs), axis=(1, 2), keepdims=True)
        return ops.maximum(inputs * ops.rsqrt(power + self.epsilon) * self.gamma + self.beta, self.tau)

    def get_config(self) -> dict[str, Any]:
        """Adds epsilon."""
        return {**super().get_config(), "epsilon": self.epsilon}


@_register
class StandardizedConv2D(keras.layers.Conv2D):
    """Convolution whose kernel has mean 0 and variance 1 in each output channel (weight standardization).

    Qiao et al. 2019 (arXiv:1903.10520), equation 3. The kernel variable, and so any penalty, is the raw one.
    """

    epsilon = 1e-5

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolves (N, H, W, C) with the standardized kernel (h, w, C, K)."""
        return super().convolution_op(inputs, self.standardized(kernel))

    def standardized(self, kernel: Any) -> Any:
        """Returns the kernel (h, w, C, K) that the convolution uses."""
        kernel = ops.convert_to_tensor(kernel)  # JAX reduces no variable of Keras
        mean, variance = ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
        return (kernel - mean) * ops.rsqrt(variance + self.epsilon)
