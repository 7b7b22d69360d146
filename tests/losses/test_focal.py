"""Focal loss and PolyLoss: their formulas on every backend, and both tails."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close, require_backend
from loss_parity import distributions
from variant_parity import CALLS, LABELS, ROWS, check_variant, cross_entropy, logits

from lsmooth.losses import (
    poly_cross_entropy,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy,
    softmax_focal_loss,
)

ALPHA = np.array([0.5, 1.0, 2.0, 0.25])


def focal(gamma=2.0, alpha=1.0):
    return lambda q, z: -(alpha * q * (1 - softmax(z)) ** gamma * np.log(softmax(z))).sum(-1)


def poly(epsilon=1.0):
    return lambda q, z: cross_entropy(q, z) + epsilon * (q * (1 - softmax(z))).sum(-1)


def sigmoid_focal(labels, z, gamma, alpha, eps):
    p, t = 1 / (1 + np.exp(-z)), (1 - eps) * labels + eps / 2
    entropy = -t * np.log(p) - (1 - t) * np.log(1 - p)
    weight = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    return weight * (t * (1 - p) + (1 - t) * p) ** gamma * entropy


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("soft", [False, True])
def test_softmax_focal_loss_equals_its_formula(backend, options, factor, soft):
    labels = distributions(np.random.default_rng(1), (ROWS, 4)) if soft else LABELS
    check_variant(backend, "softmax_focal_loss", focal(), labels, logits(), factor=factor, **options)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [None, 0.25, ALPHA])
def test_softmax_focal_loss_takes_a_focus_and_weights(backend, gamma, alpha):
    formula = focal(gamma, 1.0 if alpha is None else alpha)
    options = {"gamma": gamma, "alpha": alpha, "label_smoothing": 0.1, "reduction": "none"}
    check_variant(backend, "softmax_focal_loss", formula, LABELS, logits(2), **options)


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
def test_poly_cross_entropy_equals_its_formula(backend, options, factor):
    check_variant(backend, "poly_cross_entropy", poly(), LABELS, logits(3), factor=factor, **options)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
def test_poly_cross_entropy_takes_an_epsilon(backend, epsilon):
    labels = distributions(np.random.default_rng(4), (ROWS, 4))
    check_variant(backend, "poly_cross_entropy", poly(epsilon), labels, logits(4), epsilon=epsilon, reduction="sum")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_sigmoid_focal_loss_equals_its_formula(backend, gamma, alpha, eps):
    z = np.concatenate([logits(5), np.zeros((1, 4))])
    labels = np.random.default_rng(6).integers(0, 2, z.shape).astype(float)
    labels[0] = [0.25, 0.5, 0.75, 1.0]
    inputs = backend.asarray(z)

    def total(x):
        return sigmoid_focal_loss(labels, x, gamma=gamma, alpha=alpha, label_smoothing=eps, reduction="sum")

    rows = sigmoid_focal_loss(labels, inputs, gamma=gamma, alpha=alpha, label_smoothing=eps, reduction="none")
    assert_close(backend, rows, sigmoid_focal(labels, z, gamma, alpha, eps), "float64", 10)
    if backend.name != "numpy":
        _, gradient = backend.value_and_grad(total, inputs)
        step = sigmoid_focal(labels, z + 1e-30j, gamma, alpha, eps).imag / 1e-30
        assert_close(backend, gradient, step, "float64", 10)


def test_the_focal_losses_are_exact_in_both_tails(backend):
    # A lead of 40 gives 1 - p of 4e-18, below the resolution of 1.0 - p.
    for lead in (40.0, 300.0, -300.0):
        p, error, nll = 1 / (1 + np.exp(-lead)), 1 / (1 + np.exp(lead)), np.logaddexp(0.0, -lead)
        z = backend.asarray(np.array([[lead, 0.0]]))
        expected = error**1.5 * nll
        got = float(backend.to_numpy(softmax_focal_loss([0], z, gamma=1.5)))
        assert got == pytest.approx(expected, rel=1e-12)
        got = float(backend.to_numpy(sigmoid_focal_loss(np.ones((1, 1)), z[:, :1], gamma=1.5)))
        assert got == pytest.approx(expected, rel=1e-12)
        got = float(backend.to_numpy(poly_cross_entropy([0], z, epsilon=2.0)))
        assert got == pytest.approx(nll + 2 * error, rel=1e-12)
        assert p + error == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("label", [0.0, 0.05, 1.0])
def test_sigmoid_focal_loss_has_finite_gradients_anywhere(differentiable_backend, dtype, label):
    z = differentiable_backend.asarray(np.array([-1e4, -100.0, 0.0, 100.0, 1e4]), dtype)

    def total(x):
        return sigmoid_focal_loss(np.full(5, label), x, reduction="sum")

    value, gradient = differentiable_backend.value_and_grad(total, z)
    gradient = differentiable_backend.to_numpy(gradient)
    assert np.isfinite(differentiable_backend.to_numpy(value))
    assert np.isfinite(gradient).all()
    p = 1 / (1 + np.exp(-np.array([-500.0, -100.0, 0.0, 100.0, 500.0])))
    slope = (p - label) * (label * (1 - p) + (1 - label) * p) ** 2  # the remaining term at p' = 0
    np.testing.assert_allclose(gradient[[0, 4]], slope[[0, 4]], rtol=1e-5, atol=1e-30)


def test_without_focus_the_losses_are_the_cross_entropies(backend):
    z = backend.asarray(logits(7))
    for ours, theirs in (
        (
            softmax_focal_loss(LABELS, z, gamma=0, label_smoothing=0.1),
            softmax_cross_entropy(LABELS, z, label_smoothing=0.1),
        ),
        (poly_cross_entropy(LABELS, z, epsilon=0.0), softmax_cross_entropy(LABELS, z)),
        (sigmoid_focal_loss(np.ones((6, 4)), z, gamma=0), sigmoid_cross_entropy(np.ones((6, 4)), z)),
    ):
        assert_close(backend, ours, backend.to_numpy(theirs), "float64")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: softmax_focal_loss([0], [[0.0, 1.0]], gamma=-1),
            r"gamma must be a finite number of at least 0, got -1\.",
        ),
        (lambda: softmax_focal_loss([0], [[0.0, 1.0]], alpha=[1.0]), r"alpha must have shape \(2,\)"),
        (lambda: sigmoid_focal_loss([0], [0.0], alpha=2.0), r"alpha must be in \[0, 1\], got 2\."),
        (lambda: sigmoid_focal_loss([0], [0.0], gamma=float("inf")), "gamma must be a finite number"),
        (lambda: sigmoid_focal_loss([0, 1], [0.0]), "labels must have the shape of the logits"),
        (lambda: poly_cross_entropy([0], [[0.0, 1.0]], epsilon=-2), "epsilon must be a finite number of at least -1"),
    ],
)
def test_bad_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_optax_agrees():
    jax = require_backend("jax")
    optax = pytest.importorskip("optax", reason="the peer is optax")
    z, binary = jax.asarray(logits(8)), np.random.default_rng(9).integers(0, 2, (6, 4))
    soft = binary * 0.8 + 0.1
    for gamma, alpha in ((2.0, None), (1.5, 0.25)):
        ours = sigmoid_focal_loss(soft, z, gamma=gamma, alpha=alpha, reduction="none")
        theirs = optax.losses.sigmoid_focal_loss(z, jax.asarray(soft), alpha=alpha, gamma=gamma)
        assert_close(jax, ours, np.asarray(theirs), "float64", 100)
    theirs = optax.losses.poly_loss_cross_entropy(z, jax.asarray(np.eye(4)[LABELS]), epsilon=2.0)
    assert_close(jax, poly_cross_entropy(LABELS, z, epsilon=2.0, reduction="none"), np.asarray(theirs), "float64", 100)
