"""Array operations shared by the kernels for TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from lsmooth.backends.base import Array


def as_dtype(x: Any, dtype: tf.DType) -> Array:
    """``x`` in a dtype; `tf.cast` would convert a Python number to float32 first."""
    return tf.constant(x, dtype) if isinstance(x, (int, float)) else tf.cast(x, dtype)


def where(condition: Array, x: Any, y: Any) -> Array:
    """Elementwise choice in the dtype of ``x``, or of ``y`` if ``x`` is a number."""
    dtype = x.dtype if isinstance(x, tf.Tensor) else y.dtype
    if isinstance(x, float) and not math.isfinite(x):
        condition, x, y = ~condition, y, x
    if isinstance(y, float) and not math.isfinite(y):
        # Divide by 0 where infinity is chosen: an infinite constant fails `tf.debugging.enable_check_numerics`.
        one = tf.cast(condition, dtype)
        added = one / one - 1.0 if math.isnan(y) else math.copysign(1.0, y) * (1.0 / one - 1.0)
        return tf.where(condition, as_dtype(x, dtype), tf.zeros((), dtype)) + added
    return tf.where(condition, as_dtype(x, dtype), as_dtype(y, dtype))


def equal(x: Array, y: Any) -> Array:
    """Elementwise equality; ``==`` compares identities in graphs of `tf.compat.v1`."""
    if isinstance(y, float) and math.isinf(y):  # without an infinite constant, as in `where`
        return tf.math.is_inf(x) & ((x > 0) if y > 0 else (x < 0))
    return tf.equal(x, y)


def gather(x: Array, index: Array) -> Array:
    """Entries of the last axis of each row of x (..., classes), by index (..., n)."""
    if is_on_host(index) and x.shape.num_elements():  # one operation instead of a dozen
        index = index.numpy()
        return tf.gather_nd(x, np.stack([*np.indices(index.shape, index.dtype)[:-1], index], axis=-1))
    return tf.gather(x, index, axis=-1, batch_dims=len(x.shape) - 1)


def pick(x: Array, index: Array) -> Array:
    """One entry of the last axis per row."""
    if index.shape.rank and is_on_host(index) and x.shape.num_elements():
        index = index.numpy()
        return tf.gather_nd(x, np.stack([*np.indices(index.shape, index.dtype), index], axis=-1))
    return gather(x, index[..., None])[..., 0]


def is_on_host(x: Array) -> bool:
    """Whether the values of ``x`` can be read now, without a copy from another device."""
    return tf.executing_eagerly() and "CPU" in x.device


def axis_length(x: Array, axis: int, dtype: Any = tf.int32) -> Any:
    """An int, or a scalar of ``dtype`` where the length is not known before the run."""
    # `as_list`: under tf.compat.v1.disable_v2_behavior the items of a shape are `Dimension`s.
    known = x.shape.as_list()[axis]
    return tf.cast(tf.shape(x)[axis], dtype) if known is None else known


def one_or_nan(condition: Array, dtype: Any) -> Array:
    """1 where the condition holds, and NaN elsewhere.

    0 / 0, because a constant NaN fails `tf.debugging.enable_check_numerics` even if no row uses it.
    """
    one = tf.cast(condition, dtype)
    return one / one


def float_type(x: Array) -> tf.DType:
    """The precision that lsmooth reduces in: float64 stays, everything else is float32."""
    return tf.float64 if x.dtype == tf.float64 else tf.float32


def accumulate(x: Array) -> Array:
    """``x`` in the precision that lsmooth reduces in."""
    return tf.cast(x, float_type(x))
