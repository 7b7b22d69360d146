"""Streaming metrics equal the functions of all rows, however these are split."""

from __future__ import annotations

import json
import pickle

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close

from lsmooth import metrics
from lsmooth.backends import Backend, load_backend

CASES = {
    "ece": (lambda: metrics.CalibrationError(n_bins=10), lambda *a: metrics.expected_calibration_error(*a, n_bins=10)),
    "l2": (
        lambda: metrics.CalibrationError(norm="l2", debias=True, convention="torchmetrics"),
        lambda *a: metrics.expected_calibration_error(*a, norm="l2", debias=True, convention="torchmetrics"),
    ),
    "classwise": (lambda: metrics.CalibrationError(classwise=True), metrics.classwise_calibration_error),
    "nll": (metrics.NegativeLogLikelihood, metrics.negative_log_likelihood),
    "brier": (metrics.BrierScore, metrics.brier_score),
    "top2": (lambda: metrics.TopKAccuracy(k=2), lambda *a: metrics.top_k_accuracy(*a, k=2)),
}


def drawn(rows: int = 100, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.integers(0, classes, rows), reference.softmax(rng.standard_normal((rows, classes)))


@pytest.mark.parametrize("name", CASES)
def test_batches_and_shards_add_up_to_the_function(backend: Backend, memory, name):
    make, function = CASES[name]
    labels, p = drawn()
    shards = [make(), make()]
    for i, rows in enumerate([slice(0, 10), slice(10, 11), slice(11, 11), slice(11, 100)]):
        shards[i % 2].update_state(backend.asarray(labels[rows]), backend.asarray(p[rows]))
    merged = pickle.loads(pickle.dumps(shards[0])).merge_state(shards[1])
    assert type(merged.result()) is float
    assert_close(backend, merged.result(), function(labels, p), "float64")


def test_batches_of_several_frameworks_merge():
    labels, p = drawn()
    metric = metrics.CalibrationError()
    for name, rows in (("numpy", slice(0, 30)), ("jax", slice(30, 60)), ("torch", slice(60, 100))):
        pytest.importorskip(name, reason=f"{name} is not installed")
        xp = load_backend(name)
        metric.update_state(xp.asarray(labels[rows]), xp.asarray(p[rows]))
    np.testing.assert_allclose(metric.result(), metrics.expected_calibration_error(labels, p), rtol=1e-12)


def test_weights_and_ignored_rows_count_as_in_the_function():
    labels, p = drawn()
    weight = np.random.default_rng(1).random(100)
    metric = metrics.NegativeLogLikelihood(ignore_index=3)
    metric.update_state(labels, p, weight)
    expected = metrics.negative_log_likelihood(labels, p, ignore_index=3, sample_weight=weight)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-12)


def test_the_curve_matches_the_function():
    labels, p = drawn()
    metric = metrics.CalibrationError(n_bins=5)
    metric.update_state(labels, p)
    for got, expected in zip(metric.curve(), metrics.reliability_curve(labels, p, n_bins=5), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_without_rows_and_after_a_reset_the_result_is_zero():
    for make, _ in CASES.values():
        metric = make()
        assert metric.result() == 0.0
        metric.update_state(*drawn())
        metric.reset_state()
        assert metric.result() == 0.0
        assert metric.merge_state(make()).result() == 0.0


@pytest.mark.parametrize("name", CASES)
def test_a_state_goes_through_json(name):
    make, function = CASES[name]
    labels, p = drawn()
    first, second, third = make(), make(), make()
    first.update_state(labels[:40], p[:40])
    second.set_state(json.loads(json.dumps(first.get_state())))
    third.update_state(labels[40:], p[40:])
    np.testing.assert_allclose(second.merge_state(third, make()).result(), function(labels, p), rtol=1e-12)
    second.set_state(make().get_state())
    assert second.result() == 0.0


def test_a_state_of_other_options_is_refused():
    metric = metrics.CalibrationError(n_bins=10)
    metric.update_state(*drawn())
    for other in (
        metrics.CalibrationError(n_bins=5),
        metrics.CalibrationError(n_bins=10, classwise=True),
        metrics.BrierScore(),
    ):
        with pytest.raises(ValueError, match=f"state must be of a {type(other).__name__} with the same options"):
            other.set_state(metric.get_state())


def test_only_metrics_with_equal_options_merge():
    with pytest.raises(ValueError, match="merge_state needs metrics of the same class and options"):
        metrics.CalibrationError().merge_state(metrics.CalibrationError(n_bins=10))
    with pytest.raises(ValueError, match="merge_state needs"):
        metrics.BrierScore().merge_state(metrics.NegativeLogLikelihood())


def test_the_number_of_classes_cannot_change():
    metric = metrics.CalibrationError(classwise=True)
    metric.update_state(*drawn())
    with pytest.raises(ValueError, match="predictions must have as many classes"):
        metric.update_state(*drawn(classes=5))
    with pytest.raises(ValueError, match="curve needs batches"):
        metric.curve()


def test_a_traced_update_is_refused():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with pytest.raises(TypeError, match=r"CalibrationError\.update_state keeps the values of predictions"):
        jax.jit(lambda p: metrics.CalibrationError().update_state([0], p))(np.ones((1, 2)))
