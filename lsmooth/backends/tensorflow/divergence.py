"""The forward KL with its gradient, softmax(s) - softmax(t), in closed form.

As with the cross-entropy, large logits of a known shape are compiled by XLA whatever the caller
does. There each reduction computes its own exponentials, since sharing them is slower. XLA stores
what a reduction reads all the same: the call's peak is two arrays of the logits' size above the
gradient. A loop over blocks of rows saves those two, and takes a third longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.tensorflow.cross_entropy import XLA_ELEMENTS, compiled, softmax_of


def fits(
    teacher: Array,
    student: Array,
    *,
    divergence: str = "forward_kl",
    temperature: Any = 1.0,
    constant_teacher: bool = False,
    **_: Any,
) -> bool:
    """Whether `rows` knows these options; the others are left to autodiff."""
    return divergence == "forward_kl" and constant_teacher and isinstance(temperature, float)


def rows(teacher: Array, student: Array, temperature: float, counted: Array | None) -> Array:
    """KL(t || s) of each row, for arguments that fit."""
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


def _scaled(z: Array, counted: Array | None, inverse: Array) -> Array:
    z = tf.cast(z, inverse.dtype)
    return (z if counted is None else tf.where(counted[..., None], z, tf.zeros((), z.dtype))) * inverse


def _statistics(
    teacher: Array,
    student: Array,
    counted: Array | None,
    inverse: Array,
    again: Callable[[Array, Array], Array] = lambda _, mass: mass,
) -> tuple[Array, ...]:
    """Of each row: KL(t || s), and log-sum-exp of both in two parts, the maximum and what is left.

    ``again(t, exp(t))`` gives exp(t) for its second use.
    """
    t, s = (_scaled(z, counted, inverse) for z in (teacher, student))
    top_t, top_s = (tf.reduce_max(z, axis=-1) for z in (t, s))
    t, s = t - top_t[..., None], s - top_s[..., None]  # pyright: ignore[reportArgumentType]
    mass = tf.exp(t)
    sum_t = tf.reduce_sum(mass, axis=-1)
    mass = again(t, mass)
    log_t, log_s = tf.math.log(sum_t), tf.math.log(tf.reduce_sum(tf.exp(s), axis=-1))
    # Where the teacher has no mass the student may have none.
    difference = tf.where(tf.equal(mass, 0), tf.zeros((), t.dtype), t - s)
    loss = tf.reduce_sum(mass * difference, axis=-1) / sum_t + log_s - log_t
    return loss, top_t, log_t, top_s, log_s


def _fused(teacher: Array, student: Array, counted: Array | None, inverse: Array) -> tuple[Array, ...]:
    """`_statistics` for XLA."""
    # t <= 0, but XLA does not know, and takes this for another exponential.
    return _statistics(teacher, student, counted, inverse, lambda t, _: tf.exp(tf.minimum(t, tf.zeros((), t.dtype))))


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
    t, s = (_scaled(z, counted, inverse) for z in (teacher, student))
    factor = upstream * inverse
    if counted is not None:
        factor = tf.where(counted, factor, tf.zeros((), factor.dtype))
    t, s = tf.exp((t - top_t[..., None]) - log_t[..., None]), softmax_of(s, top_s, log_s)
    return tf.cast((s - t) * factor[..., None], student.dtype)  # pyright: ignore[reportArgumentType]
