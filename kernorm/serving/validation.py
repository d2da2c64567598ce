"""Tries an exported model in the runtimes of this machine, in fresh processes; this one needs no TensorFlow.

Every answer is compared with the net that kernorm's code builds, filled with the SavedModel's own weights. Images are
those of the warm-up file, and those of a record file of tensorflow-datasets where one is prepared.
"""

import datetime
import importlib.util
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from kernorm.datasets.cache import tfds_dir
from kernorm.errors import UsageError
from kernorm.records.schema import Schema, strict
from kernorm.saved_model.card import FOLDER, Card
from kernorm.saved_model.integrity import verify_integrity
from kernorm.saved_model.parity import BATCHES, Logits, largest_difference, largest_tolerated
from kernorm.serving.runtimes import NEEDS, RECORDS, REFUSED, TOGETHER
from kernorm.system.children import run_child
from kernorm.system.files import write_atomically

SCHEMA = 1
VALIDATION, INFRA_BLESSED, INFRA_NOT_BLESSED = "validation.json", "INFRA_BLESSED", "INFRA_NOT_BLESSED"


@strict
@dataclass(frozen=True, kw_only=True)
class Tried:
    """One runtime: what came of it, and the largest difference of a logit to the reference where it answered."""

    runtime: str
    status: Literal["passed", "failed", "not_installed", "not_run"]
    version: str = ""
    difference: float | None = None
    message: str = ""


@strict
@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a validation of exactly one tree of files found."""

    schema_version: int = SCHEMA
    tree_sha256: str
    created: str
    batches: tuple[int, ...] = BATCHES
    blessed: bool
    tried: tuple[Tried, ...]


_SCHEMA = Schema("A validation", Validation, version=SCHEMA, fix="Validate the model again.")
# A runtime's logits by signature and batch size, or what came of it instead.
_Answers: TypeAlias = dict[str, Logits] | Tried


def validate_model(path: Path, data_dir: Path | None = None) -> Validation:
    """Tries a model in every installed runtime and writes what it found into the model's folder.

    Args:
        path: the model's folder.
        data_dir: where tensorflow-datasets keeps its sets, for their record files; None: its default.

    Raises:
        UsageError: the path is no model of kernorm's, was changed after its export, or has no warm-up images.
    """
    card, digest = verify_integrity(path)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if record_file := _record_file(card, data_dir):
            (folder / RECORDS).symlink_to(record_file.resolve())
        answers = _answers_of_all(path, folder)
    reference = answers.pop("keras")
    tried = tuple(_compared(name, answered, reference) for name, answered in answers.items())
    found = Validation(
        tree_sha256=digest,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        blessed=all(one.status != "failed" for one in tried)
        and {"graph", "tensorflow"} <= {one.runtime for one in tried if one.status == "passed"},
        tried=tried,
    )
    for marker in (INFRA_BLESSED, INFRA_NOT_BLESSED):
        (path / FOLDER / marker).unlink(missing_ok=True)
    _SCHEMA.write(found, path / FOLDER / VALIDATION)
    lines = "".join(f"{line}\n" for line in format_validation(found))
    write_atomically(path / FOLDER / (INFRA_BLESSED if found.blessed else INFRA_NOT_BLESSED), lines.encode())
    return found


def validation_problem(path: Path, digest: str) -> str | None:
    """Says why the model in `path` with that hash counts as not validated; None if it is."""
    try:
        found = _SCHEMA.read(path / FOLDER / VALIDATION)
    except UsageError:
        return "its validation.json is damaged"
    if found is None:
        return "it was never validated"
    if found.tree_sha256 != digest:
        return "its validation is of other files"
    if not found.blessed or not (path / FOLDER / INFRA_BLESSED).is_file():
        failed = [f"{one.runtime}: {one.message}" for one in found.tried if one.status == "failed"]
        return "; ".join(["it failed in a runtime", *failed])
    return None


def format_validation(found: Validation) -> list[str]:
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


def _record_file(card: Card, data_dir: Path | None) -> Path | None:
    """Returns a record file that tensorflow-datasets has prepared of the model's data; None if there is none."""
    try:
        base = data_dir or tfds_dir()
    except UsageError:  # no folder is named, and there is no home
        return None
    return next(iter(sorted((base / card.data.name / card.data.version).glob("*-train.tfrecord*"))), None)


def _answers_of_all(path: Path, folder: Path) -> dict[str, _Answers]:
    """Asks every runtime, the reference first; returns what came of each."""
    installed = [name for name in NEEDS if all(map(importlib.util.find_spec, NEEDS[name]))]
    found = _asked([name for name in installed if name in TOGETHER], path, folder)
    for name in installed:
        if name not in TOGETHER:
            found |= _asked([name], path, folder)
    return {name: found.get(name, Tried(runtime=name, status="not_installed")) for name in NEEDS}


def _compared(name: str, answered: _Answers, reference: _Answers) -> Tried:
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
        if difference > largest_tolerated(wanted):
            message = (
                f"logits of {key} differ from Keras by {difference:.2g}, allowed are {largest_tolerated(wanted):.2g}"
            )
            if difference == float("inf"):
                message = f"{key} answers with {logits.shape} instead of {wanted.shape}, or not with numbers"
            return Tried(runtime=name, status="failed", version=version, message=message)
    return Tried(runtime=name, status="passed", version=version, difference=largest)


def _asked(names: Sequence[str], path: Path, folder: Path) -> dict[str, _Answers]:
    """Returns the answers of runtimes that share a process, or what came of each instead.

    One that ends the process costs its own answer only: the others are asked in another one.

    Raises:
        UsageError: the model has no images to ask about.
    """
    found: dict[str, _Answers] = {}
    while left := [name for name in names if name not in found]:
        command = [sys.executable, "-m", "kernorm.serving.runtimes", ",".join(left), str(path), str(folder)]
        finished = run_child(command)
        if (refused := folder / REFUSED).exists():
            raise UsageError(*json.loads(refused.read_text(encoding="utf-8")))
        for name in left:
            if (answers := _left_by(name, folder)) is None:
                said = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
                found[name] = Tried(runtime=name, status="failed", message=said)
                break
            found[name] = answers
    return found


def _left_by(name: str, folder: Path) -> _Answers | None:
    """Returns what a runtime has left in the folder; None if nothing."""
    if (answers := folder / f"{name}.npz").exists():
        with np.load(answers) as file:
            return dict(file)
    for status in ("failed", "not_run"):
        if (reason := folder / f"{name}.{status}").exists():
            return Tried(runtime=name, status=status, message=reason.read_text(encoding="utf-8").splitlines()[-1])
    return None
