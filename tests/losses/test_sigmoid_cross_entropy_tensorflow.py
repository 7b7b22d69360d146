"""The sigmoid cross-entropy with its gradient in closed form on TensorFlow, against the formula it stands for."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy  # noqa: E402

LOGITS = np.array([[-40.0, -2.0, 0.0], [0.5, 3.0, 40.0], [-800.0, 0.0, 800.0]])
LABELS = np.array([[0.0, 1.0, 0.3], [0.7, 0.0, 1.0], [0.0, 0.5, 1.0]])
WRAPPED = pytest.mark.parametrize("wrap", [lambda f: f, tf.function, tf.function(jit_compile=True)])


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def formula(labels, logits):
    return formulas.sigmoid_cross_entropy(load_backend("tensorflow"), logits, labels)


def ours(labels, logits):
    return sigmoid_cross_entropy(labels, logits, reduction="none")


def derivatives(loss, labels, logits):
    """Values, gradients in logits and labels, and the second derivative in the logits."""
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as tape:
            tape.watch([labels, logits])
            losses = loss(labels, logits)
        of_labels, of_logits = tape.gradient(losses, [labels, logits])
    return losses, of_labels, of_logits, outer.gradient(of_logits, logits)


@WRAPPED
def test_values_and_derivatives(wrap, monkeypatch):
    expected = derivatives(formula, tf.constant(LABELS), tf.constant(LOGITS))
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", None)
    found = wrap(lambda y, z: derivatives(ours, y, z))(tf.constant(LABELS), tf.constant(LOGITS))
    for actual, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-13, atol=0)


@WRAPPED
def test_infinite_logits(wrap):
    logits, labels = [-np.inf, np.inf, -np.inf, np.inf], [0.0, 1.0, 1.0, 0.0]
    found = wrap(lambda y, z: derivatives(ours, y, z))(tf.constant(labels), tf.constant(logits))
    np.testing.assert_array_equal(found[0], [0.0, 0.0, np.inf, np.inf])
    np.testing.assert_array_equal(found[2], [0.0, 0.0, -1.0, 1.0])


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_precision(dtype):
    z, y = tf.cast(LOGITS[:2], dtype), tf.constant(LABELS[:2], tf.float32)
    value, _, slope, _ = derivatives(ours, y, z)
    assert (value.dtype, slope.dtype) == (tf.float32, dtype)
    exact = derivatives(formula, tf.cast(y, tf.float64), tf.cast(z, tf.float64))
    np.testing.assert_allclose(value, exact[0], rtol=1e-6)
    np.testing.assert_allclose(
        tf.cast(slope, tf.float64), exact[2], rtol=1e-6 if dtype == tf.float32 else 1e-2, atol=1e-7
    )
