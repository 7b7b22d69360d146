"""relplot's smooth calibration error, which reflects the ends of [0, 1] once."""

from __future__ import annotations

import numpy as np

_MESH = 200
_FLOOR = 1e-4
"""Added to the density, so that it is above 0 where there are no rows."""


class RelplotError:
    """The error as a function of the bandwidth, on the grid of relplot 1.0."""

    def __init__(self, confidence: np.ndarray, residual: np.ndarray, weight: np.ndarray):
        self._confidence, self._residual, self._weight = confidence, residual, weight

    @np.errstate(all="ignore")
    def __call__(self, bandwidth: float) -> float:
        """The sum of the absolute smoothed residuals over the sum of the smoothed weights."""
        mesh = np.linspace(0.0, 1.0, max(round(10 / bandwidth), _MESH))
        size = max(2000, round(20 / bandwidth)) // 2 + 1
        density = _smoothed(self._confidence, self._weight, size, bandwidth, mesh) + _FLOOR
        smoothed = _smoothed(self._confidence, self._residual, size, bandwidth, mesh)
        return float(np.abs(smoothed).sum() / density.sum())


def _smoothed(at: np.ndarray, values: np.ndarray, size: int, bandwidth: float, mesh: np.ndarray) -> np.ndarray:
    """Distribute values in [0, 1] to the nearest two grid points, smooth them, and interpolate at the mesh."""
    left = np.clip((at * (size - 1)).astype(np.int64), 0, size - 2)
    share = at * (size - 1) - left
    grid = np.bincount(left, (1.0 - share) * values, size) + np.bincount(left + 1, share * values, size)
    # Reflect at both ends; the Fourier transform of three periods convolves with the whole kernel.
    reflected = np.concatenate([grid[:0:-1], grid, grid[-2::-1]])
    offset = np.linspace(0.0, 1.0, size) - 0.5
    kernel = np.exp(-0.5 * (offset / bandwidth) ** 2) / (np.sqrt(2.0 * np.pi) * bandwidth)
    length = len(reflected) + size - 1
    product = np.fft.rfft(reflected, length) * np.fft.rfft(kernel, length)
    whole = np.fft.irfft(product, length)
    first = size - 1 + size // 2  # the "valid" part, from the middle copy on
    return np.interp(mesh, np.linspace(0.0, 1.0, size), whole[first : first + size])
