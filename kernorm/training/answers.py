"""What a trained net answers to its splits, and how it is built for that."""

from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.nets.model import build_model_for
from kernorm.records.data import Data
from kernorm.training.averages import average_statistics
from kernorm.training.losses import Weights, build_loss
from kernorm.training.optimizers import build_optimizer
from kernorm.training.schedules import Table


@dataclass(frozen=True, kw_only=True)
class Logits:
    """What the selected weights answer, (N, K) a split; `pruned` of the validation split, else of train.

    `test_last` is what the last epoch's weights answer to the test split, where that split selected; None elsewhere.
    """

    train: NDArray[np.float32]
    validation: NDArray[np.float32] | None
    test: NDArray[np.float32]
    test_last: NDArray[np.float32] | None
    pruned: list[NDArray[np.float32]]


def fusing_pays(config: TrainConfig, images: int) -> bool:
    """Tells whether a run on so many training images is long enough, and its steps large enough, for fused blocks.

    Compiling costs about 5 CPU-seconds and saves about 0.25 ms an image; a compiled step begins about 2 ms later.
    """
    return config.epochs * images >= 30_000 and config.batch_size >= 16


def compiled_model(
    config: TrainConfig, data: Data, tables: tuple[Table, Table], weights: Weights | None = None
) -> keras.Model:
    """Builds and compiles the net of a run, with rate and momentum by step, and weights of the classes in the loss."""
    model = build_model_for(config, data, fused=fusing_pays(config, data.train))
    average_statistics(model, config)
    loss = build_loss(config, weights)
    metrics = [
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
    ]
    if weights is not None:
        metrics.append(keras.metrics.MeanMetricWrapper(loss.call, name="weighted_cross_entropy"))
    model.compile(
        optimizer=build_optimizer(config, *tables),
        loss=loss,
        metrics=metrics,
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def count_parameters(variables: list) -> int:
    """Counts the numbers in some variables."""
    return int(sum(np.prod(variable.shape) for variable in variables))
