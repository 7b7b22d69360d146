"""Facts about calibration without bins, held to scikit-learn's isotonic regression and to the definitions."""

from __future__ import annotations

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.metrics import brier_score, corp_decomposition, corp_reliability_curve, negative_log_likelihood
from lsmooth.metrics._corp import corp_band

pytest.importorskip("scipy", reason="scipy is not installed")
pytestmark = pytest.mark.usefixtures("memory")


def drawn(rows: int = 200, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Binary labels, stated probabilities of 1 that are too large, and weights of which some are 0."""
    rng = np.random.default_rng(1)
    p = np.clip(rng.random(rows), 0.02, 0.98)
    p = p.round(1) * 0.9 + 0.05 if ties else p
    return (rng.random(rows) < p**2).astype(np.int64), p, rng.integers(0, 3, rows).astype(float)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_matches_the_isotonic_regression_of_scikit_learn(backend: Backend, ties):
    isotonic = pytest.importorskip("sklearn.isotonic", reason="the other library")
    labels, p, weight = drawn(ties=ties)
    given = (backend.asarray(x) for x in (labels, p))
    curve = corp_reliability_curve(*given, binary=True, sample_weight=backend.asarray(weight))
    low, high, confidence, accuracy, held = (backend.to_numpy(part) for part in curve)
    kept = weight > 0
    fit = isotonic.IsotonicRegression().fit(p[kept], labels[kept], weight[kept])
    part = np.searchsorted(high, p[kept])
    np.testing.assert_allclose(accuracy[part], fit.predict(p[kept]), atol=1e-12)
    assert (low[part] <= p[kept]).all()
    np.testing.assert_allclose(held, np.bincount(part, weight[kept]))
    np.testing.assert_allclose(confidence, np.bincount(part, weight[kept] * p[kept]) / held)
    assert (np.diff(accuracy) > 0).all()


def test_the_top_label_is_measured_for_several_classes(backend: Backend):
    rng = np.random.default_rng(2)
    logits, labels = 2 * rng.standard_normal((90, 4)), rng.integers(0, 4, 90)
    confidence, correct = reference.top_label(labels, reference.softmax(logits))
    got = corp_reliability_curve(backend.asarray(labels), backend.asarray(logits), from_logits=True)
    expected = corp_reliability_curve(correct.astype(int), confidence, binary=True)
    for one, other in zip(got, expected, strict=True):
        assert_close(backend, one, other, "float64", factor=10)


@pytest.mark.parametrize("score", ["brier", "log"])
def test_the_parts_add_up_to_the_score(backend: Backend, score):
    labels, p, weight = drawn()
    parts = corp_decomposition(
        backend.asarray(labels), backend.asarray(p), score=score, binary=True, sample_weight=backend.asarray(weight)
    )
    total, miscalibration, discrimination, uncertainty = (float(backend.to_numpy(part)) for part in parts)
    of, factor = (brier_score, 0.5) if score == "brier" else (negative_log_likelihood, 1.0)
    expected = factor * float(of(labels, p, binary=True, sample_weight=weight))
    np.testing.assert_allclose(total, expected, rtol=1e-12)
    np.testing.assert_allclose(miscalibration - discrimination + uncertainty, total, rtol=1e-12)
    assert miscalibration > 0.01
    assert discrimination > 0.01
    base = np.average(labels, weights=weight)
    flat = base * (1 - base) if score == "brier" else -(base * np.log(base) + (1 - base) * np.log(1 - base))
    np.testing.assert_allclose(uncertainty, flat, rtol=1e-12)


def test_probabilities_of_0_and_1_that_are_right_cost_nothing():
    parts = corp_decomposition([0, 1], [0.0, 1.0], score="log", binary=True)
    np.testing.assert_allclose([float(part) for part in parts], [0.0, 0.0, np.log(2), np.log(2)])
    assert float(corp_decomposition([1, 1], [0.0, 1.0], score="log", binary=True).miscalibration) == np.inf


def test_empty_batches_give_zero_and_impossible_rows_nan():
    assert [float(part) for part in corp_decomposition([1], [0.5], binary=True, sample_weight=0.0)] == [0.0] * 4
    assert corp_reliability_curve([1], [0.5], binary=True, sample_weight=0.0).weight.shape == (0,)
    assert np.isnan(corp_decomposition([2], [0.5], binary=True)).all()
    assert np.isnan(corp_reliability_curve([1], [1.5], binary=True)).all()
    with pytest.raises(ValueError, match="score must be one of brier, log"):
        corp_decomposition([1], [0.5], score="l1", binary=True)


def test_the_curve_of_a_calibrated_classifier_is_mostly_in_its_band():
    rng = np.random.default_rng(3)
    p = rng.random(2000)
    x, low, high = corp_band(p, np.ones(2000), 0.9)
    curve = corp_reliability_curve((rng.random(2000) < p).astype(int), p, binary=True)
    at = np.minimum(np.searchsorted(curve.high, x), len(curve.high) - 1)
    inside = (low - 1e-12 <= curve.accuracy[at]) & (curve.accuracy[at] <= high + 1e-12)
    assert 0.8 < inside.mean() <= 1.0
    assert (np.diff(low) >= 0).all()
    wrong = corp_reliability_curve((rng.random(2000) < p**2).astype(int), p, binary=True)
    at = np.minimum(np.searchsorted(wrong.high, x), len(wrong.high) - 1)
    assert (wrong.accuracy[at] < low).mean() > 0.5
