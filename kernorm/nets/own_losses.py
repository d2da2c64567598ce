"""What an own net adds to the loss by itself: regularizers of its weights and activations, and `add_loss`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.nets.penalties import lambdas


class OwnLosses:
    """The losses of a net without kernorm's penalties, on a batch of the first training images, (N, H, W, C).

    Those of activations and of `add_loss` depend on the images; all are taken in inference mode.

    Attributes:
        exist: whether there are any; kernorm's own nets have none.
    """

    def __init__(self, model: keras.Model, config: TrainConfig, images: NDArray) -> None:
        self.model, self.images = model, images[: config.batch_size]
        rows = lambdas(model, config)
        self._penalized = [v for v, row in zip(model.trainable_variables, rows, strict=True) if row.any()]
        self.exist = config.net_source is not None and bool(self._terms(self.images))

    def measure(self) -> float | None:
        """Returns their sum in nats; None if there are none."""
        return self.of(self.images) if self.exist else None

    def of(self, images: NDArray) -> float:
        """Returns their sum for other images."""
        return sum(map(float, self._terms(images)), 0.0) if self.exist else 0.0

    def _terms(self, images: NDArray) -> list[Any]:
        with self.alone():
            self.model._clear_losses()
            self.model(images, training=False)
            found = list(self.model.losses)
            self.model._clear_losses()
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Takes kernorm's penalties away inside the context, so that the model's losses are its own."""
        kept = [variable.regularizer for variable in self._penalized]
        try:
            for variable in self._penalized:
                variable.regularizer = None
            yield
        finally:
            for variable, regularizer in zip(self._penalized, kept, strict=True):
                variable.regularizer = regularizer
