"""Sigmoid cross-entropy with its gradient in closed form, ``sigmoid(z) - l``.

One exponential each way, where autodiff of the formula takes several, and two logarithms. As with the
softmax, large logits of a known shape are compiled by XLA whatever the caller does. Its logarithms are
slow, so in a sum several elements share one: ``log(1 + a) + log(1 + b) = log(1 + (a + b + a b))``, as
exact as a and b, none of which is negative.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.formulas import smooth_binary_labels
from lsmooth.backends.options import SigmoidOptions
from lsmooth.backends.tensorflow.cross_entropy import SMALL, XLA_ELEMENTS, compiled
from lsmooth.backends.tensorflow.tapes import is_followed

# Elements that share a logarithm: of at most 2 to this power.
TOGETHER = 16


KNOWN = ("label_smoothing", "scale", "total")


def fits_total(logits: Array, options: SigmoidOptions) -> bool:
    """Whether `total` knows these options, and is worth compiling where it is not compiled anyway."""
    return (
        options.total
        and isinstance(options.label_smoothing, float)
        and not len(getattr(options.scale, "shape", ()))
        and logits.shape.is_fully_defined()
        and logits.shape.num_elements() >= (SMALL if tf.__internal__.get_enclosing_xla_context() else XLA_ELEMENTS)
    )


def total(logits: Array, labels: Array, label_smoothing: float) -> Array:
    """The sum of the losses, for arguments that fit."""
    eps = tf.constant(label_smoothing, labels.dtype) if label_smoothing else 0.0
    # Eagerly what is returned for the labels is computed, asked for or not.
    constant = tf.executing_eagerly() and not is_followed(labels)

    @tf.custom_gradient
    def loss(logits: Array, labels: Array) -> Any:
        def backward(upstream: Array) -> tuple[Array, Array | None]:
            slope = compiled(_slope)(logits, labels, eps, upstream)
            if constant:
                return slope, None
            return slope, tf.math.multiply_no_nan(tf.cast(-logits, labels.dtype), upstream * (1.0 - eps))

        return compiled(_sum)(tf.stop_gradient(logits), tf.stop_gradient(labels), eps), backward

    return loss(logits, labels)


def _sum(logits: Array, labels: Array, eps: Any) -> Array:
    size, rest = divmod(logits.shape.num_elements(), TOGETHER)
    flat = (tf.reshape(x, [-1]) for x in (tf.cast(logits, labels.dtype), labels))
    *parts, last = zip(*(tf.split(x, [size] * TOGETHER + [rest]) for x in flat), strict=True)
    return tf.reduce_sum(_losses(parts, eps)) + tf.reduce_sum(_losses([last], eps))


def _losses(parts: list[tuple[Array, Array]], eps: Any) -> Array:
    """The losses of the parts, logits and labels each, added up."""
    # Smoothed as late as this, or XLA keeps all smoothed labels for the parts to read.
    sides = [_size_and_wrong(z, label if eps is None else smoothed(label, eps)) for z, label in parts]
    odds = functools.reduce(lambda a, b: a + b + a * b, (tf.exp(-size) for size, _ in sides))
    return tf.add_n([tf.math.multiply_no_nan(*side) for side in sides]) + tf.math.log1p(odds)


def smoothed(labels: Array, label_smoothing: Any) -> Array:
    """The smoothed labels; NaN in place of labels outside [0, 1]."""
    proper = tf.cast((labels >= 0) & (labels <= 1), labels.dtype)  # pyright: ignore[reportOperatorIssue]
    return smooth_binary_labels(labels * (proper / proper), label_smoothing)


def _slope(logits: Array, labels: Array, eps: Any, upstream: Array) -> Array:
    z, labels = tf.cast(logits, labels.dtype), smoothed(labels, eps)
    return tf.cast(upstream * _error(z, labels), logits.dtype)


@tf.custom_gradient
def elements(z: Array, labels: Array) -> Any:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label costs 0."""
    # The derivative is that of `backward` alone: no tape, of whatever order, is to follow the value.
    losses = _losses([(tf.stop_gradient(z), tf.stop_gradient(labels))], None)

    def backward(upstream: Array) -> tuple[Array, Array]:
        return upstream * _error(z, labels), tf.math.multiply_no_nan(-z, upstream)

    return losses, backward


def _error(z: Array, labels: Array) -> Array:
    """``sigmoid(z) - l``."""
    size, wrong = _size_and_wrong(z, labels)
    rest = tf.sigmoid(-size)  # the smaller probability, so that no digits are lost next to 1
    return tf.where(z > 0, wrong - rest, rest - wrong)  # pyright: ignore[reportOperatorIssue]


def _size_and_wrong(z: Array, labels: Array) -> tuple[Array, Array]:
    """|z|, whose derivative at 0 is one of its sides', and the label's mass on the side that z is not on."""
    return tf.where(z > 0, z, -z), tf.where(z > 0, 1.0 - labels, labels)
