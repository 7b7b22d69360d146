"""Accurate sums over many rows, also without float64.

A running float32 sum of ones stops growing at 2^24. Sums are therefore computed in float64 if the framework has it,
else (JAX without x64) as pairs of float32 numbers: the sum and its rounding error.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from lsmooth.backends import Array, Backend

_BLOCK = 2**10
"""Rows per block: float32 sums of this many 14-bit integers are exact."""


def quiet(xp: Backend) -> AbstractContextManager[Any]:
    """A context without NumPy's floating-point warnings and errors, which other frameworks do not have."""
    return np.errstate(all="ignore") if xp.name == "numpy" else nullcontext()


class Total(NamedTuple):
    """A sum ``high + low``; ``low`` is None if ``high`` is float64."""

    high: Array
    low: Array | None

    @property
    def value(self) -> Array:
        """The rounded sum."""
        return self.high if self.low is None else self.high + self.low

    def __sub__(self, other: Total) -> Array:
        """The difference of two sums, accurate even if they are close to each other."""
        high = self.high - other.high
        return high if self.low is None or other.low is None else high + (self.low - other.low)


def has_float64(xp: Backend, like: Array) -> bool:
    """Whether ``like`` can be cast to float64."""
    return xp.dtype(like) == "float64" or xp.dtype(xp.asarray(0.0, "float64", like=like)) == "float64"


def long_sum(xp: Backend, x: Array) -> Array:
    """The sum of all elements."""
    if has_float64(xp, x):
        return xp.sum(xp.cast(x, "float64"))
    return _sum_of_rows(xp, xp.reshape(x, (-1,))).value


def bin_totals(xp: Backend, index: Array, values: Array, length: int) -> Total:
    """The sums (length,) of ``values`` (rows, ...) for each bin in ``index``, integers of the same shape."""
    if has_float64(xp, values):
        return Total(xp.bincount(xp.reshape(index, (-1,)), xp.reshape(xp.cast(values, "float64"), (-1,)), length), None)
    if 0 in xp.shape(values):
        zeros = xp.bincount(xp.reshape(index, (-1,)), xp.reshape(values, (-1,)), length)
        return Total(zeros, zeros)
    first, *others = (_bins_by_block(xp, index, part, length) for part in _parts(xp, values))
    for other in others:
        first = _plus(xp, first, other)
    return first


def _parts(xp: Backend, values: Array) -> list[Array]:
    """Three arrays that add up to ``values``; sums of up to 2^10 elements are exact in the first two.

    Adding and subtracting a larger number rounds to a multiple of the unit of its last digit.
    """
    magnitude = xp.stop_gradient(xp.where(values < 0, -values, values))
    largest = xp.max(xp.reshape(xp.where(magnitude < float("inf"), magnitude, 0.0), (-1,)), axis=0)
    high = (values + largest * 2.0**11) - largest * 2.0**11
    rest = values - high
    middle = (rest + largest * 2.0**-1) - largest * 2.0**-1
    return [high, middle, rest - middle]


def _bins_by_block(xp: Backend, index: Array, values: Array, length: int) -> Total:
    """The sums of each bin per block of rows, added up over the blocks."""
    rows = xp.shape(index)[0]
    blocks = rows // _BLOCK
    whole = blocks * _BLOCK

    def sums(first: int, end: int, count: int) -> Array:
        """(count, length)."""
        bins = xp.reshape(index[first:end], (count, -1))
        if count > 1:
            offset = np.arange(count, dtype=np.int32)[:, None] * length
            bins = bins + xp.asarray(offset, xp.dtype(index), like=index)
        flat = xp.bincount(xp.reshape(bins, (-1,)), xp.reshape(values[first:end], (-1,)), count * length)
        return xp.reshape(flat, (count, length))

    parts = []
    if blocks:
        parts.append(_sum_of_rows(xp, sums(0, whole, blocks)))
    if whole < rows or not blocks:
        rest = sums(whole, rows, 1)[0] if whole < rows else xp.bincount(index, values, length)
        parts.append(Total(rest, rest * 0.0))
    return parts[0] if len(parts) == 1 else _plus(xp, *parts)


def _sum_of_rows(xp: Backend, x: Array) -> Total:
    """The pairwise sum over the first axis."""
    rows = xp.shape(x)[0]
    if not rows:
        zeros = xp.sum(x, axis=0)
        return Total(zeros, zeros)
    left: list[Total] = []
    pair = Total(x, 0.0 * xp.ones_like(x, xp.dtype(x)))
    while rows > 1:
        half = rows // 2
        if rows % 2:
            left.append(Total(pair.high[-1], pair.low[-1]))  # type: ignore[index]
        first, second = (Total(pair.high[i : i + half], pair.low[i : i + half]) for i in (0, half))  # type: ignore[index]
        pair, rows = _plus(xp, first, second), half
    result = Total(pair.high[0], pair.low[0])  # type: ignore[index]
    for other in left:
        result = _plus(xp, result, other)
    return result


def _plus(xp: Backend, a: Total, b: Total) -> Total:
    """The sum of two pairs, with the exact rounding error of the high parts (Knuth's TwoSum)."""
    high = a.high + b.high
    of_b = high - a.high
    error = (a.high - (high - of_b)) + (b.high - of_b)
    finite = (high < float("inf")) & (high > float("-inf"))
    return Total(high, xp.where(finite, error + (a.low + b.low), 0.0))  # type: ignore[operator]
