"""Isotonic regression by SciPy, and the broken line through its points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class IsotonicFit(NamedTuple):
    """The weighted least-squares fit that never falls, at the distinct places of the rows."""

    x: np.ndarray
    """(places,): where the rows are, rising."""
    weight: np.ndarray
    """(places,): the weight of the rows there."""
    y: np.ndarray
    """(places,): the fit."""
    bounds: np.ndarray
    """(blocks + 1,): block b, where the fit is flat, holds the places bounds[b] to before bounds[b + 1]."""


def isotonic_fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> IsotonicFit:
    """Fit targets ``y`` in [0, 1] at ``x``; weights are above 0.

    Raises:
        ImportError: if SciPy is not installed.
    """
    order = np.argsort(x)
    x, y, weight = x[order], y[order], weight[order]
    starts = np.flatnonzero(np.diff(x, prepend=-np.inf))
    if len(starts) < len(x):  # equal values are one point
        held = np.add.reduceat(weight, starts)
        x, y, weight = x[starts], np.add.reduceat(weight * y, starts) / held, held
    return IsotonicFit(x, weight, *pooled(y, weight))


def pooled(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fit of targets at distinct places that are in order, and the bounds of its blocks."""
    try:
        from scipy.optimize import isotonic_regression
    except ImportError as error:
        raise ImportError("Isotonic fits need SciPy 1.12 or newer: pip install 'lsmooth[calibrate]'.") from error
    fit = isotonic_regression(y, weights=weight)
    return np.clip(fit.x, 0.0, 1.0), fit.blocks


def isotonic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points (x, y) of the fit, without those inside flat parts."""
    fit = isotonic_fit(x, y, weight)
    kept = np.unique(np.concatenate([fit.bounds[:-1], fit.bounds[1:] - 1]))
    return fit.x[kept], fit.y[kept]
