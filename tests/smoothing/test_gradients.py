"""Gradients through smoothed targets: of a loss by its logits, and of the targets by eps and by tables."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import smoothing
from lsmooth.losses import softmax_cross_entropy

RNG = np.random.default_rng(0)
LABELS = np.array([[0, 3, 1], [2, 2, 3]])
SOFT = RNG.dirichlet(np.ones(4), size=(2, 3))
SEVERAL = (SOFT > 0.2).astype(float)
LOGITS, UPSTREAM = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 4))
PRIOR, SIMILARITY = np.arange(1.0, 5.0), RNG.uniform(size=(4, 4))

# Targets that are linear in eps, which may be a tensor.
BY_EPS = {
    "uniform": lambda eps: smoothing.smooth_labels(LABELS, eps, num_classes=4),
    "soft labels": lambda eps: smoothing.smooth_labels(SOFT, eps),
    "prior": lambda eps: smoothing.smooth_labels(LABELS, eps, num_classes=4, prior=PRIOR),
    "others alone": lambda eps: smoothing.smooth_labels(LABELS, eps, num_classes=4, exclude_target=True),
    "padding": lambda eps: smoothing.smooth_labels(LABELS, eps, num_classes=4, padding_idx=1),
    "similarity": lambda eps: smoothing.similarity_smooth_labels(LABELS, eps, similarity=SIMILARITY),
    "several labels": lambda eps: smoothing.multilabel_smooth_labels(SEVERAL, eps),
    "several labels, normalized": lambda eps: smoothing.multilabel_smooth_labels(SEVERAL, eps, normalize=True),
}


def online(labels):
    ols = smoothing.OnlineLabelSmoothing(4)
    ols.update_state(LABELS, LOGITS)
    ols.next_epoch()
    return ols.smooth_labels(labels)


TARGETS = {
    **{name: lambda labels, name=name: BY_EPS[name](0.2) for name in BY_EPS},
    "class by class": lambda labels: smoothing.smooth_labels(
        labels, smoothing.smoothing_of_labels(labels, [0.0, 0.1, 0.2, 0.4]), num_classes=4
    ),
    "circular": lambda labels: smoothing.circular_smooth_labels(labels, 4, radius=1.0),
    "ordinal": lambda labels: smoothing.ordinal_smooth_labels(labels, 4),
    "spatial": lambda labels: smoothing.spatial_smooth_labels(labels, 4),
    "online": online,
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_gradient_of_the_cross_entropy_is_the_softmax_less_the_target(differentiable_backend, name):
    xp = differentiable_backend
    q = TARGETS[name](xp.asarray(LABELS))

    def loss(z):
        return softmax_cross_entropy(q, z, reduction="sum")

    _, gradient = xp.value_and_grad(loss, xp.asarray(LOGITS))
    q = np.asarray(TARGETS[name](LABELS))
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    # Targets of torch and TensorFlow are float32.
    assert_close(xp, gradient, p * q.sum(-1, keepdims=True) - q, "float32")


@pytest.mark.parametrize("name", BY_EPS)
@pytest.mark.parametrize("per_row", [False, True], ids=["one eps", "an eps a row"])
def test_targets_have_a_gradient_by_eps(differentiable_backend, name, per_row):
    xp = differentiable_backend
    eps = np.full((2, 3), 0.3) if per_row else np.asarray(0.3)

    def weighed(eps):
        q = BY_EPS[name](eps)
        return xp.sum(q * xp.asarray(UPSTREAM, xp.dtype(q)))

    _, gradient = xp.value_and_grad(weighed, xp.asarray(eps))
    slope = (UPSTREAM * (np.asarray(BY_EPS[name](1.0)) - np.asarray(BY_EPS[name](0.0)))).sum(-1)
    assert_close(xp, gradient, slope if per_row else slope.sum(), "float32", 4.0)


@pytest.mark.parametrize(
    ("table", "targets"),
    [
        (PRIOR, lambda prior: smoothing.smooth_labels(LABELS, 0.3, num_classes=4, prior=prior)),
        (PRIOR, lambda prior: smoothing.smooth_labels(LABELS, 0.3, num_classes=4, prior=prior, exclude_target=True)),
        (SIMILARITY, lambda table: smoothing.similarity_smooth_labels(LABELS, 0.3, similarity=table)),
    ],
    ids=["prior", "prior of the others", "similarity"],
)
def test_targets_have_a_gradient_by_their_tables(differentiable_backend, table, targets):
    xp = differentiable_backend

    def weighed(table):
        q = targets(table)
        return xp.sum(q * xp.asarray(UPSTREAM, xp.dtype(q)))

    def difference(at):
        step = np.zeros(table.shape)
        step[at] = 1e-6
        return (UPSTREAM * (targets(table + step) - targets(table - step))).sum() / 2e-6

    _, gradient = xp.value_and_grad(weighed, xp.asarray(table))
    expected = np.array([difference(at) for at in np.ndindex(table.shape)]).reshape(table.shape)
    assert_close(xp, gradient, expected, "float32", 4.0)
