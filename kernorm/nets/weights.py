"""What the trained weights look like: the per-layer table, and the accuracy that is left after pruning."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import keras
from keras import ops

from kernorm.errors import UsageError
from kernorm.nets.model import build_model_for
from kernorm.records.record import Record
from kernorm.system.backend import keras_settings
from kernorm.system.files import write_atomically


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights in Keras' own format, which load under any backend, atomically.

    Raises:
        OSError: the disk is full; the old file stays as it was.
    """
    # HDF5 does not survive a disk that fills while it writes: it ends the process.
    needed = 2**20 + 4 * sum(ops.convert_to_numpy(variable).nbytes for variable in model.variables)
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        model.save_weights(draft)
        write_atomically(path, draft.read_bytes())


@keras_settings()
def load_model(record: Record, weights: Path) -> keras.Model:
    """Builds the net of a record and loads its weights from a file of Keras' save_weights.

    Raises:
        UsageError: the file is damaged or holds the weights of another net.
    """
    model = build_model_for(record.config, record.data)
    try:
        difference = _difference(_layout(weights), _expected_layout(model))
        if not difference:
            model.load_weights(weights)
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        difference = str(error).strip().splitlines()[0].rstrip(".")
    if difference:
        raise UsageError(
            "Weights must be whole and of the net that their record describes.",
            f"{weights}: {difference}",
            "Train the run once more with --retrain.",
        )
    return model


def _expected_layout(model: keras.Model) -> dict[str, tuple[int, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "expected.weights.h5"
        model.save_weights(path)
        return _layout(path)


def _layout(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the variables in a weights file by name, without the optimizer's."""
    shapes: dict[str, tuple[int, ...]] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
            shapes[name] = item.shape

    with h5py.File(path) as file:
        file.visititems(collect)
    return shapes


def _difference(found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> str:
    """Says what the file has too much, too little or in another shape; Keras accepts too much in silence."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return f"{name} is {found.get(name, 'missing')} in the file and {expected.get(name, 'missing')} in the net"
    return ""
