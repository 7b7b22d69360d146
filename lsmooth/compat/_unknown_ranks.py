"""TensorFlow tensors whose rank is known only at run time, such as a placeholder without a shape."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array

# More axes than TensorFlow's operations support.
MOST_AXES = 16


def any_unknown(*arrays: Array) -> bool:
    """Whether one of the tensors has an unknown rank, which only TensorFlow has."""
    return any(getattr(x.shape, "rank", 0) is None for x in arrays)


def with_shape_of(name: str, labels: Array, logits: Array) -> Array:
    """The labels, which are checked at run time to have the shape of the logits."""
    import tensorflow as tf

    message = f"{name} must have the shape of the logits: got"
    return _checked(labels, _equal_shapes(tf.shape(labels), tf.shape(logits)), message, labels, logits)


def flat_rows(labels: Array, logits: Array) -> tuple[Array, Array, Array]:
    """Labels (rows,) and logits (rows, classes), and the shape of the losses.

    As in ``tf.compat.v1.losses``, an extra last dimension of size 1, of labels or logits, is removed.
    """
    import tensorflow as tf

    of_labels, of_logits = tf.shape(labels), tf.shape(logits)
    of_logits = of_logits[: tf.size(of_labels) + 1]  # (..., classes, 1) with labels (...)
    rows = of_logits[:-1]
    fits = _equal_shapes(of_labels, rows) | _equal_shapes(of_labels, tf.concat([rows, [1]], 0))
    fits &= tf.equal(tf.size(logits), tf.reduce_prod(of_logits))
    labels = _checked(labels, fits, "labels must have the shape of the logits without the classes: got", labels, logits)
    return tf.reshape(labels, [-1]), tf.reshape(logits, [-1, of_logits[-1]]), rows


def without_last_axis(weights: Array, losses: Array) -> Array:
    """The weights without their last dimension, which must be 1, if they have one more than the losses."""
    import tensorflow as tf

    return tf.reshape(weights, tf.shape(weights)[: tf.rank(losses)])


def fitting_weights(weights: Array, losses: Array) -> Array:
    """The weights, checked at run time: a scalar, or of the losses' rank with each dimension 1 or equal."""
    import tensorflow as tf

    of_weights, of_losses = tf.shape(weights), tf.shape(losses)
    fits = tf.equal(tf.size(of_weights), 0) | _equal_shapes(of_weights, of_losses, or_one=True)
    message = "weights must be a scalar or have the losses' rank, each dimension equal or 1: got"
    return _checked(weights, fits, message, weights, losses)


def _equal_shapes(a: Array, b: Array, or_one: bool = False) -> Array:
    import tensorflow as tf

    # Pad both shapes to the same length, so that they can be compared for any ranks.
    x, y = (tf.concat([shape, tf.fill([MOST_AXES], -1)], 0)[:MOST_AXES] for shape in (a, b))
    equal = tf.equal(x, y) | tf.equal(x, 1) if or_one else tf.equal(x, y)
    return tf.equal(tf.size(a), tf.size(b)) & tf.reduce_all(equal)


def _checked(x: Array, holds: Array, message: str, *arrays: Any) -> Array:
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.Assert(holds, [message, *map(tf.shape, arrays)])]):
        return tf.identity(x)
