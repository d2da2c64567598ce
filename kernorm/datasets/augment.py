"""Random maps, elastic distortion, brightness and contrast of a batch, in vectorized NumPy; feeds the training step.

Runs in the input pipeline rather than in the model, so it is the same for every Keras backend, depends only on the
generator it is given, and costs a small part of a training step (tests/benchmarks measures it).
"""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernorm.config import Fill, Flip, TrainConfig

Interpolation = Literal["bilinear", "nearest"]
# Values that an image takes: angle, slope, zoom and shift of each axis; flip of each axis; contrast and brightness.
# What came later is drawn after the rest, so that images of earlier settings stay as they were.
VALUES = 10
# Maps are whole multiples of 1/GRID, so that their products with an image's coordinates are exact in single precision,
# and pixels are blended by whole multiples of 1/BLEND: every machine and backend makes the same image, to the bit.
GRID, BLEND = 4096, 2048
_SHIFT = BLEND.bit_length() - 1


# Contrast is a whole multiple of 1/TONE, for the same reason.
TONE = 1024
_TONE_SHIFT = TONE.bit_length() - 1
# Drawn displacements and the weights that smooth them are whole multiples of these shares of 1: sums over both axes
# stay below 2**53, so that they are exact in double precision in whatever order a machine adds them.
_DRAWN, _WEIGHT = 2**12, 2**20


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is drawn for each image: a map about its centre, displacements of its pixels, and changes of their values.

    Every value is drawn uniformly from ±its range.

    Attributes:
        rotation: degrees.
        shift: fraction of the image's height and width, drawn for each axis.
        zoom: fraction by which each axis may grow or shrink, drawn for each axis.
        shear: degrees along x.
        flip: axes that are mirrored in half of the images, each by itself.
        elastic: α of elastic distortion, pixels by which displacements are scaled.
        elastic_sigma: standard deviation of the Gaussian that smooths them, in pixels.
        interpolation: `nearest` is what PIL, and so the published recipes, use to rotate.
        fill: what comes from outside: 0, the image mirrored at its edge, or the nearest pixel; Keras' names.
        brightness: share of 255 that is added to all pixels.
        contrast: fraction by which the distance of pixels from their channel's mean may grow or shrink.
    """

    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    flip: Flip = "none"
    elastic: float = 0.0
    elastic_sigma: float = 4.0
    interpolation: Interpolation = "bilinear"
    fill: Fill = "constant"
    brightness: float = 0.0
    contrast: float = 0.0

    @property
    def moves(self) -> bool:
        """Tells whether pixels can change their place."""
        return bool(self.rotation or self.shift or self.zoom or self.shear or self.elastic) or self.flip != "none"

    @property
    def tones(self) -> bool:
        """Tells whether pixels can change their value."""
        return bool(self.brightness or self.contrast)


def augmentation_of(config: TrainConfig) -> Augmentation:
    """Returns what a config says of augmentation."""
    return Augmentation(**{name: getattr(config, name) for name in Augmentation.__dataclass_fields__})


def inverse_maps(
    ranges: Augmentation, count: int, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draws the maps from output to input pixels, (count, 2, 3), rows y and x, in pixels about the image's centre."""
    return maps_of(ranges, rng.random(VALUES * count), size)


def maps_of(ranges: Augmentation, drawn: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
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
    shift = _within(ranges.shift, drawn[..., 4 * count : 6 * count].reshape(*batches, count, 2)) * size
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.stack([cos / zoom_y, sin / zoom_y, (slope * cos - sin) / zoom_x, (slope * sin + cos) / zoom_x], axis=-1)
    maps = np.concatenate([linear.reshape(*batches, count, 2, 2), -shift[..., None]], axis=-1)
    # Mirrored: the input row or column that is as far from the centre on the other side.
    mirrored = (drawn[..., 6 * count : 8 * count].reshape(*batches, count, 2) < 0.5) & _AXES[ranges.flip]
    maps = np.where(mirrored[..., None], -maps, maps)
    return (np.rint(maps * GRID) / GRID).astype(np.float32)


# Of y and x.
_AXES: dict[Flip, tuple[bool, bool]] = {
    "none": (False, False),
    "horizontal": (False, True),
    "vertical": (True, False),
    "both": (True, True),
}


def tones_of(ranges: Augmentation, drawn: NDArray[np.float64]) -> NDArray[np.int32]:
    """Makes of what was drawn, as for `maps_of`, each image's contrast, in 1/TONE, and what is added, (…, N, 2)."""
    *batches, count = drawn.shape
    count //= VALUES
    contrast, brightness = np.moveaxis(drawn[..., 8 * count :].reshape(*batches, 2, count), -2, 0)
    factor = TONE * (1 + _within(ranges.contrast, contrast))
    return np.rint(np.stack([factor, 255 * _within(ranges.brightness, brightness)], axis=-1)).astype(np.int32)


def tone(images: NDArray[np.uint8], tones: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Changes the contrast of every image about the mean of each channel, a whole value, and its brightness.

    Args:
        images: (N, H, W, C).
        tones: (N, 2) as `tones_of` gives them.

    Returns:
        (N, H, W, C), values rounded and clipped to 0 to 255.
    """
    pixels = images.shape[1] * images.shape[2]
    total = images.sum(axis=(1, 2), keepdims=True, dtype=np.uint32)
    mean = ((total + np.uint32(pixels // 2)) // np.uint32(pixels)).astype(np.int32)
    factor, added = (tones[:, index, None, None, None] for index in (0, 1))
    changed = mean + added + (((images - mean) * factor + TONE // 2) >> _TONE_SHIFT)
    return np.clip(changed, 0, 255).astype(np.uint8)


def displacements(
    ranges: Augmentation, count: int, size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draws smooth displacements of pixels along y and x, (count, 2, H, W), in pixels.

    Values drawn uniformly from −1 to 1, smoothed by a Gaussian over rows and columns, outside of which is 0, and scaled
    by α (Simard, Steinkraus and Platt 2003, section 2.1).
    """
    drawn = np.rint(_DRAWN * (2 * rng.random((count, 2, *size)) - 1))
    rows, columns = (_gaussian(length, ranges.elastic_sigma) for length in size)
    smoothed = rows @ drawn @ columns.T
    scale = ranges.elastic / (_DRAWN * _WEIGHT * _WEIGHT)
    return (np.rint(smoothed * scale * GRID) / GRID).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _gaussian(length: int, sigma: float) -> NDArray[np.float64]:
    """Returns the weights, in whole multiples of 1/_WEIGHT, by which a Gaussian smooths `length` values."""
    distance = np.arange(length)
    weights = np.exp(-((distance[:, None] - distance) ** 2) / (2 * sigma**2))
    whole = np.exp(-(np.arange(-np.ceil(8 * sigma), np.ceil(8 * sigma) + 1) ** 2) / (2 * sigma**2)).sum()
    return np.rint(weights / whole * _WEIGHT)


def _within(limit: float, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spreads values from 0 to 1 over ±limit, to the bit as `Generator.uniform` does."""
    return -limit + 2 * limit * drawn


def warp(
    images: NDArray[np.uint8],
    maps: NDArray[np.float32],
    interpolation: Interpolation = "bilinear",
    fill: Fill = "constant",
    displaced: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Maps every image by its own affine map.

    Args:
        images: (N, H, W, C).
        maps: (N, 2, 3) from output to input pixels about the centre, as `inverse_maps` gives them.
        interpolation: between the four nearest pixels, or the nearest alone.
        fill: what comes from outside.
        displaced: (N, 2, H, W) added to the input's pixels, as `displacements` gives them.

    Returns:
        (N, H, W, C), values rounded.
    """
    count, height, width, channels = images.shape
    y, x = _source_pixels(maps, height, width)
    if displaced is not None:
        y, x = y + displaced[:, 0].reshape(y.shape), x + displaced[:, 1].reshape(x.shape)
    if interpolation == "nearest":
        y, x = np.rint(y), np.rint(x)
    y, x = _filled(y, height, fill), _filled(x, width, fill)
    # One pixel all around: of zeros, to which what is outside is clipped, or of what is next to it.
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)), mode="constant" if fill == "constant" else "edge")
    row, column = np.floor(y), np.floor(x)
    pitch = width + 3
    index = ((row + 1) * pitch + column + 1).astype(np.int32)
    index += (np.arange(count, dtype=np.int32) * ((height + 3) * pitch))[:, None]
    if interpolation == "nearest":
        return padded.reshape(-1, channels)[index].reshape(images.shape)
    return _blend(padded, index, weights(y - row), weights(x - column)).reshape(images.shape)


def _filled(position: NDArray[np.float32], length: int, fill: Fill) -> NDArray[np.float32]:
    """Brings positions along an axis to those of the padded image that fill them."""
    if fill == "constant":
        return np.clip(position, -1, length)
    if fill == "nearest":
        return np.clip(position, 0, length - 1)
    # From the edge, half a pixel before the first, over and back: a period of 2 · length. Exact, also where rounding
    # takes one period too many.
    period = np.float32(2 * length)
    from_edge = position + np.float32(0.5)
    from_edge = np.abs(from_edge - period * np.floor(from_edge / period))
    return np.abs(np.minimum(from_edge, period - from_edge)) - np.float32(0.5)


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


def augment(images: NDArray[np.uint8], ranges: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Augments each image of a batch (N, H, W, C): first its values, then its places; unchanged if all ranges are 0."""
    if not (ranges.moves or ranges.tones):
        return images
    count, size = len(images), images.shape[1:3]
    drawn = rng.random(VALUES * count)
    displaced = displacements(ranges, count, size, rng) if ranges.elastic else None
    if ranges.tones:
        images = tone(images, tones_of(ranges, drawn))
    if ranges.moves:
        images = warp(images, maps_of(ranges, drawn, size), ranges.interpolation, ranges.fill, displaced)
    return images
