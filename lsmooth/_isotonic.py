"""Isotonic regression by SciPy, and the points of its piecewise linear interpolation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class IsotonicFit(NamedTuple):
    """The non-decreasing weighted least-squares fit at the distinct values of x."""

    x: np.ndarray
    """(values,), increasing."""
    weight: np.ndarray
    """(values,), the total weight of the rows with each value."""
    y: np.ndarray
    """(values,), the fit."""
    bounds: np.ndarray
    """(blocks + 1,): the fit is constant in block b, the values bounds[b] to bounds[b + 1] - 1."""


def isotonic_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> IsotonicFit:
    """Fit targets ``y`` in [0, 1] at ``x``, with weights above 0."""
    order = np.argsort(x)
    x, y, weight = x[order], y[order], weight[order]
    starts = np.flatnonzero(np.diff(x, prepend=-np.inf))
    if len(starts) < len(x):  # merge equal values
        total = np.add.reduceat(weight, starts)
        x, y, weight = x[starts], np.add.reduceat(weight * y, starts) / total, total
    return IsotonicFit(x, weight, *pooled(y, weight))


def pooled(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fit of targets that are sorted by distinct values of x, and the bounds of its blocks."""
    try:
        from scipy.optimize import isotonic_regression
    except ImportError as error:
        raise ImportError("Isotonic fits need SciPy 1.12 or newer: pip install 'lsmooth[calibrate]'.") from error
    fit = isotonic_regression(y, weights=weight)
    return np.clip(fit.x, 0.0, 1.0), fit.blocks


def isotonic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points (x, y) of the fit, without those inside constant blocks."""
    fit = isotonic_fit(x, y, weight)
    kept = np.unique(np.concatenate([fit.bounds[:-1], fit.bounds[1:] - 1]))
    return fit.x[kept], fit.y[kept]
