"""Asks a served model, or a SavedModel here, which class each image shows.

    python -m kernorm.predict --endpoint http://localhost:8501/v1/models/kernorm seven.png
    python -m kernorm.predict --endpoint localhost:8500 seven.png four.png
    python -m kernorm.predict --model-path saved_models/kernorm/<version> seven.png

Images travel as files and are decoded in the model. One that was trained on own images takes JPEG and PNG of any size.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kernorm.errors import UsageError
from kernorm.limits import Limit, check_settings
from kernorm.saved_model.versions import PUBLISHED
from kernorm.system import cli
from kernorm.system.backend import use_tensorflow_on_cpu

PROG = "python -m kernorm.predict"


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Says which class each image file shows, by a served model or by a SavedModel here.

    A line a file: its name, the class, its probability. A server's model of an earlier version answers with the
    number of the class instead of its name.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG files of the size that the model takes. A model of own images takes JPEG, PNG or BMP of any size; they are
    turned upright first, as their EXIF orientation says."""

    endpoint: str | None = None
    """Of TF Serving: http://HOST:PORT/v1/models/NAME[/versions/N | /labels/L] for REST, HOST:PORT for gRPC."""

    model_path: Path | None = None
    """A SavedModel here instead of a server: saved_models/<name>/<version>, or saved_models/<name> for its newest
    version."""

    model: str = PUBLISHED
    """Name of the model, for gRPC."""

    batch_size: Annotated[int, Limit(1, math.inf, "at least 1")] = 32
    """Images a request."""

    retries: Annotated[int, Limit(0, math.inf, "at least 0")] = 3
    """Times a request is sent again when the server is not reached, is starting or is full, after 0.5, 1, 2, … and at
    most 30 seconds."""

    timeout: Annotated[float, Limit(1e-3, 1e9, "a time above 0")] = 10.0
    """Seconds that a request may take, from its first byte to the last one of the answer."""

    def __post_init__(self) -> None:
        """Refuses values outside their limits, and more or less than one place to ask."""
        check_settings(self)
        if (self.endpoint is None) == (self.model_path is None):
            received = "both" if self.endpoint else "neither"
            raise UsageError("Either --endpoint or --model-path is asked.", received, "Give one of them.")
        if not self.images:
            raise UsageError("There must be an image to ask about.", "none", "Give image files.")


def main(config: PredictConfig) -> None:
    """Prints a line a file."""
    use_tensorflow_on_cpu(load=False)  # a server is asked by REST without it
    from kernorm.saved_model.card import read_labels
    from kernorm.saved_model.versions import model_of
    from kernorm.serving.client import predict

    files = [_read(path) for path in config.images]
    path = config.model_path and model_of(config.model_path)
    labels = read_labels(path) if path else []
    predictions = predict(
        files,
        endpoint=config.endpoint,
        model_path=path,
        model=config.model,
        batch_size=config.batch_size,
        retries=config.retries,
        timeout=config.timeout,
    )
    for image, found in zip(config.images, predictions, strict=True):
        name = found.class_name or (labels[found.class_id] if found.class_id < len(labels) else str(found.class_id))
        print(f"{image}  {name}  {found.probability:.4f}")


def _read(path: Path) -> bytes:
    from kernorm.datasets.decode import upright
    from kernorm.serving.client import BMP, JPEG, PNG

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            "An image is a file that can be read.", f"{path}: {os.strerror(error.errno or 0)}", "Give another."
        ) from None
    if not content.startswith((PNG, JPEG, BMP)):
        what = "which is empty" if not content else "which is none"
        raise UsageError("An image is a PNG, JPEG or BMP file.", f"{path}, {what}", "Convert it.")
    try:
        return upright(content)
    except OSError:
        return content  # the model says what is wrong with it


if __name__ == "__main__":
    sys.exit(cli.run(PredictConfig, main, prog=PROG))
