import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kernorm.saved_model.warmup import BATCHES, PATH, answer, requests, write_warmup


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (20, 6, 5, 1), dtype=np.uint8)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))[..., None]


def pixels_of(log):
    """Returns the images a request carries, by other decoders than the ones that wrote it."""
    if log.HasField("classify_log"):
        examples = log.classify_log.request.input.example_list.examples
        return [pixels(example.features.feature["image"].bytes_list.value[0]) for example in examples]
    ((key, tensor),) = log.predict_log.request.inputs.items()
    values = tf.make_ndarray(tensor)
    if key == "image":
        return list(values)
    if key == "examples":
        values = [tf.train.Example.FromString(value).features.feature["image"].bytes_list.value[0] for value in values]
    return [pixels(value) for value in values]


def spec(log):
    return (log.classify_log if log.HasField("classify_log") else log.predict_log).request.model_spec


def test_every_signature_is_asked_at_every_batch_size(images):
    logs = list(requests("a-model", images))
    asked = {(spec(log).signature_name, len(pixels_of(log))) for log in logs}
    names = ("serving_default", "serving_png", "serving_tf_examples", "classify")
    assert asked == {(name, size) for name in names for size in (1, 4, 16, 20)}
    assert {spec(log).name for log in logs} == {"a-model"}
    assert len(logs) == len(asked)
    assert 5 * len(BATCHES) <= 1000
    own = [log for log in requests("m", images, files=True) if spec(log).signature_name == "serving_image"]
    assert [len(pixels_of(log)) for log in own] == [1, 4, 16, 20]
    for log in logs:
        np.testing.assert_array_equal(pixels_of(log), images[: len(pixels_of(log))])


def test_nothing_unanswered_is_written(images, tmp_path):
    seen = []

    def serve(**inputs):
        seen.append(inputs)
        if len(seen) == 6:
            raise tf.errors.InvalidArgumentError(None, None, "cannot")
        return {}

    signatures = dict.fromkeys(("serving_default", "serving_png", "serving_tf_examples", "classify"), serve)
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot"):
        write_warmup(tmp_path, "m", images, signatures)
    assert sum(1 for _ in tf.data.TFRecordDataset(str(tmp_path / PATH))) == 5


def test_requests_reach_the_signature_as_its_one_input(images):
    seen = {}
    signatures = {
        name: lambda name=name, **inputs: seen.update({name: inputs}) or {}
        for name in ("serving_default", "serving_png", "serving_tf_examples", "classify")
    }
    for log in list(requests("m", images))[:4]:
        answer(log, signatures)
    assert {name: list(inputs) for name, inputs in seen.items()} == {
        "serving_default": ["image"],
        "serving_png": ["image_bytes"],
        "serving_tf_examples": ["examples"],
        "classify": ["inputs"],
    }
    np.testing.assert_array_equal(seen["serving_default"]["image"], images[:1])
    assert seen["classify"]["inputs"].numpy().tolist() == seen["serving_tf_examples"]["examples"].numpy().tolist()
