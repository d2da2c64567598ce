"""Penalties in a Keras model that somebody else has built: set in the model itself."""

import keras

from kernorm.errors import UsageError, nearest
from kernorm.nets.contents import is_kernel, own_variables, set_regularizer


def add_penalties(
    model: keras.Model, l1: float = 0.0, l2: float = 0.0, *, penalize: str = "kernels", replace: bool = False
) -> keras.Model:
    """Sets `keras.regularizers.L1L2` on the kernels of a model; returns the model.

    A kernel is a trainable variable of that name, such as `kernel` of Dense and Conv2D or `depthwise_kernel`. Layers
    that are frozen get none, since Keras penalizes trainable variables only. A model that was trained before traces its
    training step anew.

    Args:
        model: built; changed in place.
        l1: λ1 of l1·Σ|w| + l2·Σw².
        l2: λ2 of that; PyTorch's weight_decay=λ is l2=λ/2.
        penalize: `kernels`, or `all`: every trainable variable.
        replace: set them where a variable has a regularizer of its own too; else that is refused.

    Raises:
        UsageError: λ is negative or not finite, `penalize` is neither, the model is not built, has no kernel, or one
            that has a regularizer.
    """
    for name, value in (("l1", l1), ("l2", l2)):
        if not 0 <= value < float("inf"):
            raise UsageError("λ is a finite number of at least 0.", f"{name}={value}", "Give for example 1e-4.")
    if penalize not in ("kernels", "all"):
        raise UsageError("penalize is kernels or all.", f"{penalize!r}", nearest(penalize, ("kernels", "all")))
    if not model.built:
        raise UsageError("A model that is penalized is built.", f"{model.name}, which is not", "Call build().")
    chosen = [
        (layer, variable)
        for layer, variable in own_variables(model)
        if variable.trainable and (penalize == "all" or is_kernel(variable))
    ]
    if not chosen:
        raise UsageError(
            "A model that is penalized has trainable kernels.", f"{model.name} without one", "Unfreeze it."
        )
    penalty = keras.regularizers.L1L2(l1=l1, l2=l2) if l1 or l2 else None
    for layer, variable in chosen:
        if variable.regularizer is not None and not replace:
            raise UsageError(
                "A kernel has one regularizer.",
                f"{variable.path}, which has {type(variable.regularizer).__name__}",
                "Give replace=True to set another one.",
            )
        set_regularizer(layer, variable, penalty)
    _tell_attentions(model, {id(variable) for _, variable in chosen}, penalty)
    model.train_function = model.test_function = None
    return model


def _tell_attentions(model: keras.Model, chosen: set[int], penalty: keras.regularizers.Regularizer | None) -> None:
    """Lets layers of attention, whose kernels are those of layers inside them, write the penalty into get_config()."""
    for layer in model._flatten_layers():
        for kind in ("kernel", "bias"):
            inside = [variable for variable in layer.weights if id(variable) in chosen and variable.name == kind]
            for attribute in (f"_{kind}_regularizer", f"{kind}_regularizer"):
                if inside and attribute in vars(layer):
                    setattr(layer, attribute, penalty)
