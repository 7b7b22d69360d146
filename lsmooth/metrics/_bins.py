"""Confidences into bins, and sums per bin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lsmooth.backends import Array, Backend


class BinSums(NamedTuple):
    """What a binned calibration error needs to know, (bins,) each; tables of two sets of rows add up."""

    weight: Array
    confidence: Array
    correct: Array


def equal_width_edges(xp: Backend, n_bins: int, like: Array) -> Array:
    """0, 1/n, ..., 1: (n_bins + 1,), each rounded once."""
    return xp.asarray(np.arange(n_bins + 1) / n_bins, xp.dtype(like), like=like)


def bin_index(xp: Backend, values: Array, edges: Array, n_bins: int) -> Array:
    """The bin (lo, hi] of each value in [0, 1], 0 in the first; exact for values on an edge.

    The product with n_bins may be rounded across an edge, so its bin is checked against the edges.
    """
    inside = xp.where((values >= 0) & (values <= 1), values, 0.0)
    index = xp.cast(xp.ceil(inside * n_bins), "int32") - 1
    index = xp.where(index < 0, 0, xp.where(index >= n_bins, n_bins - 1, index))
    above = xp.cast(inside > xp.take(edges, index + 1), "int32")
    below = xp.cast((inside <= xp.take(edges, index)) & (index > 0), "int32")
    return index + above - below


def bin_sums(xp: Backend, index: Array, weight: Array, confidence: Array, correct: Array, n_bins: int) -> BinSums:
    """Sums per bin, in float64 where the backend has it."""
    weight, confidence, correct = (xp.cast(x, "float64") for x in (weight, confidence, correct))
    return BinSums(*(xp.bincount(index, w, n_bins) for w in (weight, weight * confidence, weight * correct)))
