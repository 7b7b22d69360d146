"""A backend over any namespace of array functions named as in the array API standard."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth.backends.base import Array, Backend


class NamespaceBackend(Backend):
    """`Backend` over a namespace such as ``array_api_strict`` or ``cupy``, version 2023.12 of the standard or later.

    A subclass sets its name and its namespace, and overrides the methods that differ:

        class CupyBackend(NamespaceBackend):
            name = "cupy"
            namespace = cupy
            types = (cupy.ndarray,)

    Override ``value_and_grad`` and ``stop_gradient`` if the arrays can be differentiated.

    Source: the Python array API standard, https://data-apis.org/array-api.
    """

    namespace: Any
    """The module that holds the functions and the dtypes."""

    def is_array(self, x: object) -> bool:
        return isinstance(x, self.types)

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        if not self.is_array(x):
            device = {} if like is None else {"device": like.device}
            # Convert a number directly: without a dtype it would be rounded to the default dtype first.
            x = x if isinstance(x, (bool, int, float)) else np.asarray(x)
            return self.namespace.asarray(x, dtype=None if dtype is None else self._dtype(dtype), **device)
        return x if dtype is None else self.cast(x, dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        values = np.asarray(x)
        return values.astype(np.float32) if values.dtype.name in ("float16", "bfloat16") else values

    def dtype(self, x: Array) -> str:
        return str(x.dtype).rpartition(".")[2]

    def cast(self, x: Array, dtype: str) -> Array:
        return self.namespace.astype(x, self._dtype(dtype), copy=False)

    def shape(self, x: Array) -> tuple[Any, ...]:
        return tuple(x.shape)

    def is_concrete(self, x: Array) -> bool:
        return True

    def ones_like(self, x: Array, dtype: str) -> Array:
        return self.namespace.ones_like(x, dtype=self._dtype(dtype))

    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        classes = self._arange(num_classes, index)
        return self.cast(index[..., None] == classes, dtype)

    def exp(self, x: Array) -> Array:
        return self.namespace.exp(x)

    def log(self, x: Array) -> Array:
        return self.namespace.log(x)

    def tanh(self, x: Array) -> Array:
        return self.namespace.tanh(x)

    def softplus(self, x: Array) -> Array:
        return self.namespace.logaddexp(x, self.namespace.zeros_like(x))

    def ceil(self, x: Array) -> Array:
        return self.namespace.ceil(x)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return self.namespace.where(condition, self._beside(x, y), self._beside(y, x))

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return self.namespace.sum(x, axis=axis, dtype=x.dtype)

    def max(self, x: Array, axis: int) -> Array:
        return self.namespace.max(x, axis=axis)

    def argmax(self, x: Array, axis: int) -> Array:
        return self.namespace.argmax(x, axis=axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        top = self.max(x, axis)
        top = self.where(self.namespace.isfinite(top), top, 0.0)
        below = self.exp(x - self.namespace.expand_dims(top, axis=axis))
        return self.log(self.sum(below, axis)) + top

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        return self.namespace.moveaxis(x, source, destination)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return self.namespace.reshape(x, shape)

    def take(self, table: Array, index: Array) -> Array:
        rows = self.namespace.take(table, self.reshape(index, (-1,)), axis=0)
        return self.reshape(rows, (*index.shape, *table.shape[1:]))

    def gather(self, x: Array, index: Array) -> Array:
        return self.namespace.take_along_axis(x, index, axis=-1)

    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        return self.sum(self.one_hot(index, length, self.dtype(weights)) * weights[:, None], 0)

    def argsort(self, x: Array) -> Array:
        return self.namespace.argsort(x, stable=True)

    def cumsum(self, x: Array) -> Array:
        return self.namespace.cumulative_sum(x, axis=-1)

    def searchsorted(self, x: Array, values: Array, side: str) -> Array:
        return self.namespace.searchsorted(x, values, side=side)

    def stop_gradient(self, x: Array) -> Array:
        return x

    def _dtype(self, name: str) -> Any:
        """The namespace's dtype of that name.

        Raises:
            ValueError: if there is none.
        """
        dtype = getattr(self.namespace, "bool" if name == "bool" else name, None)
        if dtype is None:
            raise ValueError(f"The {self.name} backend has no dtype {name}.")
        return dtype

    def _arange(self, length: int, like: Array) -> Array:
        return self.namespace.arange(length, dtype=like.dtype, device=like.device)

    def _beside(self, x: Any, y: Any) -> Array:
        """A Python number as an array of the dtype of ``y``."""
        return x if self.is_array(x) else self.namespace.asarray(x, dtype=y.dtype, device=y.device)
