"""Another norm in a Keras model that somebody else has built.

Norms are swapped in a clone, since a layer cannot be replaced in a model; everything else, weights included, is as it
was, so that arms of a comparison start from the same kernels.
"""

import inspect
from typing import Any

import keras

from kernorm.errors import UsageError, nearest, one_line
from kernorm.nets import layers
from kernorm.nets.contents import is_graph, set_regularizer
from kernorm.nets.norms import (
    EPSILON,
    MOMENTUM,
    NORMS,
    RENORM_CLIPPING,
    SWAPPED,
    Place,
    require_values,
    resolve_groups,
)

_CARRIED = ("center", "scale") + tuple(
    f"{part}_{what}" for part in ("gamma", "beta") for what in ("initializer", "regularizer", "constraint")
)


def swap_norm(
    model: keras.Model, norm: str, *, groups: int | str = "auto", ghost_batch_size: int = 32, batch: int = 2
) -> keras.Model:
    """Returns the model with another norm in place of each of its norms.

    Batch, group, layer, RMS and filter response normalization of maps (N, H, W, C) or vectors (N, C) are swapped, in
    nested models too; a layer that is shared stays shared. The clone has the weights of the model wherever it has the
    same variable; a swapped norm's scale and offset keep their values, initializers, regularizers and constraints, the
    layer's epsilon and whether it is trained. It is compiled as the model is.

    Args:
        model: of the functional or sequential API, built.
        norm: a name of NORMS, or `none`.
        groups: of `gn`; auto: the largest divisor of a layer's channels up to 4.
        ghost_batch_size: of `gbn`.
        batch: images a training step; two stand for any number that is not known.

    Raises:
        UsageError: the norm is unknown, its groups do not divide the channels, a statistic would have one value, the
            scale has a regularizer or constraint that the norm does not take, the model is subclassed, has no norm, has
            one inside a layer where it cannot be reached, or a layer that its get_config() does not describe.
    """
    if norm not in NORMS and norm != "none":
        raise UsageError("A norm is a known one.", f"{norm!r}", nearest(norm, (*NORMS, "none")))
    if not is_graph(model):
        raise UsageError(
            "A model whose norms are swapped is built by the functional or the sequential API.",
            f"{model.name}, a {type(model).__name__}",
            "Give its norm as an argument of its constructor, and build it once more.",
        )
    if not model.built:
        raise UsageError("A model whose norms are swapped is built.", f"{model.name}, which is not", "Call build().")
    _require_reachable(model)
    swap = _Swap(norm, groups, ghost_batch_size, batch)
    try:
        clone = swap.clone(model)
    except (TypeError, ValueError):
        # Where a layer was made with other shapes, that is what is wrong.
        for layer, made in swap.pairs.values():
            if made.built and not is_graph(layer) and not isinstance(layer, SWAPPED):
                _require_alike(layer, made)
        raise
    if not swap.swapped:
        raise UsageError("A model whose norms are swapped has some.", f"{model.name} without one", "Build it with bn.")
    swap.copy_state()
    if not model.trainable:
        clone.trainable = False
    return clone


class _Swap:
    """Clones models with other norms; remembers layers, so that shared ones stay shared."""

    def __init__(self, norm: str, groups: int | str, ghost_batch_size: int, batch: int) -> None:
        self.norm, self.groups, self.ghost_batch_size, self.batch = norm, groups, ghost_batch_size, batch
        self.pairs: dict[int, tuple[Any, Any]] = {}

    @property
    def swapped(self) -> list[tuple[Any, Any]]:
        """The norms of the model, each with the layer in its place."""
        return [pair for pair in self.pairs.values() if isinstance(pair[0], SWAPPED)]

    def clone(self, model: Any) -> Any:
        """Clones a graph of layers."""
        words = {} if isinstance(model, keras.Sequential) else {"call_function": _call}
        return keras.models.clone_model(model, clone_function=self.layer, **words)

    def layer(self, layer: Any) -> Any:
        """Returns what stands in a layer's place in the clone."""
        if not isinstance(layer, keras.layers.Layer):
            return layer.__class__.from_config(layer.get_config())  # an operation, such as x + y
        if id(layer) not in self.pairs:
            if is_graph(layer):
                made = self.clone(layer)
            elif isinstance(layer, SWAPPED):
                made = self._norm(layer)
                made.swapped_from = type(layer).__name__
            else:
                made = _copy(layer)
            self.pairs[id(layer)] = layer, made
        return self.pairs[id(layer)][1]

    def copy_state(self) -> None:
        """Gives the clone the weights of the model, and freezes what is frozen there."""
        for layer, made in self.pairs.values():
            if is_graph(layer):
                continue  # its own layers are among the pairs
            if isinstance(layer, SWAPPED):
                values = {_role(variable): variable for variable in layer.weights}
                pairs = [(values[_role(new)], new) for new in made.weights if _role(new) in values]
            else:
                _require_alike(layer, made)
                pairs = list(zip(layer.weights, made.weights, strict=True))
            for variable, twin in pairs:
                if variable.shape == twin.shape:
                    twin.assign(variable)
                # What may have been set later, by add_penalties or by hand.
                twin.trainable = variable.trainable
                if isinstance(layer, SWAPPED):
                    set_regularizer(made, twin, variable.regularizer)
                else:
                    twin.regularizer = variable.regularizer
            for old, new in zip(layer._flatten_layers(), made._flatten_layers(), strict=True):
                if not old.trainable:
                    new.trainable = False

    def _norm(self, layer: Any) -> Any:
        shape = layer._inbound_nodes[0].input_tensors[0].shape
        axis = getattr(layer, "axis", -1)  # which filter response normalization does not have
        axes = axis if isinstance(axis, list | tuple) else [axis]
        if len(shape) not in (2, 4) or len(shape) - 1 not in [axis % len(shape) for axis in axes]:
            raise UsageError(
                "A norm that is swapped normalizes maps (N, H, W, C) or vectors (N, C), channels last.",
                f"{layer.name} of inputs {shape}, axis={axis}",
                "Build that layer anew.",
            )
        height, width, channels = (1, 1, shape[1]) if len(shape) == 2 else shape[1:]
        groups = resolve_groups(self.groups, channels, layer.name) if self.norm == "gn" else 1
        if self.norm != "none" and height and width:
            place = Place(layer.name, height, width, channels, batch=self.batch, groups=groups)
            require_values(self.norm, place, "Take another norm, such as ln.")
        return self._build(layer, groups, rank=len(shape))

    def _build(self, layer: Any, groups: int, rank: int) -> Any:
        own = {"name": layer.name, "dtype": layer.dtype_policy}
        if self.norm == "none":
            return keras.layers.Identity(**own)
        own["epsilon"] = getattr(layer, "epsilon", EPSILON)
        words = own | {name: getattr(layer, name) for name in _CARRIED if hasattr(layer, name)}
        if not isinstance(words.get("scale", True), bool):  # of RMSNormalization it is a variable
            del words["scale"]
        moving: dict[str, Any] = {"momentum": MOMENTUM}
        match self.norm:
            case "bn":
                return layers.BatchNormalization(**moving, **words)
            case "brn":
                renorm = {"renorm": True, "renorm_clipping": RENORM_CLIPPING, "renorm_momentum": MOMENTUM}
                return keras.layers.BatchNormalization(**renorm, **moving, **words)
            case "gbn":
                return layers.GhostBatchNormalization(ghost_batch_size=self.ghost_batch_size, **moving, **words)
            case "ln" if rank == 4:
                return layers.LayerNormalization(**words)
            case "ln" | "cln":
                return keras.layers.LayerNormalization(axis=-1, **words)
            case "gn" | "in":
                return layers.GroupNormalization(groups=-1 if self.norm == "in" else groups, **words)
        _require_plain(layer, self.norm)
        if self.norm == "rms":
            return keras.layers.RMSNormalization(axis=-1, **own)
        return layers.FilterResponseNormalization(**own)


def _role(variable: Any) -> str:
    """Returns what a norm's variable is; the scale of RMSNormalization is what others call gamma."""
    return {"scale": "gamma"}.get(variable.name, variable.name)


def _require_plain(layer: Any, norm: str) -> None:
    """Refuses a norm whose scale or offset has a regularizer or constraint, which `rms` and `frn` do not have."""
    for variable in layer.trainable_variables:
        if variable.regularizer is not None or variable.constraint is not None:
            kind = "regularizer" if variable.regularizer is not None else "constraint"
            raise UsageError(
                f"The norm {norm} takes no regularizer or constraint.",
                f"{variable.path}, which has a {kind}",
                "Remove it." if kind == "constraint" else "Swap first, and call add_penalties then.",
            )


def _copy(layer: Any) -> Any:
    """Returns a layer of the same settings; one without weights that has no settings stands in both models."""
    try:
        return layer.__class__.from_config(layer.get_config())
    except Exception as error:  # whatever a user's get_config or constructor may raise
        if not layer.variables:
            return layer
        raise _not_made_again(layer, one_line(error)) from None


def _require_alike(layer: Any, made: Any) -> None:
    """Refuses a layer whose get_config() leaves out what its weights depend on."""
    before, after = ([tuple(variable.shape) for variable in one.weights] for one in (layer, made))
    if before != after:
        raise _not_made_again(layer, f"whose weights are {before}, and {after} by its get_config()")


def _not_made_again(layer: Any, why: str) -> UsageError:
    return UsageError(
        "A model whose norms are swapped has layers that can be made again.",
        f"{layer.name}, {why}",
        f"Write get_config() of {type(layer).__name__}, or give the norm as an argument.",
    )


def _call(layer: Any, *args: Any, **words: Any) -> Any:
    """Calls a layer without what it does not take, such as the `mask` or `training` of batch normalization."""
    taken = inspect.signature(layer.call).parameters
    every = any(parameter.kind == parameter.VAR_KEYWORD for parameter in taken.values())
    return layer(*args, **{name: value for name, value in words.items() if every or name in taken})


def _require_reachable(model: keras.Model) -> None:
    reached: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        layer = waiting.pop()
        reached.add(id(layer))
        waiting += layer.layers if is_graph(layer) else []
    for layer in model._flatten_layers():
        if isinstance(layer, SWAPPED) and id(layer) not in reached:
            raise UsageError(
                "A norm that is swapped stands in the model or in a model inside it.",
                f"{layer.name} inside another layer of {model.name}",
                "Give that layer its norm as an argument, and build it once more.",
            )
