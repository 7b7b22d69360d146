"""The softmax cross-entropy with smoothed labels, and the probabilities that the losses built on it need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lsmooth.backends.formulas.rows import (
    MINUS_INFINITY,
    accumulate,
    along_classes,
    centered,
    expectation,
    is_number,
    label_factor,
    log_sum_exp_of,
    logits_over_temperature,
    match_rank,
    over_temperature,
    proper_rows,
    reduced,
    row_maximum,
    without_padding,
)
from lsmooth.backends.options import SOFTMAX, SoftmaxOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend


def seen_logits(xp: Backend, logits: Array, options: SoftmaxOptions) -> Array:
    """The logits without padding, in at least float32, with zeros in ignored rows."""
    logits = accumulate(xp, without_padding(xp, logits, options.num_classes))
    return logits if options.counted is None else xp.where(options.counted[..., None], logits, 0.0)


def capped_logits(xp: Backend, logits: Array, logit_softcap: float | None) -> Array:
    """``c tanh(z / c)``; masked classes (-inf) stay masked."""
    if logit_softcap is None:
        return logits
    capped = logit_softcap * xp.tanh(logits / logit_softcap)
    return xp.where(xp.equal(logits, MINUS_INFINITY), logits, capped)


class ShiftedRows(NamedTuple):
    """Rows of logits z, of which a softmax takes ``(z - shift) / T``."""

    xp: Backend
    logits: Array
    shift: Array  # (...), the largest logit of each row
    temperature: Any  # a float, or an array that broadcasts to the rows

    def below(self, x: Array) -> Array:
        """``(x - shift) / T`` of one number a row."""
        return over_temperature(x - self.shift, self.temperature)

    def log_sum_exp(self) -> Array:
        """The log-sum-exp of ``(z - shift) / T``; the maximum is 0, so it cannot overflow."""
        z = logits_over_temperature(self.xp, self.logits - self.shift[..., None], self.temperature)
        return self.xp.log(self.xp.sum(self.xp.exp(z), axis=-1))

    def weighted_sum(self, weights: Array, masked: Array) -> Array:
        """``sum_k w_k (z_k - shift) / T`` over the classes that are not masked."""
        z = self.xp.where(masked, 0.0, self.logits - self.shift[..., None])
        return over_temperature(self.xp.sum(weights * z, axis=-1), self.temperature)


def smooth_nll(rows: ShiftedRows, lse: Array, prior: Array | None, class_weight: Array | None) -> Array:
    """``sum_k u_k w_k (lse - z_k)``, the prior u renormalised over the classes that are not masked."""
    xp, logits = rows.xp, rows.logits
    if prior is None and class_weight is None:
        return lse - over_temperature(xp.unmasked_mean(logits, rows.shift), rows.temperature)
    masked = xp.equal(logits, MINUS_INFINITY)
    kept = xp.cast(~masked, xp.dtype(logits))
    prior, class_weight = (x if x is None else match_rank(xp, x, logits) for x in (prior, class_weight))
    left = xp.sum(kept if prior is None else kept * prior, axis=-1)
    weight = prior if class_weight is None else class_weight if prior is None else prior * class_weight
    mass = left if class_weight is None else xp.sum(kept * weight, axis=-1)
    return (mass * lse - rows.weighted_sum(weight, masked)) / left


def softmax_cross_entropy(xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
    """Cross-entropy of each row against its smoothed label; no one-hot label is formed.

    ``scale ((1 - eps) sum_k t_k w_k (lse - z_k) + eps sum_k u_k w_k (lse - z_k) + a lse^2)``; a gamma multiplies
    the terms of the sums by ``(1 - p_k)^gamma``.

    Args:
        xp: the backend.
        logits: (..., classes), float32 or float64; half precision where a kernel takes it.
        labels: (...) integers, in which case t is their one-hot form and a label outside
            0..classes-1 makes the row NaN; or (..., classes) in the dtype of the result.
        options: eps, u, w, a and the others.

    Returns:
        (...), the loss of each row; or their sum.
    """
    eps, temperature, z_loss, gamma = options.label_smoothing, options.temperature, options.z_loss, options.gamma
    logits = capped_logits(xp, seen_logits(xp, logits, options), options.logit_softcap)
    rows = ShiftedRows(xp, logits, row_maximum(xp, logits), temperature)
    lse = rows.log_sum_exp()
    focal = not is_number(gamma, 0.0)
    if focal:
        scaled = logits_over_temperature(xp, logits, temperature)
        loss = expected_cost(xp, scaled, labels, options, focal_cost(xp, gamma))
    else:
        loss = label_nll(rows, lse, labels, options.class_weight)
    if not focal and not is_number(eps, 0.0):
        smooth = smooth_nll(rows, lse, options.prior, options.class_weight)
        loss = (1.0 - eps) * loss + eps * smooth
    if not is_number(z_loss, 0.0):
        lse = lse + over_temperature(rows.shift, temperature)
        loss = loss + z_loss * lse * lse
    return reduced(xp, loss, options)


def label_log_odds(xp: Backend, logits: Array, labels: Array) -> Array:
    """``log(p_y / (1 - p_y)) = z_y - log(sum_{k != y} exp(z_k))``, p = softmax(z): exact if p_y is close to 1.

    Args:
        xp: the backend.
        logits: z, (..., classes), floating point; -inf masks a class.
        labels: y, (...) integers; one outside 0..classes-1 makes its row NaN.

    Returns:
        (...), inf where the label is the only class.
    """
    logits = accumulate(xp, logits)
    num_classes = xp.length(logits, -1, xp.dtype(labels))
    labels, factor = label_factor(xp, labels, num_classes, xp.dtype(logits))
    others = xp.equal(xp.one_hot(labels, num_classes, "float32"), 0)  # type: ignore[arg-type]
    top, log_sum, alone = log_sum_exp_of(xp, logits, others)
    lead = xp.pick(logits, labels) - top - log_sum
    return factor * xp.where(alone, -MINUS_INFINITY, lead)


def label_nll(rows: ShiftedRows, lse: Array, labels: Array, class_weight: Array | None = None) -> Array:
    """``sum_k t_k w_k (lse - z_k)`` of the label t, a class id or a distribution."""
    soft = len(rows.xp.shape(labels)) == len(rows.xp.shape(rows.logits))
    return (_soft_label_nll if soft else _integer_label_nll)(rows, lse, labels, class_weight)


def _integer_label_nll(rows: ShiftedRows, lse: Array, labels: Array, class_weight: Array | None) -> Array:
    xp, logits = rows.xp, rows.logits
    labels, factor = label_factor(xp, labels, xp.length(logits, -1, xp.dtype(labels)), xp.dtype(lse))
    picked = rows.below(xp.pick(logits, labels))
    if class_weight is not None:
        factor = factor * xp.take(class_weight, labels)
        # A masked class of weight 0 contributes nothing.
        picked = xp.where(xp.equal(factor, 0) & xp.equal(picked, MINUS_INFINITY), 0.0, picked)
    return factor * (lse - picked)


def _soft_label_nll(rows: ShiftedRows, lse: Array, labels: Array, class_weight: Array | None) -> Array:
    xp = rows.xp
    weighted = labels if class_weight is None else labels * match_rank(xp, class_weight, labels)
    # A masked class contributes nothing if the label has no mass on it.
    without = xp.equal(weighted, 0) & xp.equal(rows.logits, MINUS_INFINITY)
    losses = xp.sum(weighted, axis=-1) * lse - rows.weighted_sum(weighted, without)
    return losses * proper_rows(xp, labels)


class LogProbabilities(NamedTuple):
    """log p and log(1 - p) of each class (..., classes), with finite gradients at -inf."""

    p: Array
    rest: Array


def log_probabilities(xp: Backend, logits: Array) -> LogProbabilities:
    """The logarithms of p and of 1 - p, where p = softmax(z) over the last axis.

    The class k with the largest logit has ``log p = -softplus(l - z_k)`` and
    ``log(1 - p) = -softplus(z_k - l)``, with l the log-sum-exp of the other classes, which is exact if
    p is close to 1. Every other p is at most 1/2, where ``z - lse`` and ``log(1 - p)`` are exact.
    """
    logits = centered(xp, logits)
    top = xp.equal(xp.one_hot(xp.argmax(logits, axis=-1), xp.length(logits, -1), "float32"), 1)
    masked = xp.equal(logits, MINUS_INFINITY)
    # The only unmasked class has l = -inf; a log-sum-exp over nothing would have a NaN gradient.
    largest, log_sum, alone = log_sum_exp_of(xp, logits, ~top)
    gap = xp.where(alone, -MINUS_INFINITY, xp.sum(xp.where(top, logits, 0.0), axis=-1) - largest - log_sum)
    lead, trail = -xp.softplus(-gap), -xp.softplus(gap)
    lower = xp.where(top | masked, -1.0, logits - xp.logsumexp(logits, axis=-1)[..., None])
    log_p = xp.where(masked, MINUS_INFINITY, xp.where(top, lead[..., None], lower))
    rest = xp.where(masked, 0.0, xp.where(top, trail[..., None], xp.log(1.0 - xp.exp(lower))))
    return LogProbabilities(log_p, rest)


def smoothed_targets(
    xp: Backend, labels: Array, logits: Array, label_smoothing: Any, prior: Array | None = None
) -> Array:
    """q, (..., classes): the smoothed labels, with no smoothing mass on masked classes."""
    dtype = xp.dtype(logits)
    if len(xp.shape(labels)) == len(xp.shape(logits)):
        target = labels * proper_rows(xp, labels)[..., None]
    else:
        classes = xp.length(logits, -1, xp.dtype(labels))
        known, row = label_factor(xp, labels, classes, dtype)
        target = xp.one_hot(known, classes, dtype) * row[..., None]  # type: ignore[arg-type]
    if is_number(label_smoothing, 0.0):
        return target
    eps = along_classes(xp, label_smoothing)
    kept = xp.cast(~xp.equal(logits, MINUS_INFINITY), dtype)
    kept = kept if prior is None else kept * match_rank(xp, prior, logits)
    return (1.0 - eps) * target + eps * kept / xp.sum(kept, axis=-1)[..., None]


def expected_cost(
    xp: Backend,
    logits: Array,
    labels: Array,
    options: SoftmaxOptions,
    cost: Callable[[LogProbabilities], Array],
) -> Array:
    """``sum_k q_k w_k f(p_k)`` of each row, q its smoothed label; only the term of the label without smoothing."""
    eps, weight = options.label_smoothing, options.class_weight
    if len(xp.shape(labels)) < len(xp.shape(logits)) and is_number(eps, 0.0):
        odds = xp.label_log_odds(logits, labels)
        losses = cost(LogProbabilities(-xp.softplus(-odds), -xp.softplus(odds)))
        if weight is None:
            return losses
        known, _ = label_factor(xp, labels, xp.length(logits, -1, xp.dtype(labels)), xp.dtype(losses))
        return losses * xp.take(weight, known)
    targets = smoothed_targets(xp, labels, logits, eps, options.prior)
    values = cost(log_probabilities(xp, logits))
    return expectation(xp, targets if weight is None else targets * match_rank(xp, weight, targets), values)


def focal_cost(xp: Backend, gamma: float) -> Callable[[LogProbabilities], Array]:
    """``f(p) = (1 - p)^gamma (-log p)``."""
    return lambda log: xp.exp(gamma * log.rest) * -log.p
