"""What the networks minimise, the same function on every framework's tensors."""

from __future__ import annotations

from lsmooth.backends import Array
from lsmooth.losses import softmax_cross_entropy


def smoothed_labels(labels: Array, logits: Array, alpha: float | Array) -> Array:
    """The cross-entropy with label smoothing alpha, mean over rows."""
    return softmax_cross_entropy(labels, logits, label_smoothing=alpha)
