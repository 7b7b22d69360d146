"""Softmax cross-entropy against the frameworks' own, where they mean the same."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend
from loss_parity import distributions, float32_exact

from lsmooth.losses import softmax_cross_entropy

RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 4, 2, 1, 3])
LOGITS = float32_exact(RNG, (6, 5))
SOFT = distributions(RNG, (6, 5))
CLASS_WEIGHT = np.array([0.5, 2.0, 0.25, 1.0, 3.0])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3)], ids=str)
def test_torch_cross_entropy(reduction, label_smoothing, weighted, ignore_index, shape):
    require_backend("torch")
    import torch

    rows = (shape[0], *shape[2:])
    logits = torch.from_numpy(LOGITS.reshape(-1)[: np.prod(shape)].reshape(shape)).requires_grad_()
    labels = torch.from_numpy(LABELS.reshape(rows))
    weight = torch.from_numpy(CLASS_WEIGHT) if weighted else None
    upstream = torch.from_numpy(RNG.normal(size=rows if reduction == "none" else ()))
    theirs = torch.nn.functional.cross_entropy(
        logits, labels, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )
    ours = softmax_cross_entropy(
        labels,
        logits,
        class_weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
        axis=1,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    (their_gradient,) = torch.autograd.grad(theirs, logits, upstream)
    (our_gradient,) = torch.autograd.grad(ours, logits, upstream)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_torch_cross_entropy_of_distributions(weighted):
    """PyTorch divides the mean over distributions by the number of rows, also with class weights."""
    require_backend("torch")
    import torch

    weight = torch.from_numpy(CLASS_WEIGHT) if weighted else None
    labels, logits = torch.from_numpy(SOFT), torch.from_numpy(LOGITS)
    theirs = torch.nn.functional.cross_entropy(logits, labels, weight, label_smoothing=0.1)
    ours = softmax_cross_entropy(
        labels, logits, class_weight=weight, label_smoothing=0.1, reduction="sum_over_batch_size"
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_optax():
    xp = require_backend("jax")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    import jax

    logits = xp.asarray(LOGITS)
    ids = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    np.testing.assert_allclose(softmax_cross_entropy(LABELS, logits, reduction=None), ids, rtol=1e-12)
    for labels, one_hot in ((SOFT, SOFT), (LABELS, np.eye(5)[LABELS])):

        def theirs(z, one_hot=one_hot):
            return optax.softmax_cross_entropy(z, optax.smooth_labels(xp.asarray(one_hot), 0.1)).mean()

        def ours(z, labels=labels):
            return softmax_cross_entropy(labels, z, label_smoothing=0.1)

        np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-12)
        np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["none", "sum", "sum_over_batch_size", "mean_with_sample_weight"])
@pytest.mark.parametrize("weighted", [False, True])
def test_keras(reduction, weighted):
    require_backend("tensorflow")
    keras = pytest.importorskip("keras", reason="keras is not installed")
    weight = np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25], np.float32) if weighted else None
    logits, soft = LOGITS.astype(np.float32), SOFT.astype(np.float32)

    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction=reduction)
    expected = keras.ops.convert_to_numpy(theirs(soft, logits, sample_weight=weight))
    ours = softmax_cross_entropy(soft, logits, label_smoothing=0.1, sample_weight=weight, reduction=reduction)
    np.testing.assert_allclose(ours, expected, rtol=3e-6)

    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    expected = keras.ops.convert_to_numpy(theirs(LABELS, logits, sample_weight=weight))
    ours = softmax_cross_entropy(LABELS, logits, sample_weight=weight, reduction=reduction)
    np.testing.assert_allclose(ours, expected, rtol=3e-6)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("none", "none"),
        ("weighted_sum", "sum"),
        ("weighted_mean", "mean_with_sample_weight"),
        ("weighted_sum_by_nonzero_weights", "sum_by_nonzero_weights"),
        ("weighted_sum_over_nonzero_weights", "sum_over_nonzero_weights"),
        ("weighted_sum_over_batch_size", "sum_over_batch_size"),
    ],
)
@pytest.mark.parametrize("weight", [1.0, 0.0, np.array([0.5, 0.0, 2.0, 1.0, 3.0, 0.25])], ids=["1", "0", "rows"])
def test_tf_losses(theirs, ours, weight):
    xp = require_backend("tensorflow")
    import tensorflow as tf

    if theirs == "weighted_sum_over_nonzero_weights":
        theirs = "weighted_sum_by_nonzero_weights"  # the same by its old name
    expected = tf.compat.v1.losses.softmax_cross_entropy(
        SOFT, tf.constant(LOGITS), weight, label_smoothing=0.1, reduction=theirs if theirs != "none" else "none"
    )
    value = softmax_cross_entropy(SOFT, xp.asarray(LOGITS), label_smoothing=0.1, sample_weight=weight, reduction=ours)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
