"""Nets for Python users."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kernorm.api.run import config_of
from kernorm.config import TrainConfig
from kernorm.system.backend import choose_backend

if TYPE_CHECKING:
    import keras


def build_model(
    config: TrainConfig | None = None,
    *,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (255.0,),
    **settings: Any,
) -> "keras.Model":
    """Builds a net with its norms and penalties, untrained: a plain functional `keras.Model`.

    It is in float32 and has channels last, whatever Keras' global settings say.

    Args:
        config: all settings at once; else the default ones.
        image_shape: (H, W, C) of the images.
        num_classes: K.
        mean: of the training pixels (0 to 255), one number or one a channel; the net scales its input by it and `std`.
        std: their standard deviation. By default pixels are scaled to 0 to 1.
        settings: fields of TrainConfig, such as norm="gn" or l2=1e-4.

    Returns:
        A model from `image`, uint8 (N, H, W, C), to `logits`, float32 (N, K), with `keras.regularizers.L1L2` on every
        kernel.

    Raises:
        UsageError: a setting or a number is wrong, groups do not divide, a norm is degenerate or the image too small.
    """
    given = config_of(config, settings)
    choose_backend()
    from kernorm.nets.model import build_model  # Keras, after its backend is chosen

    return build_model(given, image_shape=image_shape, num_classes=num_classes, mean=mean, std=std)
