"""Small eager arrays on a CPU are computed by NumPy, unless the framework watches them."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend

from lsmooth import metrics
from lsmooth.backends import Backend
from lsmooth.metrics import _inputs, brier_score, expected_calibration_error, negative_log_likelihood

LABELS, P = np.array([0, 2, 1, 2]), np.random.default_rng(0).dirichlet(np.ones(3), 4)
FUNCTIONS = [
    metrics.expected_calibration_error,
    metrics.maximum_calibration_error,
    metrics.adaptive_calibration_error,
    metrics.classwise_calibration_error,
    metrics.smooth_calibration_error,
    metrics.brier_score,
    metrics.negative_log_likelihood,
    metrics.top_k_accuracy,
    metrics.area_under_risk_coverage,
    metrics.brier_decomposition,
    metrics.reliability_curve,
    metrics.classwise_reliability_curve,
    metrics.risk_coverage_curve,
    metrics.consistency_band,
]


@pytest.mark.parametrize("small", [0, 2**20])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_result_has_the_framework_of_the_predictions(backend: Backend, monkeypatch, function, dtype, small):
    dtype = "float16" if backend.name == "numpy" and dtype == "bfloat16" else dtype  # which it has not
    monkeypatch.setattr(_inputs, "SMALL", small)
    labels, p = backend.asarray(LABELS), backend.asarray(P, dtype)
    expected = function(LABELS, backend.to_numpy(p).astype(np.float64 if dtype == "float64" else np.float32))
    got, expected = ((x,) if not isinstance(x, tuple) else x for x in (function(labels, p), expected))
    for x, y in zip(got, expected, strict=True):
        assert backend.is_array(x)
        assert backend.dtype(x) == ("float64" if dtype == "float64" else "float32")
        assert_close(backend, x, y, backend.dtype(x))


def by_way_of(monkeypatch, backend: Backend) -> list[str]:
    """The backends that metrics compute in from now on."""
    ways = []
    top_label = _inputs.top_label
    monkeypatch.setattr(
        "lsmooth.metrics._tables.top_label", lambda inputs: ways.append(inputs.xp.name) or top_label(inputs)
    )
    return ways


def test_small_batches_are_computed_in_numpy(backend: Backend, monkeypatch):
    ways = by_way_of(monkeypatch, backend)
    labels, p = backend.asarray(LABELS), backend.asarray(P)
    monkeypatch.setattr(_inputs, "SMALL", P.size)
    expected_calibration_error(labels, p, sample_weight=backend.asarray(np.ones(4)))
    monkeypatch.setattr(_inputs, "SMALL", P.size - 1)
    expected_calibration_error(labels, p)
    monkeypatch.setattr(type(backend), "host_values", lambda self, x: None)
    monkeypatch.setattr(_inputs, "SMALL", P.size)
    expected_calibration_error(labels, p)
    assert ways == ["numpy", backend.name, backend.name]


@pytest.mark.parametrize("function", [brier_score, negative_log_likelihood, expected_calibration_error])
def test_gradients_flow_through(differentiable_backend: Backend, function):
    xp = differentiable_backend
    _, gradient = xp.value_and_grad(lambda p: function(xp.asarray(LABELS), p), xp.asarray(P))
    expected = np.zeros_like(P)
    for index in np.ndindex(P.shape):
        step = np.zeros_like(P)
        step[index] = 1e-6
        expected[index] = (function(LABELS, P + step) - function(LABELS, P - step)) / 2e-6
    np.testing.assert_allclose(xp.to_numpy(gradient), expected, rtol=1e-4, atol=1e-6)


def test_weights_get_a_gradient(differentiable_backend: Backend):
    xp = differentiable_backend

    def of_weights(w):
        return brier_score(xp.asarray(LABELS), xp.asarray(P), sample_weight=w)

    _, gradient = xp.value_and_grad(of_weights, xp.asarray(np.array([1.0, 2.0, 0.5, 1.0])))
    assert np.abs(xp.to_numpy(gradient)).min() > 0


def test_torch_maps_and_differentiates_it_forward():
    require_backend("torch")
    import torch

    labels, p = torch.from_numpy(np.stack([LABELS, LABELS])), torch.from_numpy(np.stack([P, P[::-1].copy()]))
    mapped = torch.func.vmap(brier_score)(labels, p)
    np.testing.assert_allclose(mapped.numpy(), [float(brier_score(y, z)) for y, z in zip(labels, p, strict=True)])
    value, tangent = torch.func.jvp(lambda z: brier_score(labels[0], z), (p[0],), (torch.ones_like(p[0]),))
    assert float(value) == pytest.approx(float(mapped[0]))
    assert float(tangent) != 0
    compiled = torch.compile(brier_score, backend="eager", fullgraph=True)
    assert float(compiled(labels[0], p[0])) == pytest.approx(float(mapped[0]))


def test_jax_traces_labels_alone():
    require_backend("jax")
    import jax

    p = jax.numpy.asarray(P)
    traced = jax.jit(lambda labels: brier_score(labels, p))(LABELS)
    assert float(traced) == pytest.approx(float(brier_score(LABELS, P)))


def test_tensorflow_differentiates_it_forward():
    require_backend("tensorflow")
    import tensorflow as tf

    p = tf.constant(P)
    with tf.autodiff.ForwardAccumulator(p, tf.ones_like(p)) as accumulator:
        value = brier_score(tf.constant(LABELS), p)
    assert float(accumulator.jvp(value)) != 0
