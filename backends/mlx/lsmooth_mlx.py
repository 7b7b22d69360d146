"""lsmooth on the arrays of MLX, Apple's framework; there is a build for Linux too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from lsmooth.backends.base import Array
from lsmooth.backends.namespace import NamespaceBackend


class MlxBackend(NamespaceBackend):
    """`lsmooth.backends.Backend` over ``mlx.core``.

    MLX computes in float64 on the CPU alone, so that sums and counts are taken in float32 here.

    Examples:
        >>> import mlx.core as mx
        >>> from lsmooth.losses import softmax_cross_entropy
        >>> round(softmax_cross_entropy([0], mx.array([[0.0, 0.0]])).item(), 6)
        0.693147
    """

    name = "mlx"
    namespace = mx
    types = (mx.array,)

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        if not self.is_array(x):
            x = np.asarray(x)
            if dtype is None and x.dtype == np.float64:
                dtype = "float32"
            # bfloat16 is rounded once, from float32.
            x = mx.array(x if x.dtype != np.float64 else x.astype(np.float32))
        return x if dtype is None else self.cast(x, dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.array(x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x)

    def cast(self, x: Array, dtype: str) -> Array:
        return x.astype(self._dtype(dtype))

    def ones_like(self, x: Array, dtype: str) -> Array:
        return mx.ones(x.shape, dtype=self._dtype(dtype))

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return mx.sum(x, axis=axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        return mx.logsumexp(x, axis=axis)

    def gather(self, x: Array, index: Array) -> Array:
        return mx.take_along_axis(x, index, axis=-1)

    def argsort(self, x: Array) -> Array:
        return self.asarray(np.argsort(self.to_numpy(x), kind="stable"), "int32")  # MLX's sort is not stable

    def cumsum(self, x: Array) -> Array:
        return mx.cumsum(x, axis=-1)

    def searchsorted(self, x: Array, values: Array, side: str) -> Array:
        return self.asarray(np.searchsorted(self.to_numpy(x), self.to_numpy(values), side), "int32")  # type: ignore[call-overload]

    def stop_gradient(self, x: Array) -> Array:
        return mx.stop_gradient(x)

    def value_and_grad(self, function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        """The scalar ``function(x)`` and its gradient."""
        return mx.value_and_grad(function)(x)

    def _dtype(self, name: str) -> Any:
        return super()._dtype({"bool": "bool_", "float64": "float32"}.get(name, name))

    def _arange(self, length: int, like: Array) -> Array:
        return mx.arange(length, dtype=like.dtype)

    def _beside(self, x: Any, y: Any) -> Array:
        return x if self.is_array(x) else mx.array(x, dtype=y.dtype)
