"""Which of the misclassified images a page shows: drawn by hash, every class among them, the same ones each time.

The first ones in the order of the split would be those of the first classes, where images stand class by class.
"""

from collections.abc import Sequence

import numpy as np

from kernorm.config import TrainConfig
from kernorm.datasets.splits import stratified_order
from kernorm.records.record import SHOWN, Evaluation, Mistake


def drawn_mistakes(evaluation: Evaluation | None, config: TrainConfig | None = None) -> list[Mistake]:
    """Returns up to SHOWN mistakes of an evaluation, class by class; they depend on the mistakes alone.

    Each class has its share of them, and one at least, as far as there are no more classes. None where the run's
    config wants no pictures.
    """
    mistakes = evaluation.mistakes if evaluation and (config is None or config.pictures) else ()
    order = drawn_order([one.index for one in mistakes], [one.target for one in mistakes])
    return sorted((mistakes[place] for place in order[:SHOWN]), key=lambda one: (one.target, one.index))


def drawn_order(indices: Sequence[int], classes: Sequence[int]) -> list[int]:
    """Returns an order of images, given by index and class, of which every beginning is stratified by class."""
    return stratified_order(np.array(classes, np.int64), whole=True, ids=np.array(indices, np.uint64)).tolist()
