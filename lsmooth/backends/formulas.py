"""The formulas of the loss kernels, written once over the operations of a backend.

Here the class axis is the last one and every option has been checked: this is what a kernel
computes, and nothing of how it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lsmooth.backends.options import SIGMOID, SOFTMAX, SigmoidOptions, SoftmaxOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

MINUS_INFINITY = float("-inf")


def accumulate(xp: Backend, x: Array) -> Array:
    """``x`` in the precision that lsmooth reduces in: float64 stays, everything else is float32."""
    return x if xp.dtype(x) in ("float64", "float32") else xp.cast(x, "float32")


def log_softmax(xp: Backend, logits: Array) -> Array:
    """``z - log(sum(exp(z)))`` over the last axis; -inf stays -inf."""
    return logits - xp.logsumexp(logits, axis=-1)[..., None]


def match_rank(xp: Backend, x: Array, like: Array) -> Array:
    """``x`` with leading axes of length 1, in the rank of ``like``; JAX can be told to refuse ranks that differ."""
    shape = tuple(-1 if n is None else n for n in xp.shape(x))
    missing = len(xp.shape(like)) - len(shape)
    return xp.reshape(x, (1,) * missing + shape) if shape and missing > 0 else x


def label_factor(xp: Backend, labels: Array, num_classes: int | None, dtype: str) -> tuple[Array, Array]:
    """Class ids that can be looked up, and what to multiply their rows by: 1, or NaN where the id is no class.

    A factor, not a choice: the gradient of a row without a label is NaN, like its loss.
    """
    valid = (labels >= 0) & (labels < num_classes)
    return xp.where(valid, labels, 0), xp.where(valid, xp.cast(valid, dtype), float("nan"))


def transform_logits(xp: Backend, logits: Array, *, temperature: Any = 1.0, logit_softcap: float | None = None):
    """``c tanh(z / c) / T``; a masked class (-inf) stays masked, whatever the cap."""
    if logit_softcap is not None:
        capped = logit_softcap * xp.tanh(logits / logit_softcap)
        logits = xp.where(logits <= MINUS_INFINITY, logits, capped)
    if isinstance(temperature, float):
        return logits if temperature == 1.0 else logits / temperature
    return logits / (temperature[..., None] if xp.shape(temperature) else temperature)


def unmasked_mean(xp: Backend, x: Array) -> Array:
    """The mean over the last axis of the entries that are not -inf."""
    masked = x <= MINUS_INFINITY
    return xp.sum(xp.where(masked, 0.0, x), axis=-1) / xp.sum(xp.cast(~masked, xp.dtype(x)), axis=-1)


def smooth_nll(xp: Backend, logits: Array, lse: Array, prior: Array | None, class_weight: Array | None) -> Array:
    """``sum_k u_k w_k (lse - z_k)``, the prior u renormalised over the classes that are not masked."""
    if prior is None and class_weight is None:
        return lse - xp.unmasked_mean(logits)
    masked = logits <= MINUS_INFINITY
    finite = xp.where(masked, 0.0, logits)
    kept = xp.cast(~masked, xp.dtype(logits))
    prior, class_weight = (x if x is None else match_rank(xp, x, logits) for x in (prior, class_weight))
    left = xp.sum(kept if prior is None else kept * prior, axis=-1)
    weight = prior if class_weight is None else class_weight if prior is None else prior * class_weight
    mass = left if class_weight is None else xp.sum(kept * weight, axis=-1)
    return (mass * lse - xp.sum(finite * weight, axis=-1)) / left


def softmax_cross_entropy(xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
    """Cross-entropy of each row against its smoothed label; no one-hot label is formed.

    ``scale ((1 - eps) sum_k t_k w_k (lse - z_k) + eps sum_k u_k w_k (lse - z_k) + a lse^2)``

    Args:
        xp: the backend.
        logits: (..., classes), float32 or float64; half precision where a kernel takes it.
        labels: (...) integers, in which case t is their one-hot form and a label outside
            0..classes-1 makes the row NaN; or (..., classes) in the dtype of the result.
        options: eps, u, w, a and the others.

    Returns:
        (...), the loss of each row; or their sum.
    """
    label_smoothing, prior, class_weight, temperature, z_loss, logit_softcap, counted, scale, total = options
    logits = accumulate(xp, logits)
    if counted is not None:
        logits = xp.where(counted[..., None], logits, 0.0)
    logits = transform_logits(xp, logits, temperature=temperature, logit_softcap=logit_softcap)
    lse = xp.logsumexp(logits, axis=-1)
    hard = _soft_label_nll if len(xp.shape(labels)) == len(xp.shape(logits)) else _integer_label_nll
    loss = hard(xp, logits, lse, labels, class_weight)
    if not _is(label_smoothing, 0.0):
        smooth = smooth_nll(xp, logits, lse, prior, class_weight)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * smooth
    if z_loss:
        loss = loss + z_loss * lse * lse
    if scale is not None:
        loss = loss * scale
    if counted is not None:
        loss = xp.where(counted, loss, 0.0)
    return xp.sum(loss) if total else loss


def label_log_odds(xp: Backend, logits: Array, labels: Array) -> Array:
    """``log(p_y / (1 - p_y)) = z_y - log(sum_{k != y} exp(z_k))``, p = softmax(z): exact where p_y is next to 1.

    Args:
        xp: the backend.
        logits: z, (..., classes), floating point; -inf masks a class.
        labels: y, (...) integers; one outside 0..classes-1 makes its row NaN.

    Returns:
        (...), inf where the label is the only class.
    """
    logits = accumulate(xp, logits)
    num_classes = xp.shape(logits)[-1]
    labels, factor = label_factor(xp, labels, num_classes, xp.dtype(logits))
    at_label = xp.equal(xp.one_hot(labels, num_classes, "float32"), 1)  # type: ignore[arg-type]
    others = xp.where(at_label, MINUS_INFINITY, logits)
    top = xp.stop_gradient(xp.max(others, axis=-1))
    alone = xp.equal(top, MINUS_INFINITY)
    top = xp.where(alone | xp.equal(top, -MINUS_INFINITY), 0.0, top)
    total = xp.sum(xp.exp(others - top[..., None]), axis=-1)
    lead = xp.pick(logits, labels) - top - xp.log(xp.where(alone, 1.0, total))
    return factor * xp.where(alone, -MINUS_INFINITY, lead)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, float) and value == number


def _integer_label_nll(xp: Backend, logits: Array, lse: Array, labels: Array, class_weight: Array | None) -> Array:
    labels, factor = label_factor(xp, labels, xp.shape(logits)[-1], xp.dtype(lse))
    picked = xp.pick(logits, labels)
    if class_weight is not None:
        factor = factor * xp.take(class_weight, labels)
        # A masked class costs nothing where it has no weight.
        picked = xp.where(xp.equal(factor, 0) & (picked <= MINUS_INFINITY), 0.0, picked)
    return factor * (lse - picked)


def _soft_label_nll(xp: Backend, logits: Array, lse: Array, labels: Array, class_weight: Array | None) -> Array:
    weighted = labels if class_weight is None else labels * match_rank(xp, class_weight, labels)
    # A masked class costs nothing where the label has no mass on it.
    terms = weighted * xp.where(xp.equal(weighted, 0) & (logits <= MINUS_INFINITY), 0.0, logits)
    return xp.sum(weighted, axis=-1) * lse - xp.sum(terms, axis=-1)


def sigmoid_cross_entropy(xp: Backend, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
    """``scale ((1 - l) log(1 + exp(z)) + w l log(1 + exp(-z)))``, l = (1 - eps) t + eps / 2, of each element.

    An infinite logit on the right side of its label costs 0.

    Args:
        xp: the backend.
        logits: z, floating point.
        labels: t in [0, 1], of the logits' shape, in the dtype of the result.
        options: eps, w and the others.

    Returns:
        The losses, in the logits' shape; or their sum.
    """
    label_smoothing, pos_weight, counted, scale, total = options
    logits = accumulate(xp, logits)
    if counted is not None:
        logits, labels = (xp.where(counted, x, 0.0) for x in (logits, labels))
    labels = smooth_binary_labels(labels, label_smoothing)
    yes = xp.where(xp.equal(labels, 0) & (logits <= MINUS_INFINITY), 0.0, logits)
    no = xp.where(xp.equal(labels, 1) & xp.equal(logits, -MINUS_INFINITY), 0.0, logits)
    positive = labels if pos_weight is None else labels * match_rank(xp, pos_weight, labels)
    loss = (1.0 - labels) * xp.softplus(no) + positive * xp.softplus(-yes)
    if scale is not None:
        loss = loss * scale
    if counted is not None:
        loss = xp.where(counted, loss, 0.0)
    return xp.sum(loss) if total else loss


def smooth_binary_labels(labels: Array, label_smoothing: Any) -> Array:
    """``(1 - eps) t + eps / 2``."""
    return labels if _is(label_smoothing, 0.0) else labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
