"""Several labels at once, and negative smoothing."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import (
    binary_smooth_labels,
    multilabel_smooth_labels,
    negative_smooth_labels,
    noise_correcting_smoothing,
    smooth_labels,
)

MULTI = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("a", [0.0, 0.1, np.array([0.0, 0.5, 1.0])])
@pytest.mark.parametrize("b", [None, 0.0, 0.3, np.array([0.1, 0.2, 0.3])])
def test_positives_raise_and_negatives_lower_the_loss(backend, a, b):
    lost = np.asarray(a)[..., None]
    gained = lost if b is None else np.asarray(b)[..., None]
    q = multilabel_smooth_labels(backend.asarray(MULTI), a, negative_smoothing=b)
    assert_close(backend, q, (1 - lost) * MULTI + gained * (1 - MULTI), backend.dtype(q))


def test_half_of_eps_on_both_sides_is_binary_smoothing(backend):
    ours = multilabel_smooth_labels(backend.asarray(MULTI), 0.05)
    assert_close(
        backend, ours, backend.to_numpy(binary_smooth_labels(backend.asarray(MULTI), 0.1)), backend.dtype(ours)
    )


@pytest.mark.parametrize("eps", [0.0, 0.2, np.array([0.0, 0.5, 1.0])])
def test_normalized_rows_sum_to_1(backend, eps):
    share = np.array([[0.5, 0.5, 0, 0], [0, 0, 0, 1], [0.25] * 4])
    e = np.asarray(eps)[..., None]
    q = multilabel_smooth_labels(backend.asarray(MULTI), eps, normalize=True)
    assert_close(backend, q, (1 - e) * share + e / 4, backend.dtype(q))


def test_the_dtype_is_that_of_floating_labels(backend):
    q = multilabel_smooth_labels(backend.asarray(MULTI, "float32"), 0.1, normalize=True)
    assert backend.dtype(q) == "float32"


@pytest.mark.parametrize("eps", [-3.0, -0.4, 0.0, 0.3, 1.0])
def test_negative_smoothing_is_the_same_formula(backend, eps):
    q = negative_smooth_labels(backend.asarray(np.array([1, 3])), eps, num_classes=4)
    assert_close(backend, q, (1 - eps) * np.eye(4)[[1, 3]] + eps / 4, backend.dtype(q))
    q = negative_smooth_labels(backend.asarray(np.eye(4)), eps)
    assert_close(backend, q, (1 - eps) * np.eye(4) + eps / 4, "float64")
    if eps >= 0:
        assert_close(backend, q, backend.to_numpy(smooth_labels(backend.asarray(np.eye(4)), eps)), "float64")


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.45])
def test_the_correction_undoes_the_noise_on_average(classes, rate):
    eye = np.eye(classes)
    flipped = (1 - rate) * eye + rate / (classes - 1) * (1 - eye)  # row: true class, column: label seen
    corrected = negative_smooth_labels(eye, noise_correcting_smoothing(rate, classes))
    np.testing.assert_allclose(flipped @ corrected, eye, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multilabel_smooth_labels(MULTI, 1.5), r"label_smoothing must be in \[0, 1\], got 1\.5"),
        (lambda: multilabel_smooth_labels(MULTI, 0.1, negative_smoothing=-1), "negative_smoothing must be in"),
        (
            lambda: multilabel_smooth_labels(MULTI, 0.1, negative_smoothing=0.1, normalize=True),
            "leave one of the two out",
        ),
        (lambda: multilabel_smooth_labels(1, 0.1), "labels must have at least one axis"),
        (
            lambda: negative_smooth_labels([0], 1.5, num_classes=2),
            "label_smoothing must be a finite number of at most 1, got 1.5",
        ),
        (lambda: negative_smooth_labels([0], float("-inf"), num_classes=2), "label_smoothing must be a finite number"),
        (lambda: negative_smooth_labels([0], -0.1), "num_classes is needed"),
        (lambda: noise_correcting_smoothing(0.5, 2), r"noise_rate must be in \[0, 0\.5\), got 0\.5"),
        (lambda: noise_correcting_smoothing(0.5, 1), "num_classes must be at least 2, got 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_loss_of_negative_targets_is_a_difference_of_two_losses(differentiable_backend):
    """As in the docstring: losses refuse negative mass, but the cross-entropy is linear in the labels."""
    xp, eps = differentiable_backend, -0.4
    labels, logits = np.array([0, 2, 1]), np.random.default_rng(0).normal(size=(3, 4))

    def loss(z):
        hard = softmax_cross_entropy(labels, z, reduction="sum")
        return (1.0 - eps) * hard + eps * softmax_cross_entropy(np.full((3, 4), 0.25), z, reduction="sum")

    q = np.asarray(negative_smooth_labels(labels, eps, num_classes=4))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    value, gradient = xp.value_and_grad(loss, xp.asarray(logits))
    np.testing.assert_allclose(xp.to_numpy(value), -(q * log_p).sum(), rtol=1e-6)
    np.testing.assert_allclose(xp.to_numpy(gradient), np.exp(log_p) - q, rtol=1e-6, atol=1e-9)
