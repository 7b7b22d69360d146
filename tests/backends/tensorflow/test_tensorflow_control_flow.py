"""Control flow, large offsets, and compilation of eager calls on TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends.tensorflow import compilation, thresholds  # noqa: E402
from lsmooth.distillation import distillation_loss  # noqa: E402
from lsmooth.losses import (  # noqa: E402
    linear_softmax_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    softmax_focal_loss,
)

RNG = np.random.default_rng(0)
ROWS, CLASSES = 12, 6
LOGITS = tf.constant(RNG.normal(size=(ROWS, CLASSES)), tf.float32)
TEACHER = tf.constant(RNG.normal(size=(ROWS, CLASSES)), tf.float32)
LABELS = tf.constant(RNG.integers(0, CLASSES, ROWS))
YES = tf.cast(TEACHER > 0, tf.float32)
WEIGHT = tf.constant(RNG.normal(size=(5, CLASSES)), tf.float32)
LOSSES = {
    "softmax": lambda z: softmax_cross_entropy(LABELS, z, label_smoothing=0.1, ignore_index=2),
    "softmax, rows": lambda z: tf.reduce_sum(softmax_cross_entropy(LABELS, z, temperature=2.0, reduction="none")),
    "sigmoid": lambda z: sigmoid_cross_entropy(YES, z, label_smoothing=0.1),
    "focal": lambda z: softmax_focal_loss(LABELS, z),
    "distillation": lambda z: distillation_loss(TEACHER, z, temperature=2.0),
    "linear": lambda z: linear_softmax_cross_entropy(LABELS % 5, z, WEIGHT, label_smoothing=0.1, block_size=5),
}


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def gradient(loss, z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(z)
    return tape.gradient(value, z)


def in_branch(loss):
    return lambda z: tf.cond(tf.reduce_sum(z) < 1e9, lambda: loss(z), lambda: tf.constant(0.0))


def in_loop(loss):
    def twice(z):
        start = (0, tf.constant(0.0))
        return tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, x + loss(z) / 2.0), start)[1]

    return twice


@pytest.mark.parametrize("wrap", [in_branch, in_loop])
@pytest.mark.parametrize("tape", ["inside", "outside"])
@pytest.mark.parametrize("compiles", [False, True], ids=["small", "compiled"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_pass_through_control_flow(name, compiles, tape, wrap, monkeypatch):
    """The labels and teachers are eager tensors that the branch captures."""
    expected = gradient(LOSSES[name], LOGITS)
    if compiles:
        monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 0)
    wrapped = wrap(LOSSES[name])
    if tape == "inside":
        found = tf.function(lambda z: gradient(wrapped, z))(LOGITS)
    else:
        found = gradient(tf.function(wrapped), LOGITS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["eager", "function", "XLA", "unknown"])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("size", [(4, 6), (40, 600)])
@pytest.mark.parametrize(
    "loss",
    [
        lambda y, z, t: softmax_cross_entropy(y, z),
        lambda y, z, t: softmax_cross_entropy(y, z, label_smoothing=0.1, temperature=3.0),
        lambda y, z, t: distillation_loss(t, z, temperature=3.0),
    ],
    ids=["plain", "smoothed", "distillation"],
)
def test_a_common_offset_of_the_logits_does_not_change_the_loss(loss, size, offset, mode):
    rng = np.random.default_rng(size)
    z, t = (np.float32(rng.integers(-3, 4, size) * 8.0) + np.float32(offset) for _ in range(2))
    y = rng.integers(0, size[1], size[0])
    expected = loss(y, z.astype(np.float64), t.astype(np.float64))
    specs = [tf.TensorSpec([None], tf.int64), *[tf.TensorSpec([None, None], tf.float32)] * 2]
    call = {
        "eager": loss,
        "function": tf.function(loss),
        "XLA": tf.function(loss, jit_compile=True),
        "unknown": tf.function(loss, input_signature=specs),
    }[mode]
    np.testing.assert_allclose(call(*map(tf.constant, (y, z, t))), expected, rtol=2e-6)


def test_an_eager_shape_is_compiled_once_it_recurs(monkeypatch):
    monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 1)
    monkeypatch.setattr(thresholds, "COMPILE_AFTER", 2 * 77 * 5)
    z = [tf.zeros((rows, 5)) for rows in (77, 78, 79)]
    assert [compilation.compile_pays("a kernel", x) for x in z] == [False] * 3
    assert [compilation.compile_pays("a kernel", z[0]) for _ in range(3)] == [False, True, True]


def test_a_compiled_loss_serves_every_number(monkeypatch):
    monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 1)
    monkeypatch.setattr(thresholds, "COMPILE_AFTER", 0)
    z, y = tf.random.normal((200, 200)), tf.zeros(200, tf.int32)
    counts = set()
    for eps in (0.1, 0.2, 0.3):
        softmax_cross_entropy(y, z, label_smoothing=eps, temperature=1.0 + eps)
        from lsmooth.backends.tensorflow import cross_entropy

        counts.add(compilation.compiled(cross_entropy._value).experimental_get_tracing_count())
    assert len(counts) == 1


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"ignore_index": 2, "temperature": 2.0}], ids=str)
def test_unknown_numbers_of_classes_have_the_same_gradient(options):
    """As in the in-batch softmax of a two-tower model."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.float32)])
    def step(labels, logits):
        return gradient(lambda z: softmax_cross_entropy(labels, z, **options), logits)

    labels = tf.cast(LABELS, tf.int32)
    expected = gradient(lambda z: softmax_cross_entropy(labels, z, **options), LOGITS)
    np.testing.assert_allclose(step(labels, LOGITS), expected, rtol=1e-5, atol=1e-7)
