"""Binary labels are 0 or 1, of any dtype."""

from __future__ import annotations

import numpy as np
import pytest

import lsmooth
from lsmooth import metrics
from lsmooth.backends import Backend

pytestmark = pytest.mark.usefixtures("memory")

P = np.array([0.9, 0.2, 0.6, 0.7])
FUNCTIONS = [
    metrics.expected_calibration_error,
    metrics.maximum_calibration_error,
    metrics.smooth_calibration_error,
    metrics.brier_score,
    metrics.negative_log_likelihood,
    metrics.classwise_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.area_under_risk_coverage,
]
TABLES = [
    metrics.reliability_curve,
    metrics.classwise_reliability_curve,
    metrics.consistency_band,
    metrics.brier_decomposition,
    metrics.risk_coverage_curve,
]
BY_CLASS_1 = [metrics.corp_reliability_curve, metrics.corp_decomposition]
STREAMS = [metrics.CalibrationError, metrics.BrierScore, metrics.NegativeLogLikelihood]


def streamed(kind, labels, p, **options):
    metric = kind(binary=True, **options)
    metric.update_state(labels, p)
    return metric.result()


def results(backend: Backend, labels: np.ndarray, dtype: str, **options) -> list[float]:
    y, p = backend.asarray(labels, dtype), backend.asarray(P)
    functions = [float(backend.to_numpy(f(y, p, binary=True, **options))) for f in FUNCTIONS]
    return functions + [streamed(kind, y, p, **options) for kind in STREAMS]


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float32", "float64", "float16"])
def test_the_dtype_of_the_labels_does_not_matter(backend: Backend, dtype):
    labels = np.array([1, 0, 0, 1])
    np.testing.assert_allclose(results(backend, labels, dtype), results(backend, labels, "int64"))


@pytest.mark.parametrize("label", [0.9, 0.5, 1.5, -1.0, 2.0, 255.0, np.nan, np.inf, 1e30])
def test_a_label_that_is_neither_0_nor_1_gives_nan(backend: Backend, label):
    labels = np.array([1.0, 0.0, label, 1.0])
    assert np.isnan(results(backend, labels, "float64")).all()
    with lsmooth.validate():
        for function in FUNCTIONS:
            with pytest.raises(ValueError, match=r"labels must be 0 or 1 where binary=True, got .* at index"):
                function(backend.asarray(labels), backend.asarray(P), binary=True)


@pytest.mark.parametrize("ignored", [-100, 2, 255])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_ignored_labels_of_any_dtype_do_not_count(backend: Backend, dtype, ignored):
    labels = np.array([1, 0, ignored, 1])
    with lsmooth.validate():
        got = results(backend, labels, dtype, ignore_index=ignored)
    expected = [float(f(labels[[0, 1, 3]], P[[0, 1, 3]], binary=True)) for f in FUNCTIONS]
    expected += [streamed(kind, labels[[0, 1, 3]], P[[0, 1, 3]]) for kind in STREAMS]
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_a_probability_and_two_classes_have_the_same_scores(backend: Backend):
    given = np.array([0.91, 0.22, 0.58, 0.71])  # none near an edge of a bin
    labels, two = np.array([1, 0, 0, 1]), np.stack([1 - given, given], axis=1)
    for function in [*FUNCTIONS, *TABLES]:
        if function is metrics.smooth_calibration_error:  # which bins the probability of class 1
            continue
        expected = function(labels, two)
        for options, p in (({}, given), ({}, given[:, None]), ({"from_logits": True}, np.log(given / (1 - given)))):
            got = function(backend.asarray(labels), backend.asarray(p), binary=True, **options)
            for x, y in zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]:
                np.testing.assert_allclose(backend.to_numpy(x), y, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_explanation_has_the_error_of_each_convention(backend: Backend, from_logits):
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(200), [0.5, 1.0, 1.0, 0.2, 0.0]]) if not from_logits else rng.random(200)
    labels = (rng.random(len(p)) < p).astype(int)
    given = np.log(p / (1 - p)) if from_logits else p
    options = {"binary": True, "from_logits": from_logits, "n_bins": 10}
    explanation = metrics.explain_difference(backend.asarray(labels), backend.asarray(given), **options)
    for name, error in explanation.errors.items():
        expected = metrics.expected_calibration_error(labels, given, convention=name, **options)
        assert error == pytest.approx(float(expected), rel=1e-9)
    assert any("torchmetrics, netcal, sklearn, relplot judge P(class 1)" in reason for reason in explanation.reasons)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (4, 1)])
def test_a_missing_binary_option_is_named(backend: Backend, shape):
    labels, p = np.array([1, 0, 0, 1]).reshape(shape), P.reshape(shape)
    for function in [*FUNCTIONS, *TABLES, *BY_CLASS_1, metrics.explain_difference]:
        with pytest.raises(ValueError, match=r"labels must be class ids.*give binary=True"):
            function(backend.asarray(labels), backend.asarray(p))
    for kind in STREAMS:
        with pytest.raises(ValueError, match=r"labels must be class ids.*give binary=True"):
            kind().update_state(backend.asarray(labels), backend.asarray(p))
    with pytest.raises(ValueError, match="stack 1 - p and p as two classes"):
        metrics.top_k_accuracy(backend.asarray(labels), backend.asarray(p))


def test_a_column_beside_labels_without_one_is_an_error_that_names_it(backend: Backend):
    labels, p = backend.asarray(np.array([1, 0, 0, 1])), backend.asarray(P[:, None])
    for function in [*FUNCTIONS, *TABLES, *BY_CLASS_1, metrics.explain_difference]:
        with pytest.raises(ValueError, match=r"at least two classes, got shape \(4, 1\).*give binary=True"):
            function(labels, p)
    for kind in STREAMS:
        with pytest.raises(ValueError, match=r"at least two classes.*give binary=True"):
            kind().update_state(labels, p)
    with pytest.raises(ValueError, match="Stack 1 - p and p as two classes"):
        metrics.top_k_accuracy(labels, p)
