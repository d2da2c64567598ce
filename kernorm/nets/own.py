"""Builds a user's own net: calls the function of its file, and checks what that returns.

The function is written in Keras' functional API. It takes the shape of an image and the number of classes, and returns
a model from scaled pixels, of its own `keras.Input(image_shape)`, to logits. If it has the argument `conv`, that
inserts convolutions as configured (convolution.py); else the model's norms are swapped (swap.py).
"""

import collections
import contextlib
import inspect
import random
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kernorm.config import TrainConfig
from kernorm.errors import UsageError
from kernorm.nets.brought import rebuilt
from kernorm.nets.contents import is_graph
from kernorm.nets.convolution import Convolutions
from kernorm.nets.layers import Fusible
from kernorm.nets.norms import are_as_configured, norms_of
from kernorm.nets.source import failed, load_function
from kernorm.nets.swap import swap_norm

# Name of the user's model in the model that scales pixels for it.
INNER = "net"
# Settings of the convolutions that `conv` makes.
_OF_CONV = ("norm_at", "standardize_kernels", "dropout", "initializer")
_FORM = "def net(image_shape, num_classes, conv)"
# Keras' names of layers so far, its generator of random numbers, and the seed that begins one.
_NAMES, _GENERATOR, _SEED = "object_name_uids", "global_seed_generator", "global_random_seed"
# What a subclass of keras.Model may have of its own, and kernorm would not use.
_STEPS = ("train_step", "test_step", "compute_loss")
# Layers behind which a softmax still is what the model ends in.
_SHAPING = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Identity, keras.layers.Activation)


def build_own(
    config: TrainConfig, image_shape: tuple[int, int, int], num_classes: int, *, fused: bool = False
) -> keras.Model:
    """Builds the net of a config with `net_source`: by its function, or from what its get_config() gave.

    Args:
        config: names the function, norms and penalties.
        image_shape: (H, W, C).
        num_classes: K.
        fused: as in `build_model`.

    Returns:
        A model from scaled pixels (N, H, W, C) to logits (N, K), without penalties of kernorm's; a model that was
        brought from Python takes pixels from 0 to 255.

    Raises:
        UsageError: the file or function raises, does not return such a model, or the settings do not fit it.
    """
    with _names_and_seeds_of_its_own(config.seed):
        function = load_function(config) if config.net_weights is None else None
        if function is None:
            _refuse_settings_of_conv(config)
            model = _swapped(config, rebuilt(config))
        elif "conv" in _parameters(config, function):
            conv = Convolutions(config, fused=fused)
            model = _model(config, function, (image_shape, num_classes), conv)
            _check_made(config, model, conv)
        else:
            _refuse_settings_of_conv(config)
            model = _swapped(config, _model(config, function, (image_shape, num_classes), None))
        if (policy := keras.config.dtype_policy().name) != "float32":
            raise UsageError(
                "Nets are made in float32.",
                f"{config.net}, whose file sets Keras' policy to {policy}",
                "Remove that line; a layer of its own may have another dtype.",
            )
    _check_ends(config, model, image_shape, num_classes)
    model.name = INNER
    model._clear_losses()  # of symbolic calls
    for layer in model._flatten_layers():
        if isinstance(layer, Fusible):
            layer.fused = fused
    return model


@contextlib.contextmanager
def _names_and_seeds_of_its_own(seed: int) -> Iterator[None]:
    """Gives what is made in the body the same names, seeds and random numbers, whatever this process has built before.

    Keras' policy for dtypes is put back as well.
    """
    state = keras.src.backend.common.global_state
    before = {name: state.get_global_attribute(name) for name in (_NAMES, _GENERATOR, _SEED)}
    states, policy = (random.getstate(), np.random.get_state()), keras.config.dtype_policy()
    for name, value in ((_NAMES, collections.defaultdict(int)), (_GENERATOR, None), (_SEED, seed)):
        state.set_global_attribute(name, value)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        for name, value in before.items():
            state.set_global_attribute(name, value)
        random.setstate(states[0])
        np.random.set_state(states[1])
        keras.config.set_dtype_policy(policy)


def _parameters(config: TrainConfig, function: Any) -> list[str]:
    """Returns the names of the function's parameters; refuses a function that cannot be called as nets are."""
    signature = inspect.signature(function)
    words = {"conv": None} if "conv" in signature.parameters else {}
    try:
        signature.bind((1, 1, 1), 2, **words)
    except TypeError as error:
        raise UsageError(
            "A net's function takes image_shape and num_classes, and conv if it wants it.",
            f"{config.net}{signature}: {error}",
            f"Write {_FORM}.",
        ) from None
    return list(signature.parameters)


def _model(
    config: TrainConfig, function: Any, arguments: tuple[tuple[int, int, int], int], conv: Convolutions | None
) -> keras.Model:
    """Calls the function; of logits alone the model is made here."""
    try:
        answer = function(*arguments, **({"conv": conv} if conv else {}))
        if isinstance(answer, keras.KerasTensor):
            answer = keras.Model(*keras.utils.get_source_inputs(answer), answer)
    except (Exception, SystemExit) as error:
        if "names should be unique" in str(error):
            said = " ".join(str(error).split())
            fix = "Give each layer of a model its own name; those of conv are conv1, conv2, …"
            raise UsageError("Two layers of a model have two names.", f"{config.net}: {said}", fix) from None
        raise failed(config, error) from None
    if not is_graph(answer) or not answer.built:
        kind = type(answer).__name__
        raise UsageError(
            "A net's function returns a keras.Model of the functional API, or its logits.",
            f"{config.net}, which returns {'nothing' if answer is None else kind}",
            "End it by return keras.Model(image, logits).",
        )
    if changed := [name for name in _STEPS if getattr(type(answer), name) is not getattr(keras.Model, name)]:
        raise UsageError(
            "A net is trained by kernorm's own steps and loss.",
            f"{config.net}, whose {type(answer).__name__} has a {changed[0]} of its own",
            "Return keras.Model(image, logits).",
        )
    return answer


def _check_made(config: TrainConfig, model: keras.Model, conv: Convolutions) -> None:
    """Refuses a net that does not use what it asked for, and settings of layers that it lacks."""
    if not conv.made:
        raise UsageError(
            "A net with the argument conv calls it.",
            f"{config.net}, which never does",
            "Call conv(x, filters), or remove that argument: then the net's own norms are swapped.",
        )
    there = {id(layer) for layer in model._flatten_layers()}
    if lost := [layer.name for layer in conv.made if id(layer) not in there]:
        raise UsageError(
            "What conv makes is part of the net.",
            f"{', '.join(lost)} of {config.net}, whose result is not used",
            "Pass on what conv returns.",
        )
    conv.require_known()


def _refuse_settings_of_conv(config: TrainConfig) -> None:
    for name in _OF_CONV:
        if (value := getattr(config, name)) != getattr(TrainConfig, name):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} belongs to nets whose function has the argument conv.",
                f"{name}={value!r} for {config.net}",
                f"Remove it, or write {_FORM}.",
            )


def _swapped(config: TrainConfig, model: keras.Model) -> keras.Model:
    """Returns the model with the configured norm in place of its own; as it is if it has none and is to have none.

    One that was brought from Python stays as it is, too, if all its norms are the configured one.
    """
    found = norms_of(model)
    if found and config.net_weights is not None and are_as_configured(found, config):
        return model
    if found:
        return swap_norm(
            model,
            config.norm,
            groups=config.groups,
            ghost_batch_size=config.ghost_batch_size,
            batch=config.batch_size,
        )
    if config.norm != "none":
        raise UsageError(
            "A net without the argument conv has norms to be swapped.",
            f"{config.net} without one, norm={config.norm!r}",
            "Leave out norm, or give norm='none'." if config.net_weights else f"Give --norm none, or write {_FORM}.",
        )
    return model


def _check_ends(config: TrainConfig, model: keras.Model, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Refuses a net that does not go from one image to one logit a class, or has nothing to be penalized."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            "A net goes from one image to its logits.",
            f"{config.net} with {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "Return a model of one input and one output.",
        )
    image, logits = model.inputs[0], model.outputs[0]
    fits = keras.backend.is_float_dtype(image.dtype) or (config.net_weights is not None and image.dtype == "uint8")
    if tuple(image.shape[1:]) != image_shape or not fits:
        raise UsageError(
            "A net's Input has the shape of the images, in floats.",
            f"{config.net} with {image.dtype} {_shape(image.shape)}, images are {_shape((None, *image_shape))}",
            "Write keras.Input(image_shape).",
        )
    if image.shape[0] is not None:
        raise UsageError(
            "A net takes any number of images.",
            f"{config.net} with an Input of batch_size={image.shape[0]}",
            "Write keras.Input(image_shape); --batch-size says how many a step has.",
        )
    if tuple(logits.shape) != (None, num_classes) or logits.dtype != "float32":
        raise UsageError(
            "A net answers with a logit a class.",
            f"{config.net} with {logits.dtype} {_shape(logits.shape)} for {num_classes} classes",
            "End it by keras.layers.Dense(num_classes).",
        )
    if activation := _final_activation(model):
        raise UsageError(
            "A net ends in logits: the loss and the exported model do the softmax.",
            f"{config.net}, which ends in {activation}",
            "Remove it.",
        )


def _shape(shape: tuple[int | None, ...]) -> str:
    return "x".join("N" if size is None else str(size) for size in shape)


def _final_activation(model: Any) -> str:
    """Returns the softmax or sigmoid that a model ends in; nothing if it ends in none."""
    tensor = (model._functional if isinstance(model, keras.Sequential) else model).outputs[0]
    while True:
        operation = tensor._keras_history.operation
        name = getattr(getattr(operation, "activation", None), "__name__", type(operation).__name__).lower()
        if name in ("softmax", "sigmoid"):
            return name
        if is_graph(operation):
            return _final_activation(operation)
        if not isinstance(operation, _SHAPING):
            return ""
        tensor = operation._inbound_nodes[tensor._keras_history.node_index].input_tensors[0]
