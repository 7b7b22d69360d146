"""Smooth calibration error: a kernel in place of bins, with a bandwidth that the error determines."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array
from lsmooth.metrics._inputs import prepare
from lsmooth.metrics._tables import rows_on_host

CONVENTIONS = ("exact", "relplot")
_NODES = 2**18
_NODES_PER_BANDWIDTH = 256
_WIDEST_FREQUENCY = 9.0
"""From here on exp(-x^2 / 2) is below the precision of float64."""
_RELPLOT_MESH = 200
_RELPLOT_FLOOR = 1e-4
"""Added to the density, so that it is above 0 where there are no rows."""


def smooth_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    bandwidth: float | None = None,
    convention: str = "exact",
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Distance between confidence and accuracy, both smoothed by a kernel: no bins, no jumps.

    ``integral_0^1 | mean_i K(t, conf_i) (correct_i - conf_i) | dt``, K the Gaussian of the given bandwidth,
    reflected at 0 and 1: ``K(t, x) = sum_j phi(t - x + 2 j) + phi(t + x + 2 j)``.

    By default the bandwidth is the least one that exceeds the error itself, to 1 / 1024: wide enough to average out
    chance, and no wider than the error.

    Args:
        labels: as in `expected_calibration_error`, and so are the arguments that follow.
        predictions: probabilities, or logits if ``from_logits``.
        bandwidth: the kernel's standard deviation, above 0.
        convention: ``"exact"``; or ``"relplot"``, which reflects a confidence of 0 or 1 once, not
            twice, and divides by the smoothed number of rows, so its error can be larger.
        from_logits: whether ``predictions`` are logits.
        binary: whether predictions are the probability of 1, which is then binned itself.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32; 0 without rows. Computed on the
        host.

    Raises:
        TypeError, ValueError: as `expected_calibration_error`; TypeError if the call is traced.

    Source: Błasiok and Nakkiran 2023, "Smooth ECE: Principled Reliability Diagrams via Kernel
        Smoothing"; ``convention="relplot"``: relplot 1.0's ``smECE``.

    Examples:
        >>> from lsmooth.metrics import smooth_calibration_error
        >>> float(smooth_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]).round(3))
        0.25
    """
    if bandwidth is not None and not (check.is_real_number(bandwidth) and 0 < bandwidth < float("inf")):
        raise ValueError(f"bandwidth must be a finite number above 0, got {bandwidth!r}.")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}.")
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    confidence, correct, weight = rows_on_host("smooth_calibration_error", inputs, binary)
    if not np.isfinite(weight).all() or np.isnan(confidence).any():
        error = float("nan")
    elif weight.sum() == 0:
        error = 0.0
    else:
        kind = _Exact if convention == "exact" else _Relplot
        error = _error(kind(confidence, weight * (confidence - correct), weight), bandwidth)
    return inputs.home.asarray(error, inputs.dtype, like=inputs.given)


def _error(at_bandwidth: Callable[[float], float], bandwidth: float | None) -> float:
    """The error at the given bandwidth, or at the one found by relplot's bisection."""
    if bandwidth is not None:
        return at_bandwidth(float(bandwidth))
    low, high = 0.0, 1.0
    if high >= (error := at_bandwidth(high)):
        for _ in range(10):
            middle = 0.5 * (low + high)
            if middle < 0.001 or middle < (of_middle := at_bandwidth(middle)):
                low = middle
            else:
                high, error = middle, of_middle
    return error


class _Exact:
    """The error as a function of the bandwidth, from the cosine transform of the residuals.

    On [0, 1] with both ends reflecting, the kernel is ``1 + 2 sum_k exp(-(pi k s)^2 / 2) cos(pi k t) cos(pi k x)``.
    Residuals are shared between the nodes of a fine grid, with an error of (its spacing / bandwidth)^2 / 12.
    """

    def __init__(self, confidence: np.ndarray, residual: np.ndarray, weight: np.ndarray):
        self._confidence, self._residual, self._total = confidence, residual, weight.sum()
        self._coefficients = _cosines(confidence, residual, _NODES)

    @np.errstate(all="ignore")
    def __call__(self, bandwidth: float) -> float:
        """The integral of the absolute smoothed residuals, per unit of weight."""
        nodes = max(4097, math.ceil(_NODES_PER_BANDWIDTH / bandwidth) + 1)
        coefficients = self._coefficients
        if nodes > _NODES:
            coefficients = _cosines(self._confidence, self._residual, nodes)
        needed = min(len(coefficients), nodes, math.ceil(_WIDEST_FREQUENCY / (math.pi * bandwidth)) + 1)
        smooth = coefficients[:needed] * np.exp(-0.5 * (math.pi * bandwidth * np.arange(needed)) ** 2)
        # Per node; the trapezoidal rule halves the two at the ends.
        values = np.abs(np.fft.irfft(smooth, 2 * (nodes - 1))[:nodes])
        return float((values.sum() - 0.5 * (values[0] + values[-1])) / self._total)


@np.errstate(all="ignore")
def _cosines(at: np.ndarray, values: np.ndarray, nodes: int) -> np.ndarray:
    """``2 sum_i values_i cos(pi k at_i)``, k = 0, 1, ..., of values shared between the nodes of a grid on [0, 1]."""
    grid = _on_grid(at, values, nodes)
    grid[[0, -1]] *= 2.0  # their own reflections
    return np.fft.rfft(np.concatenate([grid, grid[-2:0:-1]])).real


class _Relplot:
    """The error as a function of the bandwidth, on the grid of relplot 1.0, which reflects the ends of [0, 1] once."""

    def __init__(self, confidence: np.ndarray, residual: np.ndarray, weight: np.ndarray):
        self._confidence, self._residual, self._weight = confidence, residual, weight

    @np.errstate(all="ignore")
    def __call__(self, bandwidth: float) -> float:
        """The sum of the absolute smoothed residuals over the sum of the smoothed weights."""
        mesh = np.linspace(0.0, 1.0, max(round(10 / bandwidth), _RELPLOT_MESH))
        size = max(2000, round(20 / bandwidth)) // 2 + 1
        density = _smoothed(self._confidence, self._weight, size, bandwidth, mesh) + _RELPLOT_FLOOR
        smoothed = _smoothed(self._confidence, self._residual, size, bandwidth, mesh)
        return float(np.abs(smoothed).sum() / density.sum())


def _smoothed(at: np.ndarray, values: np.ndarray, size: int, bandwidth: float, mesh: np.ndarray) -> np.ndarray:
    """Distribute values in [0, 1] to the nearest two grid points, smooth them, and interpolate at the mesh."""
    grid = _on_grid(at, values, size)
    # Reflect at both ends; the Fourier transform of three periods convolves with the whole kernel.
    reflected = np.concatenate([grid[:0:-1], grid, grid[-2::-1]])
    offset = np.linspace(0.0, 1.0, size) - 0.5
    kernel = np.exp(-0.5 * (offset / bandwidth) ** 2) / (np.sqrt(2.0 * np.pi) * bandwidth)
    length = len(reflected) + size - 1
    product = np.fft.rfft(reflected, length) * np.fft.rfft(kernel, length)
    whole = np.fft.irfft(product, length)
    first = size - 1 + size // 2  # the "valid" part, from the middle copy on
    return np.interp(mesh, np.linspace(0.0, 1.0, size), whole[first : first + size])


def _on_grid(at: np.ndarray, values: np.ndarray, nodes: int) -> np.ndarray:
    """Distribute values at points of [0, 1] linearly to the two nearest nodes of a grid."""
    left = np.clip((at * (nodes - 1)).astype(np.int64), 0, nodes - 2)
    share = at * (nodes - 1) - left
    return np.bincount(left, (1.0 - share) * values, nodes) + np.bincount(left + 1, share * values, nodes)
