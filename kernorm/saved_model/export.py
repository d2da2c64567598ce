"""Exports a finished run as a SavedModel candidate for TF Serving, checked before it gets its name."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernorm.datasets.dataset import load
from kernorm.errors import UsageError
from kernorm.nets.source import is_trusted
from kernorm.records.record import RECORD, WEIGHTS, Export, Record, read_record, write_record
from kernorm.saved_model.card import FOLDER, make_card, write_card
from kernorm.saved_model.integrity import tree_sha256
from kernorm.saved_model.paths import literal_path
from kernorm.saved_model.versions import Version, new_version
from kernorm.system.backend import keras_settings
from kernorm.system.files import disk_errors
from kernorm.system.machine import installed_versions

if TYPE_CHECKING:
    import keras

SAMPLES = 256
_PACKAGES = ("kernorm", "keras", "tensorflow", "tensorflow-serving-api", "numpy")


def export_run(run_folder: Path, saved_models_dir: Path | None = None) -> Export:
    """Exports a finished run from what is on disk and records the export in its record.json.

    Under TensorFlow in this process; in a process of its own if Keras runs on another backend here.

    Raises:
        UsageError: the run has no record or weights, is not finished, its weights are of another net, or its own net's
            Python may not run (see `nets.source`); or as `export_model`.
    """
    record = read_record(run_folder / RECORD)
    if record.status != "finished":
        raise UsageError(
            "Only a finished run can be exported.",
            f"{run_folder} with status={record.status!r}",
            "Run its training command again.",
        )
    weights = run_folder / WEIGHTS
    if not weights.is_file():
        raise UsageError(
            "A run is exported from its weights.",
            f"{run_folder} without {WEIGHTS}",
            "Train it once more with --retrain.",
        )
    root = saved_models_dir or record.config.saved_models_dir
    if _backend() != "tensorflow":
        return export_in_subprocess(run_folder, root)
    require_tensorflow()
    from kernorm.nets.weights import load_model  # Keras, which the export of a JAX run leaves to its child

    return _record_export(run_folder, export_model(load_model(record, weights), record, root, _samples(record)))


@keras_settings()
def export_model(model: "keras.Model", record: Record, root: Path, samples: NDArray[np.uint8]) -> Export:
    """Writes root/<run id>/<version>/, a SavedModel that has answered as the model does.

    Args:
        model: from uint8 images (N, H, W, C) to logits (N, K), on the TensorFlow backend.
        record: of the run; names the folder, and the model card is drawn from it.
        root: the folder of all SavedModels.
        samples: training or validation images (N, H, W, C), for the checks and the warm-up file; never test images.

    Raises:
        UsageError: another backend runs, the samples do not fit, the folder cannot be written, the disk is full.
        RuntimeError: the SavedModel does not answer as the model does, or could not be served; nothing is left.
    """
    require_tensorflow()
    if _backend() != "tensorflow":
        raise UsageError(
            "An export needs Keras on TensorFlow.",
            f"KERAS_BACKEND={_backend()!r}",
            "Use python -m kernorm.export with the run's folder.",
        )
    if samples.dtype != np.uint8 or samples.shape[1:] != model.input_shape[1:] or not len(samples):
        raise UsageError(
            f"Samples must be uint8 images of the model's input shape {model.input_shape}.",
            f"{samples.dtype} of shape {samples.shape}",
            "Use the run's own data set.",
        )
    with new_version(root / record.run_id) as version, disk_errors(root):
        digest = _fill(version, model, record, samples)
    return Export(path=str(version.path), version=version.number, tree_sha256=digest)


def export_in_subprocess(run_folder: Path, saved_models_dir: Path) -> Export:
    """Exports a finished run, already on disk, by TensorFlow in a process of its own, for training on another backend.

    The run's record.json holds the export, or the reason for none, afterwards: read it again.

    Returns:
        The export, or one without path that says why TensorFlow cannot be used and how to export later.

    Raises:
        UsageError: as `export_run`.
        RuntimeError: the process failed otherwise; the message is the end of what it said.
    """
    try:
        require_tensorflow()
    except UsageError as error:
        return _record_export(run_folder, Export(reason=str(error).replace("RUN_FOLDER", str(run_folder))))
    command = [sys.executable, "-m", "kernorm.export", str(run_folder), "--saved-models-dir", str(saved_models_dir)]
    if is_trusted(config := read_record(run_folder / RECORD).config) and config.net_source is not None:
        command.append("--trust-code")
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        said = finished.stderr.strip().splitlines() or ["nothing"]
        if finished.returncode == 2:
            raise UsageError(said[-1].removeprefix("error: "))
        raise RuntimeError(f"The export failed with exit code {finished.returncode}: " + "\n".join(said[-20:]))
    export = read_record(run_folder / RECORD).export
    if export is None:
        raise RuntimeError(f"The export of {run_folder} recorded nothing.")
    return export


def _record_export(run_folder: Path, export: Export) -> Export:
    """Writes an export into the run's record; a reason for none does not replace an export that is there."""
    record = read_record(run_folder / RECORD)
    if export.path or not (record.export and record.export.path):
        write_record(replace(record, export=export), run_folder / RECORD)
    return export


def require_tensorflow() -> None:
    """Makes sure that this environment can export.

    Raises:
        UsageError: TensorFlow or tensorflow-serving-api is not installed.
    """
    for module, package in (("tensorflow", "tensorflow"), ("tensorflow_serving", "tensorflow-serving-api")):
        if importlib.util.find_spec(module) is None:
            raise UsageError(
                f"An export needs {package}.",
                "an environment without it",
                f"Install it by pip install {package}, then run python -m kernorm.export RUN_FOLDER.",
            )


def _fill(version: Version, model: "keras.Model", record: Record, samples: NDArray[np.uint8]) -> str:
    """Writes the SavedModel and what goes with it into the version's folder, checked; returns the hash of it all."""
    import tensorflow as tf

    # TensorFlow, which a JAX-only run has not.
    from kernorm.saved_model.answers import write_own_net
    from kernorm.saved_model.graph import check_graph
    from kernorm.saved_model.signature_check import check_answers, describe_signatures
    from kernorm.saved_model.signatures import write_saved_model
    from kernorm.saved_model.warmup import write_warmup

    write_saved_model(model, record.data.labels, version.folder, record.data.resize)
    with literal_path(version.folder) as literal:
        signatures = tf.saved_model.load(str(literal)).signatures
    check_graph(version.folder, signatures)
    check_answers(model, signatures, record.data.labels, samples)
    warm, travelling = _warmup_images(record, samples)
    write_warmup(version.folder, record.run_id, warm, signatures)
    if record.config.net_source is not None:
        write_own_net(model, record.config, version.folder)
    versions = dict.fromkeys(_PACKAGES, "not installed as a package") | installed_versions(_PACKAGES)
    card = make_card(record, version.number, describe_signatures(signatures), versions, travelling)
    write_card(card, version.folder)
    digest = tree_sha256(version.folder)
    (version.folder / FOLDER / "tree.sha256").write_text(digest + "\n", encoding="utf-8")
    return digest


def _warmup_images(record: Record, samples: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], str]:
    """Returns the images of the warm-up requests, which everybody can read who has the model, and what they are.

    Of own images none travels: noise, the same for every export, takes their place.
    """
    from kernorm.saved_model.warmup import BATCHES  # TensorFlow

    samples = samples[: max(BATCHES)]
    if record.data.own:
        noise = np.random.default_rng(0).integers(0, 256, samples.shape, np.uint8)
        return noise, f"{len(noise)} images of noise; none of {record.data.name}"
    split = "validation" if record.data.validation else "training"
    return samples, f"{len(samples)} {split} images of {record.data.name}"


def _backend() -> str:
    """Returns the backend that Keras runs on here, importing Keras."""
    import keras

    return keras.backend.backend()


def _samples(record: Record) -> NDArray[np.uint8]:
    """Returns images for the checks and the warm-up file, from the run's own data; never the test split's."""
    data = load(record.config)
    return (data.validation or data.train).images[:SAMPLES]
