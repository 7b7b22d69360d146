"""Class priors, and smoothing that depends on the class."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

import lsmooth
from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import class_prior, label_aware_smoothing, smooth_labels, smoothing_of_labels

LABELS = np.array([[0, 2, 2], [1, 2, 0]])
WEIGHTS = np.array([[1.0, 0.5, 2.0], [0.0, 1.0, 3.0]])


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("pseudo_count", [0.0, 1.5])
def test_the_prior_is_the_share_of_each_class(backend, weight, pseudo_count):
    weights = np.ones((2, 3)) if weight is None else weight
    counts = np.array([weights[k == LABELS].sum() for k in range(4)]) + pseudo_count
    prior = class_prior(backend.asarray(LABELS), 4, sample_weight=weight, pseudo_count=pseudo_count)
    assert backend.is_array(prior)
    assert_close(backend, prior, counts / counts.sum(), backend.dtype(prior))


def test_ignored_labels_are_not_counted(backend):
    labels = backend.asarray(np.array([0, 1, -100, 1, -100]))
    assert backend.to_numpy(class_prior(labels, 2, ignore_index=-100)) == pytest.approx([1 / 3, 2 / 3])


def test_a_label_out_of_range_makes_the_prior_nan(backend):
    assert np.isnan(backend.to_numpy(class_prior(backend.asarray(np.array([0, 5])), 2))).all()
    with lsmooth.validate(), pytest.raises(ValueError, match="got 5 at index"):
        class_prior(backend.asarray(np.array([0, 5])), 2)


def test_the_prior_can_be_passed_to_a_loss(backend):
    z = backend.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)))
    prior = class_prior(backend.asarray(LABELS), 4)
    loss = softmax_cross_entropy(backend.asarray(LABELS), z, label_smoothing=0.1, smoothing_prior=prior)
    soft = smooth_labels(backend.asarray(LABELS), 0.1, num_classes=4, prior=prior)
    expected = backend.to_numpy(softmax_cross_entropy(soft, z))
    assert_close(backend, loss, expected, "float64" if backend.dtype(soft) == "float64" else "float32")


@pytest.mark.parametrize("soft", [False, True])
def test_each_class_has_its_own_smoothing(backend, soft):
    table = np.array([0.0, 0.1, 0.4])
    labels = np.random.default_rng(1).dirichlet(np.ones(3), (2, 3)) if soft else LABELS
    expected = labels @ table if soft else table[LABELS]
    eps = smoothing_of_labels(backend.asarray(labels), table)
    assert_close(backend, eps, expected, "float64")


def test_ignored_labels_are_not_smoothed_and_have_no_gradient(differentiable_backend):
    xp = differentiable_backend
    labels = xp.asarray(np.array([0, -100]))
    eps = smoothing_of_labels(labels, np.array([0.1, 0.2]))
    assert xp.to_numpy(eps).tolist() == [0.1, 0.0]
    z = xp.asarray(np.zeros((2, 2)))
    _, gradient = xp.value_and_grad(
        lambda x: softmax_cross_entropy(labels, x, label_smoothing=eps, ignore_index=-100), z
    )
    assert_close(xp, gradient, [[-0.45, 0.45], [0.0, 0.0]], "float64")


@pytest.mark.parametrize(
    ("shape", "curve"),
    [
        ("concave", lambda x: np.sin(np.pi / 2 * x)),
        ("linear", lambda x: x),
        ("convex", lambda x: 1 + np.sin(np.pi * (1.5 + x / 2))),
    ],
)
def test_frequent_classes_get_more_smoothing(backend, shape, curve):
    counts = np.array([500, 20, 120, 5])
    eps = label_aware_smoothing(backend.asarray(counts), head=0.3, tail=0.05, shape=shape)
    assert backend.is_array(eps)
    assert_close(backend, eps, 0.05 + 0.25 * curve((counts - 5) / 495), backend.dtype(eps))


def test_equal_counts_get_equal_smoothing():
    assert label_aware_smoothing([7, 7], head=0.3).tolist() == [0.3, 0.3]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: class_prior([0.0], 2), TypeError, "labels must be integer class ids, got float64"),
        (lambda: class_prior([0], 0), ValueError, "num_classes must be at least 1, got 0"),
        (
            lambda: class_prior([0], 2, pseudo_count=-1),
            ValueError,
            "pseudo_count must be a finite number of at least 0",
        ),
        (
            lambda: class_prior([0], 2, sample_weight=[1.0, 2.0]),
            ValueError,
            r"sample_weight must have the labels' shape",
        ),
        (lambda: smoothing_of_labels([0], 0.1), ValueError, r"class_smoothing must have shape \(classes,\)"),
        (lambda: smoothing_of_labels([[1.0, 0.0]], [0.1]), ValueError, r"class_smoothing must have shape \(2,\)"),
        (lambda: label_aware_smoothing([1, 2], head=1.5), ValueError, r"head must be in \[0, 1\]"),
        (lambda: label_aware_smoothing([1, 2], tail=-1), ValueError, r"tail must be in \[0, 1\]"),
        (lambda: label_aware_smoothing([1, 2], shape="s"), ValueError, "shape must be one of concave, linear, convex"),
        (lambda: label_aware_smoothing([[1, 2]]), ValueError, "class_counts must have shape"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
