"""The state of a run after an epoch, in one checked file, for any Keras backend."""

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from kernorm.config import TrainConfig, with_added
from kernorm.errors import UsageError
from kernorm.records.data import Data
from kernorm.system.files import write_atomically

Arrays = list[NDArray]

# Keras' name of what `keras.random` draws from where it is given no seed, as layers of a user may do.
_GENERATOR = "global_seed_generator"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything that the next epoch depends on.

    Attributes:
        variables: weights, moving statistics and the states of the dropout generators, in the model's order.
        optimizer: step count and velocities, in the optimizer's order.
        kept: the variables of the epoch selected so far; empty while that is the last one.
        notes: what the run adds, JSON-ready: identity, history, openings, selected epoch.
    """

    variables: Arrays
    optimizer: Arrays
    kept: Arrays
    notes: dict[str, Any]


def variables_of(model: keras.Model) -> Arrays:
    """Copies the model's variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.variables]


def set_variables(model: keras.Model, values: Arrays) -> None:
    """Sets the model's variables to what `variables_of` gave."""
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


def save(path: Path, model: keras.Model, kept: Arrays, notes: dict[str, Any]) -> None:
    """Writes the state of a compiled model atomically."""
    groups = {
        "variables": variables_of(model),
        "optimizer": [np.array(ops.convert_to_numpy(variable)) for variable in model.optimizer.variables],
        "kept": kept,
    }
    if (generator := keras.src.backend.common.global_state.get_global_attribute(_GENERATOR)) is not None:
        notes = notes | {_GENERATOR: ops.convert_to_numpy(generator.state).tolist()}
    buffer = io.BytesIO()
    arrays = {f"{group}_{index}": array for group, members in groups.items() for index, array in enumerate(members)}
    np.savez(buffer, notes=np.frombuffer(json.dumps(notes).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def load(path: Path) -> Checkpoint:
    """Reads what `save` wrote.

    Raises:
        UsageError: the file cannot be read or is not whole.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            "A checkpoint must be a readable file.",
            f"{path}: {os.strerror(error.errno or 0)}",
            "Remove it to train from the beginning.",
        ) from None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise UsageError(
            "A checkpoint must be whole.", f"{path}, which is damaged", "Delete it to train from the beginning."
        )
    with np.load(io.BytesIO(content)) as arrays:
        notes = json.loads(arrays["notes"].tobytes())

        def group(name: str) -> Arrays:
            count = sum(key.startswith(f"{name}_") for key in arrays.files)
            return [arrays[f"{name}_{index}"] for index in range(count)]

        return Checkpoint(variables=group("variables"), optimizer=group("optimizer"), kept=group("kept"), notes=notes)


def restore(checkpoint: Checkpoint, model: keras.Model) -> None:
    """Puts a checkpoint's state into a compiled model and its optimizer, and Keras' generator of random numbers.

    Raises:
        UsageError: it is of another net, as another version of kernorm or Keras may build it.
    """
    model.optimizer.build(model.trainable_variables)
    shapes = [[array.shape for array in arrays] for arrays in (checkpoint.variables, checkpoint.optimizer)]
    expected = [[tuple(v.shape) for v in variables] for variables in (model.variables, model.optimizer.variables)]
    if shapes != expected:
        raise UsageError(
            "A checkpoint must fit the net.",
            (
                f"{len(shapes[0])} variables and {len(shapes[1])} of the optimizer, where the net has "
                f"{len(expected[0])} and {len(expected[1])} or other shapes"
            ),
            ("Resume with the versions that started the run, or remove its folder to train from the beginning."),
        )
    set_variables(model, checkpoint.variables)
    if (seeds := checkpoint.notes.get(_GENERATOR)) is not None:
        keras.src.random.seed_generator.global_seed_generator().state.assign(np.array(seeds, np.uint32))
    for variable, value in zip(model.optimizer.variables, checkpoint.optimizer, strict=True):
        variable.assign(value)


def require_same(state: Checkpoint, path: Path, config: TrainConfig, data: Data) -> None:
    """Refuses the checkpoint of another config, or of other data.

    Raises:
        UsageError: it is one.
    """
    fix = "Give another --reports-dir, or move that folder away."
    if with_added(state.notes["identity"]) != config.identity:
        raise UsageError("A run is resumed with the config that it started with.", f"{path} of another one", fix)
    if (digest := state.notes.get("data", data.sha256)) != data.sha256:
        received = f"{path} of {data.name} {digest[:12]}…, which is {data.sha256[:12]}… now"
        raise UsageError("A run is resumed on the data that it started with.", received, fix)
