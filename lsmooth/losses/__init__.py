"""Cross-entropies with smoothed targets."""

from lsmooth.losses.cross_entropy import sigmoid_cross_entropy, softmax_cross_entropy
from lsmooth.losses.focal import poly_cross_entropy, sigmoid_focal_loss, softmax_focal_loss
from lsmooth.losses.penalties import (
    adaptive_conditional_label_smoothing,
    confidence_penalty,
    logit_penalty,
    margin_label_smoothing,
    max_suppression,
)
from lsmooth.losses.robust import bootstrap_cross_entropy, generalized_cross_entropy, symmetric_cross_entropy

__all__ = [
    "adaptive_conditional_label_smoothing",
    "bootstrap_cross_entropy",
    "confidence_penalty",
    "generalized_cross_entropy",
    "logit_penalty",
    "margin_label_smoothing",
    "max_suppression",
    "poly_cross_entropy",
    "sigmoid_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_focal_loss",
    "symmetric_cross_entropy",
]
