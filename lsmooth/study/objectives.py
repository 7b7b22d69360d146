"""The losses of the networks, for tensors of every framework."""

from __future__ import annotations

from lsmooth.backends import Array
from lsmooth.distillation import distillation_loss
from lsmooth.losses import softmax_cross_entropy


def smoothed_labels(labels: Array, logits: Array, alpha: float | Array) -> Array:
    """The cross-entropy with label smoothing alpha, mean over rows."""
    return softmax_cross_entropy(labels, logits, label_smoothing=alpha)


def teachers_logits(teacher_logits: Array, logits: Array, temperature: float | Array) -> Array:
    """T^2 times the Kullback-Leibler divergence of the student from the teacher at T, mean over rows."""
    return distillation_loss(teacher_logits, logits, temperature=temperature)
