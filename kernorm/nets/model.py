"""Builds a net by the functional API from a table of its blocks, with norms and penalties as configured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import keras

from kernorm.by_layer import layer_settings
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.limits import whole_number
from kernorm.nets.layers import Dropout, StandardizedConv2D
from kernorm.nets.norms import Place, build_norm, resolve_groups
from kernorm.nets.penalties import layer_penalties, regularizer
from kernorm.records.data import Data
from kernorm.system.backend import keras_settings

Order = Literal["norm-relu", "relu-norm", "bare"]


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, then its norm and ReLU in the order named, then dropout; `bare` has none of these."""

    filters: int
    size: int = 3
    order: Order = "relu-norm"
    padding: Literal["same", "valid"] = "same"
    dropout: bool = True


@dataclass(frozen=True)
class Pool:
    """Max pooling 2x2."""

    dropout: bool = False


@dataclass(frozen=True)
class GlobalPool:
    """Mean over the map, (N, H, W, C) to (N, 1, 1, C)."""


Block = Conv | Pool | GlobalPool


def _eva4(filters: int, size: int = 3) -> Conv:
    return Conv(filters, size, order="norm-relu", padding="valid")


# Both nets end in a bare 1x1 convolution to the classes, which build_model adds.
NETS: dict[str, tuple[Block, ...]] = {
    "eva4": (
        _eva4(14),
        _eva4(30),
        Conv(10, 1, order="bare"),
        Pool(),
        _eva4(14),
        _eva4(15),
        _eva4(15),
        GlobalPool(),
        Conv(15, 1),
    ),
    "eva6": (
        Conv(8),
        Conv(8),
        Pool(),
        Conv(8),
        Conv(16),
        Pool(),
        Conv(16),
        Conv(16, dropout=False),
        Pool(dropout=True),
        GlobalPool(),
    ),
}


def _initializer(config: TrainConfig, layer: int) -> keras.initializers.Initializer:
    """Returns the layer's own seeded initializer, so that equal seeds give equal kernels in every arm of a study."""
    # PyTorch's kaiming_uniform(a=√5) is uniform in ±1/√fan_in, a variance of 1/(3·fan_in).
    kinds = {
        "torch": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"},
        "he_normal": {"scale": 2.0, "mode": "fan_in", "distribution": "truncated_normal"},
        "glorot_uniform": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"},
    }
    return keras.initializers.VarianceScaling(**kinds[config.initializer], seed=_seed(config, layer))


def _seed(config: TrainConfig, layer: int) -> int:
    return (config.seed * 1009 + layer) % 2**31


class _Builder:
    """Adds one block after another to a tensor, numbering the convolutions from 1."""

    def __init__(self, config: TrainConfig, blocks: tuple[Block, ...], fused: bool) -> None:
        self.config, self.fused = config, fused
        self.count = 0
        convolutions = [block for block in blocks if isinstance(block, Conv)]
        self.names = [f"conv{index}" for index in range(1, len(convolutions) + 1)]
        self.penalties = layer_penalties(config, self.names)
        normed = [name for name, block in zip(self.names, convolutions, strict=True) if block.order != "bare"]
        self.norms: dict[str, str] = dict.fromkeys(normed, config.norm)
        for layer, norm in layer_settings("norm_at", config.norm_at).items():
            if layer not in self.norms:
                raise UsageError("--norm-at takes a layer that has a norm.", f"{layer!r}", nearest(layer, normed))
            self.norms[layer] = norm

    def add(self, block: Block, x: keras.KerasTensor) -> keras.KerasTensor:
        """Applies a block to (N, H, W, C)."""
        match block:
            case Conv():
                return self._convolution(block, x)
            case Pool():
                if min(x.shape[1:3]) < 2:
                    raise UsageError(
                        "An image must be large enough for the net.",
                        f"a map of {x.shape[1]}x{x.shape[2]} before a 2x2 pooling of {self.config.net}",
                        "Use larger images.",
                    )
                x = keras.layers.MaxPooling2D(name=f"pool_after_conv{self.count}")(x)
                return self._dropout(x) if block.dropout else x
            case GlobalPool():
                return keras.layers.GlobalAveragePooling2D(keepdims=True, name="mean_of_map")(x)

    def _convolution(self, block: Conv, x: keras.KerasTensor) -> keras.KerasTensor:
        self.count += 1
        name = f"conv{self.count}"
        norm = self.norms.get(name, "none")
        if block.padding == "valid" and min(x.shape[1:3]) < block.size:
            raise UsageError(
                "An image must be large enough for the net.",
                f"a map of {x.shape[1]}x{x.shape[2]} at {name} of {self.config.net}, "
                f"which needs {block.size}x{block.size}",
                "Use --net eva6, or larger images.",
            )
        standardized = self.config.standardize_kernels and norm != "none"
        x = (StandardizedConv2D if standardized else keras.layers.Conv2D)(
            block.filters,
            block.size,
            padding=block.padding,
            use_bias=False,
            kernel_initializer=_initializer(self.config, self.count),
            kernel_regularizer=regularizer(self.penalties[name]),
            name=name,
        )(x)
        if block.order == "bare":
            return x
        for step in block.order.split("-"):
            if step == "norm" and norm != "none":
                x = self._norm(norm, name, x)
            # FRN's threshold unit replaces the ReLU behind it.
            elif step == "relu" and not (norm == "frn" and block.order == "norm-relu"):
                x = keras.layers.ReLU(name=f"{name}_relu")(x)
        return self._dropout(x) if block.dropout else x

    def _norm(self, norm: str, layer: str, x: keras.KerasTensor) -> keras.KerasTensor:
        _, height, width, channels = x.shape
        place = Place(layer, height, width, channels, self.config.batch_size)
        if norm == "gn":
            place = replace(place, groups=resolve_groups(self.config.groups, channels, layer))
        built = build_norm(norm, place, self.config, fused=self.fused)
        x = built(x)
        if self.config.penalize == "all":
            for variable in built.trainable_variables:
                variable.regularizer = regularizer((self.config.l1, self.config.l2))
        return x

    def _dropout(self, x: keras.KerasTensor) -> keras.KerasTensor:
        if not self.config.dropout:
            return x
        seed = _seed(self.config, 500 + self.count)
        name = f"conv{self.count}_dropout"
        return Dropout(rate=self.config.dropout, seed=seed, name=name, fused=self.fused)(x)


@keras_settings()
def build_model(
    config: TrainConfig,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (255.0,),
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
        UsageError: an unknown layer is named, groups do not divide, a norm is degenerate, the image too small, or
            shape, classes, mean and std are not such numbers.
    """
    image_shape, num_classes = _checked_shape(image_shape, num_classes)
    _check_scaling(image_shape, mean, std)
    blocks = (*NETS[config.net], Conv(num_classes, 1, order="bare"))
    builder = _Builder(config, blocks, fused)
    image = keras.Input(image_shape, dtype="uint8", name="image")
    scale, offset = _scaling(mean, std)
    x = keras.layers.Rescaling(scale, offset, name="scale")(image)
    for block in blocks:
        x = builder.add(block, x)
    logits = keras.layers.Flatten(name="logits")(x)
    return keras.Model(image, logits, name=f"{config.net}_{config.norm}")


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
    sizes = [size for size in map(whole_number, image_shape) if size and size > 0]
    if len(image_shape) != 3 or len(sizes) != 3:
        raise UsageError("An image shape is (height, width, channels).", image_shape, "Give for example (28, 28, 1).")
    count = whole_number(num_classes)
    if count is None or count < 2:
        raise UsageError(
            "A classifier has at least two classes, a whole number.", f"num_classes={num_classes}", "Give more."
        )
    return (sizes[0], sizes[1], sizes[2]), count


def _check_scaling(image_shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]) -> None:
    if not (len(mean) == len(std) in (1, image_shape[2]) and min(std) > 0):
        raise UsageError(
            "mean and std are one number, or one a channel, with std above 0.",
            f"mean={tuple(mean)}, std={tuple(std)} for {image_shape[2]} channels",
            "Give those of the training pixels, from 0 to 255.",
        )


def _scaling(means: Sequence[float], stds: Sequence[float]) -> tuple[list[float] | float, list[float] | float]:
    """Returns 1/σ and −μ/σ, a number if there is one channel."""
    scale = [1 / std for std in stds]
    offset = [-mean / std for mean, std in zip(means, stds, strict=True)]
    return (scale[0], offset[0]) if len(scale) == 1 else (scale, offset)
