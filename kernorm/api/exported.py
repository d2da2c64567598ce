"""Exported models for Python users: ask, evaluate, validate, convert, publish."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernorm.api.display import page
from kernorm.config import FormatName
from kernorm.errors import UsageError, nearest
from kernorm.evaluation.evaluator import evaluate_model
from kernorm.evaluation.result import ModelEvaluation, read_evaluation
from kernorm.limits import expanded
from kernorm.saved_model.card import Card
from kernorm.saved_model.formats import convert
from kernorm.saved_model.inference import load_in_batches
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.parity import PredictLogits, softmax
from kernorm.serving.publish import publish
from kernorm.serving.validation import Validation, validate_model


class Exported:
    """A model that kernorm exported, saved_models/<run id>/<version>.

    Attributes:
        path: its folder.
        card: where it comes from, how good it is, what it is for.

    Raises:
        UsageError: there is none of kernorm's, or it was changed after its export.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.card: Card = verify_integrity(path)[0]
        self._predict: PredictLogits | None = None

    def predict(self, images: NDArray[np.uint8]) -> pd.DataFrame:
        """Returns a row an image: its class by number and by name, and the probability of each class.

        Args:
            images: uint8, (N, H, W, C) of the shape that the model takes; (N, H, W) for one channel.

        Raises:
            UsageError: they have another shape or type.
        """
        shape = self.card.data.image_shape
        try:
            images = np.asarray(images)
        except ValueError:  # a list that makes no array
            raise UsageError(
                f"Images are uint8 of shape (N, {', '.join(map(str, shape))}).",
                "images of different sizes",
                "Bring them to that size.",
            ) from None
        if images.ndim == 3 and shape[2] == 1:
            images = images[..., np.newaxis]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise UsageError(
                f"Images are uint8 of shape (N, {', '.join(map(str, shape))}).",
                f"{images.dtype} of shape {images.shape}",
                "Pixels go from 0 to 255; the model scales them itself.",
            )
        self._predict = self._predict or load_in_batches(self.path)
        probabilities = softmax(self._predict(images)) if len(images) else np.empty((0, len(self.card.data.labels)))
        classes = probabilities.argmax(-1)
        names = [self.card.data.labels[index] for index in classes]
        table = pd.DataFrame({"class_id": classes, "label": names})
        return table.join(pd.DataFrame(probabilities, columns=list(self.card.data.labels)))

    def evaluate(
        self, *, thresholds: str | Path | None = None, baseline: str | Path | None = None, robustness: bool = True
    ) -> ModelEvaluation:
        """Evaluates the model on the test split; see `kernorm.evaluation.evaluator.evaluate_model`.

        Args:
            thresholds: a data set's name such as mnist, bounds such as accuracy=0.9, or a file; None: no blessing.
            baseline: another exported model, or `latest`.
            robustness: measure accuracy on corrupted images too.

        Raises:
            UsageError: the thresholds, the baseline or the data cannot be used.
        """
        return evaluate_model(self.path, thresholds=thresholds, baseline=baseline, robustness=robustness)

    def validate(self) -> Validation:
        """Tries the model in the runtimes of this machine, in fresh processes.

        Raises:
            UsageError: the model was changed.
        """
        return validate_model(self.path)

    def convert(self, name: FormatName) -> Path:
        """Writes the model as onnx, openvino or litert next to its folder; returns the new file.

        Raises:
            UsageError: the name is unknown, or a package is missing.
            RuntimeError: the converted model does not answer as the SavedModel.
        """
        if name not in get_args(FormatName):
            raise UsageError("A format is a known one.", f"{name!r}", nearest(name, get_args(FormatName)))
        return convert(self.path, name)

    def push(self, saved_models_dir: str | Path = "saved_models") -> Path:
        """Evaluates the model against its set's thresholds and the newest blessed version, and publishes it.

        Returns:
            The new version's folder, which TF Serving takes.

        Raises:
            Refused: it is not blessed, or fails in a runtime.
            UsageError: see `kernorm.serving.publish.publish`.
        """
        return publish(self.path, saved_models_dir=expanded(saved_models_dir))

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what answers, which is loaded where it is asked."""
        return self.__dict__ | {"_predict": None}

    def __repr__(self) -> str:
        return f"Exported({self._headline()})"

    def _repr_html_(self) -> str:
        found = read_evaluation(self.path)
        rows = {
            one.metric: {"value": one.value, "low": one.interval[0], "high": one.interval[1]}
            for one in (found.measures if found else ())
            if one.slice == "overall"
        }
        return page(self._headline(), pd.DataFrame.from_dict(rows, orient="index"))

    def _headline(self) -> str:
        return f"{self.card.name}, version {self.card.version}, run {self.card.run_id}"


def load_exported(path: str | Path) -> Exported:
    """Loads an exported model from its folder, saved_models/<run id>/<version>.

    Raises:
        UsageError: there is none of kernorm's, or it was changed after its export.
    """
    return Exported(expanded(path))
