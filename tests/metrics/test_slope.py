"""Facts about the calibration slope and intercept, held to scikit-learn's logistic regression and to the score."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.metrics import calibration_slope

pytestmark = pytest.mark.usefixtures("memory")


def drawn(rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal(rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(0.7 - 0.6 * z))).astype(np.int64)
    return labels, z, rng.integers(0, 3, rows).astype(float)


def test_slope_and_intercept_match_a_logistic_regression(backend: Backend):
    linear = pytest.importorskip("sklearn.linear_model", reason="the other library")
    labels, z, weight = drawn()
    peer = linear.LogisticRegression(C=1e12, tol=1e-12, solver="newton-cholesky").fit(z[:, None], labels, weight)
    given = backend.asarray(labels), backend.asarray(z)
    found = calibration_slope(*given, from_logits=True, binary=True, sample_weight=backend.asarray(weight))
    np.testing.assert_allclose(float(backend.to_numpy(found.slope)), peer.coef_[0, 0], rtol=1e-6)
    np.testing.assert_allclose(float(backend.to_numpy(found.intercept)), peer.intercept_[0], rtol=1e-6)
    shifted = 1 / (1 + np.exp(-z - float(backend.to_numpy(found.in_the_large))))
    np.testing.assert_allclose(weight @ (labels - shifted), 0.0, atol=1e-6)
    two = np.stack([1 - 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-z))], -1)
    again = calibration_slope(backend.asarray(labels), backend.asarray(two), sample_weight=backend.asarray(weight))
    for one, other in zip(again, found, strict=True):
        assert_close(backend, one, backend.to_numpy(other), "float64", factor=1e6)


def test_separable_labels_and_certain_predictions_have_no_slope():
    z = np.array([-2.0, -1.0, 1.0, 2.0])
    found = calibration_slope([0, 0, 1, 1], z, from_logits=True, binary=True)
    assert np.isnan([found.slope, found.intercept]).all()
    assert abs(float(found.in_the_large)) < 1e-8
    assert np.isnan(calibration_slope([1, 1, 1, 1], z, from_logits=True, binary=True)).all()
    assert np.isnan(calibration_slope([0, 1], [0.0, 0.5], binary=True)).all()
    assert np.isnan(calibration_slope([0, 2], [0.5, 0.5], binary=True)).all()
    certain_but_ignored = calibration_slope([0, 1, 1, 0, 9], [0.2, 0.3, 0.8, 0.9, 1.0], binary=True, ignore_index=9)
    assert np.isfinite(certain_but_ignored).all()


def test_more_classes_are_an_error_that_says_how_to_ask_of_one():
    with pytest.raises(ValueError, match=r"two classes, got 3; of class k .*binary=True"):
        calibration_slope([0, 1], [[0.2, 0.3, 0.5]] * 2)
