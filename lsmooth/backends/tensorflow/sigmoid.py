"""Sigmoid cross-entropy with its gradient in closed form, ``sigmoid(z) - l``.

One exponential each way, where autodiff of the formula takes several, and two logarithms.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array


@tf.custom_gradient
def elements(z: Array, labels: Array) -> Any:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label costs 0."""
    size, wrong = _size_and_wrong(z, labels)
    losses = tf.math.multiply_no_nan(size, wrong) + tf.math.log1p(tf.exp(-size))

    def backward(upstream: Array) -> tuple[Array, Array]:
        size, wrong = _size_and_wrong(z, labels)
        rest = tf.sigmoid(-size)  # the smaller probability, so that no digits are lost next to 1
        slope = tf.where(z > 0, wrong - rest, rest - wrong)  # pyright: ignore[reportOperatorIssue]
        return upstream * slope, tf.math.multiply_no_nan(-z, upstream)

    return losses, backward


def _size_and_wrong(z: Array, labels: Array) -> tuple[Array, Array]:
    """|z|, whose derivative at 0 is one of its sides', and the label's mass on the side that z is not on."""
    return tf.where(z > 0, z, -z), tf.where(z > 0, 1.0 - labels, labels)
