"""Logistic regression of a few features by Newton's method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MOST_STEPS = 30
"""For separable labels, the gain falls by a factor e per step, to 1e-13 after this many steps."""
_GAIN = 1e-14
_SEPARABLE = 1e-8
"""The loss of separable labels tends to 0; a loss above this is an optimum."""


class LogisticFit(NamedTuple):
    """The maximum-likelihood coefficients."""

    coefficients: np.ndarray
    """(features,)."""
    converged: bool
    """False if the likelihood has no maximum, as for labels that the features separate."""
    iterations: int


@np.errstate(all="ignore")
def fit_logistic(
    features: np.ndarray, target: np.ndarray, weight: np.ndarray, offset: np.ndarray | float = 0.0
) -> LogisticFit:
    """Maximise ``sum_i w_i [y_i t_i - log(1 + exp t_i)]``, t = features @ coefficients + offset.

    ``features`` (rows, features) are finite, ``target`` y (rows,) is in [0, 1], ``weight`` w (rows,) is non-negative.
    """
    scale = np.sqrt((features**2).mean(axis=0))
    scale[scale == 0] = 1.0
    scaled, weight = features / scale, weight / weight.sum()

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        t = scaled @ coefficients + offset
        return float(weight @ (np.logaddexp(0.0, t) - target * t)), t

    coefficients = np.zeros(features.shape[1])
    value, t = loss(coefficients)
    for iteration in range(1, _MOST_STEPS + 1):
        p = 1.0 / (1.0 + np.exp(-t))
        slope = scaled.T @ (weight * (p - target))
        curvature = (scaled * (weight * p * (1.0 - p))[:, None]).T @ scaled
        step = np.linalg.lstsq(curvature, slope, rcond=None)[0]
        decrement = float(slope @ step)
        if decrement <= _GAIN * value:
            return LogisticFit((coefficients - step) / scale, value > _SEPARABLE, iteration)
        length = 1.0
        while length > 1e-10:
            candidate = coefficients - length * step
            new, new_t = loss(candidate)
            if new <= value - 1e-4 * length * decrement:
                break
            length *= 0.5
        else:
            return LogisticFit(coefficients / scale, value > _SEPARABLE and decrement < 1e-9 * value, iteration)
        coefficients, value, t = candidate, new, new_t
    return LogisticFit(coefficients / scale, False, _MOST_STEPS)
