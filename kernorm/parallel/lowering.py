"""How a population augments and convolves: images warped on the device, convolutions grouped or as patches."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import keras

from kernorm.config import Fill
from kernorm.datasets.augment import BLEND, TONE, Augmentation, Interpolation
from kernorm.nets.layers import StandardizedConv2D

Lowering = Literal["grouped", "patches"]


LOWERINGS: tuple[Lowering, ...] = ("grouped", "patches")


def augment(images: Any, maps: Any, tones: Any, displaced: Any, ranges: Augmentation) -> Any:
    """Does on the device what `augment.augment` does in NumPy, to the bit, by what `Batches.fed` gives of a batch.

    Args:
        images: uint8 (N, H, W, C).
        maps: (N, 2, 3).
        tones: (N, 2).
        displaced: (N, 2, H, W); of any shape where there is no elastic distortion.
        ranges: whose kinds count here, not their sizes.
    """
    if ranges.tones:
        images = tone(images, tones)
    if ranges.moves:
        images = warp(images, maps, ranges.interpolation, ranges.fill, displaced if ranges.elastic else None)
    return images


def tone(images: Any, tones: Any) -> Any:
    """Does what `augment.tone` does: uint8 (N, H, W, C) by contrast and brightness (N, 2)."""
    pixels = images.shape[1] * images.shape[2]
    total = jnp.sum(images.astype(jnp.uint32), axis=(1, 2), keepdims=True)
    mean = ((total + jnp.uint32(pixels // 2)) // jnp.uint32(pixels)).astype(jnp.int32)
    factor, added = (tones[:, index, None, None, None] for index in (0, 1))
    changed = mean + added + ((images.astype(jnp.int32) - mean) * factor + TONE // 2) // TONE
    return jnp.clip(changed, 0, 255).astype(jnp.uint8)


def warp(images: Any, maps: Any, interpolation: Interpolation, fill: Fill = "constant", displaced: Any = None) -> Any:
    """Does what `augment.warp` does: uint8 (N, H, W, C) by maps (N, 2, 3) and displacements (N, 2, H, W)."""
    _, height, width, _ = images.shape
    grid_y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    grid_x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    row = maps[:, :, None, None, :]
    source = row[..., 0] * grid_y + row[..., 1] * grid_x + row[..., 2]
    if displaced is not None:
        source = source + displaced
    y, x = source[:, 0] + (height - 1) / 2, source[:, 1] + (width - 1) / 2
    if interpolation == "nearest":
        y, x = jnp.rint(y), jnp.rint(x)
    y, x = _filled(y, height, fill), _filled(x, width, fill)
    padded = jnp.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="constant" if fill == "constant" else "edge")
    top, left = jnp.floor(y), jnp.floor(x)
    i, j = top.astype(jnp.int32) + 1, left.astype(jnp.int32) + 1
    at = jnp.arange(len(images))[:, None, None]
    if interpolation == "nearest":
        return padded[at, i, j]
    down, right = (jnp.rint(part * BLEND).astype(jnp.int32)[..., None] for part in (y - top, x - left))
    corners = [padded[at, i + a, j + b].astype(jnp.int32) for a in (0, 1) for b in (0, 1)]
    upper = BLEND * corners[0] + right * (corners[1] - corners[0])
    lower = BLEND * corners[2] + right * (corners[3] - corners[2])
    whole = BLEND * upper + down * (lower - upper)
    return ((whole + BLEND * BLEND // 2) // (BLEND * BLEND)).astype(jnp.uint8)


def _filled(position: Any, length: int, fill: Fill) -> Any:
    """Does what `augment._filled` does, by the same operations."""
    if fill == "constant":
        return jnp.clip(position, -1, length)
    if fill == "nearest":
        return jnp.clip(position, 0, length - 1)
    period = jnp.float32(2 * length)
    from_edge = position + jnp.float32(0.5)
    from_edge = jnp.abs(from_edge - period * jnp.floor(from_edge / period))
    return jnp.abs(jnp.minimum(from_edge, period - from_edge)) - jnp.float32(0.5)


def patches_convolution(inputs: Any, kernel: Any, padding: str, strides: tuple[int, int] = (1, 1)) -> Any:
    """Convolves (N, H, W, C) with (h, w, C, K) as one product of patches: under vmap, a batched one."""
    height, width, channels, filters = kernel.shape
    if padding == "same":
        sides = zip(inputs.shape[1:3], (height, width), strides, strict=True)
        missing = [max((-(-side // step) - 1) * step + size - side, 0) for side, size, step in sides]
        inputs = jnp.pad(inputs, ((0, 0), *((rest // 2, -(-rest // 2)) for rest in missing), (0, 0)))
    down, right = strides
    last_row, last_column = inputs.shape[1] - height, inputs.shape[2] - width
    shifted = [
        inputs[:, i : i + last_row + 1 : down, j : j + last_column + 1 : right]
        for i in range(height)
        for j in range(width)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    return patches @ kernel.reshape(height * width * channels, filters)


@contextlib.contextmanager
def lowered(model: keras.Model, lowering: Lowering) -> Iterator[None]:
    """Makes the model's convolutions be traced by that lowering while the body runs.

    Those with groups, dilation or an operation of their own stay as they are.
    """
    layers = [layer for layer in model._flatten_layers() if _is_plain(layer)] if lowering == "patches" else []
    for layer in layers:
        layer.convolution_op = partial(_by_patches, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.convolution_op


def _is_plain(layer: Any) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and type(layer).convolution_op in (keras.layers.Conv2D.convolution_op, StandardizedConv2D.convolution_op)
        and layer.data_format == "channels_last"
        and layer.groups == 1
        and set(layer.dilation_rate) == {1}
    )


def _by_patches(layer: keras.layers.Conv2D, inputs: Any, kernel: Any) -> Any:
    if isinstance(layer, StandardizedConv2D):
        kernel = layer.standardized(kernel)
    return patches_convolution(inputs, keras.ops.convert_to_tensor(kernel), layer.padding, layer.strides)
