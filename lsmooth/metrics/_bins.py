"""The bins of each library's convention, and sums per bin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lsmooth._sums import bin_totals, has_float64
from lsmooth.backends import Array, Backend


class BinSums(NamedTuple):
    """The sums of a binned calibration error, (groups, bins) each; those of two sets of rows can be added."""

    weight: Array
    confidence: Array
    correct: Array
    gap: Array
    """correct - confidence, summed apart, since the difference of two float32 sums would lose its digits."""


def exact_edges(n_bins: int, dtype: str) -> list[float]:
    """0, 1/n, ..., 1, each rounded once."""
    return [i / n_bins for i in range(n_bins + 1)]


def numpy_edges(n_bins: int, dtype: str) -> np.ndarray:
    """``numpy.linspace``."""
    return np.linspace(0.0, 1.0, n_bins + 1)


def torch_edges(n_bins: int, dtype: str) -> np.ndarray:
    """``torch.linspace``, which computes its upper half downwards from 1 and rounds to the dtype of the values."""
    step = (np.asarray(1.0, dtype) / np.asarray(n_bins, dtype)).astype(np.longdouble)
    up = np.arange(n_bins + 1)
    return np.where(up < (n_bins + 1) // 2, step * up, 1.0 - step * up[::-1]).astype(dtype)


def product_edges(n_bins: int, dtype: str) -> np.ndarray:
    """The least numbers whose product with n_bins is rounded to 0, 1, ..., n_bins or more."""
    return _least(lambda x: x * np.asarray(n_bins, dtype), n_bins, dtype)


def quotient_edges(n_bins: int, dtype: str) -> np.ndarray:
    """The least numbers whose quotient by 1 / n_bins is rounded to 0, 1, ..., n_bins or more."""
    return _least(lambda x: x / np.asarray(1.0 / n_bins, dtype), n_bins, dtype)


def _least(scaled: Callable[[np.ndarray], np.ndarray], n_bins: int, dtype: str) -> np.ndarray:
    index = np.arange(n_bins + 1)
    edges = (index / n_bins).astype(dtype)
    with np.errstate(under="ignore"):  # the neighbours of 0
        for _ in range(3):
            lower = np.nextafter(edges, np.asarray(-1.0, dtype))
            edges = np.where(scaled(lower) >= index, lower, edges)
            edges = np.where(scaled(edges) < index, np.nextafter(edges, np.asarray(2.0, dtype)), edges)
    return edges


class Convention(NamedTuple):
    """How a library bins."""

    edges: Callable[[int, str], Sequence[float] | np.ndarray]
    """The edges for a number of bins and the dtype of the values."""
    closed: str
    """``"right"``: (lo, hi], with 0 in the first bin; ``"left"``: [lo, hi)."""
    one_apart: bool = False
    """Whether 1 has a bin of its own instead of being in the last."""
    positive: bool = False
    """Whether two classes are binned by P(class 1) instead of the probability of the likelier class."""
    wide: bool = False
    """Whether values are compared with the edges in float64 instead of their own dtype."""


CONVENTIONS = {
    "guo": Convention(exact_edges, "right"),
    "torchmetrics": Convention(torch_edges, "left", one_apart=True),
    "netcal": Convention(numpy_edges, "left", positive=True, wide=True),
    "tfp": Convention(product_edges, "left"),
    "sklearn": Convention(numpy_edges, "right", positive=True, wide=True),
    "relplot": Convention(quotient_edges, "left", one_apart=True),
}


def number_of_bins(n_bins: int, convention: str) -> int:
    """The length of the table: one more if 1 has its own bin."""
    return n_bins + CONVENTIONS[convention].one_apart


def bin_index(xp: Backend, values: Array, n_bins: int, convention: str) -> Array:
    """The bin of each value in [0, 1]; exact for values on an edge.

    A product with n_bins may be rounded across an edge, so its bin is checked against the edges.
    """
    rule = CONVENTIONS[convention]
    values = xp.where(values >= 0, xp.where(values <= 1, values, 1.0), 0.0)  # NaN remains in the sums
    last = n_bins if rule.one_apart else n_bins - 1
    dtype = xp.dtype(values)
    values = xp.cast(values, "float64") if rule.wide else values
    edges = xp.asarray(rule.edges(n_bins, dtype), xp.dtype(values), like=values)
    if rule.closed == "right":
        index = _clipped(xp, xp.cast(xp.ceil(values * n_bins), "int32") - 1, n_bins - 1)
        above = values > xp.take(edges, index + 1)
        below = values <= xp.take(edges, index)
    else:
        index = _clipped(xp, _floor(xp, values * n_bins), n_bins - 1)
        above = values >= xp.take(edges, index + 1)
        below = values < xp.take(edges, index)
    return _clipped(xp, index + xp.cast(above, "int32") - xp.cast(below, "int32"), last)


def equal_mass_index(xp: Backend, values: Array, weight: Array, n_bins: int) -> Array:
    """Bins of equal weight along the last axis: ``floor(n W(below) / W)``, W(below) being the weight of smaller values.

    Equal values share a bin, so the order of the rows does not matter.
    """
    order = xp.argsort(values)
    ranked = xp.gather(values, order)
    running = xp.cumsum(xp.cast(xp.gather(weight, order), "float64"))
    position = xp.cumsum(xp.ones_like(order, "int32")) - 1
    is_first = ~xp.equal(ranked, xp.gather(ranked, xp.where(position > 0, position - 1, 0))) | xp.equal(position, 0)
    flat_position, group = xp.reshape(position, (-1,)), xp.cumsum(xp.reshape(xp.cast(is_first, "int32"), (-1,)))
    first = xp.searchsorted(group, group, "left")
    below = xp.take(flat_position, first) > 0
    before = xp.where(below, xp.take(xp.reshape(running, (-1,)), xp.where(below, first - 1, 0)), 0.0)
    whole = running[..., -1:]
    shape = tuple(-1 if n is None else n for n in xp.shape(order))  # the rows may be unknown before the run
    share = xp.reshape(before, shape) * n_bins / xp.where(xp.equal(whole, 0), 1.0, whole)
    index = _clipped(xp, _floor(xp, xp.where(share >= 0, share, 0.0)), n_bins - 1)  # NaN remains in the sums
    return xp.put(xp.ones_like(order, "int32"), order, index)


def bin_sums(
    xp: Backend, index: Array, weight: Array, confidence: Array, correct: Array, n_bins: int, groups: int = 1
) -> BinSums:
    """Sums per group and bin of arrays (rows, ...); ``index`` is group * n_bins + bin."""
    if has_float64(xp, weight):
        weight, confidence, correct = (xp.cast(x, "float64") for x in (weight, confidence, correct))
    values = (weight, weight * confidence, weight * correct)
    held, stated, true = (bin_totals(xp, index, x, groups * n_bins) for x in values)
    return BinSums(*(xp.reshape(x, (groups, n_bins)) for x in (held.value, stated.value, true.value, true - stated)))


def _floor(xp: Backend, x: Array) -> Array:
    return -xp.cast(xp.ceil(-x), "int32")


def _clipped(xp: Backend, index: Array, last: int) -> Array:
    return xp.where(index < 0, 0, xp.where(index > last, last, index))
