"""The sigmoid cross-entropy of independent binary labels, focal terms included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsmooth.backends.formulas.rows import MINUS_INFINITY, ROUNDING, accumulate, is_number, match_rank, reduced
from lsmooth.backends.options import SIGMOID, SigmoidOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

# exp of this number stays within the range of float32, with room for a factor.
_LARGEST_EXPONENT = 80.0


def proper_binary_labels(xp: Backend, labels: Array) -> Array:
    """Binary labels, with NaN in place of those outside [0, 1]."""
    return labels * xp.one_or_nan((labels >= -ROUNDING) & (labels <= 1.0 + ROUNDING), xp.dtype(labels))


def sigmoid_cross_entropy(xp: Backend, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
    """``scale ((1 - l) log(1 + exp(z)) + w l log(1 + exp(-z)))``, l = (1 - eps) t + eps / 2, of each element.

    An infinite logit on the right side of its label has loss 0.

    Args:
        xp: the backend.
        logits: z, floating point.
        labels: t in [0, 1], of the logits' shape, in the dtype of the result.
        options: eps, w and the others. A gamma multiplies by ``(l (1 - p) + (1 - l) p)^gamma``, p = sigmoid(z),
            an alpha by ``alpha l + (1 - alpha) (1 - l)``.

    Returns:
        The losses, in the logits' shape; or their sum.
    """
    gamma, alpha = options.gamma, options.alpha
    logits = accumulate(xp, logits)
    if options.counted is not None:
        logits, labels = (xp.where(options.counted, x, 0.0) for x in (logits, labels))
    labels = smooth_binary_labels(proper_binary_labels(xp, labels), options.label_smoothing)
    if gamma:
        loss = focused_cross_entropy(xp, logits, labels, gamma)
    else:
        loss = _binary_cross_entropy(xp, logits, labels, options.pos_weight)
    if alpha is not None:
        loss = loss * (alpha * labels + (1.0 - alpha) * (1.0 - labels))
    return reduced(xp, loss, options)


def _binary_cross_entropy(xp: Backend, z: Array, labels: Array, pos_weight: Array | None) -> Array:
    """``m |z| + c log(1 + exp(-|z|))``, with m the weight of the answer that z speaks against, and c that of both."""
    positive = labels if pos_weight is None else labels * match_rank(xp, pos_weight, labels)
    against = xp.where(z > 0, 1.0 - labels, positive)
    size = xp.where(z > 0, z, -z)  # not |z|, which has no derivative at 0
    right = xp.equal(against, 0) & xp.equal(size, -MINUS_INFINITY)
    return against * xp.where(right, 0.0, size) + (1.0 - labels + positive) * xp.softplus(-size)


def focused_cross_entropy(xp: Backend, z: Array, label: Array, gamma: float) -> Array:
    """The sigmoid focal loss of each element, as a sum of positive terms, which makes both tails exact.

    With e = exp(-|z|) <= 1 the odds of the less likely answer and m the label's mass on it, the
    cross-entropy is ``log(1 + e) + m |z|`` and the error is ``(m + (1 - m) e) / (1 + e)``.
    """
    log_odds = xp.where(z > 0, -z, z)  # not -|z|, which has no derivative at 0
    mass = xp.where(z > 0, 1.0 - label, label)
    right = xp.equal(mass, 0)
    normalizer = xp.softplus(log_odds)
    error = xp.where(right, 1.0, mass + (1.0 - mass) * xp.exp(log_odds))
    # Without mass, log(error) is log_odds; the second term is 0, with derivative 1 / e - 1 by the mass.
    slope = xp.exp(xp.where(log_odds < -_LARGEST_EXPONENT, _LARGEST_EXPONENT, -log_odds)) - 1.0
    log_error = xp.where(right, log_odds + mass * slope, xp.log(error)) - normalizer
    infinite = right & xp.equal(log_odds, MINUS_INFINITY)
    return xp.exp(gamma * log_error) * (normalizer - mass * xp.where(infinite, 0.0, log_odds))


def sigmoid(xp: Backend, z: Array) -> Array:
    """``1 / (1 + exp(-z))``, exact in the lower tail."""
    return xp.exp(-xp.softplus(-z))


def smooth_binary_labels(labels: Array, label_smoothing: Any) -> Array:
    """``(1 - eps) t + eps / 2``."""
    return labels if is_number(label_smoothing, 0.0) else labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
