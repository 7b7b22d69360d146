"""Facts about metrics of more rows than a running float32 sum can count, with and without float64."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import analysis, calibration, metrics
from lsmooth._sums import bin_totals, long_sum
from lsmooth.backends import Backend

ROWS = 2**21


@pytest.fixture(autouse=True)
def single_precision(backend: Backend) -> Iterator[None]:
    """JAX with its default of no float64."""
    with contextlib.ExitStack() as stack:
        if backend.name == "jax":
            import jax

            stack.enter_context(jax.enable_x64(False))
        yield


def drawn(kind: str, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    spread = (0.51 + 0.49 * rng.random(rows)).astype(np.float32)
    confidence = np.full(rows, 0.95, np.float32) if kind == "constant" else spread
    return (rng.random(rows) < 0.9 * confidence).astype(np.int32), confidence


def compiled(backend: Backend, function: Callable) -> Callable:
    """``function`` as one program, where the framework has such."""
    if backend.name == "jax":
        import jax

        return jax.jit(function)
    if backend.name == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def error_of_confidence(labels: np.ndarray, confidence: np.ndarray) -> float:
    index = np.ceil(confidence * np.float32(15)).astype(int) - 1
    gap = np.bincount(index, labels - confidence.astype(np.float64), 15)
    return float(np.abs(gap).sum() / len(labels))


@pytest.mark.parametrize("way", ["eager", "compiled", "streamed"])
@pytest.mark.parametrize("kind", ["constant", "spread"])
def test_the_calibration_error_of_millions_of_rows_is_exact(backend: Backend, kind, way):
    labels, confidence = drawn(kind)
    y, p = backend.asarray(labels), backend.asarray(confidence)
    if way == "streamed":
        metric = metrics.CalibrationError(binary=True)
        for _ in range(2):
            metric.update_state(y, p)
        got = metric.result()
    else:
        call: Callable = lambda y, p: metrics.expected_calibration_error(y, p, binary=True)  # noqa: E731
        call = compiled(backend, call) if way == "compiled" else call
        got = float(backend.to_numpy(call(y, p)))
    np.testing.assert_allclose(got, error_of_confidence(labels, confidence), rtol=1e-6)


@pytest.mark.parametrize("name", ["brier_score", "negative_log_likelihood"])
def test_scores_of_millions_of_rows_are_exact(backend: Backend, name):
    labels, p = drawn("constant")
    call = compiled(backend, lambda y, p: getattr(metrics, name)(y, p, binary=True))
    got = float(backend.to_numpy(call(backend.asarray(labels), backend.asarray(p))))
    p = p.astype(np.float64)
    of_label = np.where(labels == 1, p, 1 - p)
    expected = {"brier_score": 2 * (1 - of_label) ** 2, "negative_log_likelihood": -np.log(of_label)}[name].mean()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_the_entropy_of_millions_of_rows_is_exact(backend: Backend):
    logits = np.zeros((ROWS, 2), np.float32)
    logits[:, 0] = 1.0
    got = compiled(backend, analysis.teacher_entropy)(backend.asarray(logits))
    p = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(float(backend.to_numpy(got)), -p * np.log(p) - (1 - p) * np.log(1 - p), rtol=1e-6)


def test_a_temperature_of_many_rows_on_a_device_is_exact(backend: Backend, monkeypatch):
    monkeypatch.setattr(type(backend), "host_values", lambda self, x: None)
    labels, confidence = drawn("spread", 2**20)
    logits = np.log(confidence / (1 - np.minimum(confidence, 0.999)))
    got = calibration.TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(labels))
    expected = calibration.TemperatureScaling(binary=True).fit(logits.astype(np.float64), labels)
    np.testing.assert_allclose(got.temperature_, expected.temperature_, rtol=1e-6)
    np.testing.assert_allclose(got.nll_after_, expected.nll_after_, rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 2, 1023, 1024, 1025, 5000])
def test_pairwise_sums_match_float64(rows):
    require_backend("jax")
    import jax

    from lsmooth.backends import load_backend

    xp = load_backend("jax")
    rng = np.random.default_rng(rows)
    values = (rng.standard_normal((rows, 3)) * 10.0 ** rng.uniform(-4, 4, (rows, 3))).astype(np.float32)
    index = rng.integers(0, 7, (rows, 3))
    with jax.enable_x64(False):
        total = bin_totals(xp, jax.numpy.asarray(index, "int32"), jax.numpy.asarray(values), 7)
        whole = long_sum(xp, jax.numpy.asarray(values))
    expected = np.bincount(index.ravel(), values.ravel().astype(np.float64), 7)
    got = np.asarray(total.high, np.float64) + np.asarray(total.low, np.float64)
    scale = np.abs(values).astype(np.float64).sum() + 1e-30
    assert np.abs(got - expected).max() <= 1e-10 * scale
    assert abs(float(whole) - values.sum(dtype=np.float64)) <= 1e-7 * abs(values.sum(dtype=np.float64))


def test_an_infinite_sum_stays_infinite(backend: Backend):
    labels, p = np.array([0, 1, 1], np.int32), np.array([0.0, 0.0, 1.0], np.float32)
    call = compiled(backend, lambda y, p: metrics.negative_log_likelihood(y, p, binary=True))
    assert float(backend.to_numpy(call(backend.asarray(labels), backend.asarray(p)))) == np.inf
