"""Intervals of metrics hold the metric, cover the truth, and do not depend on how predictions are given."""

from __future__ import annotations

import metric_reference as reference
import numpy as np
import pytest

from lsmooth import metrics
from lsmooth.backends import load_backend
from lsmooth.metrics._intervals import bootstrap_interval

METRICS = {
    "expected": (metrics.expected_calibration_error, {"n_bins": 10}),
    "expected_l2": (metrics.expected_calibration_error, {"norm": "l2"}),
    "debiased": (metrics.expected_calibration_error, {"norm": "l2", "debias": True}),
    "netcal": (metrics.expected_calibration_error, {"convention": "netcal"}),
    "maximum": (metrics.maximum_calibration_error, {"n_bins": 5}),
    "adaptive": (metrics.adaptive_calibration_error, {"n_bins": 5}),
    "classwise": (metrics.classwise_calibration_error, {"n_bins": 5}),
    "brier": (metrics.brier_score, {}),
    "likelihood": (metrics.negative_log_likelihood, {}),
    "risk_coverage": (metrics.area_under_risk_coverage, {}),
}


def drawn(rows: int, temperature: float, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that are right at that temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    return (logits / temperature + rng.gumbel(size=logits.shape)).argmax(-1), logits


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_bootstrap_interval_holds_its_value(name, temperature):
    metric, options = METRICS[name]
    for seed in range(12):
        for rows in (1, 20, 200):
            labels, logits = drawn(rows, temperature, seed)
            value, low, high = metrics.metric_interval(
                metric, labels, logits, from_logits=True, n_resamples=12, seed=seed, **options
            )
            assert value == float(metric(labels, logits, from_logits=True, **options))
            assert 0 <= low <= value <= high, (seed, rows)


@pytest.mark.parametrize("temperature", [1.0, 1.3, 3.0])
@pytest.mark.parametrize("name", ["expected", "brier", "likelihood"])
def test_a_bootstrap_interval_covers_the_truth_as_often_as_it_says(name, temperature):
    metric, options = METRICS[name]
    truth = float(metric(*drawn(50_000, temperature, 1000), from_logits=True, **options))
    intervals = [
        metrics.metric_interval(
            metric, *drawn(200, temperature, seed), from_logits=True, n_resamples=40, confidence_level=0.9, **options
        )
        for seed in range(40)
    ]
    covered = np.mean([low <= truth <= high for _, low, high in intervals])
    assert 0.78 <= covered <= 1.0
    # Three standard deviations would cover it too; the interval must not be wider than needed.
    spread = np.std([value for value, _, _ in intervals])
    assert np.mean([high - low for _, low, high in intervals]) < 6 * spread


@pytest.mark.parametrize("name", ["expected", "maximum", "classwise", "brier", "likelihood", "risk_coverage"])
@pytest.mark.parametrize("method", ["bootstrap", "consistency"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_logits_and_their_probabilities_have_one_interval(backend, name, method, axis):
    metric, options = METRICS[name]
    labels, logits = drawn(40, 2.0, 0)
    labels[3] = -1
    options = {**options, "n_resamples": 6, "method": method, "axis": axis, "ignore_index": -1}
    p = reference.softmax(logits)
    if axis == 1:
        labels, logits, p = labels.reshape(8, 5), *(x.reshape(8, 5, 3).transpose(0, 2, 1) for x in (logits, p))
    labels, logits, p = (backend.asarray(x) for x in (labels, logits, p))
    got = metrics.metric_interval(metric, labels, logits, from_logits=True, **options)
    np.testing.assert_allclose(got, metrics.metric_interval(metric, labels, p, **options), rtol=1e-9)


def test_logits_of_yes_or_no_have_the_interval_of_their_probabilities():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 100)
    p = 1 / (1 + np.exp(-logits))
    labels = (rng.random(100) < p).astype(int)
    options = {"binary": True, "n_resamples": 20}
    got = metrics.metric_interval(metrics.expected_calibration_error, labels, logits, from_logits=True, **options)
    expected = metrics.metric_interval(metrics.expected_calibration_error, labels, p, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["expected", "brier", "risk_coverage"])
def test_probabilities_of_logits_are_computed_once(monkeypatch, name):
    metric, options = METRICS[name]
    given = []

    def watched(labels, predictions, *, from_logits=False, **more):
        given.append(from_logits)
        return metric(labels, predictions, from_logits=from_logits, **more)

    metrics.metric_interval(watched, *drawn(50, 1.0, 0), from_logits=True, n_resamples=5, **options)
    assert given == [True] + [False] * 5


@pytest.mark.parametrize("method", ["bootstrap", "consistency"])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("name", [*METRICS, "smooth", "top_k"])
def test_draws_of_prepared_rows_are_draws_of_the_arrays(backend, name, from_logits, method):
    others = {"smooth": (metrics.smooth_calibration_error, {}), "top_k": (metrics.top_k_accuracy, {"k": 2})}
    metric, options = (METRICS | others)[name]
    labels, logits = drawn(60, 2.0, 0, classes=4)
    labels[[3, 50]] = -1
    weight = np.random.default_rng(1).integers(0, 3, 60)
    from_logits = from_logits and (name != "top_k" or method == "bootstrap")  # labels are drawn from probabilities
    predictions = logits if from_logits else reference.softmax(logits)
    options = {**options, "sample_weight": backend.asarray(weight), "ignore_index": -1}
    options = options if name == "top_k" else {**options, "from_logits": from_logits}
    arguments = backend.asarray(labels), backend.asarray(predictions)
    more = {"method": method, "n_resamples": 5, **options}
    got = metrics.metric_interval(metric, *arguments, **more)
    np.testing.assert_allclose(got, metrics.metric_interval(lambda *x, **y: metric(*x, **y), *arguments, **more), 1e-9)


@pytest.mark.parametrize("name", ["expected", "likelihood", "brier", "classwise", "risk_coverage"])
def test_draws_of_rows_reuse_the_sums_over_classes(monkeypatch, name):
    metric, options = METRICS[name]
    passes = []
    for function in ("max", "top", "logsumexp", "exp", "pick"):
        original = getattr(load_backend("numpy"), function)
        counted = lambda *x, f=original, **y: passes.append(1) or f(*x, **y)  # noqa: E731
        monkeypatch.setattr(load_backend("numpy"), function, counted)
    counts = []
    for n in (1, 9):
        metrics.metric_interval(metric, *drawn(30, 1.0, 0), from_logits=True, n_resamples=n, **options)
        counts.append(len(passes))
        passes.clear()
    assert counts[0] == counts[1] > 0


def test_a_likelihood_of_logits_far_apart_stays_finite():
    labels, logits = drawn(50, 1.0, 0)
    value, low, high = metrics.metric_interval(
        metrics.negative_log_likelihood, labels, 1000 * logits, from_logits=True, n_resamples=20
    )
    assert 0 <= low < value < high < np.inf


def test_an_infinite_metric_has_an_interval_up_to_infinity():
    p = np.full((40, 2), 0.5)
    p[7] = 0.0, 1.0
    value, low, high = metrics.metric_interval(metrics.negative_log_likelihood, np.zeros(40, int), p, n_resamples=50)
    assert (value, high) == (np.inf, np.inf)
    assert low == pytest.approx(np.log(2))


@pytest.mark.parametrize("integer", [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_options_of_an_interval_may_be_numpy_numbers(integer, number):
    labels, logits = drawn(30, 1.0, 0)
    options = {"from_logits": True, "confidence_level": 0.75}
    expected = metrics.metric_interval(metrics.brier_score, labels, logits, n_resamples=7, seed=3, **options)
    options["confidence_level"] = number(0.75)
    got = metrics.metric_interval(
        metrics.brier_score, labels, logits, n_resamples=integer(7), seed=integer(3), axis=integer(1), **options
    )
    assert got == expected


def test_the_bias_of_the_draws_is_removed():
    draws = 0.06 + 0.01 * np.random.default_rng(0).normal(size=400)
    _, low, high = bootstrap_interval(0.04, draws, 0.95, least=0.0)
    assert low == 0  # a metric that is only bias may be that of a calibrated model
    assert high == pytest.approx(0.04 + 1.96 * 0.01, abs=0.003)
    half = bootstrap_interval(0.04, draws, 0.95, least=0.0, center=0.05, narrowing=0.5)
    assert half.high == pytest.approx(0.04 + 1.96 * 0.005, abs=0.002)
    assert half.low == pytest.approx(0.04 - 1.96 * 0.005 - 0.5 * 2.414 * 0.01, abs=0.002)


@pytest.mark.parametrize("value", [0.02, 0.5, 0.99])
def test_an_unbiased_metric_keeps_the_percentiles_of_its_draws(value):
    draws = value + 0.01 * np.linspace(-1, 1, 101)
    low, high = np.quantile(draws, [0.05, 0.95])
    np.testing.assert_allclose(bootstrap_interval(value, draws, 0.9, least=0.0), (value, low, high), atol=1e-12)
