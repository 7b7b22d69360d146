"""Sums over many rows that keep their digits, in float32 too.

A running float32 sum of 2^24 ones stops growing. Where a framework has float64, sums are taken in it.
Where it has none (JAX without x64), they are taken in pairs of float32: a sum and the rounding errors
that were made on the way to it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from lsmooth.backends import Array, Backend

_BLOCK = 2**10
"""Rows of a block: sums of as many 14-bit integers are exact in float32."""


def quiet(xp: Backend) -> AbstractContextManager[Any]:
    """Within, NumPy neither warns nor raises where a number is too small or too large, as other frameworks do not."""
    return np.errstate(all="ignore") if xp.name == "numpy" else nullcontext()


class Total(NamedTuple):
    """A sum, as ``high + low``; ``low`` is None where ``high`` is float64."""

    high: Array
    low: Array | None

    @property
    def value(self) -> Array:
        """The sum, rounded once."""
        return self.high if self.low is None else self.high + self.low

    def __sub__(self, other: Total) -> Array:
        """The difference of two sums that may be close to each other."""
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
    """The sum of ``values`` per value of ``index`` below ``length``.

    Args:
        xp: the backend.
        index: (rows, ...), integers.
        values: of the same shape.
        length: the number of bins.

    Returns:
        (length,).
    """
    if has_float64(xp, values):
        return Total(xp.bincount(xp.reshape(index, (-1,)), xp.reshape(xp.cast(values, "float64"), (-1,)), length), None)
    if 0 in xp.shape(values):
        nothing = xp.bincount(xp.reshape(index, (-1,)), xp.reshape(values, (-1,)), length)
        return Total(nothing, nothing)
    first, *others = (_bins_by_block(xp, index, part, length) for part in _parts(xp, values))
    for other in others:
        first = _plus(xp, first, other)
    return first


def _parts(xp: Backend, values: Array) -> list[Array]:
    """Three arrays that add up to ``values``, of which any 2^10 elements have an exact sum, but for the last.

    Adding and subtracting a larger number rounds to a multiple of that number's last digit.
    """
    magnitude = xp.stop_gradient(xp.where(values < 0, -values, values))
    largest = xp.max(xp.reshape(xp.where(magnitude < float("inf"), magnitude, 0.0), (-1,)), axis=0)
    high = (values + largest * 2.0**11) - largest * 2.0**11
    rest = values - high
    middle = (rest + largest * 2.0**-1) - largest * 2.0**-1
    return [high, middle, rest - middle]


def _bins_by_block(xp: Backend, index: Array, values: Array, length: int) -> Total:
    """Sums per block of rows and bin, and then over the blocks."""
    rows = xp.shape(index)[0]
    blocks = rows // _BLOCK
    whole = blocks * _BLOCK

    def sums(first: int, end: int, count: int) -> Array:
        """(count, length)."""
        held = xp.reshape(index[first:end], (count, -1))
        if count > 1:
            offset = np.arange(count, dtype=np.int32)[:, None] * length
            held = held + xp.asarray(offset, xp.dtype(index), like=index)
        flat = xp.bincount(xp.reshape(held, (-1,)), xp.reshape(values[first:end], (-1,)), count * length)
        return xp.reshape(flat, (count, length))

    parts = []
    if blocks:
        parts.append(_sum_of_rows(xp, sums(0, whole, blocks)))
    if whole < rows or not blocks:
        rest = sums(whole, rows, 1)[0] if whole < rows else xp.bincount(index, values, length)
        parts.append(Total(rest, rest * 0.0))
    return parts[0] if len(parts) == 1 else _plus(xp, *parts)


def _sum_of_rows(xp: Backend, x: Array) -> Total:
    """The sum over the first axis, by halves."""
    rows = xp.shape(x)[0]
    if not rows:
        nothing = xp.sum(x, axis=0)
        return Total(nothing, nothing)
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
    """The sum of two pairs: the rounding error of their high parts is known exactly (Knuth's TwoSum)."""
    high = a.high + b.high
    of_b = high - a.high
    error = (a.high - (high - of_b)) + (b.high - of_b)
    finite = (high < float("inf")) & (high > float("-inf"))
    return Total(high, xp.where(finite, error + (a.low + b.low), 0.0))  # type: ignore[operator]
