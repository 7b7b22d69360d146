"""Distillation losses in float16, of saturated predictions, and of logits with a common offset."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth import distillation
from lsmooth.backends.formulas import divergence

ROWS, CLASSES, LOSS_SCALE = 4, 3000, 2.0**12
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, ROWS)
TEACHER, STUDENT = (RNG.normal(size=(ROWS, CLASSES)).astype(np.float16) for _ in range(2))
DIFFERENTIABLE = ("jax", "tensorflow", "torch")


def of(divergence):
    return lambda t, s, y, **options: distillation.distillation_loss(t, s, divergence=divergence, **options)


LOSSES = {name: of(name) for name in divergence.DIVERGENCES} | {
    "decoupled": lambda t, s, y, **options: distillation.decoupled_distillation_loss(t, s, y, **options),
    "standardized": lambda t, s, y, **options: distillation.standardized_distillation_loss(t, s, **options),
    "gkd": lambda t, s, y, **options: distillation.gkd_loss(t, s, **options),
    "ensemble": lambda t, s, y, **options: distillation.ensemble_distillation_loss([t, t], s, **options),
    "hard and soft": lambda t, s, y, temperature: distillation.DistillationLoss(temperature=temperature)(y, t, s),
    "hard and JSD": lambda t, s, y, temperature: distillation.DistillationLoss(
        temperature=temperature, divergence="jensen_shannon"
    )(y, t, s),
}


def value_and_gradient(name, loss, teacher, student, scale=1.0):
    """The scaled loss and the student's gradient, in the dtype of the student."""
    if name == "torch":
        import torch

        x = torch.from_numpy(student).requires_grad_()
        value = loss(torch.from_numpy(teacher), x) * scale
        return value.item(), torch.autograd.grad(value, x)[0].double().numpy()
    if name == "jax":
        import jax

        value, gradient = jax.jit(jax.value_and_grad(lambda t, x: loss(t, x) * scale, 1))(teacher, student)
        return float(value), np.asarray(gradient, np.float64)
    import tensorflow as tf

    x = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(tf.constant(teacher), x) * scale
    return float(value), tape.gradient(value, x).numpy().astype(np.float64)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_in_float16_are_rounded_once(name, loss, temperature):
    require_backend(name)
    if loss == "gkd":  # without T^2: its gradient vanishes at 0.05, where the predictions do not overlap
        temperature = max(temperature, 0.5)

    def call(t, s):
        return LOSSES[loss](t, s, LABELS, temperature=temperature)

    _, ours = value_and_gradient(name, call, TEACHER, STUDENT, LOSS_SCALE)
    _, exact = value_and_gradient(name, call, *(x.astype(np.float64) for x in (TEACHER, STUDENT)), LOSS_SCALE)
    rounding = np.linalg.norm(exact.astype(np.float16).astype(np.float64) - exact)
    assert np.linalg.norm(ours - exact) <= max(1e-3 * np.linalg.norm(exact), 1.2 * rounding)


@pytest.mark.parametrize("rows", [3, 700])
@pytest.mark.parametrize("divergence", ["reverse_kl", "jensen_shannon", "total_variation"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_a_confident_student_are_exact(name, divergence, rows):
    """The small differences s_k (d_k - sum_j s_j d_j) of an almost one-hot s are exact."""
    require_backend(name)
    rng = np.random.default_rng(1)
    teacher, student = rng.normal(size=(2, rows, 300)).astype(np.float32)
    teacher[:, 0] += 20.0
    student[:, 1] += 20.0

    def call(t, s):
        return distillation.distillation_loss(t, s, divergence=divergence)

    _, ours = value_and_gradient(name, call, teacher, student)
    _, exact = value_and_gradient(name, call, teacher.astype(np.float64), student.astype(np.float64))
    assert np.linalg.norm(ours - exact) <= 1e-3 * np.linalg.norm(exact)


def spread(seed, rows, offset):
    """Logits with differences that float32 resolves at the offset."""
    steps = np.random.default_rng(seed).integers(-3, 4, (rows, 50))
    return (steps * max(0.5, 2.0 ** np.ceil(np.log2(max(offset, 1.0) * 2.0**-23))) + offset).astype(np.float32)


OFFSETS = [(0.0, 0.0), (1e4, 0.0), (0.0, -1e6), (1e8, 1e8), (-1e8, 1e5)]


@pytest.mark.parametrize("rows", [3, 3000])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", [name for name in LOSSES if "hard" not in name])
def test_a_common_offset_does_not_change_the_result(backend, loss, temperature, rows):
    rows = rows if backend.name == "torch" else 3  # many take another path there
    labels = np.arange(rows) % 50
    for offsets in OFFSETS:
        t, s = (spread(i, rows, offset) for i, offset in enumerate(offsets))
        ours = LOSSES[loss](*(backend.asarray(x) for x in (t, s)), labels, temperature=temperature)
        exact = float(LOSSES[loss](t.astype(np.float64), s.astype(np.float64), labels, temperature=temperature))
        # Far logits over a temperature of 3 are rounded once, and their probabilities by as much as they are large.
        relative = 2e-6 if temperature == 1.0 else 5e-6
        absolute = 1e-6 if loss == "cosine" else 1e-12  # a common offset is part of the angle, which it makes small
        assert float(backend.to_numpy(ours)) == pytest.approx(exact, rel=relative, abs=absolute), offsets


@pytest.mark.parametrize("tail", ["renormalize", "drop", "bucket"])
def test_a_common_offset_does_not_change_sparse_losses(backend, tail):
    log_t = np.log(np.float32([[0.5, 0.2, 0.1], [0.3, 0.3, 0.2], [0.9, 0.04, 0.03]]))
    indices = np.array([[4, 0, 7], [49, 1, 3], [2, 30, 5]])
    for offset in (0.0, 1e4, 1e8):
        s = spread(0, 3, offset)
        ours = distillation.sparse_distillation_loss(indices, log_t, backend.asarray(s), tail=tail)
        exact = distillation.sparse_distillation_loss(
            indices, log_t.astype(np.float64), s.astype(np.float64), tail=tail
        )
        assert float(backend.to_numpy(ours)) == pytest.approx(float(exact), rel=2e-6, abs=1e-6)
