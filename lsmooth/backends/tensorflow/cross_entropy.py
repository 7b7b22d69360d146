"""Softmax cross-entropy with its gradient in closed form.

TensorFlow's autodiff of the formula makes many temporaries of the logits' size. The closed
form, ``(softmax(z) - q) upstream``, makes none once XLA has fused it. Large logits are compiled by XLA
where `compile_pays`; the others take `tf.nn.softmax`, and reuse it for the gradient.

The maximum of each row is taken off first, so that a common offset of the logits costs no digits.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.formulas.rows import MINUS_INFINITY, is_number
from lsmooth.backends.options import Options, SoftmaxOptions
from lsmooth.backends.tensorflow.arrays import (
    accumulate,
    as_dtype,
    axis_length,
    equal,
    float_type,
    one_or_nan,
    pick,
    where,
)
from lsmooth.backends.tensorflow.compilation import (
    closed_form,
    compile_pays,
    compiled,
    in_xla,
    is_constant,
    is_small,
    reduced,
    row_sum,
)

KNOWN = ("label_smoothing", "temperature", "counted", "scale", "total")


def fits(logits: Array, labels: Array, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments: class ids, and numbers; autodiff follows tensors."""
    return (
        len(labels.shape) == len(logits.shape) - 1
        and is_constant(options.label_smoothing)
        and is_constant(options.temperature)
    )


def reduced_rows(losses: Array, options: Options) -> Array:
    """The losses of rows, scaled, and added up if their total is asked for."""
    losses = losses if options.scale is None else losses * options.scale
    return tf.reduce_sum(losses) if options.total else losses


def losses(logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
    """`formulas.softmax_cross_entropy`, for arguments that fit."""
    dtype = float_type(logits)
    # Tensors, so that a compiled function serves every number.
    eps, temperature = options.label_smoothing, options.temperature
    eps = None if is_number(eps, 0.0) else as_dtype(eps, dtype)
    inverse = None if is_number(temperature, 1.0) else as_dtype(1.0 / temperature, dtype)
    if compile_pays("softmax_cross_entropy", logits):
        value, gradient = compiled(_value), compiled(_gradient)
    elif tf.executing_eagerly() or not (is_small(logits) or in_xla()):
        value, gradient = _value_by_softmax, _gradient_by_softmax
    else:  # XLA fuses these, and in a graph TensorFlow's softmax takes longer to start than small logits take
        value, gradient = _value, _gradient
    rows = closed_form(value, lambda *x: [gradient(*x)], [logits], [labels, options.counted, eps, inverse])
    return reduced_rows(rows, options)


def _shift(logits: Array, counted: Array | None, inverse: Array | None, top: Array) -> Array:
    """``(z - top) / T``, zeros in rows that do not count."""
    z = _counted(logits, counted) - top[..., None]
    return z if inverse is None else z * inverse


def _counted(logits: Array, counted: Array | None) -> Array:
    z = accumulate(logits)
    return z if counted is None else where(counted[..., None], z, 0.0)


def _finite(top: Array) -> Array:
    return where(tf.math.is_finite(top), top, 0.0)


def _value(
    logits: Array, labels: Array, counted: Array | None, eps: Array | None, inverse: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """The losses, and what their gradient needs: log-sum-exp in two parts, and the number of unmasked classes."""
    top = _finite(reduced(tf.maximum, tf.reduce_max, logits, terms=lambda x: _counted(x, counted)))

    def shifted(x: Array) -> Array:
        return _shift(x, counted, inverse, top)

    log_sum = tf.math.log(row_sum(lambda x: tf.exp(shifted(x)), logits))
    mean, count = (None, None) if eps is None else _mean_and_count(logits, shifted)
    picked = pick(shifted(logits), _known(labels, logits))
    loss = _loss(logits, labels, counted, eps, log_sum, picked, mean)
    return loss, top, log_sum, count


def _value_by_softmax(
    logits: Array, labels: Array, counted: Array | None, eps: Array | None, inverse: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """The losses, and what their gradient needs: the maxima, the softmax, and the number of unmasked classes."""
    z = _counted(logits, counted)
    top = _finite(tf.reduce_max(z, axis=-1))
    if eps is None and inverse is None:
        p, picked = tf.nn.softmax(z), pick(z, _known(labels, z)) - top
        mean = count = None
    else:
        z = _shift(logits, counted, inverse, top)
        p, picked = tf.nn.softmax(z), pick(z, _known(labels, z))
        mean, count = (None, None) if eps is None else _mean_and_count(z)
    # The largest probability is exp(-log_sum), and at least 1 / classes.
    log_sum = -tf.math.log(tf.reduce_max(p, axis=-1))
    return _loss(logits, labels, counted, eps, log_sum, picked, mean), top, p, count


def _loss(
    logits: Array,
    labels: Array,
    counted: Array | None,
    eps: Array | None,
    log_sum: Array,
    picked: Array,
    mean: Array | None,
) -> Array:
    """The losses, from numbers of each row of the shifted logits."""
    loss = (log_sum - picked) * one_or_nan(_is_class(labels, logits), log_sum.dtype)
    if eps is not None and mean is not None:
        loss = (1.0 - eps) * loss + eps * (log_sum - mean)
    return loss if counted is None else where(counted, loss, 0.0)


def _gradient(
    logits: Array,
    labels: Array,
    counted: Array | None,
    eps: Array | None,
    inverse: Array | None,
    top: Array,
    log_sum: Array,
    count: Array | None,
    upstream: Array,
) -> Array:
    z = _shift(logits, counted, inverse, top)
    at_label = tf.equal(tf.range(axis_length(z, -1, labels.dtype), dtype=labels.dtype), labels[..., None])
    if eps is None or count is None:
        target = tf.cast(at_label, z.dtype)
    else:
        rest = where(equal(z, MINUS_INFINITY), 0.0, (eps / count)[..., None])
        target = rest + where(at_label, 1.0 - eps, 0.0)
    factor = _factor(z, labels, counted, inverse, upstream)
    return tf.cast((softmax_of(z, log_sum) - target) * factor[..., None], logits.dtype)


def _gradient_by_softmax(
    logits: Array,
    labels: Array,
    counted: Array | None,
    eps: Array | None,
    inverse: Array | None,
    top: Array,
    p: Array,
    count: Array | None,
    upstream: Array,
) -> Array:
    z = _counted(logits, counted)
    num_classes = axis_length(z, -1)
    if eps is None or count is None:
        target = tf.one_hot(labels, num_classes, dtype=z.dtype)
    else:

        def plain() -> Array:
            rest = eps / tf.cast(num_classes, z.dtype)
            return tf.one_hot(labels, num_classes, 1.0 - eps + rest, rest)

        def masked() -> Array:
            rest = where(equal(z, MINUS_INFINITY), 0.0, (eps / count)[..., None])
            return tf.one_hot(labels, num_classes, 1.0 - eps, tf.zeros((), z.dtype)) + rest

        everywhere = tf.reduce_all(tf.equal(count, tf.cast(num_classes, count.dtype)))
        target = masked() if is_small(z) else tf.cond(everywhere, plain, masked)
    factor = _factor(z, labels, counted, inverse, upstream)
    known = closed_form(lambda z, p, *_: (p,), _softmax_known_gradient, [z], [p, top, inverse])
    return tf.cast((known - target) * factor[..., None], logits.dtype)


def _softmax_known_gradient(z: Array, p: Array, top: Array, inverse: Array | None, upstream: Array) -> list[Array]:
    """The derivative of the softmax of ``(z - top) / T``."""
    slope = _softmax_derivative(_shift(z, None, inverse, top), upstream)
    return [slope if inverse is None else slope * inverse]


def _is_class(labels: Array, z: Array) -> Array:
    return (labels >= 0) & (labels < axis_length(z, -1, labels.dtype))


def _known(labels: Array, z: Array) -> Array:
    """The labels that are classes, 0 in place of the others."""
    return where(_is_class(labels, z), labels, 0)


def _factor(z: Array, labels: Array, counted: Array | None, inverse: Array | None, upstream: Array) -> Array:
    """What multiplies p - q of each row."""
    factor = upstream * one_or_nan(_is_class(labels, z), z.dtype)
    factor = factor if inverse is None else factor * inverse
    return factor if counted is None else where(counted, factor, 0.0)


@tf.custom_gradient
def softmax_of(z: Array, log_sum: Array) -> Any:
    """exp(z - log_sum), whose derivative knows that log-sum-exp moves with z."""
    p = tf.exp(z - log_sum[..., None])
    return p, lambda upstream: (_softmax_derivative(z, upstream), None)


def _softmax_derivative(z: Array, upstream: Array) -> Array:
    p = tf.nn.softmax(z)
    return p * (upstream - tf.reduce_sum(p * upstream, axis=-1, keepdims=True))


def _mean_and_count(x: Array, terms: Any = lambda x: x) -> tuple[Array, Array]:
    """The mean of the terms that are not -inf, and their number; one pass where all rows have only such."""
    total: Any = None if is_small(x) else row_sum(terms, x)

    def masked() -> tuple[Array, Array]:
        def kept(x: Array) -> Array:
            return ~equal(terms(x), MINUS_INFINITY)

        count = row_sum(lambda x: tf.cast(kept(x), terms(x).dtype), x)
        return row_sum(lambda x: where(kept(x), terms(x), 0.0), x) / count, count

    def plain() -> tuple[Array, Array]:
        count = tf.cast(axis_length(x, -1), total.dtype)
        return total / count, tf.fill(tf.shape(total), count)

    return masked() if total is None else tf.cond(tf.reduce_all(~equal(total, MINUS_INFINITY)), plain, masked)
