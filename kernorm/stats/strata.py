"""What a score is made of: the parts of a split, how many images each has, and what they weigh."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Strata:
    """The parts h of a split of which a score is made: Σ_h w_h · (share of the images of part h that are right).

    New images are taken to be as many in each part, as those at hand are.

    Attributes:
        sizes: images of each part, n_h.
        weights: of each part, w_h; their sum is 1.
        part: the part of each image, (N,); None where there is one.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    part: NDArray[np.int64] | None = None

    @classmethod
    def whole(cls, count: int) -> "Strata":
        """Returns the one part of an accuracy over so many images."""
        return cls(sizes=(count,), weights=(1.0,))

    @classmethod
    def by_class(cls, classes: NDArray[np.integer]) -> "Strata":
        """Returns the parts of a balanced accuracy, from the class of each image, (N,)."""
        _, part, sizes = np.unique(classes, return_inverse=True, return_counts=True)
        return cls(sizes=tuple(sizes.tolist()), weights=(1 / len(sizes),) * len(sizes), part=part.astype(np.int64))

    @cached_property
    def count(self) -> int:
        """All images, N."""
        return sum(self.sizes)

    @property
    def rounding(self) -> float:
        """The variance of the difference of two scores that whole images round, part by part."""
        return sum(weight**2 / size**2 for weight, size in zip(self.weights, self.sizes, strict=True)) / 6

    @property
    def effective(self) -> float:
        """How many images that count alike would tell a score as precisely: 1 / Σ w_h²/n_h."""
        return 1 / sum(weight**2 / size for weight, size in zip(self.weights, self.sizes, strict=True))
