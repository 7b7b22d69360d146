"""Smooth calibration error: kernels in place of bins, and the bandwidth chosen by the error itself."""

from __future__ import annotations

import numpy as np

from lsmooth.backends import Array
from lsmooth.metrics._inputs import prepare, top_label
from lsmooth.metrics._tables import judged

_MESH = 200
_FLOOR = 1e-4
"""Added to the density, where there are no rows."""


def smooth_calibration_error(
    labels: Array,
    predictions: Array,
    *,
    bandwidth: float | None = None,
    from_logits: bool = False,
    binary: bool = False,
    axis: int = -1,
    ignore_index: int | None = None,
    sample_weight: Array | None = None,
) -> Array:
    """Distance between confidence and accuracy, both smoothed by a kernel: no bins, no jumps.

    ``integral |E[correct - conf | conf near t]| d density(t)``, near by a Gaussian of the given
    bandwidth, reflected at 0 and 1.

    Unless it is given, the bandwidth is the least at which it exceeds the error itself, found to
    1 / 1024: wide enough to average out chance, and no wider than what is measured.

    Args:
        labels: as in `expected_calibration_error`, and so are the arguments that follow.
        predictions: probabilities, or logits if ``from_logits``.
        bandwidth: the kernel's standard deviation, above 0.
        from_logits: whether ``predictions`` are logits.
        binary: whether predictions are the probability of 1, which is then judged itself.
        axis: the class axis.
        ignore_index: rows with this label do not count.
        sample_weight: of rows.

    Returns:
        A scalar, float64 for float64 predictions, else float32; 0 without rows. Computed on the
        host: the call cannot be traced.

    Raises:
        TypeError: if tensors of two frameworks meet, a dtype is wrong, or the call is traced.
        ValueError: if shapes do not fit, or the bandwidth is not above 0.

    Source: Błasiok and Nakkiran 2023, "Smooth ECE"; relplot 1.0's ``smECE``, whose grid this is.

    Example:
        >>> from lsmooth.metrics import smooth_calibration_error
        >>> float(smooth_calibration_error([0, 1], [[0.75, 0.25], [0.75, 0.25]]).round(3))
        0.25
    """
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise ValueError(f"bandwidth must be a finite number above 0, got {bandwidth}.")
    inputs = prepare(labels, predictions, sample_weight, axis, ignore_index, from_logits, binary)
    xp = inputs.xp
    if not xp.is_concrete(inputs.predictions):
        raise TypeError("smooth_calibration_error looks for a bandwidth on the host; call it outside tracing.")
    rows = judged(inputs, "relplot", binary) if binary else top_label(inputs)
    confidence, correct, weight = (xp.to_numpy(x).astype(np.float64) for x in (*rows, inputs.weight))
    if not np.isfinite(weight).all() or np.isnan(confidence).any():
        error = float("nan")
    elif weight.sum() == 0:
        error = 0.0
    else:
        error = _error(confidence, weight * (confidence - correct), weight, bandwidth)
    return inputs.home.asarray(error, inputs.dtype, like=inputs.given)


def _error(confidence: np.ndarray, residual: np.ndarray, weight: np.ndarray, bandwidth: float | None) -> float:
    if bandwidth is not None:
        return _at_bandwidth(confidence, residual, weight, bandwidth)
    low, high = 0.0, 1.0
    if high >= (error := _at_bandwidth(confidence, residual, weight, high)):
        for _ in range(10):
            middle = 0.5 * (low + high)
            if middle < 0.001 or middle < _at_bandwidth(confidence, residual, weight, middle):
                low = middle
            else:
                high = middle
        error = _at_bandwidth(confidence, residual, weight, high)
    return error


def _at_bandwidth(confidence: np.ndarray, residual: np.ndarray, weight: np.ndarray, bandwidth: float) -> float:
    mesh = np.linspace(0.0, 1.0, max(round(10 / bandwidth), _MESH))
    size = max(2000, round(20 / bandwidth)) // 2 + 1
    density = _smoothed(confidence, weight, size, bandwidth, mesh) + _FLOOR
    smoothed = _smoothed(confidence, residual, size, bandwidth, mesh)
    return float(np.abs(smoothed).sum() / density.sum())


def _smoothed(at: np.ndarray, values: np.ndarray, size: int, bandwidth: float, mesh: np.ndarray) -> np.ndarray:
    """Values at points of [0, 1], shared between grid points, smoothed there, and read off at the mesh."""
    left = np.clip((at * (size - 1)).astype(np.int64), 0, size - 2)
    share = at * (size - 1) - left
    grid = np.bincount(left, (1.0 - share) * values, size) + np.bincount(left + 1, share * values, size)
    # Reflected at both ends; a Fourier transform of three periods is a convolution with the whole kernel.
    reflected = np.concatenate([grid[:0:-1], grid, grid[-2::-1]])
    offset = np.linspace(0.0, 1.0, size) - 0.5
    kernel = np.exp(-0.5 * (offset / bandwidth) ** 2) / (np.sqrt(2.0 * np.pi) * bandwidth)
    length = len(reflected) + size - 1
    product = np.fft.rfft(reflected, length) * np.fft.rfft(kernel, length)
    whole = np.fft.irfft(product, length)
    first = size - 1 + size // 2  # the "valid" part, from the middle copy on
    return np.interp(mesh, np.linspace(0.0, 1.0, size), whole[first : first + size])
