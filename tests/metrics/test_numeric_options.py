"""Facts about options: NumPy's numbers are numbers, and strings and None are errors that name the option."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth import analysis, calibration, metrics

LABELS, P = np.array([0, 2, 1, 2, 0]), np.random.default_rng(0).dirichlet(np.ones(3), 5)
N_BINS = [
    metrics.expected_calibration_error,
    metrics.maximum_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.classwise_calibration_error,
    metrics.brier_decomposition,
    metrics.reliability_curve,
    metrics.classwise_reliability_curve,
    metrics.consistency_band,
    metrics.explain_difference,
]
OTHERS = [
    metrics.smooth_calibration_error,
    metrics.negative_log_likelihood,
    metrics.brier_score,
    metrics.top_k_accuracy,
    metrics.risk_coverage_curve,
    metrics.area_under_risk_coverage,
]
INTEGERS = [np.int64, np.int32, np.uint8]


def equal(got, expected) -> None:
    for x, y in zip(np.atleast_1d(got), np.atleast_1d(expected), strict=True):
        np.testing.assert_equal(x, y)


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("function", N_BINS, ids=lambda function: function.__name__)
def test_functions_take_numpys_integers_and_bools(function, integer):
    given = function(LABELS, P, n_bins=integer(4), ignore_index=integer(2), axis=np.int64(-1), from_logits=np.bool_(0))
    plain = function(LABELS, P, n_bins=4, ignore_index=2)
    assert str(given) == str(plain)


@pytest.mark.parametrize("function", OTHERS, ids=lambda function: function.__name__)
def test_other_metrics_accept_numpy_numbers(function):
    given = function(LABELS, P, ignore_index=np.int64(2), axis=np.int8(1))
    assert str(given) == str(function(LABELS, P, ignore_index=2))


def test_options_of_single_metrics_accept_numpy_numbers():
    assert metrics.top_k_accuracy(LABELS, P, k=np.int64(2)) == metrics.top_k_accuracy(LABELS, P, k=2)
    given = metrics.smooth_calibration_error(LABELS, P, bandwidth=np.float32(0.125))
    assert given == metrics.smooth_calibration_error(LABELS, P, bandwidth=0.125)
    options = {"confidence_level": 0.9, "n_resamples": 10}
    numpys = {"confidence_level": np.float64(0.9), "n_resamples": np.int64(10), "seed": np.int64(0)}
    assert str(metrics.consistency_band(LABELS, P, **numpys)) == str(metrics.consistency_band(LABELS, P, **options))
    assert metrics.metric_interval(metrics.brier_score, LABELS, P, **numpys) == metrics.metric_interval(
        metrics.brier_score, LABELS, P, **options
    )
    two = {"norm": "l2", "debias": np.bool_(True), "binary": np.bool_(False)}
    assert metrics.expected_calibration_error(LABELS, P, **two) >= 0


def test_streaming_metrics_accept_numpy_numbers():
    for kind, options in (
        (metrics.CalibrationError, {"n_bins": np.int64(4), "classwise": np.bool_(True), "ignore_index": np.int64(2)}),
        (metrics.TopKAccuracy, {"k": np.int32(2), "axis": np.int64(-1)}),
        (metrics.BrierScore, {"from_logits": np.bool_(False)}),
        (metrics.NegativeLogLikelihood, {"ignore_index": np.uint8(2)}),
    ):
        given, plain = kind(**options), kind(**{name: value.item() for name, value in options.items()})
        given.update_state(LABELS, P)
        plain.update_state(LABELS, P)
        assert given.merge_state(plain).result() == plain.result()


def test_analyses_accept_numpy_numbers():
    logits = np.log(P)
    t = analysis.match_temperature(LABELS, logits, np.float32(0.9375), axis=np.int64(1))
    assert t == analysis.match_temperature(LABELS, logits, 0.9375)
    assert analysis.teacher_entropy(logits, temperature=np.float64(2)) == analysis.teacher_entropy(
        logits, temperature=2.0
    )


CALIBRATORS = [
    calibration.TemperatureScaling(max_iter=np.int64(20), bounds=(np.float64(0.01), np.int64(100))),
    calibration.GroupTemperatureScaling(by="prediction", max_iter=np.int32(20)),
    calibration.BiasCorrectedTemperatureScaling(max_iter=np.int64(500), tol=np.float64(1e-6)),
    calibration.VectorScaling(axis=np.int64(1), from_logits=np.bool_(True), use_bias=np.bool_(True)),
    calibration.MatrixScaling(off_diagonal=np.float32(0.5), intercept=np.int64(1)),
    calibration.DirichletCalibration(off_diagonal=np.float64(0.5), ignore_index=np.int64(7)),
    calibration.HistogramBinning(n_bins=np.int64(4), binary=np.bool_(False)),
    calibration.IsotonicCalibration(ignore_index=np.int16(7)),
    calibration.TemperatureScaling(from_logits=np.bool_(False), clip=np.float64(1e-6)),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("scaler", CALIBRATORS, ids=lambda scaler: type(scaler).__name__)
def test_calibrators_accept_and_save_numpy_numbers(scaler, tmp_path):
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(3), 80), rng.integers(0, 3, 80)
    scaler.fit(p, labels).save(tmp_path / "c.json")
    loaded = calibration.load(tmp_path / "c.json")
    np.testing.assert_array_equal(loaded.predict_proba(p), scaler.predict_proba(p))
    assert loaded.get_params() == scaler.get_params()


@pytest.mark.parametrize("value", [None, "4", 2.5, True])
def test_counts_are_integers(value):
    for name, call in (
        ("n_bins", lambda: metrics.expected_calibration_error(LABELS, P, n_bins=value)),
        ("k", lambda: metrics.top_k_accuracy(LABELS, P, k=value)),
        ("n_resamples", lambda: metrics.consistency_band(LABELS, P, n_resamples=value)),
        ("n_bins", lambda: metrics.CalibrationError(n_bins=value)),
        ("k", lambda: metrics.TopKAccuracy(k=value)),
        ("n_bins", lambda: calibration.HistogramBinning(n_bins=value).fit(P, LABELS)),
        ("max_iter", lambda: calibration.TemperatureScaling(max_iter=value).fit(P, LABELS)),
        ("max_iter", lambda: calibration.VectorScaling(max_iter=value).fit(P, LABELS)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            call()


@pytest.mark.parametrize("value", ["0.1", [0.1], 1j])
def test_numbers_are_numbers(value):
    for name, call in (
        ("bandwidth", lambda: metrics.smooth_calibration_error(LABELS, P, bandwidth=value)),
        ("confidence_level", lambda: metrics.consistency_band(LABELS, P, confidence_level=value)),
        ("temperature", lambda: analysis.teacher_entropy(P, temperature=value)),
        ("gamma", lambda: analysis.match_temperature(LABELS, P, value)),
        ("tol", lambda: calibration.VectorScaling(tol=value).fit(P, LABELS)),
        ("off_diagonal", lambda: calibration.MatrixScaling(off_diagonal=value).fit(P, LABELS)),
        ("bounds", lambda: calibration.TemperatureScaling(bounds=(value, 2.0)).fit(P, LABELS)),
        ("ignore_index", lambda: metrics.brier_score(LABELS, P, ignore_index=value)),
        ("ignore_index", lambda: metrics.BrierScore(ignore_index=value)),
        ("from_logits", lambda: metrics.brier_score(LABELS, P, from_logits=value)),
        ("binary", lambda: metrics.brier_score(LABELS, P, binary=value)),
        ("debias", lambda: metrics.expected_calibration_error(LABELS, P, norm="l2", debias=value)),
        ("axis", lambda: metrics.brier_score(LABELS, P, axis=value)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
            call()


@pytest.mark.parametrize("value", [None, "0.5", "abc"])
def test_arrays_of_objects_are_refused(value):
    for name, call in (
        ("predictions", lambda: metrics.brier_score(LABELS, value)),
        ("labels", lambda: metrics.brier_score(value, P)),
        ("labels", lambda: metrics.brier_score(value, P[:, 0], binary=True)),
        ("predictions", lambda: metrics.BrierScore().update_state(LABELS, value)),
        ("logits", lambda: calibration.TemperatureScaling().fit(value, LABELS)),
        ("labels", lambda: calibration.TemperatureScaling().fit(P, value)),
        ("labels", lambda: calibration.TemperatureScaling(binary=True).fit(P[:, 0], value)),
        ("logits", lambda: calibration.TemperatureScaling().fit(P, LABELS).transform(value)),
        ("logits", lambda: calibration.VectorScaling().fit(P, LABELS).predict_proba(value)),
        ("logits", lambda: calibration.apply_temperature(value, 2.0)),
        ("temperature", lambda: calibration.apply_temperature(P, value)),
        ("teacher_logits", lambda: analysis.teacher_entropy(value)),
        ("differences", lambda: analysis.mutual_information(value)),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name}.* must"):
            call()
    if value is not None:
        with pytest.raises((TypeError, ValueError), match="sample_weight must"):
            metrics.brier_score(LABELS, P, sample_weight=value)
        with pytest.raises((TypeError, ValueError), match="sample_weight must"):
            calibration.TemperatureScaling().fit(P, LABELS, value)
