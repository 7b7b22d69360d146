"""The formulas of the loss kernels, written once over the operations of a backend.

Here the class axis is the last one and every option has been checked: this is what a kernel
computes, and nothing of how it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lsmooth.backends.options import SIGMOID, SOFTMAX, SigmoidOptions, SoftmaxOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

MINUS_INFINITY = float("-inf")
# How far below 0 or above 1 the rounding of sums takes a probability: MixUp in float32 makes labels of 1 + 1e-7.
ROUNDING = 1e-6
# exp of it is far within float32's range, also where it is multiplied.
_LARGEST_EXPONENT = 80.0
# The lowest finite numbers.
_LOWEST = {"float64": -1.7976931348623157e308, "float32": -3.4028234663852886e38}


def accumulate(xp: Backend, x: Array) -> Array:
    """``x`` in the precision that lsmooth reduces in: float64 stays, everything else is float32."""
    return x if xp.dtype(x) in ("float64", "float32") else xp.cast(x, "float32")


def seen_logits(xp: Backend, logits: Array, options: SoftmaxOptions) -> Array:
    """The logits without padding, in the precision that lsmooth reduces in, and zeros in rows that do not count."""
    logits = accumulate(xp, without_padding(xp, logits, options.num_classes))
    return logits if options.counted is None else xp.where(options.counted[..., None], logits, 0.0)


def without_padding(xp: Backend, x: Array, num_classes: int | None) -> Array:
    """The first ``num_classes`` entries of the last axis; all if None."""
    return x if num_classes is None or xp.shape(x)[-1] == num_classes else x[..., :num_classes]


def row_maximum(xp: Backend, logits: Array) -> Array:
    """The largest logit of each row, as a constant: subtracted first, so that no digits are lost to a common offset."""
    top = xp.stop_gradient(xp.max(logits, axis=-1))
    return xp.where(xp.equal(abs(top), -MINUS_INFINITY), 0.0, top)


def centered(xp: Backend, logits: Array) -> Array:
    """Logits less the largest of their row; their softmax is the same."""
    return logits - row_maximum(xp, logits)[..., None]


def log_softmax(xp: Backend, logits: Array) -> Array:
    """``z - log(sum(exp(z)))`` over the last axis; -inf stays -inf."""
    logits = centered(xp, logits)
    return logits - xp.log(xp.sum(xp.exp(logits), axis=-1))[..., None]


def match_rank(xp: Backend, x: Array, like: Array) -> Array:
    """``x`` with leading axes of length 1, in the rank of ``like``; JAX can be told to refuse ranks that differ."""
    shape = tuple(-1 if n is None else n for n in xp.shape(x))
    missing = len(xp.shape(like)) - len(shape)
    return xp.reshape(x, (1,) * missing + shape) if shape and missing > 0 else x


def label_factor(xp: Backend, labels: Array, num_classes: Any, dtype: str) -> tuple[Array, Array]:
    """Class ids that can be looked up, and what to multiply their rows by: 1, or NaN where the id is no class.

    A factor, not a choice: the gradient of a row without a label is NaN, like its loss.
    """
    valid = (labels >= 0) & (labels < num_classes)
    return xp.where(valid, labels, 0), xp.one_or_nan(valid, dtype)


def proper_rows(xp: Backend, labels: Array) -> Array:
    """1 for each row of labels (..., classes), and NaN where a class has negative mass."""
    dtype = xp.dtype(labels)
    # A count, not max(-labels): TensorFlow's graph optimizer gets that wrong in a Keras model's step.
    return xp.one_or_nan(xp.sum(xp.cast(labels < -ROUNDING, dtype), axis=-1) <= 0, dtype)


def proper_binary_labels(xp: Backend, labels: Array) -> Array:
    """Labels of yes-or-no questions, and NaN in place of those outside [0, 1]."""
    return labels * xp.one_or_nan((labels >= -ROUNDING) & (labels <= 1.0 + ROUNDING), xp.dtype(labels))


def capped_logits(xp: Backend, logits: Array, logit_softcap: float | None) -> Array:
    """``c tanh(z / c)``; a masked class (-inf) stays masked, whatever the cap."""
    if logit_softcap is None:
        return logits
    capped = logit_softcap * xp.tanh(logits / logit_softcap)
    return xp.where(xp.equal(logits, MINUS_INFINITY), logits, capped)


def unmasked_mean(xp: Backend, x: Array, shift: Array) -> Array:
    """The mean over the last axis of ``x - shift``, without the entries that are -inf."""
    masked = xp.equal(x, MINUS_INFINITY)
    kept = xp.cast(~masked, xp.dtype(x))
    return xp.sum(xp.where(masked, 0.0, x - shift[..., None]), axis=-1) / xp.sum(kept, axis=-1)


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
        """Of ``(z - shift) / T``: the maximum is 0, so that nothing overflows."""
        z = over_temperature(self.logits - self.shift[..., None], along_classes(self.xp, self.temperature))
        return self.xp.log(self.xp.sum(self.xp.exp(z), axis=-1))

    def weighted_sum(self, weights: Array, masked: Array) -> Array:
        """``sum_k w_k (z_k - shift) / T`` over the classes that are not masked."""
        z = self.xp.where(masked, 0.0, self.logits - self.shift[..., None])
        return over_temperature(self.xp.sum(weights * z, axis=-1), self.temperature)


def over_temperature(x: Array, temperature: Any) -> Array:
    """``x / T``, and ``x`` itself where T is the number 1."""
    return x if isinstance(temperature, float) and temperature == 1.0 else x / temperature


def along_classes(xp: Backend, temperature: Any) -> Any:
    """One temperature a row with an axis for the classes; a number as it is."""
    return temperature if isinstance(temperature, float) or not xp.shape(temperature) else temperature[..., None]


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
    label_smoothing, prior, class_weight, temperature, z_loss, logit_softcap, counted, scale, total, gamma, _ = options
    logits = capped_logits(xp, seen_logits(xp, logits, options), logit_softcap)
    rows = ShiftedRows(xp, logits, row_maximum(xp, logits), temperature)
    lse = rows.log_sum_exp()
    focal = not _is(gamma, 0.0)
    if focal:
        scaled = over_temperature(logits, along_classes(xp, temperature))
        loss = expected_cost(xp, scaled, labels, options, focal_cost(xp, gamma))
    else:
        loss = label_nll(rows, lse, labels, class_weight)
    if not focal and not _is(label_smoothing, 0.0):
        loss = (1.0 - label_smoothing) * loss + label_smoothing * smooth_nll(rows, lse, prior, class_weight)
    if not _is(z_loss, 0.0):
        lse = lse + over_temperature(rows.shift, temperature)
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
    num_classes = xp.length(logits, -1, xp.dtype(labels))
    labels, factor = label_factor(xp, labels, num_classes, xp.dtype(logits))
    others = xp.equal(xp.one_hot(labels, num_classes, "float32"), 0)  # type: ignore[arg-type]
    top, log_sum, alone = log_sum_exp_of(xp, logits, others)
    lead = xp.pick(logits, labels) - top - log_sum
    return factor * xp.where(alone, -MINUS_INFINITY, lead)


def log_sum_exp_of(xp: Backend, logits: Array, kept: Array) -> tuple[Array, Array, Array]:
    """``log(sum(exp(z)))`` over the classes that are kept, without an infinity where none is masked.

    Returns:
        The largest of their logits, as a constant; what the log-sum-exp is above it; and whether
        no class is left, in which case both are 0.
    """
    lowest = _LOWEST[xp.dtype(logits)]
    top = xp.stop_gradient(xp.max(xp.where(kept, logits, lowest), axis=-1))
    none = top <= lowest
    top = xp.where(none | xp.equal(top, -MINUS_INFINITY), 0.0, top)
    terms = xp.where(kept, xp.exp(xp.where(kept, logits - top[..., None], 0.0)), 0.0)
    return top, xp.log(xp.where(none, 1.0, xp.sum(terms, axis=-1))), none


def _is(value: Any, number: float) -> bool:
    return isinstance(value, float) and value == number


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
        # A masked class costs nothing where it has no weight.
        picked = xp.where(xp.equal(factor, 0) & xp.equal(picked, MINUS_INFINITY), 0.0, picked)
    return factor * (lse - picked)


def _soft_label_nll(rows: ShiftedRows, lse: Array, labels: Array, class_weight: Array | None) -> Array:
    xp = rows.xp
    weighted = labels if class_weight is None else labels * match_rank(xp, class_weight, labels)
    # A masked class costs nothing where the label has no mass on it.
    without = xp.equal(weighted, 0) & xp.equal(rows.logits, MINUS_INFINITY)
    losses = xp.sum(weighted, axis=-1) * lse - rows.weighted_sum(weighted, without)
    return losses * proper_rows(xp, labels)


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
    if _is(label_smoothing, 0.0):
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
    """``sum_k q_k w_k f(p_k)`` of each row, q its smoothed label; of the label alone where it is all of q."""
    eps, weight = options.label_smoothing, options.class_weight
    if len(xp.shape(labels)) < len(xp.shape(logits)) and _is(eps, 0.0):
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


def expectation(xp: Backend, targets: Array, values: Array) -> Array:
    """``sum_k q_k f_k``, where a class without mass costs nothing, even where f is infinite."""
    # A finite f_k stays: it is the derivative by q_k, at q_k = 0 too.
    without = xp.equal(targets, 0) & xp.equal(abs(values), -MINUS_INFINITY)
    return xp.sum(targets * xp.where(without, 0.0, values), axis=-1)


def entropy(xp: Backend, log_p: Array) -> Array:
    """``-sum_k p_k log p_k``; a masked class has none."""
    return -xp.sum(xp.exp(log_p) * xp.where(xp.equal(log_p, MINUS_INFINITY), 0.0, log_p), axis=-1)


def sigmoid_cross_entropy(xp: Backend, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
    """``scale ((1 - l) log(1 + exp(z)) + w l log(1 + exp(-z)))``, l = (1 - eps) t + eps / 2, of each element.

    An infinite logit on the right side of its label costs 0.

    Args:
        xp: the backend.
        logits: z, floating point.
        labels: t in [0, 1], of the logits' shape, in the dtype of the result.
        options: eps, w and the others. A gamma multiplies by ``(l (1 - p) + (1 - l) p)^gamma``, p = sigmoid(z),
            an alpha by ``alpha l + (1 - alpha) (1 - l)``.

    Returns:
        The losses, in the logits' shape; or their sum.
    """
    label_smoothing, pos_weight, counted, scale, total, gamma, alpha = options
    logits = accumulate(xp, logits)
    if counted is not None:
        logits, labels = (xp.where(counted, x, 0.0) for x in (logits, labels))
    labels = smooth_binary_labels(proper_binary_labels(xp, labels), label_smoothing)
    if gamma:
        loss = focused_cross_entropy(xp, logits, labels, gamma)
    else:
        loss = _binary_cross_entropy(xp, logits, labels, pos_weight)
    if alpha is not None:
        loss = loss * (alpha * labels + (1.0 - alpha) * (1.0 - labels))
    if scale is not None:
        loss = loss * scale
    if counted is not None:
        loss = xp.where(counted, loss, 0.0)
    return xp.sum(loss) if total else loss


def _binary_cross_entropy(xp: Backend, logits: Array, labels: Array, pos_weight: Array | None) -> Array:
    yes = xp.where(xp.equal(labels, 0) & xp.equal(logits, MINUS_INFINITY), 0.0, logits)
    no = xp.where(xp.equal(labels, 1) & xp.equal(logits, -MINUS_INFINITY), 0.0, logits)
    positive = labels if pos_weight is None else labels * match_rank(xp, pos_weight, labels)
    return (1.0 - labels) * xp.softplus(no) + positive * xp.softplus(-yes)


def focused_cross_entropy(xp: Backend, z: Array, label: Array, gamma: float) -> Array:
    """The sigmoid focal loss of each element: of positive terms alone, so that both tails are exact.

    With the odds e = exp(-|z|) <= 1 of the less likely answer and the label's mass m on it, the
    cross-entropy is ``log(1 + e) + m |z|`` and the error, p from the label, ``(m + (1 - m) e) / (1 + e)``.
    """
    log_odds = xp.where(z > 0, -z, z)  # and no -|z|, whose slope at 0 is none
    mass = xp.where(z > 0, 1.0 - label, label)
    right = xp.equal(mass, 0)
    normalizer = xp.softplus(log_odds)
    error = xp.where(right, 1.0, mass + (1.0 - mass) * xp.exp(log_odds))
    # Without mass log(error) is log_odds; the second term is 0, and has the derivative by the mass, 1 / e - 1.
    slope = xp.exp(xp.where(log_odds < -_LARGEST_EXPONENT, _LARGEST_EXPONENT, -log_odds)) - 1.0
    log_error = xp.where(right, log_odds + mass * slope, xp.log(error)) - normalizer
    infinite = right & xp.equal(log_odds, MINUS_INFINITY)
    return xp.exp(gamma * log_error) * (normalizer - mass * xp.where(infinite, 0.0, log_odds))


def smooth_binary_labels(labels: Array, label_smoothing: Any) -> Array:
    """``(1 - eps) t + eps / 2``."""
    return labels if _is(label_smoothing, 0.0) else labels * (1.0 - label_smoothing) + 0.5 * label_smoothing
