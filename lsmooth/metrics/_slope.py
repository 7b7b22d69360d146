"""Calibration slope and intercept, as in clinical papers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lsmooth._logistic import fit_logistic
from lsmooth.backends import Array
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import check_concrete


class CalibrationSlope(NamedTuple):
    """The logistic recalibration of P(class 1); scalars."""

    slope: Array
    """a of sigmoid(a z + b): 1 if calibrated, below 1 if overconfident."""
    intercept: Array
    """b of sigmoid(a z + b)."""
    in_the_large: Array
    """c of sigmoid(z + c): 0 if calibrated in the large, below 0 if probabilities are too high."""


def calibration_slope(
    labels: Array,
    predictions: Array,
    *,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> CalibrationSlope:
    """Slope and intercept of the labels' logistic regression on the logits, and calibration-in-the-large.

    ``P(y = 1) = sigmoid(slope z + intercept)`` and ``P(y = 1) = sigmoid(z + in_the_large)``, both
    of greatest likelihood; z is the logit of class 1.

    Args:
        labels: 0 or 1, as in `expected_calibration_error`.
        predictions: of two classes, or of class 1 if ``binary``.
        from_logits: whether ``predictions`` are logits.
        binary: whether predictions are the probability of 1, in the shape of the labels.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A `CalibrationSlope`, float64 for float64 predictions, else float32. NaN if a row that counts has the
        probability 0 or 1, whose logit is infinite, and if the likelihood has no maximum. Computed
        on the host: the call cannot be traced.

    Raises:
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or the call is traced.
        ValueError: if shapes do not fit, or there are more than two classes.

    Source: Cox 1958, "Two further applications of a model for binary regression"; Van Calster et al.
        2016, "A calibration hierarchy for risk models was defined".

    Examples:
        >>> from lsmooth.metrics import calibration_slope
        >>> logits = [-2.0] * 4 + [2.0] * 4
        >>> found = calibration_slope([0, 0, 0, 1, 0, 1, 1, 1], logits, from_logits=True, binary=True)
        >>> round(float(found.slope), 4), abs(round(float(found.in_the_large), 4))
        (0.5493, 0.0)
    """
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp, classes = inputs.xp, inputs.xp.shape(inputs.predictions)[-1]
    if classes != 2:
        raise ValueError(
            f"predictions must be of two classes, got {classes}; of class k against the others, give labels == k and "
            "predictions[..., k] with binary=True."
        )
    check_concrete("calibration_slope", inputs)
    y, p, w = (xp.to_numpy(x).astype(np.float64) for x in (inputs.labels, inputs.predictions, inputs.weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        p = p if from_logits else np.log(np.maximum(p, 0.0))
        z = p[:, 1] - p[:, 0]
    counted = w != 0
    y, z, w = y[counted], z[counted], w[counted]
    found = np.full(3, np.nan)
    if len(z) and np.isfinite(z).all() and np.isfinite(w).all():
        ones = np.ones_like(z)
        line = fit_logistic(np.stack([z, ones], axis=1), y, w)
        shift = fit_logistic(ones[:, None], y, w, offset=z)
        found = np.array(
            [
                *np.where(line.converged, line.coefficients, np.nan),
                *np.where(shift.converged, shift.coefficients, np.nan),
            ]
        )
    return CalibrationSlope(*(inputs.home.asarray(x, inputs.dtype, like=inputs.given) for x in found.tolist()))
