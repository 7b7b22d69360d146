"""Probabilities from logits that keep their relative precision in both tails."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas import MINUS_INFINITY, centered, log_sum_exp_of, match_rank
from lsmooth.losses._rows import Rows, counted_logits, smoothed_targets, weight_of_ids


class LogProbabilities(NamedTuple):
    """Of each class (..., classes): log p and log(1 - p), both -inf-safe in their gradients."""

    p: Array
    rest: Array


def log_probabilities(xp: Backend, logits: Array) -> LogProbabilities:
    """The logarithms of p and of 1 - p, where p = softmax(z) over the last axis.

    The class k with the largest logit has ``log p = -softplus(l - z_k)`` and
    ``log(1 - p) = -softplus(z_k - l)``, l being the log-sum-exp of the other classes: exact where
    p is next to 1. Every other p is at most 1/2, where ``z - lse`` and ``log(1 - p)`` are exact.
    """
    logits = centered(xp, logits)
    top = xp.equal(xp.one_hot(xp.argmax(logits, axis=-1), xp.length(logits, -1), "float32"), 1)
    masked = xp.equal(logits, MINUS_INFINITY)
    # A class that is alone has l = -inf; a log-sum-exp over nothing would have a NaN gradient.
    largest, log_sum, alone = log_sum_exp_of(xp, logits, ~top)
    gap = xp.where(alone, -MINUS_INFINITY, xp.sum(xp.where(top, logits, 0.0), axis=-1) - largest - log_sum)
    lead, trail = -xp.softplus(-gap), -xp.softplus(gap)
    lower = xp.where(top | masked, -1.0, logits - xp.logsumexp(logits, axis=-1)[..., None])
    log_p = xp.where(masked, MINUS_INFINITY, xp.where(top, lead[..., None], lower))
    rest = xp.where(masked, 0.0, xp.where(top, trail[..., None], xp.log(1.0 - xp.exp(lower))))
    return LogProbabilities(log_p, rest)


def expected_cost(
    rows: Rows, cost: Callable[[LogProbabilities], Array], class_weight: Real | Array | None = None
) -> Array:
    """``sum_k q_k w_k f(p_k)`` of each row, q its smoothed label; of the label alone where it is all of q."""
    xp = rows.xp
    logits = counted_logits(rows)
    if not rows.soft and isinstance(rows.label_smoothing, float) and rows.label_smoothing == 0.0:
        odds = xp.label_log_odds(logits, rows.labels)
        losses = cost(LogProbabilities(-xp.softplus(-odds), -xp.softplus(odds)))
        if class_weight is not None and not isinstance(class_weight, Real):
            class_weight = weight_of_ids(xp, rows.labels, class_weight)
        return losses if class_weight is None else losses * class_weight
    targets = smoothed_targets(rows, logits)
    values = cost(log_probabilities(xp, logits))
    if class_weight is not None:
        targets = targets * (class_weight if isinstance(class_weight, Real) else match_rank(xp, class_weight, targets))
    return expectation(xp, targets, values)


def expectation(xp: Backend, targets: Array, values: Array) -> Array:
    """``sum_k q_k f_k``, where a class without mass costs nothing, even where f is infinite."""
    # A finite f_k stays: it is the derivative by q_k, at q_k = 0 too.
    without = xp.equal(targets, 0) & xp.equal(abs(values), -MINUS_INFINITY)
    return xp.sum(targets * xp.where(without, 0.0, values), axis=-1)


def entropy(xp: Backend, log_p: Array) -> Array:
    """``-sum_k p_k log p_k``; a masked class has none."""
    return -xp.sum(xp.exp(log_p) * xp.where(xp.equal(log_p, MINUS_INFINITY), 0.0, log_p), axis=-1)
