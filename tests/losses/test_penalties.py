"""Cross-entropy plus a penalty on the logits: the formulas on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import relu
from conftest import assert_close
from loss_parity import distributions
from variant_parity import CALLS, LABELS, ROWS, check_variant, cross_entropy, entropy, logits

from lsmooth import losses

SOFT = distributions(np.random.default_rng(1), (ROWS, 4))


def top(z):
    return z[range(len(z)), z.real.argmax(-1)]


def margin(alpha=0.1, m=10.0):
    return lambda q, z: cross_entropy(q, z) + alpha * relu(top(z)[:, None] - z - m).mean(-1)


def max_suppression(alpha=0.1):
    return lambda q, z: cross_entropy(q, z) + alpha * (top(z) - z.mean(-1))


def adaptive(alpha=0.1, m=10.0, positive=1.0, negative=0.1):
    def rows(q, z):
        others = relu(top(z).real[:, None] - z - m) ** 2
        penalty = positive * relu(top(z) - m) ** 2 + negative * others.sum(-1) / (z.shape[-1] - 1)
        return cross_entropy(q, z) + alpha * penalty

    return rows


def confidence(beta=0.1):
    return lambda q, z: cross_entropy(q, z) - beta * entropy(z)


def squared(beta=1e-3):
    return lambda q, z: cross_entropy(q, z) + beta / 2 * (z**2).sum(-1)


FORMULAS = {
    "margin_label_smoothing": margin(),
    "max_suppression": max_suppression(),
    "adaptive_conditional_label_smoothing": adaptive(),
    "confidence_penalty": confidence(),
    "logit_penalty": squared(),
}


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", FORMULAS)
def test_the_loss_equals_its_formula(backend, name, options, factor):
    check_variant(backend, name, FORMULAS[name], LABELS, logits(scale=8.0), factor=factor, **options)


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("margin_label_smoothing", {"alpha": 1.0, "margin": 0.0}, margin(1.0, 0.0)),
        ("margin_label_smoothing", {"margin": 3.0}, margin(0.1, 3.0)),
        ("max_suppression", {"alpha": 0.5}, max_suppression(0.5)),
        (
            "adaptive_conditional_label_smoothing",
            {"alpha": 0.5, "margin": 1.0, "positive_weight": 0.3, "negative_weight": 2.0},
            adaptive(0.5, 1.0, 0.3, 2.0),
        ),
        ("confidence_penalty", {"beta": 2.0}, confidence(2.0)),
        ("logit_penalty", {"beta": 0.5}, squared(0.5)),
    ],
)
def test_options_apply_to_soft_labels_too(backend, name, options, formula):
    check_variant(backend, name, formula, SOFT, logits(2), reduction="none", **options)


@pytest.mark.parametrize("name", FORMULAS)
def test_without_weight_the_loss_is_the_cross_entropy(backend, name):
    z = backend.asarray(logits(3))
    weight = {"beta": 0.0} if name in ("confidence_penalty", "logit_penalty") else {"alpha": 0.0}
    ours = getattr(losses, name)(LABELS, z, label_smoothing=0.1, **weight)
    assert_close(
        backend, ours, backend.to_numpy(losses.softmax_cross_entropy(LABELS, z, label_smoothing=0.1)), "float64"
    )


def test_label_smoothing_is_a_margin_of_zero_at_the_largest_logit(backend):
    # Where the label has the largest logit, CE + eps (z_y - mean z) is the smoothed cross-entropy.
    z = backend.asarray(logits(4))
    labels = logits(4).argmax(-1)
    smoothed = backend.to_numpy(losses.softmax_cross_entropy(labels, z, label_smoothing=0.1))
    assert_close(backend, losses.max_suppression(labels, z, alpha=0.1), smoothed, "float64", 10)
    assert_close(backend, losses.margin_label_smoothing(labels, z, alpha=0.1, margin=0.0), smoothed, "float64", 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("margin_label_smoothing", {"alpha": -1.0}, r"alpha must be a finite number of at least 0, got -1"),
        ("margin_label_smoothing", {"margin": -1.0}, "margin must be"),
        ("max_suppression", {"alpha": float("inf")}, "alpha must be"),
        ("adaptive_conditional_label_smoothing", {"positive_weight": -0.5}, "positive_weight must be"),
        ("adaptive_conditional_label_smoothing", {"negative_weight": -0.5}, "negative_weight must be"),
        ("confidence_penalty", {"beta": -1}, "beta must be"),
        ("logit_penalty", {"beta": -1}, "beta must be"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)([0], [[0.0, 1.0]], **options)
