"""Whether a SavedModel answers as the model it was made of, whichever signature is asked. Used by export."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kernorm.saved_model.card import Signature, Tensor
from kernorm.saved_model.parity import BATCHES, TOLERANCE, largest_tolerated, softmax
from kernorm.saved_model.warmup import Signatures, encode_examples, encode_png


def check_answers(
    model: keras.Model, signatures: Signatures, labels: tuple[str, ...], images: NDArray[np.uint8]
) -> float:
    """Asks the model and every signature about the same images (N, H, W, C), in batches of every size in BATCHES.

    Returns:
        The largest difference between logits of the same image.

    Raises:
        RuntimeError: the model's logits are not finite, or others differ from them by more than TOLERANCE (times the
            largest logit, if that is above 1), or classes or probabilities do not follow from them.
    """
    largest = 0.0
    for size in BATCHES:
        batch = images[np.arange(size) % len(images)]
        # A GPU may choose another algorithm for each call; a CPU gives one answer.
        with tf.device("CPU:0"):
            # The model itself cannot take an empty batch on every machine; the exported one must.
            reference = np.asarray(model(images[:1] if not size else batch, training=False), np.float32)[:size]
            if not np.isfinite(reference).all():
                raise RuntimeError(
                    "A model must answer with finite numbers to be exported. Received: logits that are "
                    "not. Train with a lower --learning-rate."
                )
            answers = [reference, *_logits(signatures, labels, batch)]
        spread = float(np.ptp(np.stack(answers), axis=0).max(initial=0.0))
        if spread > largest_tolerated(reference):
            raise RuntimeError(
                f"An exported model must answer as the trained one. Received: logits that differ by "
                f"{spread:.3g} at batch size {size}. Report this."
            )
        largest = max(largest, spread)
    return largest


def describe_signatures(signatures: Signatures) -> dict[str, Signature]:
    """Returns the names, types and shapes of what the signatures of a reloaded model take and give."""
    return {
        name: Signature(
            inputs=_tensors(function.structured_input_signature[1]),  # type: ignore[attr-defined]
            outputs=_tensors(function.structured_outputs),  # type: ignore[attr-defined]
        )
        for name, function in sorted(signatures.items())
    }


def _logits(signatures: Signatures, labels: tuple[str, ...], batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Returns the logits (N, K) by all signatures but `classify`; its and other outputs are checked against them."""
    examples = tf.constant(encode_examples(batch), tf.string)
    answers = [
        signatures["serving_default"](image=tf.constant(batch)),
        signatures["serving_png"](image_bytes=tf.constant(encode_png(batch), tf.string)),
        signatures["serving_tf_examples"](examples=examples),
    ]
    if "serving_image" in signatures:
        answers.append(signatures["serving_image"](image_bytes=tf.constant(encode_png(batch), tf.string)))
    for answer in answers:
        logits = answer["logits"].numpy()
        _agree("class_id", answer["class_id"].numpy(), logits.argmax(-1))
        _agree("probabilities", answer["probabilities"].numpy(), softmax(logits))
    names = np.array([label.encode() for label in labels], object)
    for answer in answers[1:]:
        _agree("class_name", answer["class_name"].numpy(), names[answer["class_id"].numpy()])
    ranked = signatures["classify"](inputs=examples)
    order = np.argsort(-logits, axis=-1, kind="stable")
    _agree("classes", ranked["classes"].numpy(), names[order])
    _agree("scores", ranked["scores"].numpy(), np.take_along_axis(softmax(logits), order, axis=-1))
    return [answer["logits"].numpy() for answer in answers]


def _agree(output: str, received: NDArray[Any], wanted: NDArray[Any]) -> None:
    same = received.shape == wanted.shape
    if same and np.issubdtype(wanted.dtype, np.floating):
        same = np.allclose(received, wanted, rtol=0, atol=TOLERANCE)
    elif same:
        same = bool((received == wanted).all())
    if not same:
        raise RuntimeError(
            f"An exported model's outputs must follow from its logits. Received: {output} that do not. Report this."
        )


def _tensors(specs: Mapping[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(dtype=spec.dtype.name, shape=tuple(spec.shape.as_list())) for name, spec in sorted(specs.items())
    }
