"""Tries an exported model in the runtimes that are here, each in a fresh process: INFRA_BLESSED or not.

    python -m kernorm.validate saved_models/<run id>/<version>

takes about half a minute. Between export and push, which asks for it. Every answer is compared with the net that
kernorm's code builds, filled with the SavedModel's own weights. Images are those of the warm-up file.
"""

import datetime
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from kernorm import cli
from kernorm.card import FOLDER
from kernorm.config import UsageError
from kernorm.evaluate import require_whole
from kernorm.files import write_atomically
from kernorm.runtimes import BATCHES, NEEDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROG = "python -m kernorm.validate"
SCHEMA = 1
VALIDATION, INFRA_BLESSED, INFRA_NOT_BLESSED = "validation.json", "INFRA_BLESSED", "INFRA_NOT_BLESSED"
# Of a logit, times the largest one if that is above 1: runtimes add in different orders.
TOLERANCE = 1e-5

_strict = with_config(ConfigDict(extra="forbid"))


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Tries an exported model in TensorFlow's C++ session, OpenVINO and ONNX Runtime, as far as they are installed.

    It writes validation.json and INFRA_BLESSED or INFRA_NOT_BLESSED into assets.extra/kernorm/ of the model. Exit code
    1 if it is not blessed.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>."""


@_strict
@dataclass(frozen=True, kw_only=True)
class Tried:
    """One runtime: what came of it, and the largest difference of a logit to the reference where it answered."""

    runtime: str
    status: Literal["passed", "failed", "not_installed", "not_run"]
    version: str = ""
    difference: float | None = None
    message: str = ""


@_strict
@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a validation of exactly one tree of files found."""

    schema_version: int = SCHEMA
    tree_sha256: str
    created: str
    batches: tuple[int, ...] = BATCHES
    blessed: bool
    tried: tuple[Tried, ...]


_ADAPTER = TypeAdapter(Validation)


def validate_model(path: Path) -> Validation:
    """Tries a model in every runtime that is here and writes what it found beside it.

    Raises:
        UsageError: the path is no model of kernorm's or was changed after its export.
    """
    import numpy as np
    import tensorflow as tf

    _, digest = require_whole(path)
    with tempfile.TemporaryDirectory() as folder:
        try:
            np.save(Path(folder) / "images.npy", _images(path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise UsageError(
                f"A model has a warm-up file. Received: {path} with none that can be read: {error}. Export it again."
            ) from None
        answers = {
            name: _run(name, path, Path(folder)) for name in NEEDS if all(map(importlib.util.find_spec, NEEDS[name]))
        }
    reference = answers.pop("keras")
    tried = []
    for name in NEEDS:
        if name in answers:
            tried.append(_compared(name, answers[name], reference))
        elif name != "keras":
            tried.append(Tried(runtime=name, status="not_installed"))
    tried.append(Tried(runtime="tensorflow_serving", status="not_run"))
    found = Validation(
        tree_sha256=digest,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        blessed=all(one.status != "failed" for one in tried) and tried[0].status == "passed",
        tried=tuple(tried),
    )
    folder_ = path / FOLDER
    for marker in (INFRA_BLESSED, INFRA_NOT_BLESSED):
        (folder_ / marker).unlink(missing_ok=True)
    write_atomically(folder_ / VALIDATION, _ADAPTER.dump_json(found, indent=1) + b"\n")
    lines = "".join(f"{line}\n" for line in described(found))
    write_atomically(folder_ / (INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED), lines.encode())
    return found


def unvalidated(path: Path, digest: str) -> str:
    """Says why the model in `path` with that hash counts as not validated; empty if it is."""
    try:
        found = _ADAPTER.validate_json((path / FOLDER / VALIDATION).read_bytes())
    except FileNotFoundError:
        return "it was never validated"
    except ValidationError:
        return "its validation.json is damaged"
    if found.tree_sha256 != digest:
        return "its validation is of other files"
    if not found.blessed or not (path / FOLDER / INFRA_BLESSED).is_file():
        failed = [f"{one.runtime}: {one.message}" for one in found.tried if one.status == "failed"]
        return "; ".join(["it failed in a runtime", *failed])
    return ""


def described(found: Validation) -> list[str]:
    """Returns a line a runtime."""
    lines = []
    for one in found.tried:
        text = f"{one.runtime}: {one.status}"
        if one.version:
            text += f", version {one.version}"
        if one.difference is not None:
            text += f", logits within {one.difference:.2g} of Keras"
        lines.append(text + (f": {one.message}" if one.message else ""))
    return lines


def _images(path: Path) -> "NDArray[np.uint8]":
    """Returns the images of the warm-up file's largest request, repeated to the largest batch."""
    import numpy as np
    import tensorflow as tf

    from kernorm.warmup import PATH, PredictionLog

    found: list[NDArray[np.uint8]] = []
    for record in tf.data.TFRecordDataset(str(path / PATH)):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        if request.model_spec.signature_name == "serving_default":
            found.append(tf.make_ndarray(request.inputs["image"]))
    images = max(found, key=len)
    return images[np.arange(max(BATCHES)) % len(images)]


def _run(name: str, path: Path, folder: Path) -> "dict[str, NDArray[np.float32]] | str":
    """Returns the answers of a runtime, or in one line why there are none."""
    import numpy as np

    command = [sys.executable, "-m", "kernorm.runtimes", name, str(path), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        return (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def _compared(
    name: str, answered: "dict[str, NDArray[np.float32]] | str", reference: "dict[str, NDArray[np.float32]] | str"
) -> Tried:
    import numpy as np

    if isinstance(reference, str):
        return Tried(runtime=name, status="failed", message=f"there is no reference: {reference}")
    if isinstance(answered, str):
        return Tried(runtime=name, status="failed", message=answered)
    version = str(answered.pop("version"))
    largest = 0.0
    for key, logits in answered.items():
        wanted = reference[key.rpartition(":")[2]]
        if logits.shape != wanted.shape or not np.isfinite(logits).all():
            message = f"{key} answers with {logits.shape} instead of {wanted.shape}, or not with numbers"
            return Tried(runtime=name, status="failed", version=version, message=message)
        bound = TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0)))
        difference = float(np.abs(logits - wanted).max(initial=0))
        largest = max(largest, difference)
        if difference > bound:
            return Tried(runtime=name, status="failed", version=version, difference=difference,
                         message=f"logits of {key} differ from Keras by more than {bound:.2g}")  # fmt: skip
    return Tried(runtime=name, status="passed", version=version, difference=largest)


def main(config: ValidateConfig) -> int:
    """Validates a model and prints what came of each runtime; returns 1 if one of them failed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    found = validate_model(config.path)
    print("\n".join([*described(found), INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED]))
    return 0 if found.blessed else 1


if __name__ == "__main__":
    sys.exit(cli.run(ValidateConfig, main, prog=PROG))
