"""Rebuilds a run's model from what it left: its record and weights, on any backend, or an exported model."""

import tempfile
from pathlib import Path

import h5py
import keras
from pydantic import TypeAdapter

from kernorm.card import read_card
from kernorm.config import TrainConfig, with_added
from kernorm.errors import UsageError
from kernorm.model import build_model
from kernorm.record import Record


def load_model(record: Record, weights: Path) -> keras.Model:
    """Builds the net of a record and loads its weights from a file of Keras' save_weights.

    Raises:
        UsageError: the file is damaged or holds the weights of another net.
    """
    model = build_model(record.config, record.data)
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


def rebuild(path: Path) -> keras.Model:
    """Builds the net of the exported model in `path`, with the weights that are in its SavedModel; under TensorFlow.

    Raises:
        ValueError: the SavedModel's variables are not those of the net that its card describes.
    """
    import tensorflow as tf

    card = read_card(path)
    model = build_model(TypeAdapter(TrainConfig).validate_python(with_added(card.config)), card.data)
    stored = tf.saved_model.load(str(path)).variables
    shapes = [[tuple(variable.shape) for variable in variables] for variables in (model.variables, stored)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the variables of the net are {shapes[0]}, those in the SavedModel {shapes[1]}")
    for variable, value in zip(model.variables, stored, strict=True):
        variable.assign(value)
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
    """Says what the file has too much, too little or otherwise; Keras takes too much in silence, and warns of less."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return f"{name} is {found.get(name, 'missing')} in the file and {expected.get(name, 'missing')} in the net"
    return ""
