"""The TensorFlow backend: eager, ``tf.function`` and XLA, with shapes known or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas.linear import BlockLoss, Call
from lsmooth.backends.formulas.rows import accumulate, reduced
from lsmooth.backends.options import (
    DIVERGENCE,
    SIGMOID,
    SOFTMAX,
    DivergenceOptions,
    SigmoidOptions,
    SoftmaxOptions,
    are_known,
)
from lsmooth.backends.tensorflow import arrays, cross_entropy, divergence, host, linear, log_odds, sigmoid
from lsmooth.backends.tensorflow.members import Replicas, members
from lsmooth.backends.tensorflow.tapes import is_followed


class TensorflowBackend(Backend):
    """`Backend` over ``tensorflow``."""

    name = "tensorflow"

    def is_array(self, x: object) -> bool:
        return isinstance(x, (tf.Tensor, tf.Variable))

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        if isinstance(x, tf.Tensor):
            return x if dtype is None else tf.cast(x, dtype)
        if isinstance(x, tf.__internal__.types.Tensor) or dtype is None:  # a variable of TensorFlow or Keras
            x = tf.convert_to_tensor(x)
            return x if dtype is None else tf.cast(x, dtype)
        return tf.cast(tf.convert_to_tensor(np.asarray(x)), dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return (tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x).numpy()

    def host_values(self, x: Array) -> np.ndarray | None:
        return x.numpy() if arrays.is_on_host(x) and not is_followed(x) else None

    def dtype(self, x: Array) -> str:
        return x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        return tf.cast(x, dtype)

    def shape(self, x: Array) -> tuple[int | None, ...]:
        if x.shape.rank is None:
            raise ValueError(
                "The rank of a tensor is unknown: the number of its axes must be known, e.g. by "
                f"tf.ensure_shape(x, [None, 10]); got {x!r}."
            )
        # Plain integers: under tf.compat.v1.disable_v2_behavior the items of a shape are `Dimension`s.
        return tuple(x.shape.as_list())

    def length(self, x: Array, axis: int, dtype: str = "int32") -> Any:
        return arrays.axis_length(x, axis, dtype)

    def size(self, x: Array) -> Any:
        return x.shape.num_elements() if x.shape.is_fully_defined() else tf.size(x)

    def is_concrete(self, x: Array) -> bool:
        return tf.executing_eagerly()

    def ones_like(self, x: Array, dtype: str) -> Array:
        # Without an operation on x: a tape would take the ones, and what is made of them, for functions of x.
        return tf.ones(x.shape, dtype) if x.shape.is_fully_defined() else tf.ones_like(x, dtype)

    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        return tf.one_hot(index, tf.cast(num_classes, tf.int32), dtype=dtype)

    def exp(self, x: Array) -> Array:
        return tf.exp(x)

    def log(self, x: Array) -> Array:
        return tf.math.log(x)

    def tanh(self, x: Array) -> Array:
        return tf.tanh(x)

    def softplus(self, x: Array) -> Array:
        return tf.math.softplus(x)

    def ceil(self, x: Array) -> Array:
        return tf.math.ceil(x)

    def equal(self, x: Array, y: Any) -> Array:
        return arrays.equal(x, y)

    def clip(self, x: Array, low: float, high: float) -> Array:
        return tf.clip_by_value(x, low, high)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return arrays.where(condition, x, y)

    def one_or_nan(self, proper: Array, dtype: str) -> Array:
        return arrays.one_or_nan(proper, dtype)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return tf.reduce_sum(x, axis=axis)

    def max(self, x: Array, axis: int) -> Array:
        return tf.reduce_max(x, axis=axis)

    def argmax(self, x: Array, axis: int) -> Array:
        return tf.argmax(x, axis=axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        return tf.reduce_logsumexp(x, axis=axis)

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        rank = len(x.shape)
        source, destination = source % rank, destination % rank
        if source == destination:
            return x
        order = [axis for axis in range(rank) if axis != source]
        order.insert(destination, source)
        return tf.transpose(x, order)

    def expand_dims(self, x: Array) -> Array:
        return tf.expand_dims(x, -1)  # one operation; indexing takes five

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return tf.reshape(x, shape)

    def take(self, table: Array, index: Array) -> Array:
        return tf.gather(table, index)

    def gather(self, x: Array, index: Array) -> Array:
        return arrays.gather(x, index)

    def pick(self, x: Array, index: Array) -> Array:
        return arrays.pick(x, index)

    def put(self, x: Array, index: Array, values: Array) -> Array:
        shape, count = tf.shape(x, tf.int64), tf.shape(index)[-1:]
        rows = tf.reshape(tf.cast(index, tf.int64), tf.concat([[-1], count], 0))
        rows += tf.range(tf.shape(rows, tf.int64)[0])[:, None] * shape[-1]
        flat = tf.tensor_scatter_nd_update(tf.reshape(x, [-1]), tf.reshape(rows, [-1, 1]), tf.reshape(values, [-1]))
        return tf.ensure_shape(tf.reshape(flat, shape), x.shape)

    def top(self, x: Array, index: Array) -> tuple[Array, Array]:
        winner = tf.argmax(x, axis=-1)  # ignores NaN, unlike the maximum
        return tf.reduce_max(x, axis=-1), tf.equal(winner, tf.cast(index, winner.dtype))

    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        return tf.math.unsorted_segment_sum(weights, index, length)

    def argsort(self, x: Array) -> Array:
        return tf.argsort(x, stable=True)

    def cumsum(self, x: Array) -> Array:
        return tf.cumsum(x, -1)

    def searchsorted(self, x: Array, values: Array, side: str) -> Array:
        return tf.searchsorted(x, values, side)

    def stop_gradient(self, x: Array) -> Array:
        return tf.stop_gradient(x)

    def value_and_grad(self, function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return value, tf.convert_to_tensor(tape.gradient(value, x))

    def members(self, group: Any, option: str) -> Replicas:
        return members(group, option)

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
        def anywhere(logits: Array) -> Array:
            return self._softmax_cross_entropy(logits, labels, options)

        loss = host.loss_of(host.softmax, logits, labels, options, anywhere)
        return anywhere(logits) if loss is None else loss

    def _softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array:
        if not (are_known(options, cross_entropy.KNOWN) and cross_entropy.fits(logits, labels, options)):
            return super().softmax_cross_entropy(logits, labels, options)
        return cross_entropy.losses(logits, labels, options)

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
        if not (are_known(options, divergence.KNOWN) and divergence.fits(options)):
            return super().softmax_divergence(teacher, student, options)
        return cross_entropy.reduced_rows(divergence.rows(teacher, student, options), options)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
        def anywhere(logits: Array) -> Array:
            return self._sigmoid_cross_entropy(logits, labels, options)

        loss = host.loss_of(host.sigmoid, logits, labels, options, anywhere)
        return anywhere(logits) if loss is None else loss

    def _sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions) -> Array:
        if not are_known(options, sigmoid.KNOWN):
            return super().sigmoid_cross_entropy(logits, labels, options)
        if sigmoid.fits_total(logits, options):
            loss = sigmoid.total(logits, labels, options.label_smoothing)  # pyright: ignore[reportArgumentType]
            return loss if options.scale is None else loss * options.scale
        logits = accumulate(self, logits)
        if options.counted is not None:
            logits, labels = (self.where(options.counted, x, 0.0) for x in (logits, labels))
        losses = sigmoid.elements(logits, sigmoid.smoothed(labels, options.label_smoothing))
        return reduced(self, losses, options)

    def label_log_odds(self, logits: Array, labels: Array) -> Array:
        return log_odds.label_log_odds(self, logits, labels)

    def linear_rows(self, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
        return linear.linear_rows(self, loss, call, block_size)


def _keep_autograph_out() -> None:
    """Exclude lsmooth from AutoGraph, since none of its ``if``s and loops depend on tensors.

    AutoGraph would convert each function first, which takes far longer than tracing it. Its public
    decorator excludes one function; only this private list excludes a package.
    """
    try:
        from tensorflow.python.autograph.core import config  # type: ignore[import-not-found]

        config.CONVERSION_RULES = (config.DoNotConvert("lsmooth"), *config.CONVERSION_RULES)
    except (ImportError, AttributeError):
        pass


_keep_autograph_out()
