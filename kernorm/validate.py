"""Tries an exported model in the runtimes that are here, each in a fresh process: INFRA_BLESSED or not.

    python -m kernorm.validate saved_models/<run id>/<version>

takes about half a minute. Between export and push, which asks for it. Every answer is compared with the net that
kernorm's code builds, filled with the SavedModel's own weights. Images are those of the warm-up file, and those of a
record file of tensorflow-datasets where one is prepared.
"""

import datetime
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from kernorm import cli
from kernorm.card import FOLDER
from kernorm.evaluate import require_whole
from kernorm.files import write_atomically
from kernorm.formats import BATCHES, largest_difference, tolerated
from kernorm.runtimes import IMAGES, NEEDS, NOT_RUN, RECORDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernorm.card import Card

    Answers: TypeAlias = "dict[str, NDArray[np.float32]] | Tried"

PROG = "python -m kernorm.validate"
SCHEMA = 1
VALIDATION, INFRA_BLESSED, INFRA_NOT_BLESSED = "validation.json", "INFRA_BLESSED", "INFRA_NOT_BLESSED"

_strict = with_config(ConfigDict(extra="forbid"))


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Tries an exported model in the runtimes that are here: TensorFlow, OpenVINO, ONNX Runtime, TF Serving.

    TF Serving is the tensorflow_model_server on PATH, or what KERNORM_SERVING_ENDPOINT names: a server of this very
    version, as localhost:8500,http://localhost:8501/v1/models/kernorm.

    It writes validation.json and INFRA_BLESSED or INFRA_NOT_BLESSED into assets.extra/kernorm/ of the model. Exit code
    1 if it is not blessed.
    """

    path: tyro.conf.Positional[Path]
    """The model: saved_models/<run id>/<version>."""

    data_dir: Path | None = None
    """Where tensorflow-datasets keeps its sets, for their record files. None: its default."""


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


def validate_model(path: Path, data_dir: Path | None = None) -> Validation:
    """Tries a model in every runtime that is here and writes what it found beside it.

    Args:
        path: the model's folder.
        data_dir: where tensorflow-datasets keeps its sets, for their record files; None: its default.

    Raises:
        UsageError: the path is no model of kernorm's or was changed after its export.
    """
    import numpy as np

    from kernorm.warmup import recorded_images

    card, digest = require_whole(path)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        np.save(folder / IMAGES, recorded_images(path, max(BATCHES)))
        reference = _run("keras", path, folder)
        tried = tuple(
            _tried(name, path, folder, reference, _record_file(card, data_dir)) for name in NEEDS if name != "keras"
        )
    found = Validation(
        tree_sha256=digest,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        blessed=all(one.status != "failed" for one in tried)
        and {"graph", "tensorflow"} <= {one.runtime for one in tried if one.status == "passed"},
        tried=tried,
    )
    for marker in (INFRA_BLESSED, INFRA_NOT_BLESSED):
        (path / FOLDER / marker).unlink(missing_ok=True)
    write_atomically(path / FOLDER / VALIDATION, _ADAPTER.dump_json(found, indent=1) + b"\n")
    lines = "".join(f"{line}\n" for line in described(found))
    write_atomically(path / FOLDER / (INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED), lines.encode())
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


def _record_file(card: "Card", data_dir: Path | None) -> Path | None:
    """Returns a record file that tensorflow-datasets has prepared of the model's data; None if there is none."""
    base = data_dir or Path(os.environ.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets"))
    return next(iter(sorted((base / card.data.name / card.data.version).glob("*-train.tfrecord*"))), None)


def _tried(name: str, path: Path, folder: Path, reference: "Answers", record_file: Path | None) -> Tried:
    if not all(map(importlib.util.find_spec, NEEDS[name])):
        return Tried(runtime=name, status="not_installed")
    if name == "tensorflow_datasets_records":
        if record_file is None:
            return Tried(runtime=name, status="not_run", message="no prepared set; give its --data-dir")
        (folder / RECORDS).symlink_to(record_file.resolve())
    answered = _run(name, path, folder)
    if isinstance(answered, Tried):
        return answered
    version = str(answered.pop("version"))
    if answered and isinstance(reference, Tried):
        return Tried(runtime=name, status="failed", message=f"there is no reference: {reference.message}")
    wanted_by_size = {} if isinstance(reference, Tried) else reference
    largest = 0.0 if answered else None
    for key, logits in answered.items():
        if key.startswith("wanted:"):
            continue
        own = f"wanted:{key}"
        wanted = answered[own] if own in answered else wanted_by_size[key.rpartition(":")[2]]
        difference = largest_difference(logits, wanted)
        largest = max(largest or 0.0, difference)
        if difference > tolerated(wanted):
            message = f"logits of {key} differ from Keras by {difference:.2g}, allowed are {tolerated(wanted):.2g}"
            if difference == float("inf"):
                message = f"{key} answers with {logits.shape} instead of {wanted.shape}, or not with numbers"
            return Tried(runtime=name, status="failed", version=version, message=message)
    return Tried(runtime=name, status="passed", version=version, difference=largest)


def _run(name: str, path: Path, folder: Path) -> "Answers":
    """Returns the answers of a runtime, or what came of it instead."""
    import numpy as np

    command = [sys.executable, "-m", "kernorm.runtimes", name, str(path), str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        said = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        return Tried(runtime=name, status="not_run" if finished.returncode == NOT_RUN else "failed", message=said)
    with np.load(folder / f"{name}.npz") as file:
        return dict(file)


def main(config: ValidateConfig) -> int:
    """Validates a model and prints what came of each runtime; returns 1 if one of them failed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    found = validate_model(config.path, config.data_dir)
    print("\n".join([*described(found), INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED]))
    return 0 if found.blessed else 1


if __name__ == "__main__":
    sys.exit(cli.run(ValidateConfig, main, prog=PROG))
