"""What a trained net answers to its splits, and how it is built for that."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig


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


def count_parameters(variables: list) -> int:
    """Counts the numbers in some variables."""
    return int(sum(np.prod(variable.shape) for variable in variables))
