"""Feeds a training split to `fit`: order and augmentation depend on the seed and the epoch alone."""

import math
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from kernorm.config import TrainConfig
from kernorm.datasets.augment import VALUES, augment, augmentation_of, displacements, maps_of, tones_of

# Images that a step of an evaluation sees.
EVALUATION_BATCH = 250
_ORDER, _AUGMENT = 0, 1


class Fed(NamedTuple):
    """K batches of N images each: which of the split they are, (K, N), and what augments them.

    maps (K, N, 2, 3), contrast and brightness (K, N, 2), displacements (K, N, 2, H, W), or (K, N, 0) if there are none.
    """

    chosen: NDArray[np.integer]
    maps: NDArray[np.float32]
    tones: NDArray[np.int32]
    displaced: NDArray[np.float32]


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches of uint8 images (N, H, W, C) and labels (N,).

    A batch is a function of (seed, epoch, index), whatever was drawn before and however far ahead it is prepared; so
    an interrupted run continues exactly as it would have. Set `epoch` (from 0) before each one.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray, config: TrainConfig) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.images, self.labels = images, labels
        self.batch_size, self.seed = config.batch_size, config.seed
        self.augmentation = augmentation_of(config)
        self.epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose batches are given, from 0."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self.order = np.random.default_rng((self.seed, _ORDER, epoch)).permutation(len(self.labels))

    @property
    def num_batches(self) -> int:
        """Steps an epoch; the last one takes what is left."""
        return math.ceil(len(self.labels) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray]:
        """Returns batch `index` of the epoch."""
        chosen = self.chosen(index)
        return augment(self.images[chosen], self.augmentation, self._generator(index)), self.labels[chosen]

    def chosen(self, index: int) -> NDArray[np.integer]:
        """Returns which images of the split are batch `index` of the epoch, (N,)."""
        return self.order[index * self.batch_size : (index + 1) * self.batch_size]

    def fed(self, indices: range) -> Fed:
        """Returns which images some batches of equal size are, and what augments them."""
        chosen = np.stack([self.chosen(index) for index in indices])
        count, size, ranges = chosen.shape[1], self.images.shape[1:3], self.augmentation
        generators = [self._generator(index) for index in indices]
        drawn = np.stack([generator.random(VALUES * count) for generator in generators])
        displaced = np.zeros((*chosen.shape, 0), np.float32)
        if ranges.elastic:
            displaced = np.stack([displacements(ranges, count, size, generator) for generator in generators])
        return Fed(chosen, maps_of(ranges, drawn, size), tones_of(ranges, drawn), displaced)

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, _AUGMENT, self.epoch, index))
