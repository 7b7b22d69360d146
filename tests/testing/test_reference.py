"""The oracle is checked too: its gradients by central differences, its values against known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lsmooth.testing import reference

STEP = 1e-5


def central_difference(function, x):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = STEP
        gradient[index] = (function(x + shift) - function(x - shift)) / (2.0 * STEP)
    return gradient


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean", "sum_by_nonzero_weights"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.2, "smoothing_prior": np.array([0.1, 0.2, 0.3, 0.4])},
        {"label_smoothing": np.array([0.1, 0.5, 1.0]), "class_weight": np.array([0.5, 1.0, 2.0, 0.0])},
        {"temperature": np.array([0.5, 1.0, 3.0]), "sample_weight": np.array([1.0, 0.0, 2.0]), "z_loss": 0.1},
        {"logit_softcap": 2.0, "temperature": 0.5, "label_smoothing": 0.1, "z_loss": 0.1},
        {"axis": 0, "label_smoothing": 0.1},
    ],
    ids=["plain", "prior", "class_weight", "weights", "softcap", "axis"],
)
def test_the_gradient_of_softmax_cross_entropy(options, reduction, soft):
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 2.0, (3, 4))
    logits[1, 3] = -np.inf
    labels = np.eye(4)[[0, 2, 1]] * 0.9 if soft else np.array([0, 2, 1])
    if options.get("axis") == 0:
        logits, labels = logits.T, labels.T
    options = options | {"reduction": reduction}
    _, gradient = reference.softmax_cross_entropy(labels, logits, **options)
    with np.errstate(invalid="ignore"):
        expected = central_difference(lambda z: reference.softmax_cross_entropy(labels, z, **options)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean", "sum_by_nonzero_weights"])
def test_the_gradient_of_sigmoid_cross_entropy(reduction):
    rng = np.random.default_rng(1)
    options = {
        "label_smoothing": 0.2,
        "pos_weight": rng.uniform(0.5, 2.0, 4),
        "sample_weight": rng.uniform(0.0, 2.0, (3, 1)),
        "reduction": reduction,
    }
    labels, logits = rng.integers(0, 2, (3, 4)), rng.normal(0.0, 2.0, (3, 4))
    _, gradient = reference.sigmoid_cross_entropy(labels, logits, **options)
    expected = central_difference(lambda z: reference.sigmoid_cross_entropy(labels, z, **options)[0], logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-9)


def test_values_worked_out_by_hand():
    logits = np.log([[1.0, 1.0, 2.0]])  # p = 1/4, 1/4, 1/2
    value, gradient = reference.softmax_cross_entropy([2], logits, label_smoothing=0.3)
    np.testing.assert_allclose(value, 0.8 * math.log(2.0) + 0.2 * math.log(4.0), rtol=1e-14)
    np.testing.assert_allclose(gradient, [[0.25 - 0.1, 0.25 - 0.1, 0.5 - 0.8]], rtol=1e-14)
    value, gradient = reference.sigmoid_cross_entropy([1.0], [math.log(3.0)], label_smoothing=0.2)  # s = 3/4
    np.testing.assert_allclose(value, -0.9 * math.log(0.75) - 0.1 * math.log(0.25), rtol=1e-14)
    np.testing.assert_allclose(gradient, [0.75 - 0.9], rtol=1e-14)


def test_a_masked_class_takes_no_smoothing_mass():
    value, gradient = reference.softmax_cross_entropy([0], [[0.0, 0.0, -np.inf]], label_smoothing=0.4)
    np.testing.assert_allclose(value, math.log(2.0), rtol=1e-14)
    np.testing.assert_allclose(gradient, [[0.5 - 0.8, 0.5 - 0.2, 0.0]], rtol=1e-14)


def test_reductions_divide_by_what_they_say():
    rows, counted = (4,), np.array([True, True, True, False])
    s, w = np.array([2.0, 0.0, 3.0, 9.0]), np.array([1.0, 5.0, 0.5, 9.0])
    divisors = {
        "none": 1.0,
        "sum": 1.0,
        "mean": 2.0 * 1.0 + 3.0 * 0.5,
        "sum_over_batch_size": 3.0,
        "mean_with_sample_weight": 5.0,
        "sum_by_nonzero_weights": 2.0,
        "sum_over_nonzero_weights": 2.0,
    }
    for reduction, divisor in divisors.items():
        factor = reference.row_factor(reduction, rows, s, counted, w)
        np.testing.assert_allclose(factor, np.array([2.0, 0.0, 3.0, 0.0]) / divisor, rtol=1e-15)
