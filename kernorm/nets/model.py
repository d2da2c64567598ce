"""Builds a net by the functional API, kernorm's or a user's own, with norms and penalties as configured."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.limits import whole_number
from kernorm.nets.blocks import NETS
from kernorm.nets.convolution import Convolutions
from kernorm.nets.own import build_own
from kernorm.nets.penalties import set_penalties
from kernorm.records.data import Data
from kernorm.system.backend import keras_settings


@keras_settings()
def build_model(
    config: TrainConfig,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: float | Sequence[float] = (0.0,),
    std: float | Sequence[float] = (255.0,),
    fused: bool = False,
) -> keras.Model:
    """Builds a net, in float32 and with channels last whatever Keras' global settings say.

    Args:
        config: names the net, its norms and penalties; the batch size is used to refuse a degenerate norm.
        image_shape: (H, W, C) of the images.
        num_classes: K.
        mean: of the training pixels (0 to 255), one number or one a channel; the net scales its input by it and `std`.
        std: their standard deviation. By default pixels are scaled to 0 to 1.
        fused: train by the compiled blocks of `kernorm.nets.fused` where they apply: a start of about 5 CPU-seconds.

    Returns:
        A functional model from `image`, uint8 (N, H, W, C), to `logits`, float32 (N, K).

    Raises:
        UsageError: an unknown layer is named, groups do not divide, a norm is degenerate, the image too small, an own
            net is none (see `build_own`), or shape, classes, mean and std are not such numbers.
    """
    image_shape, num_classes = _checked_shape(image_shape, num_classes)
    scaling = _checked_scaling(image_shape, mean, std)
    image = keras.Input(image_shape, dtype="uint8", name="image")
    if config.net_weights is not None:  # which scales by itself
        net = build_own(config, image_shape, num_classes, fused=fused)
        takes_bytes = net.inputs[0].dtype == "uint8"
        logits = net(image if takes_bytes else keras.layers.Rescaling(1.0, name="scale")(image))
    else:
        scale, offset = _scaling(*scaling)
        scaled = keras.layers.Rescaling(scale, offset, name="scale")(image)
        logits = _logits(config, scaled, num_classes, fused)
    model = keras.Model(image, logits, name=f"{config.net}_{config.norm}")
    set_penalties(model, config)
    return model


def _logits(config: TrainConfig, scaled: keras.KerasTensor, num_classes: int, fused: bool) -> keras.KerasTensor:
    """Applies a net of kernorm's, or of a file, to scaled images (N, H, W, C)."""
    if config.net_source is not None:
        return build_own(config, tuple(scaled.shape[1:]), num_classes, fused=fused)(scaled)
    conv = Convolutions(config, fused=fused)
    logits = NETS[config.net](scaled, num_classes, conv)
    conv.require_known()
    return logits


def build_model_for(config: TrainConfig, data: Data, *, fused: bool = False) -> keras.Model:
    """Builds the net of a run on the data set that `data` describes; see `build_model`."""
    return build_model(
        config,
        image_shape=data.image_shape,
        num_classes=len(data.labels),
        mean=data.mean,
        std=data.std,
        fused=fused,
    )


def _checked_shape(image_shape: Sequence[int], num_classes: int) -> tuple[tuple[int, int, int], int]:
    """Returns both in Python's whole numbers."""
    given = list(image_shape) if isinstance(image_shape, Iterable) else []
    sizes = [size for size in map(whole_number, given) if size and size > 0]
    if len(given) != 3 or len(sizes) != 3:
        raise UsageError("An image shape is (height, width, channels).", image_shape, "Give for example (28, 28, 1).")
    count = whole_number(num_classes)
    if count is None or count < 2:
        raise UsageError(
            "A classifier has at least two classes, a whole number.", f"num_classes={num_classes!r}", "Give more."
        )
    return (sizes[0], sizes[1], sizes[2]), count


def _checked_scaling(image_shape: tuple[int, int, int], mean: Any, std: Any) -> tuple[list[float], list[float]]:
    """Returns both as lists, of one number or one a channel."""
    means, stds = _numbers(mean), _numbers(std)
    if not (len(means) == len(stds) in (1, image_shape[2]) and min(stds) > 0):
        raise UsageError(
            "mean and std are one number, or one a channel, with std above 0.",
            f"mean={mean}, std={std} for {image_shape[2]} channels",
            "Give those of the training pixels, from 0 to 255.",
        )
    return means, stds


def _numbers(value: Any) -> list[float]:
    """Returns one number or several as a list; an empty one for anything else."""
    try:
        found = np.asarray(value)
    except ValueError:  # of lists of different lengths
        return []
    return found.ravel().tolist() if found.dtype.kind in "iuf" else []


def _scaling(means: Sequence[float], stds: Sequence[float]) -> tuple[list[float] | float, list[float] | float]:
    """Returns 1/σ and −μ/σ, a number if there is one channel."""
    scale = [1 / std for std in stds]
    offset = [-mean / std for mean, std in zip(means, stds, strict=True)]
    return (scale[0], offset[0]) if len(scale) == 1 else (scale, offset)
