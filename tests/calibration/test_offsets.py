"""A common offset of the logits of a row changes nothing, however large."""

from __future__ import annotations

import numpy as np
import pytest
from kinds import KINDS, STEPS

from lsmooth import analysis, metrics
from lsmooth.backends import Backend
from lsmooth.calibration import apply_temperature

pytestmark = [pytest.mark.usefixtures("memory"), pytest.mark.filterwarnings("ignore::UserWarning")]
OFFSETS = [0.0, 1e2, 1e4, -1e6, 1e8]
SCALERS = {name: kind() for name, kind in KINDS.items()}


def drawn(offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Float32 logits, rounded by a large offset."""
    rng = np.random.default_rng(0)
    logits = (offset + rng.integers(-4, 4, (200, 3)) + rng.random((200, 3))).astype(np.float32)
    labels = np.where(rng.random(200) < 0.7, logits.argmax(axis=1), rng.integers(0, 3, 200))
    return logits.astype(np.float32), labels


METRICS = [
    metrics.negative_log_likelihood,
    metrics.brier_score,
    metrics.expected_calibration_error,
    metrics.classwise_calibration_error,
    metrics.smooth_calibration_error,
]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("function", METRICS, ids=lambda function: function.__name__)
def test_metrics_match_float64(backend: Backend, function, offset):
    logits, labels = drawn(offset)
    got = function(backend.asarray(labels), backend.asarray(logits), from_logits=True)
    expected = function(labels, logits.astype(np.float64) - offset, from_logits=True)
    np.testing.assert_allclose(float(backend.to_numpy(got)), float(expected), rtol=2e-6)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("name", SCALERS)
def test_calibrated_probabilities_match_float64(backend: Backend, name, offset):
    plain, labels = drawn(0.0)
    scaler = SCALERS[name].fit(plain.astype(np.float64), labels)
    logits, _ = drawn(offset)
    got = backend.to_numpy(scaler.predict_proba(backend.asarray(logits)))
    if name in STEPS:  # of which a difference in the last digit can make a step
        same = (logits.astype(np.float64) - offset).astype(np.float32)
        np.testing.assert_array_equal(got, backend.to_numpy(scaler.predict_proba(backend.asarray(same))))
        return
    expected = scaler.predict_proba(logits.astype(np.float64))
    np.testing.assert_allclose(got, expected, rtol=2e-5 if "matrix" in name else 2e-6, atol=1e-7)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("name", ["temperature", "bias", "dirichlet"])
def test_fits_match_float64(backend: Backend, name, offset):
    logits, labels = drawn(offset)
    at = np.arange(3.0)[None]
    got = SCALERS[name].fit(backend.asarray(logits), backend.asarray(labels)).predict_proba(at)
    expected = SCALERS[name].fit(logits.astype(np.float64) - offset, labels).predict_proba(at)
    np.testing.assert_allclose(got, expected, rtol=2e-6 if name == "temperature" else 1e-4)


@pytest.mark.parametrize("offset", OFFSETS)
def test_divided_logits_match_float64(backend: Backend, offset):
    logits, labels = drawn(offset)
    got = backend.to_numpy(apply_temperature(backend.asarray(logits), 1.7))
    np.testing.assert_allclose(got, logits.astype(np.float64) / 1.7, rtol=2e-7)
    plain, _ = drawn(0.0)
    for name in ("temperature", "bias", "vector", "matrix"):
        scaler = SCALERS[name].fit(plain.astype(np.float64), labels)
        got = backend.to_numpy(scaler.transform(backend.asarray(logits)))
        expected = scaler.transform(logits.astype(np.float64))
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6 * max(1.0, abs(offset)))


@pytest.mark.parametrize("offset", OFFSETS)
def test_teacher_statistics_match_float64(backend: Backend, offset):
    logits, labels = drawn(offset)
    of_float64 = logits.astype(np.float64) - offset
    mass = analysis.teacher_wrong_class_mass(backend.asarray(labels), backend.asarray(logits))
    entropy = analysis.teacher_entropy(backend.asarray(logits), temperature=2.0)
    np.testing.assert_allclose(
        float(backend.to_numpy(mass)), float(analysis.teacher_wrong_class_mass(labels, of_float64)), rtol=2e-6
    )
    np.testing.assert_allclose(
        float(backend.to_numpy(entropy)), float(analysis.teacher_entropy(of_float64, temperature=2.0)), rtol=2e-6
    )
