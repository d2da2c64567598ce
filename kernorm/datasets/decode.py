"""How an image file becomes the pixels that a net sees: the same for preparation and in the graph that is served.

TensorFlow is imported when something is decoded.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kernorm.config import Resize
from kernorm.system.backend import import_tensorflow

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

# The EXIF tag that says how a camera was held; 1 is upright.
ORIENTATION = 0x0112


def decode_image(file: "tf.Tensor", shape: tuple[int, int, int], resize: Resize) -> "tf.Tensor":
    """Decodes and resizes one JPEG, PNG or BMP file, for use in a graph.

    Args:
        file: its bytes, a string ().
        shape: (H, W, C) of the result; C is 1 or 3.
        resize: `stretch` changes the ratio of the sides, `crop` cuts from the middle, `pad` adds black.

    Returns:
        Pixels (H, W, C), uint8: bilinear with antialiasing, rounded.
    """
    import tensorflow as tf

    height, width, channels = shape
    image = tf.io.decode_image(file, channels=channels, expand_animations=False)
    image.set_shape((None, None, channels))
    resized = _resized(tf, image, height, width, resize)
    pixels = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
    return tf.ensure_shape(pixels, shape)


def decode_images(files: "tf.Tensor", shape: tuple[int, int, int], resize: Resize, parallel: int = 10) -> "tf.Tensor":
    """Decodes and resizes files (n,) to pixels (n, H, W, C), uint8, as `decode_image` does, for use in a graph.

    At most `parallel` of them are in memory at a time; each may be a large photo.
    """
    import tensorflow as tf

    return tf.map_fn(
        lambda file: decode_image(file, shape, resize),
        files,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        parallel_iterations=parallel,
    )


def decoder(shape: tuple[int, int, int], resize: Resize) -> "Callable[[Sequence[bytes]], np.ndarray]":
    """Returns a function from the bytes of n image files to their pixels (n, H, W, C), one file after another.

    Operation by operation, without a graph, TensorFlow takes several times as long for small images.
    """
    import_tensorflow()
    import tensorflow as tf

    def decode(files: "tf.Tensor") -> "tf.Tensor":
        return decode_images(files, shape, resize, parallel=1)

    graph = tf.function(decode, input_signature=[tf.TensorSpec((None,), tf.string)]).get_concrete_function()
    return lambda files: graph(tf.constant(files, tf.string)).numpy()


def _resized(tf: Any, image: Any, height: int, width: int, resize: Resize) -> Any:
    """Returns (height, width, C), float32."""
    if resize == "pad":
        return tf.image.resize_with_pad(image, height, width, method="bilinear", antialias=True)
    if resize == "crop":
        sides = tf.shape(image)[:2]
        # The largest part of the target's ratio, in whole pixels.
        rows = tf.minimum(sides[0], tf.maximum(1, sides[1] * height // width))
        columns = tf.minimum(sides[1], tf.maximum(1, sides[0] * width // height))
        top, left = (sides[0] - rows) // 2, (sides[1] - columns) // 2
        image = image[top : top + rows, left : left + columns]
    return tf.image.resize(image, (height, width), method="bilinear", antialias=True)


def upright(file: bytes) -> bytes:
    """Returns an image file as it is to be looked at, as a PNG if it is turned as its EXIF orientation says, or a BMP.

    Any other is returned as it is, byte for byte. TensorFlow does not look at EXIF, nor at the palette of a BMP.

    Raises:
        OSError: it is no image that Pillow reads.
    """
    from PIL import Image, ImageOps  # as a served model is asked without it

    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.getexif().get(ORIENTATION, 1) == 1 and image.format != "BMP":
                return file
            turned = io.BytesIO()
            ImageOps.exif_transpose(image).save(turned, "PNG")
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from error
    return turned.getvalue()
