"""The NumPy backend: values only, on the host."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from lsmooth.backends.base import Array
from lsmooth.backends.formulas.linear import BlockLoss, Call, block_rows, loss_of_all
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.namespace import NamespaceBackend
from lsmooth.backends.options import SIGMOID, SOFTMAX, SigmoidOptions, SoftmaxOptions


class NumpyBackend(NamespaceBackend):
    """`Backend` over ``numpy`` 1.26 or later; 1.26 does not have all names of the standard."""

    name = "numpy"
    namespace = np

    def is_array(self, x: object) -> bool:
        return isinstance(x, (np.ndarray, np.generic))

    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        return np.asarray(x, dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else np.asarray(x)

    def host_values(self, x: Array) -> np.ndarray | None:
        return x

    def dtype(self, x: Array) -> str:
        return x.dtype.name

    def cast(self, x: Array, dtype: str) -> Array:
        return x.astype(dtype, copy=False)

    def ones_like(self, x: Array, dtype: str) -> Array:
        return np.ones_like(x, dtype)

    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        return (index[..., None] == np.arange(num_classes)).astype(dtype)

    def exp(self, x: Array) -> Array:
        with np.errstate(under="ignore"):
            return np.exp(x)

    def log(self, x: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(x)

    def softplus(self, x: Array) -> Array:
        with np.errstate(under="ignore"):  # ten times as fast as np.logaddexp
            return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return np.where(condition, _in_dtype_of(y, x), _in_dtype_of(x, y))

    def sum(self, x: Array, axis: int | None = None) -> Array:
        return np.sum(x, axis=axis) if axis is None else _reduced(np.add, x, axis)

    def max(self, x: Array, axis: int) -> Array:
        return _reduced(np.maximum, x, axis)

    def logsumexp(self, x: Array, axis: int) -> Array:
        top = np.max(x, axis=axis, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0).astype(x.dtype, copy=False)
        return self.log(np.sum(self.exp(x - top), axis=axis)) + np.squeeze(top, axis)

    def take(self, table: Array, index: Array) -> Array:
        return table[index]

    def put(self, x: Array, index: Array, values: Array) -> Array:
        x = x.copy()
        np.put_along_axis(x, index, values, axis=-1)
        return x

    def top(self, x: Array, index: Array) -> tuple[Array, Array]:
        if x.shape[-1] != 2:
            return super().top(x, index)
        first, second = x[..., 0], x[..., 1]  # argmax is slow along short rows
        return np.maximum(first, second), (second > first) == index

    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        return np.bincount(index, weights, length).astype(weights.dtype)

    def argsort(self, x: Array) -> Array:
        return np.argsort(x, kind="stable")

    def cumsum(self, x: Array) -> Array:
        return np.cumsum(x, axis=-1)

    def divide_logits(self, x: Array, divisor: Array) -> Array:
        return x / divisor

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> Array:
        # NumPy warns of infinite logits here, and other frameworks do not.
        with np.errstate(all="ignore"):
            return super().softmax_cross_entropy(logits, labels, options)

    def softmax_cross_entropy_with_statistics(
        self, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX
    ) -> tuple[Array, RowStatistics]:
        with np.errstate(all="ignore"):
            return super().softmax_cross_entropy_with_statistics(logits, labels, options)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, options: SigmoidOptions = SIGMOID) -> Array:
        with np.errstate(all="ignore"):
            return super().sigmoid_cross_entropy(logits, labels, options)

    def linear_rows(self, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
        lead = call.heads[0].hidden.shape[:-1]
        call = call.map_rows(lambda x: x.reshape(-1, *x.shape[len(lead) :]))
        num_rows = len(call.heads[0].hidden)
        block = block_size or block_rows(num_rows, call)
        parts = [slice(start, start + block) for start in range(0, num_rows, block)] or [slice(None)]
        losses = [loss_of_all(self, loss, call.map_rows(lambda x, part=part: x[part])) for part in parts]
        return np.sum(losses) if loss.total else np.concatenate(losses).reshape((*lead, *losses[0].shape[1:]))


def _reduced(ufunc: np.ufunc, x: np.ndarray, axis: int) -> Array:
    """``ufunc.reduce``, column by column along a short last axis, where NumPy would loop over the rows."""
    if x.ndim > 1 and axis in (-1, x.ndim - 1) and 1 < x.shape[-1] < 8 and x.dtype in (np.float32, np.float64):
        return reduce(ufunc, (x[..., k] for k in range(x.shape[-1])))
    return ufunc.reduce(x, axis=axis)


def _in_dtype_of(array: Any, value: Any) -> Any:
    """A Python number in the dtype of the floating-point array beside it, which NumPy 1 may widen."""
    if type(value) in (int, float) and isinstance(array, np.ndarray | np.generic) and array.dtype.kind == "f":
        return array.dtype.type(value)
    return value
