"""Corruptions of images in the manner of MNIST-C (Mu and Gilmer 2019, arXiv:1906.02337), at five severities each.

The names are those of MNIST-C where the idea is the same; strengths are kernorm's own, so that figures compare models
here, not with that paper's. Used by evaluate; images uint8 (N, H, W, C) in and out.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.uint8]
Floats = NDArray[np.float64]
SEVERITIES = (1, 2, 3, 4, 5)


def corrupted(images: Images) -> Iterator[tuple[str, int, Images]]:
    """Yields every corruption at every severity: its name, the severity, and the images; the same at every call."""
    for name, corrupt in CORRUPTIONS.items():
        for severity in SEVERITIES:
            rng = np.random.default_rng(severity)
            found = corrupt(images.astype(np.float64) / 255, severity / len(SEVERITIES), rng)
            yield name, severity, np.rint(np.clip(found, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    return x + rng.normal(0, 0.4 * s, x.shape)


def _shot_noise(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    photons = 60 * (1 - s) + 4
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: Floats, s: float, rng: np.random.Generator) -> Floats:
    chance = rng.random(x.shape)
    return np.where(chance < 0.1 * s, 0.0, np.where(chance > 1 - 0.1 * s, 1.0, x))


def _gaussian_blur(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return ndimage.gaussian_filter(x, (0, 1.6 * s, 1.6 * s, 0))


def _motion_blur(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return ndimage.uniform_filter1d(x, 1 + round(8 * s), axis=2)


def _brightness(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return x + 0.6 * s


def _contrast(x: Floats, s: float, _: np.random.Generator) -> Floats:
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return (x - mean) * (1 - 0.85 * s) + mean


def _moved(x: Floats, matrix: NDArray[np.float64], shift: tuple[float, float] = (0, 0)) -> Floats:
    """Moves pixels by an affine map of (row, column) about the middle, bilinear, black beyond the edge."""
    middle = (np.array(x.shape[1:3]) - 1) / 2
    whole = np.eye(4)
    whole[1:3, 1:3] = matrix
    offset = np.array([0, *(middle - matrix @ middle - np.array(shift)), 0])
    return ndimage.affine_transform(x, whole, offset, order=1)


def _rotate(x: Floats, s: float, _: np.random.Generator) -> Floats:
    angle = np.deg2rad(45 * s)
    return _moved(x, np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def _shear(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return _moved(x, np.array([[1, 0], [0.8 * s, 1]]))


def _scale(x: Floats, s: float, _: np.random.Generator) -> Floats:
    return _moved(x, np.eye(2) * (1 + s))


def _translate(x: Floats, s: float, _: np.random.Generator) -> Floats:
    height, width = x.shape[1:3]
    return _moved(x, np.eye(2), (0.2 * s * height, 0.2 * s * width))


def _stripe(x: Floats, s: float, _: np.random.Generator) -> Floats:
    width = x.shape[2]
    half = max(round(0.12 * s * width), 1)
    striped = x.copy()
    columns = slice(width // 2 - half, width // 2 + half)
    striped[:, :, columns] = 1 - striped[:, :, columns]
    return striped


CORRUPTIONS: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "rotate": _rotate,
    "shear": _shear,
    "scale": _scale,
    "translate": _translate,
    "stripe": _stripe,
}
