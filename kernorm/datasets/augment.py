"""Random rotation, shift, zoom and shear of a batch, in vectorized NumPy; feeds the training step.

Runs in the input pipeline rather than in the model, so it is the same for every Keras backend, depends only on the
generator it is given, and costs a small part of a training step (tests/benchmarks measures it).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bilinear", "nearest"]
# Values that an image's map takes: angle, slope, zoom and shift of each axis.
VALUES = 6
# Maps are whole multiples of 1/GRID, so that their products with an image's coordinates are exact in single precision,
# and pixels are blended by whole multiples of 1/BLEND: every machine and backend makes the same image, to the bit.
GRID, BLEND = 4096, 2048
_SHIFT = BLEND.bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Ranges of a random affine map; each image draws every value uniformly from ±its range, about the image's centre.

    Attributes:
        rotation: degrees.
        shift: fraction of the image's height and width, drawn for each axis.
        zoom: fraction by which each axis may grow or shrink, drawn for each axis.
        shear: degrees along x.
        interpolation: `nearest` is what PIL, and so the published recipes, use to rotate.
    """

    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    interpolation: Interpolation = "bilinear"

    @property
    def active(self) -> bool:
        """Tells whether the map can change an image at all."""
        return any((self.rotation, self.shift, self.zoom, self.shear))


def inverse_maps(ranges: Affine, count: int, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draws the maps from output to input pixels, (count, 2, 3), rows y and x, in pixels about the image's centre."""
    return maps_of(ranges, rng.random(VALUES * count), size)


def maps_of(ranges: Affine, drawn: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Makes maps of what was drawn uniformly from 0 to 1, VALUES an image.

    Args:
        ranges: of the maps.
        drawn: (…, VALUES · N), of as many batches as there are rows.
        size: height and width of the images.

    Returns:
        (…, N, 2, 3), as `inverse_maps` gives them for each batch.
    """
    *batches, count = drawn.shape
    count //= VALUES
    turned, leant, zoomed_y, zoomed_x = np.moveaxis(drawn[..., : 4 * count].reshape(*batches, 4, count), -2, 0)
    angle = np.deg2rad(_within(ranges.rotation, turned))
    slope = np.tan(np.deg2rad(_within(ranges.shear, leant)))
    zoom_y, zoom_x = 1 + _within(ranges.zoom, zoomed_y), 1 + _within(ranges.zoom, zoomed_x)
    shift = _within(ranges.shift, drawn[..., 4 * count :].reshape(*batches, count, 2)) * size
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.stack([cos / zoom_y, sin / zoom_y, (slope * cos - sin) / zoom_x, (slope * sin + cos) / zoom_x], axis=-1)
    maps = np.concatenate([linear.reshape(*batches, count, 2, 2), -shift[..., None]], axis=-1)
    return (np.rint(maps * GRID) / GRID).astype(np.float32)


def _within(limit: float, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spreads values from 0 to 1 over ±limit, to the bit as `Generator.uniform` does."""
    return -limit + 2 * limit * drawn


def warp(
    images: NDArray[np.uint8], maps: NDArray[np.float32], interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """Maps every image by its own affine map and fills with 0 what comes from outside.

    Args:
        images: (N, H, W, C).
        maps: (N, 2, 3) from output to input pixels about the centre, as `inverse_maps` gives them.
        interpolation: between the four nearest pixels, or the nearest alone.

    Returns:
        (N, H, W, C), values rounded.
    """
    count, height, width, channels = images.shape
    y, x = _source_pixels(maps, height, width)
    if interpolation == "nearest":
        y, x = np.rint(y), np.rint(x)
    # One pixel of zeros all around, and clipping to it, is what fills the outside.
    np.clip(y, -1, height, out=y)
    np.clip(x, -1, width, out=x)
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)))
    row, column = np.floor(y), np.floor(x)
    pitch = width + 3
    index = ((row + 1) * pitch + column + 1).astype(np.int32)
    index += (np.arange(count, dtype=np.int32) * ((height + 3) * pitch))[:, None]
    if interpolation == "nearest":
        return padded.reshape(-1, channels)[index].reshape(images.shape)
    return _blend(padded, index, weights(y - row), weights(x - column)).reshape(images.shape)


def _source_pixels(
    maps: NDArray[np.float32], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the input row and column of every output pixel, (N, H·W) each."""
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    grid = np.stack([grid_y.ravel() - centre_y, grid_x.ravel() - centre_x, np.ones(height * width)]).astype(np.float32)
    source = maps.reshape(-1, 3) @ grid
    return source[0::2] + np.float32(centre_y), source[1::2] + np.float32(centre_x)


def _blend(
    padded: NDArray[np.uint8], index: NDArray[np.int32], down: NDArray[np.int32], right: NDArray[np.int32]
) -> NDArray[np.uint8]:
    """Interpolates between the four pixels at, right of, below and diagonally below `index`.

    The four are packed side by side first, so that one gather of 32 bits a pixel replaces four of 8.
    """
    channels = padded.shape[-1]
    flat = padded.reshape(-1, channels)
    pitch = padded.shape[2]
    blended = np.empty((*index.shape, channels), np.uint8)
    for channel in range(channels):
        plane = flat[:, channel]
        packed = np.zeros((plane.size, 4), np.uint8)
        for corner, offset in enumerate((0, 1, pitch, pitch + 1)):
            packed[: plane.size - offset, corner] = plane[offset:]
        corners = packed.view("<u4").ravel().take(index)
        upper, upper_right, lower, lower_right = ((corners >> shift & 255).astype(np.int32) for shift in (0, 8, 16, 24))
        upper = (upper << _SHIFT) + right * (upper_right - upper)
        lower = (lower << _SHIFT) + right * (lower_right - lower)
        upper = (upper << _SHIFT) + down * (lower - upper)
        blended[..., channel] = (upper + BLEND * BLEND // 2) >> 2 * _SHIFT
    return blended


def weights(fraction: NDArray[np.float32]) -> NDArray[np.int32]:
    """Returns how much the further of two pixels counts, in multiples of 1/BLEND."""
    return np.rint(fraction * BLEND).astype(np.int32)


def augment(images: NDArray[np.uint8], ranges: Affine, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Applies a random affine map to each image of a batch (N, H, W, C); returns it unchanged if all ranges are 0."""
    if not ranges.active:
        return images
    maps = inverse_maps(ranges, len(images), images.shape[1:3], rng)
    return warp(images, maps, ranges.interpolation)
