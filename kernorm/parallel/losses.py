"""What the programs of a population minimize but for penalties: as `kernorm.training.losses`, on JAX."""

from typing import Any

import jax
import jax.numpy as jnp


def cross_entropies(logits: Any, labels: Any) -> Any:
    """Returns −log p of the label of each image, (N,), from logits (N, K) and labels (N,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def right(logits: Any, labels: Any) -> Any:
    """Counts the images that are recognized."""
    return jnp.sum(jnp.argmax(logits, axis=1) == labels)


def data_loss(logits: Any, labels: Any, smoothing: float, weights: Any | None) -> tuple[Any, Any]:
    """Returns what is minimized of a batch, and its cross-entropy: the same without smoothing and weights (K,)."""
    each = cross_entropies(logits, labels)
    found = cross_entropy = jnp.mean(each)
    if weights is not None:
        smoothed = each - smoothing * (each + jnp.mean(jax.nn.log_softmax(logits), axis=-1))
        return jnp.mean(weights[labels] * smoothed), cross_entropy
    if smoothing:
        found -= smoothing * (cross_entropy + jnp.mean(jax.nn.log_softmax(logits)))
    return found, cross_entropy
