"""What training minimizes, but for penalties: the cross-entropy, with smoothed targets or weighted by class."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig

Weights = NDArray[np.float32]


def class_weights(config: TrainConfig, labels: NDArray[np.integer], classes: int) -> Weights | None:
    """Returns the weight of each class (K,), from the training split's labels (N,); None if all images count alike.

    `balanced` is scikit-learn's formula, N / (K·n_k), with the K classes that have images; the mean over the images of
    the split is 1. A class without training images has the weight 0.
    """
    if config.class_weight == "none":
        return None
    sizes = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(sizes) * np.maximum(sizes, 1))
    return np.where(sizes > 0, weights, 0.0).astype(np.float32)


def build_loss(config: TrainConfig, weights: Weights | None = None) -> keras.losses.Loss:
    """Returns the loss of logits (N, K) for classes (N,) that a config names, of which each has its weight."""
    if weights is not None:
        return WeightedCrossEntropy(weights, config.label_smoothing)
    if config.label_smoothing:
        return SmoothedCrossEntropy(config.label_smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def rest_of(config: TrainConfig) -> str:
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


@keras.saving.register_keras_serializable(package="kernorm")
class WeightedCrossEntropy(SmoothedCrossEntropy):
    """That cross-entropy of each image times the weight of its class.

    Divided by the number of images, as Keras does with `class_weight`; PyTorch's CrossEntropyLoss(weight=…) divides by
    the sum of the weights in a batch, and weighs the evenly spread part of a target class by class.
    """

    def __init__(
        self, weights: Weights, smoothing: float = 0.0, name: str = "weighted_cross_entropy", **kwargs: Any
    ) -> None:
        super().__init__(smoothing, name=name, **kwargs)
        self.weights = np.asarray(weights, np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, (N,)."""
        targets = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        return ops.take(ops.convert_to_tensor(self.weights), targets) * super().call(targets, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Adds the weights."""
        return {**super().get_config(), "weights": self.weights.tolist()}
