"""Sigmoid cross-entropy with its gradient in closed form, ``sigmoid(z) - l``.

Each pass takes one exponential; autodiff of the formula takes several, and two logarithms. As for the
softmax, XLA compiles large logits of a known shape even if the caller is not compiled. Its logarithms are
slow, so several elements of a sum share one: ``log(1 + a) + log(1 + b) = log(1 + (a + b + a b))``, which is
exact for non-negative a and b.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.formulas.sigmoid import smooth_binary_labels
from lsmooth.backends.options import SigmoidOptions
from lsmooth.backends.tensorflow import thresholds
from lsmooth.backends.tensorflow.arrays import is_on_host, one_or_nan
from lsmooth.backends.tensorflow.compilation import closed_form, compile_pays, compiled, in_xla
from lsmooth.backends.tensorflow.tapes import is_followed

KNOWN = ("label_smoothing", "counted", "scale", "total")


def fits_total(logits: Array, options: SigmoidOptions) -> bool:
    """Whether `total` knows these options and is worth compiling."""
    return (
        options.total
        and options.counted is None
        and isinstance(options.label_smoothing, float)
        and not len(getattr(options.scale, "shape", ()))
        and compile_pays("sigmoid_cross_entropy", logits, least=thresholds.SMALL if in_xla() else None)
    )


def total(logits: Array, labels: Array, label_smoothing: float) -> Array:
    """The sum of the losses, for arguments that fit."""
    eps = tf.constant(label_smoothing, labels.dtype) if label_smoothing else None
    # In eager mode, the gradient of the labels would be computed even if no tape watches them.
    constant = tf.executing_eagerly() and not is_followed(labels)
    if constant:
        return closed_form(_sum_of, lambda z, y, eps, u: [compiled(_slope)(z, y, eps, u)], [logits], [labels, eps])
    return closed_form(_sum_of, _slopes, [logits, labels], [eps])


def _sum_of(logits: Array, labels: Array, eps: Array | None) -> tuple[Array]:
    return (compiled(_sum)(logits, labels, eps),)


def _slopes(logits: Array, labels: Array, eps: Array | None, upstream: Array) -> list[Array]:
    of_labels = upstream if eps is None else upstream * (1.0 - eps)
    of_labels = tf.math.multiply_no_nan(tf.cast(-logits, labels.dtype), of_labels)
    return [compiled(_slope)(logits, labels, eps, upstream), of_labels]


def _sum(logits: Array, labels: Array, eps: Any) -> Array:
    eps = 0.0 if eps is None else eps
    size, rest = divmod(logits.shape.num_elements(), thresholds.LOGARITHM_ELEMENTS)
    flat = (tf.reshape(x, [-1]) for x in (tf.cast(logits, labels.dtype), labels))
    *parts, last = zip(*(tf.split(x, [size] * thresholds.LOGARITHM_ELEMENTS + [rest]) for x in flat), strict=True)
    return tf.reduce_sum(_losses(parts, eps)) + tf.reduce_sum(_losses([last], eps))


def _losses(parts: list[tuple[Array, Array]], eps: Any) -> Array:
    """The sum of the losses of parts, each of logits and labels."""
    # Smooth here, because XLA would store all smoothed labels otherwise.
    sides = [_size_and_wrong(z, label if eps is None else smoothed(label, eps)) for z, label in parts]
    odds = functools.reduce(lambda a, b: a + b + a * b, (tf.exp(-size) for size, _ in sides))
    return tf.add_n([tf.math.multiply_no_nan(*side) for side in sides]) + tf.math.log1p(odds)


def smoothed(labels: Array, label_smoothing: Any) -> Array:
    """The smoothed labels; NaN in place of labels outside [0, 1]."""
    low, high = -ROUNDING, 1.0 + ROUNDING
    # On the host, two reductions instead of six arrays.
    if not (is_on_host(labels) and tf.reduce_min(labels).numpy() >= low and tf.reduce_max(labels).numpy() <= high):
        labels = labels * one_or_nan((labels >= low) & (labels <= high), labels.dtype)
    return smooth_binary_labels(labels, label_smoothing)


def _slope(logits: Array, labels: Array, eps: Any, upstream: Array) -> Array:
    z, labels = tf.cast(logits, labels.dtype), smoothed(labels, 0.0 if eps is None else eps)
    return tf.cast(upstream * _error(z, labels), logits.dtype)


def elements(z: Array, labels: Array) -> Array:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label costs 0."""
    if tf.executing_eagerly() and not is_followed(labels):
        return closed_form(_elements, lambda z, y, u: [u * _error(z, y)], [z], [labels])
    return closed_form(_elements, _slopes_of_elements, [z, labels], [])


def _elements(z: Array, labels: Array) -> tuple[Array]:
    return (tf.math.multiply_no_nan(z, _wrong(z > 0, labels)) + tf.math.log1p(tf.exp(-abs(z))),)


def _slopes_of_elements(z: Array, labels: Array, upstream: Array) -> list[Array]:
    return [upstream * _error(z, labels), tf.math.multiply_no_nan(-z, upstream)]


def _error(z: Array, labels: Array) -> Array:
    """``sigmoid(z) - l``."""
    positive = z > 0
    rest = tf.sigmoid(tf.where(positive, -z, z))  # the smaller probability, so that no digits are lost next to 1
    wrong = _wrong(positive, labels)
    return tf.where(positive, wrong - rest, wrong + rest)  # pyright: ignore[reportOperatorIssue]


def _wrong(positive: Array, labels: Array) -> Array:
    """The label's mass on the side that z is not on, with the sign of z."""
    return tf.cast(positive, labels.dtype) - labels


def _size_and_wrong(z: Array, labels: Array) -> tuple[Array, Array]:
    """|z| and the label's mass on the side that z is not on."""
    return abs(z), tf.where(z > 0, 1.0 - labels, labels)
