"""Keras' loops, which Ctrl-C and SIGTERM end between two steps."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kernorm.system.interrupts import deferred, obey


class _SafePoints(keras.callbacks.Callback):
    """Obeys Ctrl-C and SIGTERM after a batch, and after an epoch is saved; the last one of the callbacks."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Between two steps of training."""
        obey()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Between two steps of an evaluation."""
        obey()

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Between two steps of a prediction."""
        obey()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Between two epochs."""
        obey()


@contextlib.contextmanager
def _traced_anew() -> Iterator[None]:
    """Leaves out TensorFlow's warning of functions that are traced often, as those of each run in one process are."""
    logger = logging.getLogger("tensorflow")

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def fit(model: keras.Model, *args: Any, callbacks: Sequence[keras.callbacks.Callback] = (), **options: Any) -> None:
    """Calls Keras' fit with the same arguments; Ctrl-C and SIGTERM are obeyed between two steps."""
    with deferred(), _traced_anew():
        model.fit(*args, callbacks=[*callbacks, _SafePoints()], verbose=0, **options)


def predict(model: keras.Model, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """Returns logits (N, K) of images (N, H, W, C); Ctrl-C and SIGTERM are obeyed between two steps."""
    with deferred(), _traced_anew():
        return model.predict(images, batch_size=batch_size, callbacks=[_SafePoints()], verbose=0)
