"""A Keras model that a user brings from Python: known by its get_config() and its initial weights.

Unlike a file it runs none of its user's Python, here or elsewhere: it is made of layers of Keras or kernorm, and is
rebuilt from its configuration. It takes pixels from 0 to 255, as `fit` would give them; what scales them is in it.
"""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src.utils.naming import to_snake_case

from kernorm.by_layer import layer_settings
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, one_line
from kernorm.nets.contents import is_graph, kernels
from kernorm.nets.norms import own_norm
from kernorm.nets.source import give_weights, given_weights
from kernorm.system.backend import keras_warnings_ignored

# What serializing adds that is not the model: how it was compiled, and built.
_LEFT_OUT = ("compile_config", "build_config")
# Where a serialized model names its layers.
_NAMES = ("name", "keras_history", "input_layers", "output_layers")


@keras_warnings_ignored()
def with_model(config: TrainConfig, model: Any, *, keep_norms: bool = False) -> TrainConfig:
    """Returns the config of a run on a user's model, whose initial weights are given to this process.

    Args:
        config: its other settings; --penalty-at may name layers as the model does.
        model: what is trained.
        keep_norms: its norm is the model's own, whatever the config says.

    Raises:
        UsageError: it is not of the functional or sequential API, not built, not made of Keras' own layers alone, or
            not what its get_config() describes; or its norms are to be kept and are not of one known kind.
    """
    if not is_graph(model) or not model.built:
        raise UsageError(
            "A model that is trained is built, by the functional or the sequential API.",
            f"{getattr(model, 'name', model)!s}, a {type(model).__name__}",
            "Build it so: a subclassed one has no get_config() from which it could be rebuilt.",
        )
    if keep_norms:
        config = replace(config, **own_norm(model))
    text = _form(model)
    weights = [np.array(ops.convert_to_numpy(variable)) for variable in model.weights]
    total = hashlib.sha256()
    for values in weights:
        total.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    name = re.sub(r"\W", "_", json.loads(text)["config"]["name"], flags=re.ASCII)
    config = replace(config, net=name, net_source=text, net_weights=total.hexdigest())
    give_weights(total.hexdigest(), weights)
    made = rebuilt(config)
    _require_same(model, made)
    return _with_names_of(made, model, config)


def rebuilt(config: TrainConfig) -> keras.Model:
    """Builds the model of a config from its get_config(), with its initial weights where they were given."""
    model = keras.saving.deserialize_keras_object(json.loads(config.net_source or ""))
    weights = given_weights(config)
    if weights is not None:
        model.set_weights(weights)
    return model


def _form(model: keras.Model) -> str:
    """Returns a model's get_config() as text; refuses what only its user's Python could make of it again."""
    try:
        with warnings.catch_warnings():  # of lambdas, which are refused below
            warnings.simplefilter("ignore", UserWarning)
            form = keras.saving.serialize_keras_object(model)
        form = _renumbered({name: value for name, value in form.items() if name not in _LEFT_OUT})
        text = json.dumps(form, sort_keys=True)
    except Exception as error:  # whatever a user's get_config may raise
        raise UsageError(
            "A model that is trained has a get_config().", f"{model.name}, {one_line(error)}", "Give its layers one."
        ) from None
    if foreign := next(_foreign(json.loads(text)), None):
        raise UsageError(
            "A model that is trained is made of layers of Keras or kernorm alone, so that it is rebuilt anywhere.",
            f"{foreign} in {model.name}",
            "Use one of Keras, or write the net in a file: net='FILE.py:FUNCTION'.",
        )
    return text


def _foreign(form: Any) -> Iterator[str]:
    """Yields what in a serialized model is of a user's own Python."""
    if isinstance(form, list):
        for item in form:
            yield from _foreign(item)
    if not isinstance(form, dict):
        return
    registered, module = form.get("registered_name"), form.get("module") or ""
    if set(form) == {"value"}:  # the code of a lambda, where Keras expects a function by name
        yield "a lambda"
    elif form.get("class_name") in ("__lambda__", "function", "Lambda"):
        yield str(form["config"]) if form["class_name"] == "function" else "a lambda"
    elif registered and not registered.startswith("kernorm>") and module.partition(".")[0] != "keras":
        yield str(form["class_name"])
    for value in form.values():
        yield from _foreign(value)


def _renumbered(form: dict[str, Any]) -> dict[str, Any]:
    """Returns a serialized model with Keras' own names of layers, such as dense_7, numbered anew in their order.

    Else they would count what the process has built before, and the same model would be another one each time. A model
    that has such a name twice, or would have it by this, is left as it is.
    """
    numbers: Counter[str] = Counter()
    new: dict[str, str] = {}
    others = set()
    for name, kind in _named(form):
        first = to_snake_case(kind)
        # An input is named as its tensor where Keras has cloned a model.
        if not re.fullmatch(rf"({re.escape(first)}|keras_tensor)(_\d+)?", name):
            others.add(name)
        elif name not in new:
            new[name] = f"{first}_{numbers[first]}" if numbers[first] else first
            numbers[first] += 1
    return form if others & {*new, *new.values()} else _with_names(form, new)


def _named(form: Any) -> Iterator[tuple[str, str]]:
    """Yields the name and the class of every layer of a serialized model, in their order."""
    if isinstance(form, dict):
        inner = form.get("config")
        if "class_name" in form and isinstance(inner, dict) and isinstance(inner.get("name"), str):
            yield inner["name"], form["class_name"]
    for part in form.values() if isinstance(form, dict) else form if isinstance(form, list | tuple) else ():
        yield from _named(part)


def _with_names(form: Any, names: dict[str, str], *, here: bool = False) -> Any:
    """Returns a serialized model with other names of layers; `here`: what is given is itself where they stand."""
    if isinstance(form, dict):
        return {key: _with_names(part, names, here=here or key in _NAMES) for key, part in form.items()}
    if isinstance(form, list | tuple):
        return [_with_names(part, names, here=here) for part in form]
    return names.get(form, form) if here and isinstance(form, str) else form


def _with_names_of(made: keras.Model, model: keras.Model, config: TrainConfig) -> TrainConfig:
    """Returns the config with --penalty-at by the names of the model that is trained, where its user's has others.

    Raises:
        UsageError: a name is of one layer here, and of another one there.
    """
    names = {old: new for (old, _), (new, _) in zip(kernels(model), kernels(made), strict=True)}
    settings = layer_settings("penalty_at", config.penalty_at)
    for layer in settings:
        if names.get(layer, layer) != layer and layer in names.values():
            raise UsageError(
                "Layers that --penalty-at names have names of their own.",
                f"{layer!r}, which is {names[layer]} in the run, where Keras' own names are numbered anew",
                "Give that layer a name, such as keras.layers.Dense(10, name='top').",
            )
    return replace(config, penalty_at=tuple(f"{names.get(layer, layer)}={value}" for layer, value in settings.items()))


def _require_same(model: keras.Model, other: keras.Model) -> None:
    """Refuses a model with regularizers or frozen weights that its get_config() does not tell of."""
    for mine, its in zip(model.weights, other.weights, strict=True):
        if (mine.trainable, bool(mine.regularizer)) != (its.trainable, bool(its.regularizer)):
            raise UsageError(
                "A model that is trained is what its get_config() describes.",
                f"{mine.path}, whose regularizer, or whether it is trained, was set later",
                "Set it by kernorm.add_penalties, or by layer.trainable.",
            )
