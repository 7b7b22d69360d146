"""The smoothed loss as a cross-entropy, as a mixture of NLLs and as a KL divergence: one up to a constant."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import losses, smoothing
from lsmooth.backends.formulas.rows import log_softmax
from lsmooth.compat import annotated_transformer, fairseq, optax

LOGITS = 3 * np.random.default_rng(0).normal(size=(4, 5))
LABELS = np.array([0, 4, 2, 4])


def entropy(q):
    return -(q * np.log(np.where(q > 0, q, 1.0))).sum(-1)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.8])
def test_the_three_forms_agree_up_to_the_entropy_of_the_targets(backend, eps):
    x, ids = backend.asarray(LOGITS), backend.asarray(LABELS)
    q = smoothing.smooth_labels(np.eye(5)[LABELS], eps)
    targets = backend.asarray(q)
    cross_entropy = losses.softmax_cross_entropy(ids, x, label_smoothing=eps, reduction="none")
    of_targets = losses.softmax_cross_entropy(targets, x, reduction="none")
    # fairseq's NLLs mix with the eps of the K - 1 others.
    mixture, _ = fairseq.label_smoothed_nll_loss(log_softmax(backend, x), ids, eps * 4 / 5, reduce=False)
    divergence = optax.kl_divergence(log_softmax(backend, x), targets)
    expected = backend.to_numpy(cross_entropy)
    assert_close(backend, of_targets, expected, "float64", 4.0)
    assert_close(backend, mixture, expected, "float64", 4.0)
    assert_close(backend, divergence, expected - entropy(q), "float64", 4.0)


def test_the_three_forms_have_one_gradient(differentiable_backend):
    xp = differentiable_backend
    ids, q = xp.asarray(LABELS), smoothing.smooth_labels(np.eye(5)[LABELS], 0.1)
    forms = [
        lambda x: losses.softmax_cross_entropy(ids, x, label_smoothing=0.1, reduction="sum"),
        lambda x: fairseq.label_smoothed_nll_loss(log_softmax(xp, x), ids, 0.1 * 4 / 5)[0],
        lambda x: xp.sum(optax.kl_divergence(log_softmax(xp, x), xp.asarray(q))),
    ]
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    for form in forms:
        assert_close(xp, xp.value_and_grad(form, xp.asarray(LOGITS))[1], p - q, "float64", 4.0)


def test_the_padded_divergence_is_a_cross_entropy_minus_an_entropy(backend):
    x = backend.asarray(LOGITS)
    criterion = annotated_transformer.LabelSmoothing(size=5, padding_idx=2, smoothing=0.3)
    divergence = criterion(log_softmax(backend, x), backend.asarray(LABELS))
    q = backend.to_numpy(criterion.true_dist)
    cross_entropy = losses.softmax_cross_entropy(criterion.true_dist, x, reduction="sum")
    assert_close(backend, divergence, backend.to_numpy(cross_entropy) - entropy(q).sum(), "float64", 4.0)
