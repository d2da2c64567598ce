"""Normalization and dropout of a training step on TensorFlow, one XLA block forward and one backward.

The wheel's own elementwise and reduction kernels are built for old processors and take most of a training step of a
small net; XLA compiles these blocks for the machine, while convolutions stay with oneDNN. The sums are also
more exact: TensorFlow adds the 100,352 values of a channel of (128, 28, 28, C) one after another in single precision,
an error near 1e-4, where these blocks add in a tree.

Only training uses this module: inference, other backends and exported graphs consist of Keras' ordinary operations.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Tensor = Any
Pool = Callable[[Tensor], Tensor]

# More slices in one loop made XLA's code slower (8 and 13 were good, 24 was not).
_MOST_SLICES = 13
_FEWEST_VALUES = 256


def can_fuse(x: Tensor) -> bool:
    """Tells whether x is float32 (N, H, W, C) with known H, W, C and enough values an image for a block to pay."""
    return (
        len(x.shape) == 4
        and None not in tuple(x.shape)[1:]
        and math.prod(x.shape[1:]) >= _FEWEST_VALUES
        and keras.backend.standardize_dtype(x.dtype) == "float32"
    )


@functools.cache
def _block(function: Callable, **options: Any) -> Callable:
    """Compiles `function` with its options bound; cached, so that layers of one shape share the code."""
    return tf.function(functools.partial(function, **options), jit_compile=True, autograph=False)


def _row_slices(x: Tensor) -> list[Tensor]:
    """Cuts (N, H, W, C) along H into k equal slices, (N, H·W/k, C) each."""
    _, height, width, channels = x.shape
    count = max(k for k in range(1, min(height, _MOST_SLICES) + 1) if height % k == 0)
    return tf.unstack(tf.reshape(x, (-1, count, height // count * width, channels)), axis=1)


def _tree_sum(terms: Sequence[Tensor]) -> Tensor:
    """Adds tensors of equal shape in pairs."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return _tree_sum(terms[:half]) + _tree_sum(terms[half:])


def _mean_of(function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    """Returns the mean over H and W of an elementwise function of (N, H, W, C) tensors, (N, C).

    XLA vectorizes a plain reduction, but not one fused with a product; adding a few row slices inside the elementwise
    loop leaves it a small plain one.
    """
    _, height, width, _ = xs[0].shape
    terms = [function(*parts) for parts in zip(*map(_row_slices, xs), strict=True)]
    return tf.reduce_sum(_tree_sum(terms), 1) / (height * width)


def over_batch(values: Tensor) -> Tensor:
    """Averages over the batch: (N, C) to (1, C)."""
    return tf.reduce_mean(values, 0, keepdims=True)


@functools.cache
def over_groups(groups: int) -> Pool:
    """Returns the mean over the channels of each group, repeated to its channels: (N, C) to (N, C)."""

    def pool(values: Tensor) -> Tensor:
        size = values.shape[-1] // groups
        means = tf.reduce_mean(tf.reshape(values, (-1, groups, size)), -1)
        return tf.repeat(means, size, axis=-1)

    return pool


def _on_map(values: Tensor) -> Tensor:
    return values[:, None, None, :]


def _forward(x: Tensor, gamma: Tensor, beta: Tensor, *, pool: Pool, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns γ(x − μ)/√(σ² + ε) + β, μ and σ²; the variance is of centred values, so nothing cancels."""
    mean = pool(tf.reduce_mean(x, (1, 2)))
    centre = mean[:, None, :]
    variance = pool(_mean_of(lambda part: tf.square(part - centre), x))
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    return x * _on_map(scale) + _on_map(beta - mean * scale), mean, variance


def _backward(
    dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, variance: Tensor, *, pool: Pool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of x, γ and β (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3, gathered by x and dy)."""
    _, height, width, _ = x.shape
    centre = mean[:, None, :]
    inverse = tf.math.rsqrt(variance + epsilon)
    dy_mean = tf.reduce_mean(dy, (1, 2))
    dot_mean = _mean_of(lambda d, part: d * (part - centre), dy, x)
    slope = -(inverse**3) * pool(gamma * dot_mean)
    shift = -inverse * pool(gamma * dy_mean) - slope * mean
    dx = dy * _on_map(gamma * inverse) + x * _on_map(slope) + _on_map(shift)
    area = height * width
    return dx, tf.reduce_sum(dot_mean * inverse, 0) * area, tf.reduce_sum(dy_mean, 0) * area


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, pool: Pool, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes x (N, H, W, C) by the statistics that `pool` gathers from the mean of each map, (N, C).

    Returns:
        The output, and mean and variance, (N, C) or (1, C) each, through which no gradient flows.
    """

    @tf.custom_gradient
    def run(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple:
        y, mean, variance = _block(_forward, pool=pool, epsilon=epsilon)(x, gamma, beta)

        def gradient(dy: Tensor, _mean: Tensor, _variance: Tensor) -> tuple:
            return _block(_backward, pool=pool, epsilon=epsilon)(dy, x, gamma, mean, variance)

        return (y, mean, variance), gradient

    return run(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


def _mix(values: Tensor) -> Tensor:
    """Hashes uint32 to uint32, one to one (C. Wellons' lowbias32, prospecting for hash functions, 2018)."""
    xor, right = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    values = xor(values, right(values, tf.constant(16, tf.uint32))) * tf.constant(0x7FEB352D, tf.uint32)
    values = xor(values, right(values, tf.constant(15, tf.uint32))) * tf.constant(0x846CA68B, tf.uint32)
    return xor(values, right(values, tf.constant(16, tf.uint32)))


def _random_bits(seed: Tensor, like: Tensor) -> Tensor:
    """Hashes a seed (2,) uint32 with the index of each element: uint32 of the shape of `like`."""
    golden = tf.constant(0x9E3779B9, tf.uint32)
    first = _mix(_mix(seed[0]) + seed[1] * golden)
    second = _mix(first + golden)
    index = tf.cast(tf.range(tf.size(like)), tf.uint32)
    return tf.reshape(_mix(_mix(index + first) + second), tf.shape(like))


def _drop(x: Tensor, seed: Tensor, *, rate: float) -> Tensor:
    keep = _random_bits(seed, x) >= tf.constant(round(rate * 2**32), tf.uint32)
    return tf.where(keep, x * (1 / (1 - rate)), tf.zeros_like(x))


def dropout(x: Tensor, seed: Tensor, rate: float) -> Tensor:
    """Zeroes each element of x with probability `rate` and scales the others by 1/(1 − rate).

    The mask is a function of seed, (2,), and position; the backward pass computes it once more and stores nothing.
    """

    @tf.custom_gradient
    def run(x: Tensor) -> tuple:
        block = _block(_drop, rate=rate)
        return block(x, seed), lambda dy: block(dy, seed)

    return run(x)
