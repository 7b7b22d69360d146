"""The forward KL with its gradient, softmax(s) - softmax(t), in closed form.

As for the cross-entropy, XLA compiles large logits of a known shape even if the caller is not compiled.
There each reduction computes its own exponentials, because sharing them is slower, and reads terms that are
added up in parts first, because XLA stores the operand of a reduction.
"""

from __future__ import annotations

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.tensorflow.arrays import as_dtype, float_type, where
from lsmooth.backends.tensorflow.compilation import closed_form, compile_pays, compiled, is_constant, reduced, row_sum
from lsmooth.backends.tensorflow.cross_entropy import softmax_of

KNOWN = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")


def fits(options: DivergenceOptions) -> bool:
    """Whether `rows` takes these options; the others are left to autodiff."""
    return options.divergence == "forward_kl" and options.constant_teacher and is_constant(options.temperature)


def rows(teacher: Array, student: Array, options: DivergenceOptions) -> Array:
    """KL(t || s) of each row without a scale, for options that fit."""
    # A tensor, so that a compiled function serves every number.
    inverse = as_dtype(1.0 / options.temperature, float_type(student))
    if compile_pays("softmax_divergence", student):
        value, gradient = compiled(_fused), compiled(_gradient)
    else:
        value, gradient = _statistics, _gradient
    return closed_form(value, lambda *x: [gradient(*x)], [student], [teacher, options.counted, inverse])


def _counted(z: Array, counted: Array | None, inverse: Array) -> Array:
    z = tf.cast(z, inverse.dtype)
    return z if counted is None else where(counted[..., None], z, 0.0)


def _shifted(z: Array, counted: Array | None, inverse: Array, top: Array) -> Array:
    """``(z - top) / T``; subtracting the maximum first avoids rounding a common offset."""
    return (_counted(z, counted, inverse) - top[..., None]) * inverse


def _statistics(student: Array, teacher: Array, counted: Array | None, inverse: Array) -> tuple[Array, ...]:
    """For each row, KL(t || s), and the log-sum-exp of both as the maximum and the remainder."""
    top_t, top_s = (tf.reduce_max(_counted(z, counted, inverse), axis=-1) for z in (teacher, student))
    t, s = _shifted(teacher, counted, inverse, top_t), _shifted(student, counted, inverse, top_s)
    mass = tf.exp(t)
    sum_t, sum_s, gap = (tf.reduce_sum(x, axis=-1) for x in (mass, tf.exp(s), _gap(mass, t, s)))
    return _kl(top_t, sum_t, top_s, sum_s, gap)


def _fused(student: Array, teacher: Array, counted: Array | None, inverse: Array) -> tuple[Array, ...]:
    """`_statistics` for XLA, by parts of the rows, because XLA would store slices of computed arrays."""

    def of_rows(z: Array) -> Array:
        return _counted(z, counted, inverse)

    top_t, top_s = (reduced(tf.maximum, tf.reduce_max, z, terms=of_rows) for z in (teacher, student))

    def gaps(t: Array, s: Array) -> Array:
        t, s = _shifted(t, counted, inverse, top_t), _shifted(s, counted, inverse, top_s)
        # t <= 0, so this changes nothing, but it prevents XLA from sharing the exponential.
        return _gap(tf.exp(tf.minimum(t, tf.zeros((), t.dtype))), t, s)

    sum_t, sum_s = (
        row_sum(lambda z, top=top: tf.exp(_shifted(z, counted, inverse, top)), z)
        for z, top in ((teacher, top_t), (student, top_s))
    )
    return _kl(top_t, sum_t, top_s, sum_s, row_sum(gaps, teacher, student))


def _gap(mass: Array, t: Array, s: Array) -> Array:
    """The teacher's mass times t - s; 0 where the mass is 0."""
    return mass * tf.where(tf.equal(mass, 0), tf.zeros((), t.dtype), t - s)


def _kl(top_t: Array, sum_t: Array, top_s: Array, sum_s: Array, gap: Array) -> tuple[Array, ...]:
    log_t, log_s = tf.math.log(sum_t), tf.math.log(sum_s)
    return gap / sum_t + log_s - log_t, top_t, log_t, top_s, log_s


def _gradient(
    student: Array,
    teacher: Array,
    counted: Array | None,
    inverse: Array,
    top_t: Array,
    log_t: Array,
    top_s: Array,
    log_s: Array,
    upstream: Array,
) -> Array:
    t, s = _shifted(teacher, counted, inverse, top_t), _shifted(student, counted, inverse, top_s)
    factor = upstream * inverse
    if counted is not None:
        factor = where(counted, factor, 0.0)
    gap = softmax_of(s, log_s) - tf.exp(t - log_t[..., None])
    return tf.cast(gap * factor[..., None], student.dtype)
