"""Logits of linear heads in half precision are not rounded: every backend sums in float32."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend
from loss_parity import as_dtype, jax_jit

from lsmooth.distillation import distillation_loss, linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy
from lsmooth.testing import reference

ROWS, FEATURES, CLASSES = 6, 64, 40
LABELS = np.arange(ROWS) * 5
HALF = ("bfloat16", "float16")


def head(backend, dtype, seed=0):
    """Hidden states, weight and bias with logits of about 30, where bfloat16 rounds by 0.1; and the logits."""
    rng = np.random.default_rng(seed)
    shapes = ((ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,))
    arrays = [as_dtype(backend, rng.normal(0.0, 1.5, shape), dtype) for shape in shapes]
    return arrays, [backend.to_numpy(x).astype(np.float64) for x in arrays]


def logits_of(hidden, weight, bias):
    return hidden @ weight.T + bias


def compiled(backend, function):
    """The function, compiled as its framework does."""
    if backend.name == "jax":
        return jax_jit(function)
    if backend.name == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    return function


def assert_near(backend, actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(backend.to_numpy(actual), expected, rtol=tolerance, atol=tolerance * 0.1)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("block_size", [None, 1, 4])
def test_rows_of_the_cross_entropy(backend, dtype, block_size):
    arrays, exact = head(backend, dtype)
    expected, _ = reference.softmax_cross_entropy(LABELS, logits_of(*exact), label_smoothing=0.1, reduction="none")

    def rows(*arrays):
        return linear_softmax_cross_entropy(
            LABELS, *arrays, label_smoothing=0.1, reduction="none", block_size=block_size
        )

    found = rows(*arrays)
    assert_near(backend, found, expected)
    assert_near(backend, compiled(backend, rows)(*arrays), backend.to_numpy(found), 1e-6)
    whole = (
        rows(*arrays)
        if block_size is None
        else linear_softmax_cross_entropy(LABELS, *arrays, label_smoothing=0.1, reduction="none")
    )
    assert_near(backend, found, backend.to_numpy(whole), 1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_rows_of_a_distillation(backend, dtype, block_size, divergence):
    (teacher, exact_teacher), (student, exact_student) = head(backend, dtype), head(backend, dtype, seed=1)
    expected = distillation_loss(
        logits_of(*exact_teacher), logits_of(*exact_student), divergence=divergence, temperature=2.0, reduction="none"
    )

    def rows(*arrays):
        return linear_distillation_loss(
            *arrays[:2],
            *arrays[3:5],
            teacher_bias=arrays[2],
            student_bias=arrays[5],
            divergence=divergence,
            temperature=2.0,
            reduction="none",
            block_size=block_size,
        )

    found = rows(*teacher, *student)
    assert_near(backend, found, expected)
    assert_near(backend, compiled(backend, rows)(*teacher, *student), backend.to_numpy(found), 1e-6)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("block_size", [None, 1])
def test_the_gradient_at_a_label_that_is_almost_certain(differentiable_backend, dtype, reduction, block_size):
    """1 - p = 0.001 is the difference of two logits near 50, which bfloat16 holds to 0.25."""
    backend = differentiable_backend
    hidden = as_dtype(backend, np.ones((2, 1)), dtype)
    weight = as_dtype(backend, np.array([[50.0], [43.0]]), dtype)
    exact = np.exp(np.array([50.0, 43.0 + 0.09375]) - 50.0)
    bias = as_dtype(backend, np.array([0.0, 0.09375]), dtype)  # p = 0.999
    p = exact / exact.sum()

    def loss(x):
        value = linear_softmax_cross_entropy([0, 0], hidden, x, bias, reduction=reduction, block_size=block_size)
        return backend.sum(value)

    _, slope = backend.value_and_grad(loss, weight)
    np.testing.assert_allclose(backend.to_numpy(slope)[:, 0], 2 * (p - [1.0, 0.0]), rtol=0.005)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_torch_compile_matches_eager_mode(dtype, reduction, monkeypatch):
    backend = require_backend("torch")
    import torch

    from lsmooth.backends.torch import thresholds

    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", 1)  # so that the operator is called
    arrays, _ = head(backend, dtype)
    arrays = [x.requires_grad_() for x in arrays]

    def loss(*arrays):
        return linear_softmax_cross_entropy(torch.from_numpy(LABELS), *arrays, reduction=reduction, block_size=4)

    eager, found = loss(*arrays), torch.compile(loss, backend="aot_eager", fullgraph=True)(*arrays)
    torch.testing.assert_close(found, eager, rtol=1e-6, atol=0.0)
    right, slopes = (torch.autograd.grad(x.sum(), arrays) for x in (eager, found))
    torch.testing.assert_close(slopes, right, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("dtype", HALF)
def test_torch_without_instructions_for_half_precision(dtype, monkeypatch):
    """Gradients use products in float32 then, and are equally exact."""
    backend = require_backend("torch")
    import torch

    from lsmooth.backends.torch import linear, thresholds

    arrays, exact = head(backend, dtype)
    _, slope = reference.softmax_cross_entropy(LABELS, logits_of(*exact), reduction="sum")
    for supported in (False, True):
        monkeypatch.setattr(linear, "_is_supported", lambda _, answer=supported: answer)
        monkeypatch.setattr(thresholds, "HALF_WEIGHT_ELEMENTS", 10 * FEATURES)
        leaves = [x.detach().requires_grad_() for x in arrays]
        for block_size in (None, 4):
            loss = linear_softmax_cross_entropy(LABELS, *leaves, reduction="sum", block_size=block_size)
            found = torch.autograd.grad(loss, leaves)
            for g, right in zip(found, (slope @ exact[1], slope.T @ exact[0], slope.sum(0)), strict=True):
                assert_close(backend, g, right, dtype, 4.0)
