"""What an exported model of an own net carries, so that nobody has to run its Python: its text, and its answers.

Written by export; validation compares runtimes with the answers that the net gave in Keras then.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kernorm.config import TrainConfig
from kernorm.nets.source import net_file
from kernorm.saved_model.card import FOLDER
from kernorm.saved_model.parity import BATCHES, Logits
from kernorm.system.files import write_atomically

if TYPE_CHECKING:
    import keras

_ANSWERS = FOLDER / "answers.npy"


def write_own_net(model: "keras.Model", config: TrainConfig, folder: Path) -> None:
    """Writes the net's text, and its answers to the images of the warm-up file, into the SavedModel in `folder`."""
    import tensorflow as tf

    from kernorm.saved_model.warmup import recorded_images  # TensorFlow

    with tf.device("CPU:0"):
        answers = np.asarray(model(recorded_images(folder, max(BATCHES)), training=False), np.float32)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FOLDER / net_file(config), (config.net_source or "").encode())
    np.save(folder / _ANSWERS, answers)


def recorded_answers(folder: Path) -> Logits | None:
    """Returns those answers (N, K), to the images that `warmup.recorded_images` gives; None where there are none."""
    return np.load(folder / _ANSWERS) if (folder / _ANSWERS).exists() else None
