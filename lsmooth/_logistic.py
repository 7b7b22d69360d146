"""Logistic regression of a few features by Newton's method."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MOST_STEPS = 30
"""Along a direction in which the likelihood grows without end, the gain falls by e a step: to 1e-13 of it by here."""
_GAIN = 1e-14
_VANISHED = 1e-8
"""The loss of labels that the features separate goes to 0; above this it is that of an optimum."""


class LogisticFit(NamedTuple):
    """The coefficients of greatest likelihood."""

    coefficients: np.ndarray
    """(features,)."""
    converged: bool
    """False where the likelihood has no greatest value, as for labels that the features separate."""
    iterations: int


@np.errstate(all="ignore")
def fit_logistic(
    features: np.ndarray, target: np.ndarray, weight: np.ndarray, offset: np.ndarray | float = 0.0
) -> LogisticFit:
    """Maximise ``sum_i w_i [y_i t_i - log(1 + exp t_i)]``, t = features @ coefficients + offset.

    Args:
        features: (rows, features), finite.
        target: (rows,), in [0, 1].
        weight: (rows,), at least 0, one of them above.
        offset: (rows,) or a number.
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
            return LogisticFit((coefficients - step) / scale, value > _VANISHED, iteration)
        length = 1.0
        while length > 1e-10:
            candidate = coefficients - length * step
            new, new_t = loss(candidate)
            if new <= value - 1e-4 * length * decrement:
                break
            length *= 0.5
        else:
            return LogisticFit(coefficients / scale, value > _VANISHED and decrement < 1e-9 * value, iteration)
        coefficients, value, t = candidate, new, new_t
    return LogisticFit(coefficients / scale, False, _MOST_STEPS)
