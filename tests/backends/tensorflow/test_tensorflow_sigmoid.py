"""The sigmoid cross-entropy with its gradient in closed form on TensorFlow, against the formula."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.tensorflow import sigmoid, thresholds  # noqa: E402
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


@pytest.fixture
def compiled_sums(monkeypatch):
    """Compile sums of any size, without the kernel of elements; four elements share a logarithm."""
    for name in ("XLA_ELEMENTS", "SMALL", "COMPILE_AFTER"):
        monkeypatch.setattr(thresholds, name, 0)
    monkeypatch.setattr(thresholds, "LOGARITHM_ELEMENTS", 4)
    monkeypatch.setattr(sigmoid, "elements", None)
    sigmoid.compiled.cache_clear()
    yield
    sigmoid.compiled.cache_clear()


def total_formula(labels, logits):
    return tf.reduce_sum(formula(labels, logits))


def total(labels, logits):
    return sigmoid_cross_entropy(labels, logits, reduction="sum")


@WRAPPED
@pytest.mark.parametrize("elements", [3, 8, 9])
def test_sums_and_their_derivatives(compiled_sums, wrap, elements):
    """Of fewer elements than share a logarithm, of as many, and with one left over."""
    y, z = (tf.constant(x.ravel()[:elements]) for x in (LABELS, LOGITS))
    expected = derivatives(total_formula, y, z)
    found = wrap(lambda y, z: derivatives(total, y, z))(y, z)
    for actual, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-13, atol=0)


@WRAPPED
def test_sums_of_small_losses_are_exact(compiled_sums, wrap):
    z, y = tf.constant(np.linspace(-30.0, -25.0, 9), tf.float32), tf.zeros(9)
    exact = np.log1p(np.exp(z.numpy().astype(np.float64)))
    np.testing.assert_allclose(wrap(total)(y, z), exact.sum(), rtol=1e-6)


@WRAPPED
def test_sums_with_infinite_logits(compiled_sums, wrap):
    for labels, value in ([0.0, 1.0], 0.0), ([1.0, 1.0], np.inf):
        z, y = tf.constant([-np.inf, np.inf]), tf.constant(labels)
        loss, _, slope, _ = wrap(lambda y, z: derivatives(total, y, z))(y, z)
        assert loss == value
        np.testing.assert_array_equal(slope, [-labels[0], 0.0])
    unmoved = wrap(lambda y, z: derivatives(lambda y, z: 0.0 * total(y, z), y, z))(tf.constant([0.0, 1.0]), z)
    np.testing.assert_array_equal(unmoved[1], [0.0, 0.0])


@WRAPPED
@pytest.mark.parametrize("weight", [None, 2.5])
def test_smoothed_means_with_a_weight(compiled_sums, wrap, weight):
    y, z = tf.constant(LABELS), tf.constant(LOGITS)

    def mean(y, z):
        return sigmoid_cross_entropy(y, z, label_smoothing=0.2, sample_weight=weight, reduction="sum_over_batch_size")

    def expected(y, z):
        return (weight or 1.0) * tf.reduce_mean(formula(0.8 * y + 0.1, z))

    found = wrap(lambda y, z: derivatives(mean, y, z))(y, z)
    for actual, right in zip(found, derivatives(expected, y, z), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-13, atol=1e-17)


def test_weights_of_elements_and_unknown_shapes_are_left_to_the_elements(compiled_sums):
    y, z = tf.constant(LABELS), tf.constant(LOGITS)
    any_batch = tf.function(total, input_signature=[tf.TensorSpec([None, 3], tf.float64)] * 2)
    for call in (
        lambda: sigmoid_cross_entropy(y, z, sample_weight=np.ones((3, 1)), reduction="sum"),
        lambda: sigmoid_cross_entropy(y, z, label_smoothing=tf.zeros((3, 3), tf.float64)),
        lambda: sigmoid_cross_entropy(y, z, reduction="none"),
        lambda: any_batch(y, z),
    ):
        with pytest.raises(TypeError, match="NoneType"):
            call()


def test_small_logits_are_compiled_if_the_caller_compiles(monkeypatch):
    calls = []
    monkeypatch.setattr(sigmoid, "compiled", lambda f: calls.append(f) or f)
    z = tf.zeros((128, 128))
    for wrap, expected in ((tf.function, 0), (tf.function(jit_compile=True), 1)):
        assert not calls
        assert wrap(lambda z: total(z, z))(z).numpy() == pytest.approx(128 * 128 * np.log(2.0), rel=1e-5)
        assert len(calls) == expected
    tf.function(lambda z: total(z, z), jit_compile=True)(z[:64])
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
def test_precision_of_sums(compiled_sums, dtype):
    z, y = tf.cast(LOGITS[:2], dtype), tf.constant(LABELS[:2], tf.float32)
    value, of_labels, slope, _ = derivatives(total, y, z)
    assert (value.dtype, of_labels.dtype, slope.dtype) == (tf.float32, tf.float32, dtype)
    exact = derivatives(total_formula, tf.cast(y, tf.float64), tf.cast(z, tf.float64))
    np.testing.assert_allclose(value, exact[0], rtol=1e-6)
    tolerance = {"rtol": 1e-6 if dtype == tf.float32 else 1e-2, "atol": 1e-7}
    np.testing.assert_allclose(tf.cast(slope, tf.float64), exact[2], **tolerance)
    np.testing.assert_array_equal(of_labels, -tf.cast(z, tf.float32))
