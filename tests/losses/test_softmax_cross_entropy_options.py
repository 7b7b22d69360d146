"""Gradients of softmax cross-entropy with respect to its options, where they are tensors."""

from __future__ import annotations

import numpy as np
import pytest
from loss_parity import distributions

from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy
from lsmooth.testing import reference

STEP = 1e-5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 2.0, (4, 3))
SOFT = distributions(RNG, (4, 3))
TENSORS = {
    "label_smoothing": np.array([0.1, 0.5, 0.9, 0.3]),
    "temperature": np.array([0.5, 1.0, 2.0, 4.0]),
    "sample_weight": np.array([0.5, 1.0, 2.0, 4.0]),
    "smoothing_prior": np.array([0.5, 0.2, 0.3]),
    "class_weight": np.array([0.5, 2.0, 1.0]),
}


def central_difference(function, x):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = STEP
        gradient[index] = (function(x + shift) - function(x - shift)) / (2.0 * STEP)
    return gradient


def check_gradient(xp, ours, oracle, x):
    """``ours`` differentiates as the oracle does in small steps."""
    _, gradient = xp.value_and_grad(ours, xp.asarray(x))
    np.testing.assert_allclose(xp.to_numpy(gradient), central_difference(oracle, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("labels", [np.array([0, 2, 1, 2]), SOFT], ids=["integers", "soft"])
@pytest.mark.parametrize("name", TENSORS)
def test_an_option(differentiable_backend, name, labels, reduction):
    xp = differentiable_backend
    others = {"label_smoothing": 0.2} if name != "label_smoothing" else {}
    others |= {"reduction": reduction, "z_loss": 0.01}
    logits = xp.asarray(LOGITS)
    check_gradient(
        xp,
        lambda x: softmax_cross_entropy(labels, logits, **{name: x}, **others),
        lambda x: reference.softmax_cross_entropy(labels, LOGITS, **{name: x}, **others)[0],
        TENSORS[name],
    )


@pytest.mark.parametrize("name", ["label_smoothing", "temperature"])
def test_a_scalar_option(differentiable_backend, name):
    xp = differentiable_backend
    logits, labels = xp.asarray(LOGITS), np.array([0, 2, 1, 2])
    check_gradient(
        xp,
        lambda x: softmax_cross_entropy(labels, logits, **{name: x}),
        lambda x: reference.softmax_cross_entropy(labels, LOGITS, **{name: x})[0],
        np.array(0.4),
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"class_weight": np.array([0.5, 2.0, 1.0])}])
@pytest.mark.parametrize("labels", [SOFT, np.eye(3)[[0, 2, 1, 2]]], ids=["soft", "one-hot"])
def test_soft_labels(differentiable_backend, labels, options):
    xp = differentiable_backend
    options = options | {"reduction": "sum"}
    logits = xp.asarray(LOGITS)
    check_gradient(
        xp,
        lambda t: softmax_cross_entropy(t, logits, **options),
        lambda t: reference.softmax_cross_entropy(t, LOGITS, **options)[0],
        labels,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_labels_and_logits_at_once(differentiable_backend, masked):
    """A student's and a teacher's logits in one tensor: gradients reach both sides, masked classes included."""
    xp = differentiable_backend
    both = RNG.normal(size=(2, 4, 3))
    both[0] = abs(both[0])  # negative mass would be NaN
    both[1, 0, 1] = -np.inf if masked else 0.0
    both[0, 0, 1] = 0.0
    mask = (both[1] != -np.inf).astype(np.float64)

    def loss(entropy, x, mask):
        return entropy(mask * x[0], x[1])

    _, gradient = xp.value_and_grad(
        lambda x: loss(
            lambda t, z: softmax_cross_entropy(t, z, label_smoothing=0.1, reduction="sum"), x, xp.asarray(mask)
        ),
        xp.asarray(both),
    )
    expected = central_difference(
        lambda x: loss(
            lambda t, z: reference.softmax_cross_entropy(t, z, label_smoothing=0.1, reduction="sum")[0], x, mask
        ),
        both,
    )
    np.testing.assert_allclose(xp.to_numpy(gradient), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["labels", "label_smoothing", "pos_weight", "sample_weight"])
@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_sigmoid_cross_entropy(differentiable_backend, name, at):
    """At 0 and 1 too, where an infinite logit would have loss 0."""
    xp = differentiable_backend
    labels = np.array([0.0, 1.0, 0.25])
    logits = np.array([1.5, -2.0, 0.5])

    def loss(entropy, x, z):
        given = {"labels": labels} | {name: x}
        value = entropy(given.pop("labels"), z, reduction="sum", **given)
        return value[0] if isinstance(value, tuple) else value

    check_gradient(
        xp,
        lambda x: loss(sigmoid_cross_entropy, x, xp.asarray(logits)),
        lambda x: loss(reference.sigmoid_cross_entropy, x, logits),
        np.full(3, at),
    )
