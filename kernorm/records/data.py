"""The data of a run, as its record describes it."""

from dataclasses import dataclass

from kernorm.config import Resize
from kernorm.records.schema import strict

# What evaluations call the whole split, next to its classes.
OVERALL = "overall"


@strict
@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Exact duplicates of a whole data set, by decoded pixels.

    `train` and `test` count the images that repeat an earlier one of their split, `across` the test images that also
    stand in training.
    """

    train: int
    test: int
    across: int

    def __str__(self) -> str:
        return (
            f"{self.across:,} test images also in training, {self.train:,} repeated in training, {self.test:,} in test"
        )


@strict
@dataclass(frozen=True, kw_only=True)
class Data:
    """The data of a run: the set as tensorflow-datasets names it, its version, the sha256 of its arrays, split sizes.

    `mean` and `std` are the training pixels' (0 to 255), one per channel; the net scales its input by them.
    `duplicates` is None in records of before they were counted. `resize` is how own images were brought to one size,
    None for a set that has one.
    """

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    validation: int
    test: int
    duplicates: Duplicates | None = None
    resize: Resize | None = None

    @property
    def own(self) -> bool:
        """Tells whether these are a user's own images, named by their content."""
        return "@" in self.name

    @property
    def strokes(self) -> bool:
        """Tells whether images are white strokes on black, as sets of characters are, which pages show as ink."""
        return self.image_shape[-1] != 3 and not self.own
