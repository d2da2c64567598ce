"""The nets that come with kernorm: those of the two studies as tables of blocks, and residual nets."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import keras

from kernorm.errors import UsageError
from kernorm.nets.convolution import Convolutions, Padding, initializer

Order = Literal["norm-relu", "relu-norm", "bare"]
# Takes scaled images (N, H, W, C), the number of classes and the net's convolutions; returns logits (N, K).
Net = Callable[[keras.KerasTensor, int, Convolutions], keras.KerasTensor]


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, then its norm and ReLU in the order named, then dropout; `bare` has none of these."""

    filters: int
    size: int = 3
    order: Order = "relu-norm"
    padding: Padding = "same"
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


_EVA4: tuple[Block, ...] = (
    _eva4(14),
    _eva4(30),
    Conv(10, 1, order="bare"),
    Pool(),
    _eva4(14),
    _eva4(15),
    _eva4(15),
    GlobalPool(),
    Conv(15, 1),
)
_EVA6: tuple[Block, ...] = (
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
)


def _chain(x: keras.KerasTensor, classes: int, conv: Convolutions, *, blocks: tuple[Block, ...]) -> keras.KerasTensor:
    """Applies blocks one after another, and a bare 1x1 convolution to the classes."""
    for block in (*blocks, Conv(classes, 1, order="bare")):
        match block:
            case Conv():
                x = _convolution(block, x, conv)
            case Pool():
                _require_map(x, 2, "before a 2x2 pooling of", conv, "Use larger images.")
                x = keras.layers.MaxPooling2D(name=f"pool_after_conv{len(conv.made)}")(x)
                x = conv.dropout(x) if block.dropout else x
            case GlobalPool():
                x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="mean_of_map")(x)
    return keras.layers.Flatten(name="logits")(x)


def _convolution(block: Conv, x: keras.KerasTensor, conv: Convolutions) -> keras.KerasTensor:
    if block.padding == "valid":
        where = f"at conv{len(conv.made) + 1} of"
        _require_map(x, block.size, where, conv, "Use --net eva6, or larger images.")
    steps = () if block.order == "bare" else (*block.order.split("-"), *(("dropout",) if block.dropout else ()))
    return conv.add(x, block.filters, block.size, padding=block.padding, steps=steps)


def _require_map(x: keras.KerasTensor, size: int, where: str, conv: Convolutions, fix: str) -> None:
    if min(x.shape[1:3]) < size:
        needs = f", which needs {size}x{size}" if where.startswith("at") else ""
        raise UsageError(
            "An image must be large enough for the net.",
            f"a map of {x.shape[1]}x{x.shape[2]} {where} {conv.config.net}{needs}",
            fix,
        )


def _residual(x: keras.KerasTensor, classes: int, conv: Convolutions, *, blocks: int) -> keras.KerasTensor:
    """Builds a residual net of 6·blocks + 2 layers for small images (He et al. 2016, arXiv:1512.03385, section 4.2).

    Where a stage halves the map, the shortcut is average pooling and a 1x1 convolution of stride 1, the ResNet-D of He
    et al. 2019 (arXiv:1812.01187): it sees every value, and TensorFlow can crash in the gradient of a 1x1 convolution
    of stride 2 from few channels.
    """
    x = conv(x, 16)
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            shortcut = x
            if strides == 2:
                where = f"before the stride of conv{len(conv.made) + 1} of"
                _require_map(x, 2, where, conv, "Use larger images.")
                pool = keras.layers.AveragePooling2D(2, padding="same", name=f"stage{stage}_pool")
                shortcut = conv(pool(x), filters, size=1, activation=False)
            x = conv(conv(x, filters, strides=strides), filters, activation=False)
            x = keras.layers.Add(name=f"stage{stage}_block{block}_sum")([shortcut, x])
            x = keras.layers.ReLU(name=f"stage{stage}_block{block}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean_of_map")(x)
    kernel = initializer(conv.config, len(conv.made) + 1)
    return keras.layers.Dense(classes, kernel_initializer=kernel, name="head")(x)


NETS: dict[str, Net] = {
    "eva4": partial(_chain, blocks=_EVA4),
    "eva6": partial(_chain, blocks=_EVA6),
    "resnet8": partial(_residual, blocks=1),
    "resnet20": partial(_residual, blocks=3),
}
