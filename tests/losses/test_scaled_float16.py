"""Losses in float16 that are scaled up, as who trains in float16 does, so that small gradients are not rounded to 0."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import distillation, losses

# A mean over so many rows of so many classes: most of the gradient is below float16's smallest number.
ROWS, CLASSES, FEATURES, SCALE, EPS = 1024, 3000, 16, 2.0**16, 0.1
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, ROWS)
HIDDEN, WEIGHT = (RNG.normal(0.0, 0.3, (n, FEATURES)).astype(np.float16) for n in (ROWS, CLASSES))
LOGITS, TEACHER = (RNG.normal(0.0, 1.0, (ROWS, CLASSES)).astype(np.float16) for _ in range(2))
LOSSES = {
    "cross-entropy": lambda z: losses.softmax_cross_entropy(LABELS, z, label_smoothing=EPS),
    "sigmoid": lambda z: losses.sigmoid_cross_entropy(TEACHER > 0, z, label_smoothing=EPS),
    "forward KL": lambda z: distillation.distillation_loss(TEACHER, z, temperature=2.0),
    "reverse KL": lambda z: distillation.distillation_loss(TEACHER, z, divergence="reverse_kl"),
    "hard and soft": lambda z: distillation.DistillationLoss(temperature=2.0, label_smoothing=EPS)(LABELS, TEACHER, z),
}
HEADS = {
    "cross-entropy": lambda h, w: losses.linear_softmax_cross_entropy(
        LABELS, h, w, label_smoothing=EPS, block_size=300
    ),
    "forward KL": lambda h, w: distillation.linear_distillation_loss(
        HIDDEN[::-1].copy(), WEIGHT, h, w, temperature=2.0, block_size=300
    ),
}


def gradients(name, loss, scale, dtype, *arrays):
    """By the framework's own means: a scaled loss, and gradients that are divided in float64."""
    if name == "torch":
        import torch

        given = [torch.from_numpy(x.astype(dtype)).requires_grad_() for x in arrays]
        (loss(*given) * scale).backward()
        found = [x.grad for x in given]
    elif name == "jax":
        import jax

        given = [jax.numpy.asarray(x, dtype) for x in arrays]
        found = jax.jit(jax.grad(lambda *x: loss(*x) * scale, tuple(range(len(given)))))(*given)
    else:
        import tensorflow as tf

        given = [tf.constant(x.astype(dtype)) for x in arrays]
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = loss(*given) * scale
        found = tape.gradient(value, given)
    return [np.asarray(x, np.float64) / scale for x in found]


def check(name, loss, *arrays):
    require_backend(name)
    expected = gradients(name, loss, 1.0, np.float64, *arrays)
    for ours, theirs in zip(gradients(name, loss, SCALE, np.float16, *arrays), expected, strict=True):
        assert np.linalg.norm(ours - theirs) < 2e-3 * np.linalg.norm(theirs)


@pytest.mark.parametrize("backend_name", ["jax", "tensorflow", "torch"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_logits(backend_name, loss):
    check(backend_name, loss, LOGITS)


@pytest.mark.parametrize("backend_name", ["jax", "tensorflow", "torch"])
@pytest.mark.parametrize("loss", HEADS.values(), ids=HEADS)
def test_linear_heads(backend_name, loss):
    check(backend_name, loss, HIDDEN, WEIGHT)
