"""The base of the calibrators that divide logits by temperatures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import log_softmax
from lsmooth.backends.formulas.sigmoid import sigmoid
from lsmooth.calibration._base import Calibrator, check_clip, check_option, log_of, predictions_of, rows_of
from lsmooth.calibration._moments import Rows

STATUSES = ("converged", "separable", "uninformative", "at_bound", "max_iter")


@dataclass(kw_only=True, repr=False, eq=False)
class TemperatureCalibrator(Calibrator):
    """Base of the calibrators that divide by temperatures."""

    bounds: tuple[float, float] = (1e-8, 1e8)
    max_iter: int = 12
    clip: float | None = None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_option("max_iter", self.max_iter, int)
        if self.max_iter < 3:
            raise ValueError(f"max_iter must be at least 3, got {self.max_iter}.")
        check_clip(self)
        bounds = self.bounds
        numbers = isinstance(bounds, (tuple, list)) and [b for b in bounds if check.is_real_number(b)]
        if not numbers or len(numbers) != 2 or not 0 < bounds[0] <= 1 <= bounds[1] < math.inf:
            raise ValueError(f"bounds must be two temperatures, 0 < low <= 1 <= high, got {bounds!r}.")

    def _range(self) -> tuple[float, float]:
        """The bounds of log beta."""
        return -math.log(self.bounds[1]), -math.log(self.bounds[0])

    def _rows(
        self,
        logits: Array,
        labels: Array,
        sample_weight: Array | None,
        groups: np.ndarray | None = None,
        n_groups: int = 0,
    ) -> Rows:
        return rows_of(self, logits, labels, sample_weight, groups=groups, n_groups=n_groups)

    def _scaled(self, logits: Array, temperature: Any, centered: bool = False) -> Array:
        """Logits over temperatures, a number or an array that broadcasts to the rows.

        ``centered`` logits have the maximum 0 in each row, so that a large common offset costs no precision.
        """
        xp = backend_of(logits=logits, temperature=temperature)
        z = predictions_of(self, xp, logits)
        if not self.from_logits:
            z = log_of(xp, z, self.clip) - log_of(xp, 1.0 - z, self.clip) if self.binary else log_of(xp, z, self.clip)
        if self.binary:
            return z / temperature
        if centered:
            axis = check.check_axis(self.axis, xp.shape(z))
            top = xp.stop_gradient(xp.max(z, axis=axis))
            z = z - xp.moveaxis(top[..., None], -1, axis)
        return apply_temperature(z, temperature, axis=self.axis)

    def _probabilities(self, xp: Backend, scaled: Array) -> Array:
        if self.binary:
            return sigmoid(xp, scaled)
        return xp.moveaxis(xp.exp(log_softmax(xp, xp.moveaxis(scaled, self.axis, -1))), -1, self.axis)


def apply_temperature(logits: Array, temperature: float | Array, *, axis: int = -1) -> Array:
    """Logits divided by a temperature, differentiable in both: ``z / T``.

    Args:
        logits: z, floating point, any shape, classes along ``axis``.
        temperature: T > 0, a number; or a tensor that broadcasts to the rows (the logits' shape
            without ``axis``), one temperature for each.
        axis: the class axis.

    Returns:
        The logits' shape and dtype.

    Raises:
        TypeError: if the logits are not floating point, or tensors of two frameworks meet.
        ValueError: if a number is not above 0, or a tensor does not broadcast to the rows.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Examples:
        >>> from lsmooth.calibration import apply_temperature
        >>> apply_temperature([[2.0, 0.0]], 4.0)
        array([[0.5, 0. ]])
    """
    xp = backend_of(logits=logits, temperature=temperature)
    logits = check.float_array(xp, "logits", logits, like=temperature if xp.is_array(temperature) else None)
    shape = xp.shape(logits)
    front = check.check_axis(axis, shape)
    rows = shape[:front] + shape[front + 1 :]
    divisor = check.number_or_rows(
        xp, "temperature", temperature, rows, logits, xp.dtype(logits), low=0.0, high=float("inf")
    )
    if isinstance(divisor, float):
        return logits / divisor
    leading = len(xp.shape(divisor)) - (len(shape) - 1 - front)
    if leading > 0:  # its last axes are those of the rows; the class axis is inserted between them
        divisor = divisor[(slice(None),) * leading + (None,)]
    return xp.divide_logits(logits, divisor)
