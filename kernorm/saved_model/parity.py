"""How close the logits of two runtimes must be, and what is compared: for export, conversion and validation."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = NDArray[np.uint8]
Logits: TypeAlias = NDArray[np.float32]
# Answers images (N, H, W, C) with logits (N, K).
PredictLogits: TypeAlias = Callable[[Images], Logits]

# Batch sizes in which every model is asked.
BATCHES = (0, 1, 3, 128)
# Of a logit, times the largest one if that is above 1: runtimes add in different orders.
TOLERANCE = 1e-5


def largest_difference(found: Logits, wanted: Logits) -> float:
    """Returns the largest difference of logits (N, K) that are alike; infinite for another shape or no numbers."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - wanted).max(initial=0))


def largest_tolerated(wanted: Logits) -> float:
    """Returns the difference that logits (N, K) may have: TOLERANCE, times the largest one if that is above 1."""
    return TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0)))


def softmax(logits: Logits) -> NDArray[np.float64]:
    """Returns the probabilities of logits (N, K), in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(-1, keepdims=True)


def require_ranked(scores: NDArray[np.floating], logits: Logits) -> None:
    """Makes sure that what Classify answers (N, K) are the probabilities of these logits (N, K), falling.

    Raises:
        ValueError: they are not.
    """
    ranked = -np.sort(-softmax(logits), axis=-1)
    if scores.shape != ranked.shape or not np.allclose(scores, ranked, rtol=0, atol=1e-5):
        raise ValueError(f"classify does not rank by probability at batch size {len(logits)}")
