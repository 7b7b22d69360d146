"""The log-odds of labels on TensorFlow, on both sides of the switch to XLA."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas  # noqa: E402
from lsmooth.backends.tensorflow import log_odds, thresholds  # noqa: E402
from lsmooth.losses import softmax_focal_loss  # noqa: E402

LABELS = np.array([0, 3, 2, 4, 7, 1])
WAYS = pytest.mark.parametrize("way", ["eager", "graph", "XLA"])


@pytest.fixture
def backend():
    return require_backend("tensorflow")


@pytest.fixture(params=[True, False], ids=["compiled", "direct"])
def calls(request, monkeypatch):
    """The programs that XLA compiled; none for small logits."""
    found = []
    if request.param:
        monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 1)
        monkeypatch.setattr(thresholds, "COMPILE_AFTER", 0)
    compiled = log_odds.compiled
    monkeypatch.setattr(log_odds, "compiled", lambda f: found.append(f.__name__) or compiled(f))
    return found, request.param


def logits(dtype="float64"):
    z = np.random.default_rng(0).normal(0.0, 3.0, (6, 5))
    z[1, 3], z[2] = 60.0, [-np.inf, -np.inf, 1.0, -np.inf, -np.inf]
    z[5, 2] = -np.inf
    return tf.constant(z, dtype)


def run(way, function):
    return function if way == "eager" else tf.function(function, jit_compile=way == "XLA")


def value_and_slopes(function, z):
    """The values, their gradient, and the gradient of the sum of its sines."""
    with tf.GradientTape() as second:
        second.watch(z)
        with tf.GradientTape() as first:
            first.watch(z)
            value = function(z)
        slope = first.gradient(value, z)
        bent = tf.reduce_sum(tf.sin(slope))
    return value, slope, second.gradient(bent, z)


@WAYS
def test_values_and_derivatives(backend, calls, way):
    z, labels = logits(), tf.constant(LABELS)
    keep = [0, 1, 3, 5]  # alone, or out of range, a label has no slope to compare

    def both(z):
        return value_and_slopes(lambda z: log_odds.label_log_odds(backend, z, labels), z)

    ours = run(way, both)(z)
    theirs = value_and_slopes(lambda z: formulas.label_log_odds(backend, z, labels), z)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    assert np.isinf(ours[0][2])
    assert np.isnan(ours[0][4])
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(a.numpy()[keep], b.numpy()[keep], rtol=1e-10, atol=1e-14)
    found, compiles = calls
    assert set(found) == ({"value", "gradient"} if compiles else set())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_gradient_has_the_type_of_the_logits(backend, calls, dtype):
    z, labels = logits(dtype)[:2], LABELS[:2]
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = softmax_focal_loss(labels, z)
    with tf.GradientTape() as exact:
        wide = tf.cast(z, tf.float64)
        exact.watch(wide)
        expected = softmax_focal_loss(labels, wide)
    slope = tape.gradient(value, z)
    assert slope.dtype == z.dtype
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(
        slope, exact.gradient(expected, wide), rtol=2e-3 if dtype == "float16" else 1e-5, atol=1e-7
    )
