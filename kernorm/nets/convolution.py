"""The convolutions of a net, with norm, ReLU and dropout as configured: what its blocks, or a user's function, call."""

from dataclasses import replace
from typing import Any, Literal

import keras

from kernorm.by_layer import layer_settings
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, nearest
from kernorm.nets.layers import Dropout, StandardizedConv2D
from kernorm.nets.norms import Place, build_norm, resolve_groups

Padding = Literal["same", "valid"]


class Convolutions:
    """Makes the convolutions of one net, named conv1, conv2, … in the order in which they are asked for.

    Attributes:
        config: names norms, initializer and dropout.
        made: every convolution so far.
        normed: the names of those that have a norm, or would have one.
    """

    def __init__(self, config: TrainConfig, *, fused: bool = False) -> None:
        self.config, self.fused = config, fused
        self.made: list[keras.layers.Layer] = []
        self.normed: list[str] = []
        self._norm_at = layer_settings("norm_at", config.norm_at)

    def __call__(
        self, x: Any, filters: int, size: int = 3, strides: int = 1, activation: bool = True
    ) -> keras.KerasTensor:
        """Convolves a map (N, H, W, C), padded, then normalizes it; `activation`: then ReLU, and dropout if it is on.

        frn ends in a threshold of its own, which replaces the ReLU.
        """
        if not (isinstance(x, keras.KerasTensor) and len(x.shape) == 4 and None not in x.shape[1:]):
            raise UsageError(
                "conv takes a map (N, H, W, C) of known size.",
                f"{x.shape if isinstance(x, keras.KerasTensor) else type(x).__name__}",
                "Begin with keras.Input(image_shape).",
            )
        steps = ("norm", "relu", "dropout") if activation else ("norm",)
        return self.add(x, filters, size, strides=strides, steps=steps)

    def add(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        *,
        strides: int = 1,
        padding: Padding = "same",
        steps: tuple[str, ...],
    ) -> keras.KerasTensor:
        """Convolves without bias, then does the steps in their order; without a norm among them it has none."""
        number = len(self.made) + 1
        name = f"conv{number}"
        norm = self._norm_at.get(name, self.config.norm) if "norm" in steps else "none"
        if "norm" in steps:
            self.normed.append(name)
        standardized = self.config.standardize_kernels and norm != "none"
        layer = (StandardizedConv2D if standardized else keras.layers.Conv2D)(
            filters,
            size,
            strides=strides,
            padding=padding,
            use_bias=False,
            kernel_initializer=initializer(self.config, number),
            name=name,
        )
        self.made.append(layer)
        x = layer(x)
        for step in steps:
            if step == "norm" and norm != "none":
                x = self._norm(norm, name, x)
            # FRN's threshold unit replaces the ReLU behind it.
            elif step == "relu" and not (norm == "frn" and steps.index("norm") < steps.index("relu")):
                x = keras.layers.ReLU(name=f"{name}_relu")(x)
            elif step == "dropout":
                x = self.dropout(x)
        return x

    def dropout(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Drops a share of activations behind the last convolution, if that is on."""
        if not self.config.dropout:
            return x
        seed = _seed(self.config, 500 + len(self.made))
        return Dropout(rate=self.config.dropout, seed=seed, name=f"conv{len(self.made)}_dropout", fused=self.fused)(x)

    def require_known(self) -> None:
        """Refuses settings of layers that the net, which is complete, does not have.

        Raises:
            UsageError: `--norm-at` names another layer.
        """
        for layer in self._norm_at:
            if layer not in self.normed:
                raise UsageError("--norm-at takes a layer that has a norm.", f"{layer!r}", nearest(layer, self.normed))

    def _norm(self, norm: str, layer: str, x: keras.KerasTensor) -> keras.KerasTensor:
        _, height, width, channels = x.shape
        place = Place(layer, height, width, channels, self.config.batch_size)
        if norm == "gn":
            place = replace(place, groups=resolve_groups(self.config.groups, channels, layer))
        return build_norm(norm, place, self.config, fused=self.fused)(x)


def initializer(config: TrainConfig, layer: int) -> keras.initializers.Initializer:
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
