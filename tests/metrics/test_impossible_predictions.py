"""Predictions that are not probabilities give NaN, and an error under `validate`."""

from __future__ import annotations

import numpy as np
import pytest

import lsmooth
from lsmooth import metrics
from lsmooth.backends import Backend

pytestmark = pytest.mark.usefixtures("memory")

LABELS, P = np.array([0, 2, 1, 2]), np.random.default_rng(0).dirichlet(np.ones(3), 4)
FUNCTIONS = [
    metrics.expected_calibration_error,
    metrics.maximum_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.classwise_calibration_error,
    metrics.smooth_calibration_error,
    metrics.brier_score,
    metrics.negative_log_likelihood,
    metrics.area_under_risk_coverage,
    metrics.brier_decomposition,
]
IMPOSSIBLE = {
    "logits": 3 * P - 1.5,
    "one above 1": np.where(np.arange(12).reshape(4, 3) == 5, 1.01, P),
    "one below 0": np.where(np.arange(12).reshape(4, 3) == 5, -0.01, P),
}


def first(backend: Backend, result) -> float:
    return float(backend.to_numpy(result[0] if isinstance(result, tuple) else result))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("which", IMPOSSIBLE)
def test_predictions_outside_of_0_and_1_give_nan(backend: Backend, function, which):
    labels, p = backend.asarray(LABELS), backend.asarray(IMPOSSIBLE[which])
    assert np.isnan(first(backend, function(labels, p)))
    with (
        lsmooth.validate(),
        pytest.raises(ValueError, match=r"predictions must be probabilities in \[0, 1\], got .*from_logits=True"),
    ):
        function(labels, p)


def test_rows_that_do_not_sum_to_one_are_an_error_under_validate(backend: Backend):
    p = P.copy()
    p[2] *= 0.5
    with lsmooth.validate(), pytest.raises(ValueError, match=r"predictions must sum to 1 .*0\.5 at row 2"):
        metrics.brier_score(backend.asarray(LABELS), backend.asarray(p))


def test_logits_may_be_any_numbers(backend: Backend):
    with lsmooth.validate():
        got = metrics.negative_log_likelihood(
            backend.asarray(LABELS), backend.asarray(IMPOSSIBLE["logits"]), from_logits=True
        )
    assert np.isfinite(first(backend, got))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("junk", [np.nan, 7.0, -1.0])
@pytest.mark.parametrize("by_weight", [False, True])
def test_a_masked_row_may_hold_any_values(backend: Backend, function, junk, by_weight):
    p, labels = np.concatenate([P, np.full((2, 3), junk)]), np.concatenate([LABELS, [-1, -1]])
    weight = backend.asarray(np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]))
    options = {"sample_weight": weight} if by_weight else {"ignore_index": -1}
    with lsmooth.validate():
        got = function(backend.asarray(labels), backend.asarray(p), **options)
    expected = function(LABELS, P)
    expected = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(first(backend, got), float(expected), rtol=1e-9)


def test_rounding_errors_beyond_0_and_1_are_accepted(backend: Backend):
    p = np.array([[1.0 + 2e-7, -1e-7], [0.5, 0.5]])
    got = metrics.expected_calibration_error(backend.asarray(np.array([0, 1])), backend.asarray(p), n_bins=2)
    np.testing.assert_allclose(float(backend.to_numpy(got)), 0.25, atol=1e-6)
