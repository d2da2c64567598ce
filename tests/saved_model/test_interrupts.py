import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from kernorm.saved_model.inference import SIGNATURE, load_saved_model
from kernorm.saved_model.signatures import write_saved_model
from tests.builders import Deleted


class Sums(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.uint8, name="image")])
    def ask(self, image):
        return {"logits": tf.reduce_sum(tf.cast(image, tf.float32), axis=1, keepdims=True)}


class Interrupting(np.ndarray):
    """Images during whose reading Ctrl-C comes where Python would lose it."""

    def __array__(self, *args, **options):
        Deleted(signal.SIGINT)
        return np.array(self.view(np.ndarray))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path, sums = tmp_path_factory.mktemp("models") / "1", Sums()
    tf.saved_model.save(sums, str(path), signatures={SIGNATURE: sums.ask})
    return path


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_waits_for_the_answer(saved):
    predict, images = load_saved_model(saved), np.array([[1, 2], [3, 4]], np.uint8)
    np.testing.assert_array_equal(predict(images), [[3], [7]])
    with pytest.raises(KeyboardInterrupt):
        predict(images.view(Interrupting))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_waits_for_the_model(saved, monkeypatch):
    load = tf.saved_model.load

    def interrupted_load(path):
        Deleted(signal.SIGTERM)
        return load(path)

    def obeyed(number, frame):
        raise SystemExit(143)

    monkeypatch.setattr(tf.saved_model, "load", interrupted_load)
    before = signal.signal(signal.SIGTERM, obeyed)
    try:
        with pytest.raises(SystemExit):
            load_saved_model(saved)
    finally:
        signal.signal(signal.SIGTERM, before)


class InterruptedFlatten(keras.layers.Flatten):
    comes = False

    def call(self, inputs):
        if self.comes:
            Deleted(signal.SIGINT)
        return super().call(inputs)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_of_an_export_is_not_lost(tmp_path, monkeypatch):
    flatten = InterruptedFlatten()
    model = keras.Sequential([keras.Input((8, 8, 1), dtype="uint8"), flatten, keras.layers.Dense(2)])
    monkeypatch.setattr(InterruptedFlatten, "comes", True)
    with pytest.raises(KeyboardInterrupt):
        write_saved_model(model, ("a", "b"), tmp_path / "1")
