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
from lsmooth.backends.tensorflow.arrays import one_or_nan
from lsmooth.backends.tensorflow.compilation import closed_form, compile_pays, compiled, in_xla
from lsmooth.backends.tensorflow.tapes import is_followed

KNOWN = ("label_smoothing", "scale", "total")


def fits_total(logits: Array, options: SigmoidOptions) -> bool:
    """Whether `total` knows these options and is worth compiling."""
    return (
        options.total
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
    return smooth_binary_labels(
        labels * one_or_nan((labels >= -ROUNDING) & (labels <= 1.0 + ROUNDING), labels.dtype), label_smoothing
    )


def _slope(logits: Array, labels: Array, eps: Any, upstream: Array) -> Array:
    z, labels = tf.cast(logits, labels.dtype), smoothed(labels, 0.0 if eps is None else eps)
    return tf.cast(upstream * _error(z, labels), logits.dtype)


def elements(z: Array, labels: Array) -> Array:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label has loss 0."""
    return closed_form(_elements, _slopes_of_elements, [z, labels], [])


def _elements(z: Array, labels: Array) -> tuple[Array]:
    return (_losses([(z, labels)], None),)


def _slopes_of_elements(z: Array, labels: Array, upstream: Array) -> list[Array]:
    return [upstream * _error(z, labels), tf.math.multiply_no_nan(-z, upstream)]


def _error(z: Array, labels: Array) -> Array:
    """``sigmoid(z) - l``."""
    size, wrong = _size_and_wrong(z, labels)
    rest = tf.sigmoid(-size)  # the smaller probability, which is exact
    return tf.where(z > 0, wrong - rest, rest - wrong)  # pyright: ignore[reportOperatorIssue]


def _size_and_wrong(z: Array, labels: Array) -> tuple[Array, Array]:
    """|z|, with a one-sided derivative at 0, and the mass of the label on the other side of z."""
    return tf.where(z > 0, z, -z), tf.where(z > 0, 1.0 - labels, labels)
