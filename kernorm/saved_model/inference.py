"""Asking a SavedModel for logits through TensorFlow, and rebuilding its net in Keras.

Ctrl-C and SIGTERM wait while TensorFlow loads a model or answers a batch.

TensorFlow and Keras are imported when they are asked for: other runtimes' processes and JAX-only runs have neither.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from kernorm.config import TrainConfig, with_added
from kernorm.errors import UsageError
from kernorm.saved_model.card import read_card
from kernorm.saved_model.parity import Images, Logits, PredictLogits
from kernorm.saved_model.paths import literal_path
from kernorm.system.backend import import_tensorflow, keras_settings
from kernorm.system.interrupts import deferred

if TYPE_CHECKING:
    import keras

SIGNATURE = "serving_default"
_BATCH = 500


def load_saved_model(path: Path) -> PredictLogits:
    """Returns what asks the SavedModel in `path` through TensorFlow, all images (N, H, W, C) in one batch.

    Raises:
        UsageError: it has no such signature.
    """
    import_tensorflow()
    import tensorflow as tf

    with literal_path(path) as literal, deferred():
        loaded = tf.saved_model.load(str(literal))
    if SIGNATURE not in loaded.signatures:
        there = ", ".join(loaded.signatures) or "no signature"
        raise UsageError(f"A model answers {SIGNATURE}.", f"{path} with {there}", "Export the run again.")

    def predict_logits(images: Images) -> Logits:
        # Through `loaded`, which must live as long as its signatures are used.
        with deferred():
            return loaded.signatures[SIGNATURE](image=tf.constant(images))["logits"].numpy()

    return predict_logits


def load_in_batches(path: Path) -> PredictLogits:
    """Returns what asks the SavedModel in `path` through TensorFlow, in batches that fit any memory."""
    whole = load_saved_model(path)

    def predict_logits(images: Images) -> Logits:
        return np.concatenate([whole(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])

    return predict_logits


@keras_settings()
def rebuild(path: Path) -> "keras.Model":
    """Builds the net of the exported model in `path`, with the weights that are in its SavedModel; under TensorFlow.

    Raises:
        ValueError: the SavedModel's variables are not those of the net that its card describes.
    """
    import tensorflow as tf

    from kernorm.nets.model import build_model_for

    card = read_card(path)
    model = build_model_for(TypeAdapter(TrainConfig).validate_python(with_added(card.config)), card.data)
    with literal_path(path) as literal, deferred():
        stored = tf.saved_model.load(str(literal)).variables
    shapes = [[tuple(variable.shape) for variable in variables] for variables in (model.variables, stored)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the variables of the net are {shapes[0]}, those in the SavedModel {shapes[1]}")
    for variable, value in zip(model.variables, stored, strict=True):
        variable.assign(value)
    return model
