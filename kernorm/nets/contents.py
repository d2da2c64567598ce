"""What a model holds: its layers and weights, those of nested models included, and the part of it up to a layer."""

from collections import Counter
from typing import Any

import keras


def is_graph(layer: Any) -> bool:
    """Tells whether a layer is a model whose own layers can be reached, of the functional or the sequential API."""
    return isinstance(layer, keras.Sequential | keras.src.models.functional.Functional)


def is_kernel(variable: Any) -> bool:
    """Tells whether a variable is a kernel by its name, as Keras' layers call them."""
    return str(variable.name).rsplit("/", 1)[-1].endswith("kernel")


def own_variables(model: keras.Model) -> list[tuple[keras.layers.Layer, Any]]:
    """Returns each weight of a model once, with the layer that made it."""
    found: dict[int, tuple[keras.layers.Layer, Any]] = {}
    for layer in (model, *model._flatten_layers(include_self=False)):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            found.setdefault(id(variable), (layer, variable))
    order = {id(variable): place for place, variable in enumerate(model.weights)}
    return sorted((pair for key, pair in found.items() if key in order), key=lambda pair: order[id(pair[1])])


def set_regularizer(
    layer: keras.layers.Layer, variable: Any, regularizer: keras.regularizers.Regularizer | None
) -> None:
    """Sets the regularizer of a weight; the layer's setting follows, which a built layer itself no longer asks."""
    variable.regularizer = regularizer
    for attribute in _settings_of(variable.name):
        if hasattr(layer, attribute):
            setattr(layer, attribute, regularizer)  # what get_config writes


def _settings_of(name: str) -> tuple[str, ...]:
    """Returns what a layer may call its setting of a variable's regularizer: `kernel` of DepthwiseConv2D is its own."""
    first = name.removesuffix("_kernel")
    return (f"{first}_regularizer", "depthwise_regularizer") if name == "kernel" else (f"{first}_regularizer",)


def trained_layers(model: keras.Model) -> dict[str, tuple[keras.layers.Layer, list[Any]]]:
    """Returns every layer that is trained by its name, with its own trainable weights, in the order of the model.

    A name that occurs twice is led by that of the model or layer around it: `stage1/conv`.
    """
    trained = {id(variable) for variable in model.trainable_variables}
    found: dict[int, tuple[keras.layers.Layer, list[Any]]] = {}
    for layer, variable in own_variables(model):
        if id(variable) in trained:
            found.setdefault(id(layer), (layer, []))[1].append(variable)
    names = _names({key: path for key, path in _paths(model).items() if key in found})
    return {names[key]: pair for key, pair in found.items()}


def kernels(model: keras.Model) -> list[tuple[str, Any]]:
    """Returns every kernel that is trained, with the name of its layer."""
    layers = trained_layers(model)
    return [(name, one) for name, (_, variables) in layers.items() for one in variables if is_kernel(one)]


def up_to(model: keras.Model, layer: keras.layers.Layer) -> keras.Model | None:
    """Returns the model from the same inputs to the output of a layer in it, or in a model nested in it.

    Of a layer that is called several times it is the first output. None for one inside a layer that is no graph.
    """
    graph = model._functional if isinstance(model, keras.Sequential) else model
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
    for node in nodes:
        if node.operation is layer:
            return keras.Model(graph._inputs_struct, node.outputs[0])
    for node in nodes:
        inner = up_to(node.operation, layer) if is_graph(node.operation) else None
        if inner is not None:
            return keras.Model(graph._inputs_struct, inner([*node.arguments.args, *node.arguments.kwargs.values()][0]))
    return None


def _paths(model: keras.Model) -> dict[int, tuple[str, ...]]:
    """Returns the names of a layer and of all around it, by the layer's id."""
    found: dict[int, tuple[str, ...]] = {id(model): (model.name,)}
    waiting: list[tuple[Any, tuple[str, ...]]] = [(model, ())]
    while waiting:
        parent, path = waiting.pop()
        for layer in parent._layers:
            if id(layer) not in found:
                found[id(layer)] = (*path, layer.name)
                waiting.append((layer, (*path, layer.name)))
    return found


def _names(paths: dict[int, tuple[str, ...]]) -> dict[int, str]:
    """Returns the shortest ends of paths that are different."""
    found: dict[int, str] = {}
    for length in range(1, max(map(len, paths.values()), default=0) + 1):
        ends = {key: "/".join(path[-length:]) for key, path in paths.items() if key not in found}
        counts = Counter(ends.values())
        found |= {key: end for key, end in ends.items() if counts[end] == 1 and end not in found.values()}
    return found
