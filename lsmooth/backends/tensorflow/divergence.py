"""The forward KL with its gradient, softmax(s) - softmax(t), in closed form.

As with the cross-entropy, large logits of a known shape are compiled by XLA whatever the caller
does. There each reduction computes its own exponentials, since sharing them is slower, and reads
terms that are added up in parts first, since XLA stores what a reduction reads.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.tensorflow.cross_entropy import XLA_ELEMENTS, compiled, reduced, row_sum, softmax_of


def fits(options: DivergenceOptions) -> bool:
    """Whether `rows` knows these options; the others are left to autodiff."""
    return options.divergence == "forward_kl" and options.constant_teacher and isinstance(options.temperature, float)


def rows(teacher: Array, student: Array, options: DivergenceOptions) -> Array:
    """KL(t || s) of each row without a scale, for options that fit."""
    temperature, counted = options.temperature, options.counted
    dtype = tf.float64 if student.dtype == tf.float64 else tf.float32
    inverse = tf.constant(1.0 / temperature, dtype)  # a tensor: a compiled function serves every number
    large = student.shape.is_fully_defined() and student.shape.num_elements() >= XLA_ELEMENTS
    value, gradient = (compiled(_fused), compiled(_gradient)) if large else (_statistics, _gradient)

    @tf.custom_gradient
    def losses(student: Array) -> Any:
        # The derivative is `gradient`'s alone: no tape, of whatever order, is to follow the value.
        loss, *of_rows = value(teacher, tf.stop_gradient(student), counted, inverse)

        def backward(upstream: Array) -> Array:
            return gradient(teacher, student, counted, inverse, *of_rows, upstream)  # pyright: ignore[reportCallIssue]

        return loss, backward

    return losses(student)


def _counted(z: Array, counted: Array | None, inverse: Array) -> Array:
    z = tf.cast(z, inverse.dtype)
    return z if counted is None else tf.where(counted[..., None], z, tf.zeros((), z.dtype))


def _below(z: Array, top: Array, inverse: Array) -> Array:
    """``(z - top) / T``: the maximum is subtracted first, so that a common offset takes no digits."""
    return (z - top[..., None]) * inverse


def _statistics(teacher: Array, student: Array, counted: Array | None, inverse: Array) -> tuple[Array, ...]:
    """Of each row: KL(t || s), and log-sum-exp of both in two parts, the maximum and what is left."""
    t, s = (_counted(z, counted, inverse) for z in (teacher, student))
    top_t, top_s = (tf.reduce_max(z, axis=-1) for z in (t, s))
    t, s = _below(t, top_t, inverse), _below(s, top_s, inverse)
    mass = tf.exp(t)
    sum_t, sum_s, gap = (tf.reduce_sum(x, axis=-1) for x in (mass, tf.exp(s), _gap(mass, t, s)))
    return _kl(top_t, sum_t, top_s, sum_s, gap)


def _fused(teacher: Array, student: Array, counted: Array | None, inverse: Array) -> tuple[Array, ...]:
    """`_statistics` for XLA: of parts of the rows, which it would store if they were cut from what is computed."""

    def terms(z: Array) -> Array:
        return _counted(z, counted, inverse)

    top_t, top_s = (reduced(tf.maximum, tf.reduce_max, z, terms=terms) for z in (teacher, student))

    def gaps(t: Array, s: Array) -> Array:
        t, s = _below(terms(t), top_t, inverse), _below(terms(s), top_s, inverse)
        # t <= 0, but XLA does not know, and takes this for another exponential.
        return _gap(tf.exp(tf.minimum(t, tf.zeros((), t.dtype))), t, s)

    sum_t, sum_s = (
        row_sum(lambda z, top=top: tf.exp(_below(terms(z), top, inverse)), z)
        for z, top in ((teacher, top_t), (student, top_s))
    )
    return _kl(top_t, sum_t, top_s, sum_s, row_sum(gaps, teacher, student))


def _gap(mass: Array, t: Array, s: Array) -> Array:
    """The teacher's mass times t - s; where it has none the student may have none."""
    return mass * tf.where(tf.equal(mass, 0), tf.zeros((), t.dtype), t - s)


def _kl(top_t: Array, sum_t: Array, top_s: Array, sum_s: Array, gap: Array) -> tuple[Array, ...]:
    log_t, log_s = tf.math.log(sum_t), tf.math.log(sum_s)
    return gap / sum_t + log_s - log_t, top_t, log_t, top_s, log_s


def _gradient(
    teacher: Array,
    student: Array,
    counted: Array | None,
    inverse: Array,
    top_t: Array,
    log_t: Array,
    top_s: Array,
    log_s: Array,
    upstream: Array,
) -> Array:
    t, s = (_counted(z, counted, inverse) for z in (teacher, student))
    factor = upstream * inverse
    if counted is not None:
        factor = tf.where(counted, factor, tf.zeros((), factor.dtype))
    t, s = (_below(z, top, inverse) for z, top in ((t, top_t), (s, top_s)))
    t, s = tf.exp(t - log_t[..., None]), softmax_of(s, tf.zeros_like(top_s), log_s)
    return tf.cast((s - t) * factor[..., None], student.dtype)  # pyright: ignore[reportArgumentType]
