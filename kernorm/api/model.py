"""Nets for Python users: kernorm's own, and another norm, a penalty and its proof in a Keras model of anybody's.

Keras is imported when it is used, after its backend is chosen.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from kernorm.api.display import page
from kernorm.api.settings import config_of
from kernorm.config import TrainConfig
from kernorm.errors import UsageError, with_type
from kernorm.nets.source import with_net
from kernorm.system.backend import choose_backend

if TYPE_CHECKING:
    import keras


def build_model(
    config: TrainConfig | None = None,
    *,
    image_shape: tuple[int, int, int] = (28, 28, 1),
    num_classes: int = 10,
    mean: float | Sequence[float] = (0.0,),
    std: float | Sequence[float] = (255.0,),
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
        settings: fields of TrainConfig, such as norm="gn" or l2=1e-4; net="nets.py:net" for your own.

    Returns:
        A model from `image`, uint8 (N, H, W, C), to `logits`, float32 (N, K), with `keras.regularizers.L1L2` on every
        kernel.

    Raises:
        UsageError: a setting or a number is wrong, groups do not divide, a norm is degenerate or the image too small.
    """
    given = with_net(config_of(config, settings))
    choose_backend()
    from kernorm.nets.model import build_model  # Keras

    return build_model(given, image_shape=image_shape, num_classes=num_classes, mean=mean, std=std)


def swap_norm(
    model: "keras.Model", norm: str, *, groups: int | Literal["auto"] = "auto", ghost_batch_size: int = 32
) -> "keras.Model":
    """Returns a Keras model with another norm in place of each of its norms, and with the same weights elsewhere.

    Batch, group, layer, RMS and filter response normalization of maps (N, H, W, C) or vectors (N, C) are swapped, in
    nested models too; a shared layer stays shared. Scale and offset keep their values, initializers, regularizers,
    constraints and epsilon, frozen layers stay frozen, and the clone is compiled as the model is.

    Args:
        model: of the functional or sequential API, built.
        norm: bn, gbn, brn, ln, cln, gn, in, rms, frn or none, as in `TrainConfig`.
        groups: of gn; auto: the largest divisor of a layer's channels up to 4.
        ghost_batch_size: of gbn.

    Raises:
        UsageError: it is no Keras model, the norm is unknown, its groups do not divide the channels, a statistic would
            have one value, the scale has a regularizer or constraint that the norm does not take, the model is
            subclassed, has no norm, one inside a layer where it cannot be reached, or a layer that its get_config()
            does not describe.
    """
    _require_model(model)
    from kernorm.nets import swap  # Keras

    return swap.swap_norm(model, norm, groups=groups, ghost_batch_size=ghost_batch_size)


def add_penalties(
    model: "keras.Model",
    l1: float = 0.0,
    l2: float = 0.0,
    *,
    penalize: Literal["kernels", "all"] = "kernels",
    replace: bool = False,
) -> "keras.Model":
    """Sets `keras.regularizers.L1L2` on every trainable kernel of a Keras model, in place; returns the model.

    Setting `layer.kernel_regularizer` of a built layer does nothing in Keras; this sets the variable's own.

    Args:
        model: built.
        l1: λ1 of l1·Σ|w| + l2·Σw².
        l2: λ2 of that; PyTorch's weight_decay=λ is l2=λ/2.
        penalize: all: scales, offsets and biases too.
        replace: set it where a variable has a regularizer of its own; else that is refused.

    Raises:
        UsageError: it is no Keras model, λ is negative or not finite, `penalize` is neither, or the model is not built,
            has no trainable kernel, or one with a regularizer.
    """
    _require_model(model)
    from kernorm.nets import regularize  # Keras

    return regularize.add_penalties(model, l1, l2, penalize=penalize, replace=replace)


class PenaltyProof:
    """What is penalized in a model, and whether its loss and its training step have it: `print` it.

    Attributes:
        found: the measurements; see `kernorm.nets.proof.Proof`.
        table: a row a kernel or regularized weight: λ's, nats, and the share that a training step applies.
        holds: whether all is as it should be.
        problems: what is not, in words.
        notes: what to know although it is no fault.
    """

    def __init__(self, found: Any) -> None:
        self.found = found
        self.holds: bool = found.holds
        self.problems: tuple[str, ...] = found.problems
        self.notes: tuple[str, ...] = found.notes

    @property
    def table(self) -> pd.DataFrame:
        """A row a weight."""
        return pd.DataFrame([dataclasses.asdict(row) for row in self.found.rows]).set_index("variable")

    def __repr__(self) -> str:
        return str(self.found)

    def _repr_html_(self) -> str:
        words = "The penalty is on." if self.holds else " ".join(self.problems)
        return page(" ".join([words, *self.notes]), self.table)


def prove_penalty(
    model: "keras.Model", x: Any, y: Any, *, l1: float | None = None, l2: float | None = None
) -> PenaltyProof:
    """Proves for any compiled Keras model which weights are penalized, and whether training feels it.

    The compiled loss of a batch is measured with the regularizers and without; so is the gradient that one training
    step applies, by the model's own `train_step`. So a loop that forgets the penalty shows, and one that takes another
    λ. The model is left as it was.

    Args:
        model: compiled and built.
        x: a batch of inputs, as `fit` takes it.
        y: its targets.
        l1: the λ1 that you believe to be on every kernel; None: not stated.
        l2: the λ2, of Keras' convention: PyTorch's weight_decay=λ is l2=λ/2.

    Raises:
        UsageError: it is no Keras model, is not compiled, or does not take the batch.
    """
    _require_model(model)
    from kernorm.nets import proof  # Keras

    return PenaltyProof(proof.prove_penalty(model, x, y, l1=l1, l2=l2))


def _require_model(model: Any) -> None:
    """Chooses the backend, and refuses what is no Keras model."""
    choose_backend()
    import keras

    if not isinstance(model, keras.Model):
        raise UsageError("This takes a Keras model.", with_type(model), "Give a keras.Model of Keras 3.")
