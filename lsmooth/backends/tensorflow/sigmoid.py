"""Sigmoid cross-entropy with its gradient in closed form, ``(1 - l) sigmoid(z) - l sigmoid(-z)``.

One elementwise expression each way, where autodiff of the formula takes four exponentials and two logarithms.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array


@tf.custom_gradient
def elements(z: Array, labels: Array) -> Any:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label costs 0."""
    size = tf.abs(z)
    wrong = tf.where(z > 0, 1.0 - labels, labels)  # the mass on the side that z is not on
    losses = tf.math.multiply_no_nan(size, wrong) + tf.math.log1p(tf.exp(-size))

    def backward(upstream: Array) -> tuple[Array, Array]:
        # Both sides, so that neither loses its digits next to 1.
        slope = (1.0 - labels) * tf.sigmoid(z) - labels * tf.sigmoid(-z)  # pyright: ignore[reportOperatorIssue]
        return upstream * slope, tf.math.multiply_no_nan(-z, upstream)

    return losses, backward
