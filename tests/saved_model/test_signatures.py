import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from kernorm.errors import UsageError
from kernorm.saved_model.signatures import decode_png, decode_recorded, endpoints, png_header

GREY, COLOUR = (28, 20, 1), (28, 20, 3)


def decoder(shape):
    return tf.function(lambda images: decode_png(images, shape), input_signature=[tf.TensorSpec((None,), tf.string)])


@pytest.fixture(scope="module")
def decode():
    return {shape: decoder(shape) for shape in (GREY, COLOUR, (28, 20, 4))}


def encoded(pixels, mode=None, kind="PNG", **options):
    image = Image.fromarray(pixels.squeeze())
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def pixels(rng, shape, count=5):
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", [GREY, COLOUR, (28, 20, 4)])
def test_pngs_of_another_encoder_give_their_pixels(decode, rng, shape):
    images = pixels(rng, shape)
    files = [encoded(image, optimize=bool(index % 2)) for index, image in enumerate(images)]
    np.testing.assert_array_equal(decode[shape](files), images)
    assert all(file.startswith(png_header(shape)) for file in files)


def test_an_empty_batch(decode):
    assert decode[GREY](tf.constant([], tf.string)).shape == (0, *GREY)


WRONG = {
    "another size": lambda image: encoded(image.transpose(1, 0, 2)),
    "16 bits": lambda image: tf.io.encode_png(image.astype(np.uint16) * 257).numpy(),
    "1 bit": lambda image: encoded(image, "1"),
    "palette": lambda image: encoded(image, "P"),
    "grey and alpha": lambda image: encoded(image, "LA"),
    "RGB": lambda image: encoded(image, "RGB"),
    "RGBA": lambda image: encoded(image, "RGBA"),
    "JPEG": lambda image: encoded(image, kind="JPEG"),
    "GIF": lambda image: encoded(image, kind="GIF"),
    "BMP": lambda image: encoded(image, kind="BMP"),
    "text": lambda image: b"no image at all, but longer than a header",
    "nothing": lambda image: b"",
}


@pytest.mark.parametrize("kind", WRONG)
def test_any_other_file_is_refused_by_size_and_channels(decode, rng, kind):
    image = pixels(rng, GREY, 1)[0]
    good, wrong = encoded(image), WRONG[kind](image)
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"must be an 8-bit greyscale PNG of 28x20 pixels, channels=1\. Received: another kind .*\] \[1 3\]",
    ):
        decode[GREY]([good, wrong, good, wrong])
    assert decode[GREY]([good]).shape == (1, *GREY)


def test_a_grey_png_is_refused_where_colour_is_wanted(decode, rng):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"8-bit RGB PNG of 28x20 pixels, channels=3"):
        decode[COLOUR]([encoded(pixels(rng, GREY, 1)[0])])


@pytest.mark.parametrize("damage", ["cut", "header only", "flipped bit"])
def test_a_damaged_png_is_refused(decode, rng, damage):
    good = encoded(pixels(rng, GREY, 1)[0])
    flipped = bytearray(good)
    flipped[100] ^= 1
    bad = {"cut": good[:-20], "header only": good[:26], "flipped bit": bytes(flipped)}[damage]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
        decode[GREY]([good, bad])
    np.testing.assert_array_equal(decode[GREY]([good, good])[0], decode[GREY]([good])[0])


RECORDED = [(GREY, kind) for kind in ("16 bits", "1 bit", "palette", "grey and alpha", "RGB", "RGBA", "JPEG")] + [
    (COLOUR, kind) for kind in ("grey", "grey JPEG", "colour JPEG", "colour palette")
]


@pytest.mark.parametrize(("shape", "kind"), RECORDED)
def test_records_are_decoded_as_tensorflow_datasets_does(rng, shape, kind):
    image = tfds.features.Image(shape=shape)
    grey, colour = pixels(rng, GREY, 1)[0], pixels(rng, COLOUR, 1)[0]
    files = WRONG | {
        "grey": lambda grey: encoded(grey),
        "grey JPEG": lambda grey: encoded(grey, kind="JPEG"),
        "colour JPEG": lambda _: encoded(colour, kind="JPEG"),
        "colour palette": lambda _: encoded(colour, "P"),
    }
    file = files[kind](grey)
    right = encoded(grey if shape == GREY else colour)
    wanted = [image.decode_example(tf.constant(one)) for one in (right, file)]
    np.testing.assert_array_equal(tf.function(decode_recorded)([right, file], shape), wanted)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "text", "nothing"])
def test_records_of_other_files_are_refused(rng, kind):
    image = pixels(rng, GREY, 1)[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a PNG or JPEG file\. Received: another .*\] \[1\]"):
        tf.function(decode_recorded)([encoded(image), WRONG[kind](image)], GREY)


def net(shape, classes):
    image = keras.Input(shape, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(x)))


def test_ties_are_ranked_as_class_id_says():
    model = net((2, 2, 1), 4)
    model.layers[-1].kernel.assign(np.zeros((4, 4)))
    model.layers[-1].bias.assign([-200.0, 0.0, 80.0, 80.0])  # The probabilities of the first two are both 0.
    png = tf.io.encode_png(np.zeros((2, 2, 1), np.uint8)).numpy()
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
    example = tf.train.Example(features=tf.train.Features(feature={"image": image})).SerializeToString()
    by_name = endpoints(model, ("a", "b", "c", "ü"))
    ranked = tf.function(by_name["classify"].function)(tf.constant([example]))
    answer = tf.function(by_name["serving_tf_examples"].function)(tf.constant([example]))
    assert [name.decode() for name in ranked["classes"][0].numpy()] == ["c", "ü", "b", "a"]
    np.testing.assert_allclose(ranked["scores"], [[0.5, 0.5, 0.0, 0.0]], atol=1e-7)
    assert answer["class_id"].numpy().tolist() == [2]
    assert answer["class_name"].numpy().tolist() == [b"c"]


def test_labels_that_are_not_as_many_as_logits():
    with pytest.raises(UsageError, match=r"^A model needs one label a logit\. Received: 2 labels for 3 logits\."):
        endpoints(net((4, 4, 1), 3), ("a", "b"))


def test_channels_that_png_does_not_know():
    with pytest.raises(UsageError, match=r"^An exported model takes .* Received: image_shape=\(4, 4, 5\)\. Train with"):
        endpoints(net((4, 4, 5), 2), ("a", "b"))
