"""What training minimizes, but for penalties: the cross-entropy, with smoothed targets where that is asked for."""

from typing import Any

import keras
from keras import ops

from kernorm.config import TrainConfig


def build_loss(config: TrainConfig) -> keras.losses.Loss:
    """Returns the loss of logits (N, K) for classes (N,) that a config names."""
    if config.label_smoothing:
        return SmoothedCrossEntropy(config.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def other_parts(config: TrainConfig) -> str:
    """Names what is in the loss next to the cross-entropy."""
    return "penalties and label smoothing" if config.label_smoothing else "penalties"


@keras.saving.register_keras_serializable(package="kernorm")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy for targets of which a share ε is spread evenly over all classes: (1 − ε)·CE − ε·mean log p.

    Szegedy et al. 2016 (arXiv:1512.00567, section 7). Keras' own smoothing takes one-hot targets alone.
    """

    def __init__(self, smoothing: float, name: str = "smoothed_cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, (N,)."""
        own = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return own - self.smoothing * (own + ops.mean(ops.log_softmax(y_pred), axis=-1))

    def get_config(self) -> dict[str, Any]:
        """Adds the smoothing."""
        return {**super().get_config(), "smoothing": self.smoothing}
