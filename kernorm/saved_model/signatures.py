"""The four ways to ask an exported model: pixels, PNG bytes, tf.Example records, and TF Serving's Classify.

Scaling is in the model; decoding is here, in TensorFlow's graph. Used by export.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kernorm.config import Resize
from kernorm.datasets.decode import decode_images
from kernorm.errors import UsageError
from kernorm.system.interrupts import deferred, obey

Answer = dict[str, tf.Tensor]

# Channels to the colour type of a PNG's header (ISO/IEC 15948, 11.2.2) and its name.
_COLOURS = {1: (0, "greyscale"), 3: (2, "RGB"), 4: (6, "RGBA")}
# How files of the two kinds that tensorflow-datasets stores begin.
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True)
class Endpoint:
    """A signature: the function behind it and its one input, batch None."""

    function: Callable[[tf.Tensor], Answer]
    spec: tf.TensorSpec


def endpoints(model: keras.Model, labels: tuple[str, ...], resize: Resize | None = None) -> dict[str, Endpoint]:
    """Returns the signatures of a model from uint8 images (N, H, W, C) to logits (N, K), by name.

    Three answer with class_id int64 (N,), probabilities and logits float32 (N, K), the two that take files with
    class_name string (N,) as well; `classify` answers with classes string (N, K) and scores float32 (N, K), the
    likeliest first. A model of own images, which `resize` brought to one size, has `serving_image` as well: JPEG, PNG
    or BMP files of any size, decoded and resized as in preparation.

    Raises:
        UsageError: PNG knows no image of that many channels, or the labels are not as many as the logits.
    """
    shape = tuple(model.input_shape[1:])
    if shape[-1] not in _COLOURS:
        raise UsageError(
            "An exported model takes images of 1, 3 or 4 channels, as PNG does.",
            f"image_shape={shape}",
            "Train with --no-export.",
        )
    classes = model.output_shape[-1]
    if len(labels) != classes:
        raise UsageError(
            "A model needs one label a logit.",
            f"{len(labels)} labels for {classes} logits",
            "Use the record of the run that trained it.",
        )

    def from_pixels(image: tf.Tensor) -> Answer:
        # A server does not check what it is sent against the signature, and a net without dense layers takes any size.
        image = tf.ensure_shape(image, (None, *shape))
        count = tf.shape(image)[0]
        # oneDNN's convolution gives an empty batch the wrong shape (TensorFlow 2.21): it is answered as one image.
        filled = tf.pad(image, [[0, tf.cast(tf.equal(count, 0), tf.int32)], [0, 0], [0, 0], [0, 0]])
        return answer(model(filled, training=False)[:count])

    def named(image: tf.Tensor) -> Answer:
        answered = from_pixels(image)
        # Not in serving_default: OpenVINO, ONNX and LiteRT read that one, and none of them has strings.
        return answered | {"class_name": tf.gather(tf.constant(labels), answered["class_id"])}

    def from_png(image_bytes: tf.Tensor) -> Answer:
        return named(decode_png(image_bytes, shape))

    def from_examples(examples: tf.Tensor) -> Answer:
        # The layout that tensorflow-datasets writes; its label is not asked for.
        parsed = tf.io.parse_example(examples, {"image": tf.io.FixedLenFeature([], tf.string)})
        return named(decode_recorded(parsed["image"], shape))

    def classify(inputs: tf.Tensor) -> Answer:
        answered = from_examples(inputs)
        # Sorted by logits: probabilities may tie where logits do not, and would then not agree with class_id.
        order = tf.math.top_k(answered["logits"], k=classes).indices
        scores = tf.gather(answered["probabilities"], order, batch_dims=1)
        return {"classes": tf.gather(tf.constant(labels), order), "scores": scores}

    def from_image(image_bytes: tf.Tensor) -> Answer:
        return named(decode_images(_listed(image_bytes), shape, resize or "stretch"))

    found = {
        "serving_default": Endpoint(from_pixels, tf.TensorSpec((None, *shape), tf.uint8, name="image")),
        "serving_png": Endpoint(from_png, tf.TensorSpec((None,), tf.string, name="image_bytes")),
        "serving_tf_examples": Endpoint(from_examples, tf.TensorSpec((None,), tf.string, name="examples")),
        "classify": Endpoint(classify, tf.TensorSpec((None,), tf.string, name="inputs")),
    }
    if resize:
        found["serving_image"] = Endpoint(from_image, tf.TensorSpec((None,), tf.string, name="image_bytes"))
    return found


def answer(logits: tf.Tensor) -> Answer:
    """Returns the numbers that three signatures answer, from logits (N, K)."""
    logits = tf.cast(logits, tf.float32)
    return {"class_id": tf.argmax(logits, axis=-1), "probabilities": tf.nn.softmax(logits), "logits": logits}


def net_of_graph(signature: Any) -> tuple[Callable[[tf.Tensor], tf.Tensor], tf.TensorSpec]:
    """Returns the net in a loaded `serving_default`, from images to logits, with what it takes.

    It is what stands between the padding of an empty batch and the cut behind it, with the weights as constants.
    """
    whole = convert_variables_to_constants_v2(signature)
    operations = whole.graph.get_operations()
    first = next(operation for operation in operations if operation.type == "Pad")
    (logits,) = (one for one in operations if one.type == "ArgMax")
    last = logits.inputs[0].op
    while last.type != "StridedSlice":
        last = last.inputs[0].op
    part = whole.prune([first.outputs[0]], [last.inputs[0]])
    ((_, words),) = (signature.structured_input_signature,)
    return lambda image: part(image)[0], words["image"]


def write_saved_model(model: keras.Model, labels: tuple[str, ...], folder: Path, resize: Resize | None = None) -> None:
    """Writes a model with its signatures into an empty folder; see `endpoints`.

    Ctrl-C and SIGTERM wait for the end of one signature, or of all files.

    Raises:
        UsageError: as `endpoints`.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    with deferred():
        for name, endpoint in endpoints(model, labels, resize).items():
            obey()
            archive.add_endpoint(name, endpoint.function, input_signature=[endpoint.spec])
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # in a notebook it would tell of a folder that has another name a moment later
    try:
        with deferred():
            archive.write_out(str(folder), options=options, verbose=False)
    finally:
        logger.setLevel(level)


def decode_png(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes PNG files, strings (N,), to pixels (N, H, W, C), uint8, for use in a graph.

    Takes only 8-bit PNG files of exactly that size and kind of colour. TensorFlow's own op would silently drop the
    lower byte of 16-bit pixels, mix colours to grey, drop transparency, spread 1-bit pixels to 0 and 255, and decode
    JPEG, GIF and BMP: all of them other pixels than the model was trained on. A damaged file fails in that op.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, with the positions of the wrong files in the batch; or if it is
            asked about no list of files, which a server does not check.
    """
    height, width, channels = shape
    images = _listed(images)
    right = _begins(images, png_header(shape))
    kind = f"an 8-bit {_COLOURS[channels][1]} PNG of {height}x{width} pixels, channels={channels}"
    return _decoded(_checked(images, right, kind), shape)


def decode_recorded(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    """Decodes files as records of tensorflow-datasets hold them, strings (N,), to pixels (N, H, W, C), uint8.

    By the operation with which tensorflow-datasets decodes them, so that the model sees the pixels that it was trained
    on: a set keeps JPEG files as they are, and PNG files of any depth and colours.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, as `decode_png`; or if an image has another size.
    """
    images = _listed(images)
    right = tf.logical_or(_begins(images, _PNG), _begins(images, _JPEG))
    return _decoded(_checked(images, right, "a PNG or JPEG file"), shape)


def _begins(files: tf.Tensor, first: bytes) -> tf.Tensor:
    return tf.strings.substr(files, 0, len(first)) == first


def _checked(images: tf.Tensor, right: tf.Tensor, kind: str) -> tf.Tensor:
    """Returns the files, once all of them are right."""
    wrong = tf.where(tf.logical_not(right))[:, 0]
    rule = f"An image must be {kind}. Received: another kind of file at these positions of the batch:"
    check = tf.debugging.Assert(tf.equal(tf.size(wrong), 0), [rule, wrong], summarize=10)
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _decoded(images: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    # This operation decodes JPEG as well.
    return tf.map_fn(
        lambda image: tf.ensure_shape(tf.io.decode_png(image, channels=shape[-1]), shape),
        images,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
    )


def _listed(images: tf.Tensor) -> tf.Tensor:
    """Refuses one file that is not in a list of files, and lists of lists."""
    # Of unknown rank: TensorFlow would otherwise take the signature's word for it, and drop the check.
    fed = tf.compat.v1.placeholder_with_default(images, None)
    rule = (
        'Images must be a list, also one image: [{"b64": "..."}], not {"b64": "..."}. Received: a tensor of this shape:'
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(tf.rank(fed), 1), [rule, tf.shape(fed)])]):
        fed = tf.identity(fed)
    fed.set_shape((None,))
    return fed


def png_header(shape: tuple[int, int, int]) -> bytes:
    """Returns the first 26 bytes of every 8-bit PNG of that shape (H, W, C): signature, IHDR, size, depth, colour."""
    height, width, channels = shape
    return _PNG + struct.pack(">I4sIIBB", 13, b"IHDR", width, height, 8, _COLOURS[channels][0])
