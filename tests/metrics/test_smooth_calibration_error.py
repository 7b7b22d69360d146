"""Facts about the smooth calibration error, held to a quadrature of its definition."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.backends import Backend
from lsmooth.metrics import smooth_calibration_error


def by_quadrature(f: np.ndarray, y: np.ndarray, bandwidth: float, weight: np.ndarray) -> float:
    """Integral of the residuals' magnitude, smoothed by a Gaussian that is reflected at 0 and 1 several times."""
    t = np.linspace(0.0, 1.0, 20001)
    smoothed = np.zeros_like(t)
    for x, residual in zip(f, weight * (f - y), strict=True):
        for j in range(-8, 9):
            for image in (x + 2 * j, -x + 2 * j):
                smoothed += residual * np.exp(-0.5 * ((t - image) / bandwidth) ** 2)
    magnitude = np.abs(smoothed) / (np.sqrt(2 * np.pi) * bandwidth)
    return float((magnitude[1:] + magnitude[:-1]).sum() / 2 * (t[1] - t[0]) / weight.sum())


CONFIDENCES = {
    "spread": np.random.default_rng(1).random(30),
    "at the ends": np.repeat([0.0, 1.0, 0.3], 10),
    "near the ends": np.repeat([1e-4, 1 - 1e-4, 0.999], 10),
}


@pytest.mark.parametrize("bandwidth", [0.004, 0.03, 0.2, 2.0])
@pytest.mark.parametrize("where", CONFIDENCES)
def test_the_error_is_the_integral_of_its_definition(where, bandwidth):
    f, rng = CONFIDENCES[where], np.random.default_rng(2)
    y, weight = rng.integers(0, 2, 30), rng.random(30)
    got = smooth_calibration_error(y, f, bandwidth=bandwidth, binary=True, sample_weight=weight)
    np.testing.assert_allclose(got, by_quadrature(f, y, bandwidth, weight), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("bandwidth", [None, 0.01, 0.1])
@pytest.mark.parametrize("confidence", [1.0, 0.9999, 0.98, 0.0, 0.02])
def test_the_error_is_at_most_the_mean_distance_from_the_label_frequencies(confidence, bandwidth):
    # All confidences are equal, so that the distance of every row's confidence from the frequency is the bound.
    y = np.arange(500) % 5 == 0
    y = ~y if confidence > 0.5 else y
    got = float(smooth_calibration_error(y, np.full(500, confidence), binary=True, bandwidth=bandwidth))
    gap = abs(confidence - y.mean())
    assert got <= gap * (1 + 1e-9)
    np.testing.assert_allclose(got, gap, rtol=1e-6)


def test_the_error_does_not_depend_on_which_class_is_positive(backend: Backend):
    rng = np.random.default_rng(0)
    f, y = rng.random(40) ** 6, rng.integers(0, 2, 40)
    one = smooth_calibration_error(backend.asarray(y), backend.asarray(f), binary=True)
    other = smooth_calibration_error(backend.asarray(1 - y), backend.asarray(1 - f), binary=True)
    np.testing.assert_allclose(float(backend.to_numpy(one)), float(backend.to_numpy(other)), rtol=1e-9)


def test_rows_of_small_weight_have_the_error_of_the_same_rows():
    rng = np.random.default_rng(0)
    f, y = rng.random(10), rng.integers(0, 2, 10)
    expected = smooth_calibration_error(y, f, binary=True)
    got = smooth_calibration_error(y, f, binary=True, sample_weight=np.full(10, 1e-6))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_the_original_counts_each_edge_once():
    f, y = np.array([0.0, 1.0, 0.7, 0.4]), np.array([1, 1, 0, 1])
    exact, original = (
        float(smooth_calibration_error(y, f, binary=True, bandwidth=0.05, convention=name))
        for name in ("exact", "relplot")
    )
    assert original > 1.03 * exact
    with pytest.raises(ValueError, match="convention must be one of exact, relplot; got 'guo'"):
        smooth_calibration_error(y, f, binary=True, convention="guo")
