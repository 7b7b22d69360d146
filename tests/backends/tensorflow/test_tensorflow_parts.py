"""Rows long enough for XLA's reductions to be taken in parts, and those just too short, on TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends.tensorflow.thresholds import ROW_PARTS as PARTS  # noqa: E402
from lsmooth.distillation import distillation_loss  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

ROWS = 6
LEAST = PARTS * PARTS
CLASSES = pytest.mark.parametrize("classes", [LEAST - 1, LEAST, LEAST + 1, LEAST + PARTS, 2 * LEAST + PARTS - 1])
DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-6), ("float16", 2e-3)])


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def example(classes, dtype, masked):
    """Logits of a teacher and a student, rounded to the dtype, the largest and the masked ones in different parts."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(0.0, 3.0, (2, ROWS, classes))
    logits[:, 0, -1] = logits[:, 1, 0] = 9.0
    if masked:
        logits[:, :, 1::5] = -np.inf
        logits[:, 2, : classes // 2] = -np.inf
    return np.array([0, 0, classes - 1, 5, 10, classes - 2]), logits.astype(dtype)


def value_and_gradient(loss, logits):
    @tf.function(jit_compile=True)
    def both(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(z)
        return value, tape.gradient(value, z)

    return (x.numpy() for x in both(tf.constant(logits)))


@CLASSES
@DTYPES
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"label_smoothing": 0.1, "temperature": 2.0, "ignore_index": 5}], ids=str
)
@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy(classes, dtype, tolerance, options, masked):
    labels, (logits, _) = example(classes, dtype, masked)
    value, gradient = value_and_gradient(lambda z: softmax_cross_entropy(labels, z, **options), logits)
    expected, slope = reference.softmax_cross_entropy(labels, logits.astype(np.float64), **options)
    np.testing.assert_allclose(value, expected, rtol=min(tolerance, 1e-5))
    np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=tolerance / 10)


@CLASSES
@DTYPES
@pytest.mark.parametrize("masked", [False, True])
def test_forward_kl(classes, dtype, tolerance, masked):
    labels, (teacher, student) = example(classes, dtype, masked)
    mask = labels != 5
    value, gradient = value_and_gradient(
        lambda z: distillation_loss(tf.constant(teacher), z, temperature=2.0, mask=mask, reduction="sum"), student
    )
    t, s = (z.astype(np.float64)[mask] / 2.0 for z in (teacher, student))
    log_t, log_s = (z - reference.logsumexp(z)[:, None] for z in (t, s))
    expected = 4.0 * np.where(np.isfinite(t), np.exp(log_t) * (log_t - log_s), 0.0).sum()
    slope = np.zeros(student.shape)
    slope[mask] = 2.0 * (np.exp(log_s) - np.exp(log_t))
    np.testing.assert_allclose(value, expected, rtol=min(tolerance, 1e-5))
    np.testing.assert_allclose(gradient, slope, rtol=tolerance, atol=tolerance / 10)
