"""Facts about the smooth error, the Brier score's parts, selective risk, intervals and explanations."""

from __future__ import annotations

import itertools

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close

from lsmooth import metrics
from lsmooth.backends import Backend


def drawn(rows: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    return rng.integers(0, classes, rows), reference.softmax(2 * rng.standard_normal((rows, classes)))


@pytest.mark.parametrize("bandwidth", [None, 0.02, 0.3])
@pytest.mark.parametrize("binary", [False, True])
def test_the_smooth_error_matches_relplot(backend: Backend, memory, bandwidth, binary):
    relplot = pytest.importorskip("relplot", reason="relplot is not installed")
    labels, p = drawn(classes=2 if binary else 3)
    given = p[:, 1] if binary else p
    got = metrics.smooth_calibration_error(
        backend.asarray(labels), backend.asarray(given), bandwidth=bandwidth, binary=binary, convention="relplot"
    )
    f, y = (given, labels.astype(float)) if binary else reference.top_label(labels, p)
    expected = relplot.smECE(f, y) if bandwidth is None else relplot.smECE_sigma(f, y, bandwidth)
    assert_close(backend, got, expected, "float64")


def test_the_smooth_error_counts_weights_as_repeated_rows():
    labels, p = drawn()
    weight = np.random.default_rng(0).integers(0, 3, len(labels))
    got = metrics.smooth_calibration_error(labels, p, sample_weight=weight)
    expected = metrics.smooth_calibration_error(np.repeat(labels, weight), np.repeat(p, weight, axis=0))
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert metrics.smooth_calibration_error([2], [[0.5, 0.5]], ignore_index=2) == 0.0
    assert np.isnan(metrics.smooth_calibration_error([2], [[0.5, 0.5]]))
    with pytest.raises(ValueError, match="bandwidth must be a finite number above 0"):
        metrics.smooth_calibration_error(labels, p, bandwidth=0.0)


def test_the_parts_of_the_brier_score_are_their_definitions(backend: Backend, memory):
    labels, p = drawn()
    parts = metrics.brier_decomposition(backend.asarray(labels), backend.asarray(p), n_bins=4)
    reliability = resolution = uncertainty = 0.0
    for k in range(3):
        y = (labels == k).astype(float)
        uncertainty += y.mean() * (1 - y.mean())
        for n, confidence, frequency in reference.bins_of(p[:, k], y, np.ones(len(y)), 4):
            if n:
                reliability += n / len(y) * (frequency - confidence) ** 2
                resolution += n / len(y) * (frequency - y.mean()) ** 2
    score = ((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean()
    within = score - (reliability - resolution + uncertainty)
    for got, expected in zip(parts, (score, reliability, resolution, uncertainty, within), strict=True):
        assert_close(backend, got, expected, "float64")


def test_the_within_bin_variance_is_zero_for_equal_probabilities(backend: Backend, memory):
    labels, _ = drawn()
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])[np.arange(60) % 2]
    parts = metrics.brier_decomposition(backend.asarray(labels), backend.asarray(p))
    assert_close(backend, parts.within_bins, 0.0, "float64")


def area_over_all_orders(confidence, wrong) -> float:
    """Averaged over every order that sorts the confidences."""
    areas = []
    for order in itertools.permutations(range(len(wrong))):
        order = list(order)
        if (np.diff(confidence[order]) <= 0).all():
            areas.append((np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)).mean())
    return float(np.mean(areas))


def test_the_area_is_the_mean_over_orders_of_equal_confidences(backend: Backend, memory):
    top = np.array([0.9, 0.8, 0.8, 0.8, 0.6, 0.6])
    labels = np.array([0, 0, 1, 1, 0, 1])
    p = np.stack([top, 1 - top], axis=1)
    got = metrics.area_under_risk_coverage(backend.asarray(labels), backend.asarray(p))
    assert_close(backend, got, area_over_all_orders(top, labels.astype(float)), "float64")


def test_masked_rows_do_not_contribute_to_the_area(backend: Backend, memory):
    labels, p = drawn()
    expected = metrics.area_under_risk_coverage(labels, p)
    ids = backend.asarray(np.concatenate([[-1], labels, [-1]]))
    junk = np.concatenate([np.full((1, 3), np.nan), p, np.full((1, 3), 0.9)])
    got = metrics.area_under_risk_coverage(ids, backend.asarray(junk), ignore_index=-1)
    assert_close(backend, got, expected, "float64")
    curve = metrics.risk_coverage_curve(ids, backend.asarray(junk), ignore_index=-1)
    np.testing.assert_allclose(backend.to_numpy(curve.coverage)[2:], np.arange(1, 61) / 60)
    np.testing.assert_allclose(backend.to_numpy(curve.risk)[2:].mean(), expected)
    assert metrics.area_under_risk_coverage([2], [[0.5, 0.5]], ignore_index=2) == 0.0


def test_the_area_uses_weights(backend: Backend, memory):
    top, labels = np.array([0.9, 0.7, 0.7, 0.6]), np.array([0, 1, 0, 1])
    p = np.stack([top, 1 - top], axis=1)
    weight = np.array([2.0, 1.0, 3.0, 0.0])
    got = metrics.area_under_risk_coverage(backend.asarray(labels), backend.asarray(p), sample_weight=weight)
    # After the first two: no error in 2; then 1 of 4 wrong, spread evenly: 0.25 in 3, 1 in 6.
    assert_close(backend, got, (2 * 0 + 1 * 0.25 / 3 + 3 * 1 / 6) / 6, "float64")


def test_an_interval_is_the_same_on_every_backend(backend: Backend, memory):
    labels, p = drawn()
    options = {"n_resamples": 5, "seed": 3, "n_bins": 5}
    for method in ("bootstrap", "consistency"):
        got = metrics.metric_interval(
            metrics.expected_calibration_error, backend.asarray(labels), backend.asarray(p), method=method, **options
        )
        expected = metrics.metric_interval(metrics.expected_calibration_error, labels, p, method=method, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_bootstrap_intervals_have_the_width_of_the_standard_error():
    rng = np.random.default_rng(0)
    p = np.full((400, 2), 0.5)
    labels = rng.integers(0, 2, 400)
    value, low, high = metrics.metric_interval(metrics.top_k_accuracy, labels, p, n_resamples=400)
    half = 1.96 * np.sqrt(value * (1 - value) / 400)
    np.testing.assert_allclose([value - low, high - value], half, rtol=0.2)


def test_the_consistency_band_covers_only_a_calibrated_model():
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1.0, 1000)
    p = np.stack([top, 1 - top], axis=1)
    fair = (rng.random(1000) > top).astype(int)
    value, low, high = metrics.metric_interval(metrics.expected_calibration_error, fair, p, method="consistency")
    assert low <= value <= high
    worse = (rng.random(1000) > 0.5 * top).astype(int)
    value, low, high = metrics.metric_interval(metrics.expected_calibration_error, worse, p, method="consistency")
    assert value > high


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "jackknife"}, "method must be one of bootstrap, consistency"),
        ({"confidence_level": 95}, "confidence_level must be between 0 and 1, got 95"),
        ({"n_resamples": 0}, "n_resamples must be an integer of at least 1"),
    ],
)
def test_options_of_an_interval_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.metric_interval(metrics.brier_score, [0], [[0.5, 0.5]], **options)


def test_a_difference_is_explained_by_what_makes_it(backend: Backend, memory):
    p = np.array([[0.6, 0.2, 0.2], [1.0, 0.0, 0.0], [0.45, 0.3, 0.25], [0.4, 0.35, 0.25]])
    explanation = metrics.explain_difference(backend.asarray(np.array([0, 1, 2, 0])), backend.asarray(p), n_bins=10)
    assert (explanation.on_edge, explanation.at_one, explanation.rounded) == (2, 1, 0)
    for name, error in explanation.errors.items():
        got = metrics.expected_calibration_error([0, 1, 2, 0], p, n_bins=10, convention=name)
        np.testing.assert_allclose(error, got, rtol=1e-6)
    text = str(explanation)
    assert "2 rows have a confidence on an edge" in text
    assert "1 row has a confidence of 1" in text
    assert text.count("\n") == 6 + 3
    two = metrics.explain_difference(np.array([0, 1]), np.array([[0.7, 0.3], [0.9, 0.1]]))
    assert "two classes" in str(two)
