"""Softmax cross-entropy with its gradient in closed form.

TensorFlow's autodiff of the formula makes many temporaries of the logits' size. The closed
form, ``(softmax(z) - q) upstream``, makes none once XLA has fused it. Large logits of a known
shape are therefore compiled by XLA even where the caller is not: eager, or a plain
``tf.function``. Where the batch size is unknown they are not, since XLA compiles once per shape;
there the softmax is TensorFlow's own operation, and its memory becomes the gradient's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lsmooth.backends import formulas
from lsmooth.backends.base import Array, Backend
from lsmooth.backends.options import SoftmaxOptions

# From this many logits on, what XLA saves in one call is about what compiling costs.
XLA_ELEMENTS = 2**22
# Parts of a row whose terms XLA adds up before it stores them for the reduction to read.
PARTS = 16
# Up to as many, to look for masked classes costs less than to ask whether there are any.
SMALL = 2**14


KNOWN = ("label_smoothing", "temperature", "counted", "scale", "total")


def fits(logits: Array, labels: Array, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments: class ids, and numbers; autodiff follows tensors."""
    return (
        len(labels.shape) == len(logits.shape) - 1
        and isinstance(options.label_smoothing, float)
        and isinstance(options.temperature, float)
    )


def rows(xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
    """`formulas.softmax_cross_entropy` of each row without a scale, for arguments that fit."""
    label_smoothing, temperature, counted = options.label_smoothing, options.temperature, options.counted
    dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
    # As tensors, so that a compiled function is not compiled anew for another number.
    eps = tf.constant(label_smoothing, dtype) if label_smoothing else None
    inverse = tf.constant(1.0 / temperature, dtype) if temperature != 1.0 else None
    large = logits.shape.is_fully_defined() and logits.shape.num_elements() >= XLA_ELEMENTS
    if large:
        value, gradient = compiled(_value), compiled(_gradient)
    elif tf.executing_eagerly() or not (_is_small(logits) or tf.__internal__.get_enclosing_xla_context()):
        value, gradient = _value_by_softmax, _gradient_by_softmax
    else:  # for XLA to fuse, or in a graph, where TensorFlow's softmax takes longer to start than small logits take
        value, gradient = _value, _gradient

    @tf.custom_gradient
    def losses(logits: Array) -> Any:
        # The derivative is `gradient`'s alone: no tape, of whatever order, is to follow the value.
        loss, *of_rows = value(xp, tf.stop_gradient(logits), labels, counted, eps, inverse)

        def backward(upstream: Array) -> Array:
            return gradient(xp, logits, labels, counted, eps, inverse, *of_rows, upstream)  # pyright: ignore[reportCallIssue]

        return loss, backward

    return losses(logits)


@functools.cache
def compiled(function: Any) -> Any:
    """The function under XLA."""
    return tf.function(function, jit_compile=True)


def row_sum(terms: Callable[..., Array], *arrays: Array) -> Array:
    """The sum of ``terms(*arrays)`` over the last axis."""
    return reduced(tf.add, tf.reduce_sum, *arrays, terms=terms)


def reduced(combine: Any, reduce: Any, *arrays: Array, terms: Callable[..., Array] = lambda x: x) -> Array:
    """The reduction of ``terms(*arrays)`` over the last axis.

    XLA stores what a reduction reads. Here the terms of several parts of a row are combined before, and
    what is stored is as small as one part.
    """
    size, rest = divmod(arrays[0].shape[-1], PARTS)
    if size < PARTS or not tf.__internal__.get_enclosing_xla_context():
        return reduce(terms(*arrays), axis=-1)
    sizes = [size] * PARTS + [rest] * (rest > 0)
    parts = [terms(*part) for part in zip(*(tf.split(x, sizes, axis=-1) for x in arrays), strict=True)]
    result = reduce(functools.reduce(combine, parts[:PARTS]), axis=-1)
    return combine(result, reduce(parts[-1], axis=-1)) if rest else result


def _transform(xp: Backend, logits: Array, counted: Array | None, inverse: Array | None) -> Array:
    z = formulas.accumulate(xp, logits)
    z = z if counted is None else xp.where(counted[..., None], z, 0.0)
    return z if inverse is None else z * inverse


def _value(
    xp: Backend, logits: Array, labels: Array, counted: Array | None, eps: Array | None, inverse: Array | None
) -> tuple[Array, Array, Array, Array | None]:
    """The losses, and what their gradient needs: log-sum-exp in two parts, and the number of unmasked classes."""

    def transform(x: Array) -> Array:
        return _transform(xp, x, counted, inverse)

    z = transform(logits)
    top = reduced(tf.maximum, tf.reduce_max, logits, terms=transform)
    top = xp.where(tf.math.is_finite(top), top, 0.0)
    # Kept apart from the maximum: their sum has few digits to spare where logits are large.
    log_sum = tf.math.log(row_sum(lambda x: tf.exp(transform(x) - top[..., None]), logits))
    loss, count = _loss(xp, z, top + log_sum, labels, counted, eps)
    return loss, top, log_sum, count


def _value_by_softmax(
    xp: Backend, logits: Array, labels: Array, counted: Array | None, eps: Array | None, inverse: Array | None
) -> tuple[Array, Array, Array | None]:
    """The losses, and what their gradient needs: the softmax, and the number of unmasked classes."""
    z = _transform(xp, logits, counted, inverse)
    p = tf.nn.softmax(z)
    # The largest probability is exp(max(z) - lse), and at least 1 / classes.
    lse = tf.reduce_max(z, axis=-1) - tf.math.log(tf.reduce_max(p, axis=-1))
    loss, count = _loss(xp, z, lse, labels, counted, eps)
    return loss, p, count


def _loss(
    xp: Backend, z: Array, lse: Array, labels: Array, counted: Array | None, eps: Array | None
) -> tuple[Array, Array | None]:
    """The losses of the log-sum-exps, and the number of unmasked classes where that matters."""
    valid = _is_class(labels, z)
    loss, count = xp.where(valid, lse - xp.pick(z, xp.where(valid, labels, 0)), float("nan")), None
    if eps is not None:
        mean, count = unmasked_mean_and_count(z)
        loss = (1.0 - eps) * loss + eps * (lse - mean)
    return (loss if counted is None else xp.where(counted, loss, 0.0)), count


def _gradient(
    xp: Backend,
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
    z = _transform(xp, logits, counted, inverse)
    # Not `==`, which in a graph of tf.compat.v1 asks whether two tensors are one object.
    at_label = tf.equal(tf.range(z.shape[-1], dtype=labels.dtype), labels[..., None])
    if eps is None:
        target = tf.cast(at_label, z.dtype)
    else:
        rest = xp.where(z <= formulas.MINUS_INFINITY, 0.0, (eps / count)[..., None])
        target = rest + xp.where(at_label, 1.0 - eps, 0.0)
    factor = _factor(xp, z, labels, counted, inverse, upstream)
    return tf.cast((softmax_of(z, top, log_sum) - target) * factor[..., None], logits.dtype)


def _gradient_by_softmax(
    xp: Backend,
    logits: Array,
    labels: Array,
    counted: Array | None,
    eps: Array | None,
    inverse: Array | None,
    p: Array,
    count: Array | None,
    upstream: Array,
) -> Array:
    z = _transform(xp, logits, counted, inverse)
    num_classes = z.shape[-1]
    if eps is None or count is None:
        target = tf.one_hot(labels, num_classes, dtype=z.dtype)
    else:

        def plain() -> Array:
            return tf.one_hot(labels, num_classes, 1.0 - eps + eps / num_classes, eps / num_classes)

        def masked() -> Array:
            rest = xp.where(z <= formulas.MINUS_INFINITY, 0.0, (eps / count)[..., None])
            return tf.one_hot(labels, num_classes, 1.0 - eps, tf.zeros((), z.dtype)) + rest

        target = masked() if _is_small(z) else tf.cond(tf.reduce_all(tf.equal(count, num_classes)), plain, masked)
    factor = _factor(xp, z, labels, counted, inverse, upstream)
    return tf.cast((softmax_known(z, p) - target) * factor[..., None], logits.dtype)


def _is_class(labels: Array, z: Array) -> Array:
    return (labels >= 0) & (labels < z.shape[-1])


def _factor(
    xp: Backend, z: Array, labels: Array, counted: Array | None, inverse: Array | None, upstream: Array
) -> Array:
    """What multiplies p - q of each row."""
    factor = xp.where(_is_class(labels, z), upstream if inverse is None else upstream * inverse, float("nan"))
    return factor if counted is None else xp.where(counted, factor, 0.0)


@tf.custom_gradient
def softmax_known(z: Array, p: Array) -> Any:
    """p, the softmax of z, with the derivative of one."""
    return p, lambda upstream: (_softmax_derivative(z, upstream), None)


@tf.custom_gradient
def softmax_of(z: Array, top: Array, log_sum: Array) -> Any:
    """exp(z - top - log_sum), whose derivative knows that log-sum-exp moves with z."""
    p = tf.exp((z - top[..., None]) - log_sum[..., None])
    return p, lambda upstream: (_softmax_derivative(z, upstream), None, None)


def _softmax_derivative(z: Array, upstream: Array) -> Array:
    p = tf.nn.softmax(z)
    return p * (upstream - tf.reduce_sum(p * upstream, axis=-1, keepdims=True))


def unmasked_mean_and_count(x: Array) -> tuple[Array, Array]:
    """The mean of the entries that are not -inf, and their number; one pass where many have only such."""

    def masked() -> tuple[Array, Array]:
        kept = ~(x <= formulas.MINUS_INFINITY)
        count = tf.reduce_sum(tf.cast(kept, x.dtype), axis=-1)
        return tf.reduce_sum(tf.where(kept, x, tf.zeros((), x.dtype)), axis=-1) / count, count

    if _is_small(x):
        return masked()
    total = tf.reduce_sum(x, axis=-1)

    def plain() -> tuple[Array, Array]:
        return total / x.shape[-1], tf.fill(tf.shape(total), tf.constant(x.shape[-1], x.dtype))

    return tf.cond(tf.reduce_all(total > formulas.MINUS_INFINITY), plain, masked)


def _is_small(x: Array) -> bool:
    return x.shape.is_fully_defined() and x.shape.num_elements() <= SMALL
