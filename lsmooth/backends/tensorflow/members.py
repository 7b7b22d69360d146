"""The replicas of a ``tf.distribute.Strategy``, over which classes or rows of a loss are spread."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lsmooth.backends.base import Array
from lsmooth.backends.members import Members


class Replicas(Members):
    """`Members` that are the replicas of a strategy.

    Replicas of one process are traced concurrently, each in its own thread. They compare Python values while
    they are traced, without communication between devices.

    Args:
        context: of the replica that calls.
    """

    def __init__(self, context: Any):
        self._context = context
        self.count = context.num_replicas_in_sync
        index = tf.get_static_value(context.replica_id_in_sync_group)
        self.index = context.replica_id_in_sync_group if index is None else int(index)

    def sum(self, x: Array, total: Array | None = None) -> Array:
        """The sum over the replicas; the gradient of TensorFlow's own is multiplied by their number.

        `sum` and `shared` are the gradients of each other, so that higher derivatives are correct.
        """
        if self.count == 1:
            return x if total is None else total

        @tf.custom_gradient
        def added(x: Array) -> Any:
            value = self._context.all_reduce(tf.distribute.ReduceOp.SUM, x) if total is None else tf.identity(total)
            return value, self.shared

        return added(x)

    def max(self, x: Array) -> Array:
        """The maximum, by a gather: `tf.distribute` has no maximum."""
        x = tf.stop_gradient(x)
        return x if self.count == 1 else tf.reduce_max(self._gather(x[None]), axis=0)

    def shared(self, x: Array) -> Array:
        """``x``; its gradient is the sum of the replicas'."""
        if self.count == 1:
            return x

        @tf.custom_gradient
        def same(x: Array) -> Any:
            return tf.identity(x), self.sum

        return same(x)

    def start(self, size: Any) -> Any:
        """The sum of the sizes of the slices before this one, which may differ."""
        sizes = self._sizes(size)
        return sum(sizes[: self.index]) if isinstance(sizes, list) else tf.reduce_sum(sizes[: self.index])

    def total(self, size: Any) -> Any:
        """The sum of the sizes of all slices, which may differ."""
        sizes = self._sizes(size)
        return sum(sizes) if isinstance(sizes, list) else tf.reduce_sum(sizes)

    def agree(self, x: Array, size: Any, signature: str) -> tuple[Array, bool]:
        """``max(x)``, and True.

        Raises:
            ValueError: if the signatures of replicas of this process differ.
        """
        said = self._said(signature)
        if len(set(said)) > 1:
            each = "; ".join(f"replica {i} {other}" for i, other in enumerate(said))
            raise ValueError(f"The replicas must make the same call; got {each}.")
        return self.max(x), True

    def _sizes(self, size: Any) -> Any:
        """One per replica: a list of numbers, or an array if sizes or replicas are unknown to this process."""
        if isinstance(size, int) and isinstance(self.index, int):
            sizes = self._said(size)
            if len(sizes) == self.count and all(isinstance(other, int) for other in sizes):
                return sizes
        return self._gather(tf.reshape(tf.cast(size, tf.int32), [1]))

    def _gather(self, x: Array) -> Array:
        return self._context.all_gather(x, axis=0)

    def _said(self, value: Any) -> list[Any]:
        """The arguments of this call in each replica of this process."""
        if self.count == 1:
            return [value]
        said = self._context.merge_call(
            lambda strategy, said: list(strategy.experimental_local_results(said)), args=(_Value(value),)
        )
        return [other.value for other in said]


class _Value:
    """A Python value in an object that TensorFlow treats as opaque."""

    def __init__(self, value: Any):
        self.value = value


def members(group: Any, option: str) -> Replicas:
    """The replicas of a context, given as ``class_shards`` or ``row_shards``.

    Raises:
        TypeError: if it is not a replica context.
        ValueError: if it is not the context of this call.
    """
    how = f"pass {option}=tf.distribute.get_replica_context() in the function that strategy.run calls"
    if not isinstance(group, tf.distribute.ReplicaContext):
        raise TypeError(f"{option} must be a tf.distribute.ReplicaContext for TensorFlow: {how}; got {group!r}.")
    if tf.distribute.in_cross_replica_context():
        raise ValueError(f"{option} was given outside strategy.run, where there are no replicas: {how}.")
    if group is not tf.distribute.get_replica_context():
        raise ValueError(f"{option} is the replica context of another call or strategy: {how}.")
    return Replicas(group)
