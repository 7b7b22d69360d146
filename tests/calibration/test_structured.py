"""Facts about structured scaling and the mixed temperature, held to their objectives and to probmetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from conftest import assert_close
from likelihood import drawn

from lsmooth.backends import Backend
from lsmooth.calibration import (
    DirichletCalibration,
    MixedTemperatureScaling,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
)

pytest.importorskip("scipy", reason="scipy is not installed")
KINDS = [StructuredVectorScaling, StructuredMatrixScaling]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def shifted(rows: int = 400, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = drawn(rows, classes)
    return 3.0 * logits + np.arange(classes), labels


def features(scaler, logits: np.ndarray, count: float) -> np.ndarray:
    p = softmax(logits / scaler.temperature_)
    return np.log((1.0 - 1.0 / (count + 1.0)) * p + 1.0 / (count + 1.0) / logits.shape[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"rho": 0.5, "tau": 0.8, "diagonal": 3.0, "intercept": 0.5}])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_gradient_of_the_penalised_likelihood_is_zero(backend: Backend, kind, options, dtype):
    logits, labels = shifted()
    weight = np.random.default_rng(1).integers(0, 3, len(labels)).astype(float)
    n, k = weight.sum(), logits.shape[1]
    scaler = kind(tol=1e-7, **options).fit(*(backend.asarray(x) for x in (logits.astype(dtype), labels, weight)))
    assert scaler.status_ == "converged"
    np.testing.assert_allclose(scaler.temperature_, TemperatureScaling().fit(logits, labels, weight).temperature_, 1e-5)
    x = features(scaler, logits, n)
    matrix = np.diag(scaler.weight_) if kind is StructuredVectorScaling else scaler.weight_
    residual = (softmax(x @ matrix.T + scaler.bias_) - np.eye(k)[labels]) * weight[:, None] / n
    strength = k ** options.get("rho", 1.0) / n ** options.get("tau", 1.0)
    mixing = (k * (k - 1)) ** options.get("rho", 1.0) / n ** options.get("tau", 1.0)
    penalty = np.where(np.eye(k, dtype=bool), strength * options.get("diagonal", 1.0), mixing)
    slope = residual.T @ x + 2.0 * penalty * (matrix - np.eye(k))
    slope = np.diag(slope) if kind is StructuredVectorScaling else slope
    bias_slope = residual.sum(axis=0) + 2.0 * strength * options.get("intercept", 1.0) * scaler.bias_
    np.testing.assert_allclose(np.concatenate([slope.ravel(), bias_slope]), 0.0, atol=5e-6)
    expected = softmax(x @ matrix.T + scaler.bias_)
    got = scaler.predict_proba(backend.asarray(logits))
    assert_close(backend, got, expected, "float64", factor=1e3)
    moved = backend.to_numpy(scaler.transform(backend.asarray(logits)))
    np.testing.assert_allclose(softmax(moved), expected, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_classes_stay_masked_and_few_rows_stay_near_the_temperature(kind):
    logits, labels = shifted(40)
    logits[:, 3] = -np.inf
    labels = np.where(labels == 3, 0, labels)
    p = kind().fit(logits, labels).predict_proba(logits)
    assert (p[:, 3] == 0).all()
    strict = kind(diagonal=1e9, intercept=1e9, **({"off_diagonal": 1e9} if kind is StructuredMatrixScaling else {}))
    logits, labels = shifted(40)
    expected = MixedTemperatureScaling().fit(logits, labels).predict_proba(logits)
    np.testing.assert_allclose(strict.fit(logits, labels).predict_proba(logits), expected, atol=1e-6)


@pytest.mark.parametrize("rows", [300, 3000])
@pytest.mark.parametrize("name", ["ts-mix", "svs", "sms"])
def test_results_match_probmetrics(name, rows):
    peer = pytest.importorskip("probmetrics.calibrators", reason="the other library")
    kind = {"ts-mix": MixedTemperatureScaling, "svs": StructuredVectorScaling, "sms": StructuredMatrixScaling}[name]
    logits, labels = shifted(2 * rows, 6)
    p = softmax(logits)
    theirs = peer.get_calibrator(name).fit(p[:rows], labels[:rows]).predict_proba(p[rows:])
    ours = kind().fit(logits[:rows], labels[:rows]).predict_proba(logits[rows:])
    picked = np.arange(rows), labels[rows:]
    assert -np.log(ours[picked]).mean() < -np.log(theirs[picked]).mean() + 1e-4


@pytest.mark.parametrize("binary", [False, True])
def test_a_mixture_is_the_temperature_and_a_share_of_the_uniform_distribution(backend: Backend, binary):
    logits, labels = drawn(50, 3)
    if binary:
        logits, labels = logits[:, 0], (labels == 0).astype(int)
    weight = np.full(50, 0.5)
    scaler = MixedTemperatureScaling(binary=binary)
    scaler.fit(*(backend.asarray(x) for x in (logits, labels, weight)))
    plain = TemperatureScaling(binary=binary).fit(logits, labels)
    np.testing.assert_allclose([scaler.mixture_, scaler.temperature_], [1 / 26, plain.temperature_], rtol=1e-6)
    expected = 25 / 26 * plain.predict_proba(logits) + 1 / 26 / (2 if binary else 3)
    assert_close(backend, scaler.predict_proba(backend.asarray(logits)), expected, "float64", 1e9)
    moved = backend.to_numpy(scaler.transform(backend.asarray(logits)))
    np.testing.assert_allclose(1 / (1 + np.exp(-moved)) if binary else softmax(moved), expected, rtol=1e-5)
    halves = [MixedTemperatureScaling(binary=binary).partial_fit(logits[i::2], labels[i::2]) for i in (0, 1)]
    assert halves[0].merge_state(halves[1]).mixture_ == 1 / 51


def test_float32_logits_of_many_classes_have_the_fit_of_float64():
    logits, labels = shifted(300, 60)
    fine, coarse = (StructuredMatrixScaling().fit(logits.astype(dtype), labels) for dtype in ("float64", "float32"))
    assert fine.status_ == coarse.status_ == "converged"
    np.testing.assert_allclose(coarse.nll_after_, fine.nll_after_, rtol=1e-6)
    np.testing.assert_allclose(coarse.weight_, fine.weight_, atol=1e-4)


def test_dirichlet_calibration_of_many_classes_converges():
    rng = np.random.default_rng(0)
    logits = 5.0 * rng.standard_normal((1500, 20))
    labels = (logits / 2.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*overfit")
        scaler = DirichletCalibration(max_iter=100).fit(logits, labels)
    assert scaler.status_ == "converged"
