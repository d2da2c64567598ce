"""Every normalization by name: its axes, what it needs to be meaningful, and the layer that does it.

One table, NORMS; adding a norm is one row here, its name in config.NormName, and one formula test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from kernorm.by_layer import layer_settings
from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets import layers

EPSILON = 1e-5
MOMENTUM = 0.9
# The bounds that Ioffe 2017 (arXiv:1702.03275) ends with; unbounded corrections blow up in the first steps.
RENORM_CLIPPING = {"rmax": 3.0, "rmin": 1 / 3, "dmax": 5.0}
AUTO_GROUPS = 4

# What is swapped: norms of maps (N, H, W, C), as Keras and kernorm have them.
SWAPPED = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    layers.FilterResponseNormalization,
)


@dataclass(frozen=True)
class Place:
    """Where a norm stands: its layer's name, the map (H, W, C) it receives, and images a batch."""

    layer: str
    height: int
    width: int
    channels: int
    batch: int
    groups: int = 1


@dataclass(frozen=True)
class Norm:
    """One row of NORMS.

    Attributes:
        title: the full name.
        axes: what its statistics go over, of inputs (N, H, W, C).
        values: how many values one statistic sees at a place in training.
        build: makes the layer, from the place, the config and Keras' keyword arguments.
        fusible: whether the layer can train by the compiled blocks of kernorm.nets.fused.
    """

    title: str
    axes: str
    values: Callable[[Place], int]
    build: Callable[[Place, TrainConfig, dict[str, Any]], keras.layers.Layer]
    fusible: bool = False


NORMS: dict[str, Norm] = {
    "bn": Norm(
        "batch normalization",
        "N,H,W",
        lambda p: p.batch * p.height * p.width,
        lambda p, c, k: layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, **k),
        fusible=True,
    ),
    "gbn": Norm(
        "ghost batch normalization",
        "n,H,W of a ghost batch",
        lambda p: p.batch * p.height * p.width,
        lambda p, c, k: layers.GhostBatchNormalization(
            ghost_batch_size=c.ghost_batch_size, momentum=MOMENTUM, epsilon=EPSILON, **k
        ),
    ),
    "brn": Norm(
        "batch renormalization",
        "N,H,W",
        lambda p: p.batch * p.height * p.width,
        lambda p, c, k: keras.layers.BatchNormalization(
            renorm=True,
            renorm_clipping=RENORM_CLIPPING,
            renorm_momentum=MOMENTUM,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            **k,
        ),
    ),
    "ln": Norm(
        "layer normalization",
        "H,W,C",
        lambda p: p.height * p.width * p.channels,
        lambda p, c, k: layers.LayerNormalization(epsilon=EPSILON, **k),
        fusible=True,
    ),
    "cln": Norm(
        "layer normalization of each pixel",
        "C",
        lambda p: p.channels,
        lambda p, c, k: keras.layers.LayerNormalization(axis=-1, epsilon=EPSILON, **k),
    ),
    "gn": Norm(
        "group normalization",
        "H,W,C/groups",
        lambda p: p.height * p.width * p.channels // p.groups,
        lambda p, c, k: layers.GroupNormalization(groups=p.groups, epsilon=EPSILON, **k),
        fusible=True,
    ),
    "in": Norm(
        "instance normalization",
        "H,W",
        lambda p: p.height * p.width,
        lambda p, c, k: layers.GroupNormalization(groups=-1, epsilon=EPSILON, **k),
        fusible=True,
    ),
    "rms": Norm(
        "root mean square normalization",
        "C, no mean",
        lambda p: p.channels,
        lambda p, c, k: keras.layers.RMSNormalization(axis=-1, epsilon=EPSILON, **k),
    ),
    "frn": Norm(
        "filter response normalization with TLU",
        "H,W, no mean",
        lambda p: p.height * p.width,
        lambda p, c, k: layers.FilterResponseNormalization(epsilon=EPSILON, **k),
    ),
}


def resolve_groups(groups: int | str, channels: int, layer: str) -> int:
    """Returns the number of groups of `gn` in one layer; auto is the largest divisor of its channels up to 4.

    Raises:
        UsageError: the groups do not divide the channels.
    """
    divisors = [count for count in range(1, channels + 1) if channels % count == 0]
    if groups == "auto":
        return max(count for count in divisors if count <= AUTO_GROUPS)
    if groups not in divisors:
        raise UsageError(
            "--groups must divide the channels of every layer.",
            f"groups={groups}, {layer} has {channels} channels",
            f"Give auto, or one of {', '.join(map(str, divisors))}.",
        )
    return int(groups)


def require_values(name: str, place: Place, fix: str) -> None:
    """Refuses a norm where each of its statistics would be of a single value.

    Raises:
        UsageError: it is degenerate there.
    """
    if NORMS[name].values(place) < 2:
        raise UsageError(
            "A norm needs at least two values a statistic.",
            (
                f"{name} over {NORMS[name].axes} at {place.layer}, a map of "
                f"{place.height}x{place.width}x{place.channels} at batch size {place.batch}"
            ),
            fix,
        )


def build_norm(name: str, place: Place, config: TrainConfig, *, fused: bool = False) -> keras.layers.Layer:
    """Makes the norm layer `name` for one place of a net; `fused` lets it train by compiled blocks, if it can.

    Raises:
        UsageError: the norm is degenerate there (one value a statistic), or its groups do not divide the channels.
    """
    norm = NORMS[name]
    require_values(name, place, f"Give --norm-at {place.layer}=none, or ln, there.")
    return norm.build(place, config, {"name": f"{place.layer}_norm", **({"fused": fused} if norm.fusible else {})})


def norm_of(layer: keras.layers.Layer, config: TrainConfig) -> str:
    """Returns the name of the norm that a layer is; nothing for another layer, or a norm of other axes.

    Instance normalization is group normalization with a group a channel; `config` says which of the two was meant.
    """
    match layer:
        case layers.FilterResponseNormalization():
            return "frn"
        case layers.GhostBatchNormalization():
            return "gbn"
        case keras.layers.BatchNormalization():
            return "brn" if layer.renorm else "bn"
        case layers.LayerNormalization():
            return "ln"
        case keras.layers.LayerNormalization():
            axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
            last = len(layer.input.shape) - 1 if layer._inbound_nodes else -1
            return "cln" if list(axes) in ([-1], [last]) else ""
        case keras.layers.GroupNormalization():
            meant = layer_settings("norm_at", config.norm_at).get(layer.name.removesuffix("_norm"), config.norm)
            (channels,) = layer.input_spec.axes.values()
            return "in" if layer.groups == channels and meant != "gn" else "gn"
        case keras.layers.RMSNormalization():
            return "rms"
    return ""


def norms_of(model: keras.Model) -> list[Any]:
    """Returns the norms of a model, those of nested models included."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, SWAPPED)]


def own_norm(model: keras.Model) -> dict[str, Any]:
    """Returns the settings by which a model's norms are all as configured, so that they stay: `none` if it has none.

    Raises:
        UsageError: they are of several kinds, or of one that is not among NORMS.
    """
    found = norms_of(model)
    if not found:
        return {"norm": "none"}
    # A group a channel, in every layer, is `in`.
    for name in sorted(NORMS, key=lambda name: name == "gn"):
        settings: dict[str, Any] = {"norm": name}
        if name == "gbn" and _is_ghost(found[0]):
            settings["ghost_batch_size"] = found[0].ghost_batch_size
        if are_as_configured(found, TrainConfig(**settings)):
            return settings
    kinds = dict.fromkeys(type(layer).__name__ for layer in found)
    raise UsageError(
        "The norms of a model are kept if all of them are one that kernorm knows.",
        f"{model.name} with {' and '.join(kinds)}{'' if len(kinds) > 1 else ' of other axes or sizes'}",
        'Give the norm that they are swapped to, such as norm="bn".',
    )


def are_as_configured(found: list[Any], config: TrainConfig) -> bool:
    """Tells whether norms all are the configured one, with its groups and sizes; `auto` stands for any groups."""
    return all(
        norm_of(layer, config) == config.norm
        and _is_over_channels(layer)
        and (config.norm != "gn" or config.groups in ("auto", layer.groups))
        and (not _is_ghost(layer) or layer.ghost_batch_size == config.ghost_batch_size)
        for layer in found
    )


def _is_ghost(layer: Any) -> bool:
    return isinstance(layer, layers.GhostBatchNormalization)


def _is_over_channels(layer: Any) -> bool:
    """Tells whether the axis of a norm is the last one."""
    axis = getattr(layer, "axis", -1)  # which filter response normalization does not have
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    last = len(layer._inbound_nodes[0].input_tensors[0].shape) - 1 if layer._inbound_nodes else -1
    return axes in ([-1], [last])
