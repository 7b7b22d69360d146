"""Means over seeds, and the significance of differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CONFIDENCE = 0.95


def mean(values: Any) -> float:
    """The mean over seeds."""
    return float(np.mean(values))


def stderr(values: Any) -> float:
    """The standard error of the mean over seeds; NaN for one seed."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def sign(differences: Any) -> int:
    """The sign of the mean of paired differences, or 0 inside the noise.

    It is inside the noise if 0 lies within Student's 95% interval, ``mean +- t stderr`` with the quantile t for the
    number of seeds, and for one seed.

    Examples:
        >>> sign([1.0, 1.1, 0.9]), sign([1.0, -1.1, 0.9]), sign([5.0])
        (1, 0, 0)
    """
    error = stderr(differences)
    if math.isnan(error):
        return 0
    from scipy.stats import t

    reach = t.ppf(0.5 + CONFIDENCE / 2, len(differences) - 1) * error
    return 0 if abs(mean(differences)) <= reach else int(math.copysign(1, mean(differences)))


def text(values: Any, digits: int = 3, percent: bool = False) -> str:
    """``mean ± standard error``.

    Examples:
        >>> text([0.1, 0.2], digits=2), text([0.25], digits=1, percent=True)
        ('0.15 ± 0.05', '25.0')
    """
    factor = 100.0 if percent else 1.0
    error = stderr(values)
    tail = "" if math.isnan(error) else f" ± {factor * error:.{digits}f}"
    return f"{factor * mean(values):.{digits}f}{tail}"
