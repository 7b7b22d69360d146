"""Operations on the rows of logits and labels that the formulas share; the classes are the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend
    from lsmooth.backends.options import Options

MINUS_INFINITY = float("-inf")
# The rounding error allowed below 0 and above 1: MixUp in float32 makes labels of 1 + 1e-7.
ROUNDING = 1e-6
# The lowest finite numbers.
_LOWEST = {"float64": -1.7976931348623157e308, "float32": -3.4028234663852886e38}


def accumulate(xp: Backend, x: Array) -> Array:
    """``x`` in the precision that lsmooth reduces in: float64 stays, everything else is float32."""
    return x if xp.dtype(x) in ("float64", "float32") else xp.cast(x, "float32")


def without_padding(xp: Backend, x: Array, num_classes: int | None) -> Array:
    """The first ``num_classes`` entries of the last axis; all if None."""
    return x if num_classes is None or xp.shape(x)[-1] == num_classes else x[..., :num_classes]


def row_maximum(xp: Backend, logits: Array) -> Array:
    """The largest logit of each row, as a constant. Subtracting it first avoids rounding a common offset."""
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
    """``x`` with leading axes of length 1 in the rank of ``like``; JAX can be configured to reject other ranks."""
    shape = tuple(-1 if n is None else n for n in xp.shape(x))
    missing = len(xp.shape(like)) - len(shape)
    return xp.reshape(x, (1,) * missing + shape) if shape and missing > 0 else x


def label_factor(xp: Backend, labels: Array, num_classes: Any, dtype: str) -> tuple[Array, Array]:
    """Class ids that are in range, and a factor for each row: 1, or NaN where the id is out of range.

    A factor rather than `where`, so that the gradient of such a row is NaN, like its loss.
    """
    valid = (labels >= 0) & (labels < num_classes)
    return xp.where(valid, labels, 0), xp.one_or_nan(valid, dtype)


def proper_rows(xp: Backend, labels: Array) -> Array:
    """1 for each row of labels (..., classes), and NaN where a class has negative mass."""
    dtype = xp.dtype(labels)
    # A count, because TensorFlow's graph optimizer miscompiles max(-labels) in the train step of a Keras model.
    return xp.one_or_nan(xp.sum(xp.cast(labels < -ROUNDING, dtype), axis=-1) <= 0, dtype)


def over_temperature(x: Array, temperature: Any) -> Array:
    """``x / T``, and ``x`` itself where T is the number 1."""
    return x if isinstance(temperature, float) and temperature == 1.0 else x / temperature


def logits_over_temperature(xp: Backend, logits: Array, temperature: Any) -> Array:
    """``z / T``, with T a number or one per row; masked classes give T no gradient."""
    if isinstance(temperature, float):
        return over_temperature(logits, temperature)
    return xp.divide_logits(logits, along_classes(xp, temperature))


def along_classes(xp: Backend, temperature: Any) -> Any:
    """The temperatures of rows with an axis for the classes; a number unchanged."""
    return temperature if isinstance(temperature, float) or not xp.shape(temperature) else temperature[..., None]


def log_sum_exp_of(xp: Backend, logits: Array, kept: Array) -> tuple[Array, Array, Array]:
    """``log(sum(exp(z)))`` over the kept classes, finite unless a class is masked.

    Returns:
        The largest of their logits, as a constant; the log-sum-exp less that maximum; and whether
        no class is left, in which case both are 0.
    """
    lowest = _LOWEST[xp.dtype(logits)]
    top = xp.stop_gradient(xp.max(xp.where(kept, logits, lowest), axis=-1))
    none = top <= lowest
    top = xp.where(none | xp.equal(top, -MINUS_INFINITY), 0.0, top)
    terms = xp.where(kept, xp.exp(xp.where(kept, logits - top[..., None], 0.0)), 0.0)
    return top, xp.log(xp.where(none, 1.0, xp.sum(terms, axis=-1))), none


def is_number(value: Any, number: float) -> bool:
    """Whether an option is this Python number; a tensor of the same value is not."""
    return isinstance(value, float) and value == number


def reduced(xp: Backend, losses: Array, options: Options) -> Array:
    """The scaled losses of rows, zeros in ignored rows; or their sum, if ``options.total``."""
    if options.scale is not None:
        losses = losses * options.scale
    if options.counted is not None:
        losses = xp.where(options.counted, losses, 0.0)
    return xp.sum(losses) if options.total else losses


def expectation(xp: Backend, targets: Array, values: Array) -> Array:
    """``sum_k q_k f_k``; a class without mass contributes nothing, even if f is infinite."""
    # Keep a finite f_k: it is the derivative by q_k, even at q_k = 0.
    without = xp.equal(targets, 0) & xp.equal(abs(values), -MINUS_INFINITY)
    return xp.sum(targets * xp.where(without, 0.0, values), axis=-1)


def quotient(xp: Backend, numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where the denominator is 0."""
    empty = xp.equal(denominator, 0)
    return xp.where(empty, 0.0, numerator / xp.where(empty, 1.0, denominator))


def entropy(xp: Backend, log_p: Array) -> Array:
    """``-sum_k p_k log p_k``; masked classes contribute nothing."""
    return -xp.sum(xp.exp(log_p) * xp.where(xp.equal(log_p, MINUS_INFINITY), 0.0, log_p), axis=-1)
