"""Losses for noisy labels: their formulas on every backend, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close
from loss_parity import distributions
from variant_parity import CALLS, LABELS, ROWS, check_variant, cross_entropy, entropy, logits

from lsmooth.losses import (
    bootstrap_cross_entropy,
    generalized_cross_entropy,
    softmax_cross_entropy,
    symmetric_cross_entropy,
)

SOFT = distributions(np.random.default_rng(1), (ROWS, 4))


def generalized(power=0.7):
    return lambda q, z: (q * (1 - softmax(z) ** power)).sum(-1) / power


def symmetric(alpha=0.1, beta=1.0, log_zero=-4.0):
    def rows(q, z):
        log_q = np.maximum(np.log(np.maximum(q, 1e-300)), log_zero)
        return alpha * cross_entropy(q, z) - beta * (softmax(z) * log_q).sum(-1)

    return rows


def bootstrap(beta=0.95, hard=False):
    def rows(q, z):
        own = -np.log(softmax(z))[range(len(z)), z.real.argmax(-1)] if hard else entropy(z)
        return beta * cross_entropy(q, z) + (1 - beta) * own

    return rows


FORMULAS = {
    "generalized_cross_entropy": generalized(),
    "symmetric_cross_entropy": symmetric(),
    "bootstrap_cross_entropy": bootstrap(),
}


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", FORMULAS)
def test_the_loss_equals_its_formula(backend, name, options, factor):
    check_variant(backend, name, FORMULAS[name], LABELS, logits(), factor=factor, **options)


@pytest.mark.parametrize(
    ("name", "options", "formula"),
    [
        ("generalized_cross_entropy", {"q": 0.0}, cross_entropy),
        ("generalized_cross_entropy", {"q": 0.01}, generalized(0.01)),
        ("generalized_cross_entropy", {"q": 1.0}, generalized(1.0)),
        ("symmetric_cross_entropy", {"alpha": 0.0, "log_zero": -9.0}, symmetric(0.0, 1.0, -9.0)),
        ("symmetric_cross_entropy", {"alpha": 2.0, "beta": 0.5}, symmetric(2.0, 0.5)),
        ("bootstrap_cross_entropy", {"beta": 0.5}, bootstrap(0.5)),
        ("bootstrap_cross_entropy", {"beta": 0.8, "hard": True}, bootstrap(0.8, True)),
        ("bootstrap_cross_entropy", {"beta": 0.0}, bootstrap(0.0)),
    ],
)
def test_options_apply_to_soft_labels_too(backend, name, options, formula):
    check_variant(backend, name, formula, SOFT, logits(2), reduction="none", **options)


def test_the_generalized_cross_entropy_is_exact_in_both_tails(backend):
    for lead in (40.0, 300.0, -300.0):
        z = backend.asarray(np.array([[lead, 0.0]]))
        expected = -np.expm1(-0.5 * np.logaddexp(0.0, -lead)) / 0.5
        assert float(backend.to_numpy(generalized_cross_entropy([0], z, q=0.5))) == pytest.approx(expected, rel=1e-12)


def test_the_generalized_cross_entropy_is_bounded(backend):
    z = backend.asarray(np.array([[-1e4, 0.0, 0.0]]))
    assert float(backend.to_numpy(generalized_cross_entropy([0], z, q=0.25))) == pytest.approx(4.0)


def test_full_trust_in_the_label_gives_the_cross_entropy(backend):
    z = backend.asarray(logits(3))
    expected = backend.to_numpy(softmax_cross_entropy(LABELS, z, label_smoothing=0.1))
    for loss, options in (
        (bootstrap_cross_entropy, {"beta": 1.0}),
        (generalized_cross_entropy, {"q": 0.0}),
        (symmetric_cross_entropy, {"alpha": 1.0, "beta": 0.0}),
    ):
        assert_close(backend, loss(LABELS, z, label_smoothing=0.1, **options), expected, "float64")


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (generalized_cross_entropy, {"q": 1.5}, r"q must be in \[0, 1\], got 1\.5"),
        (symmetric_cross_entropy, {"alpha": -1}, "alpha must be a finite number of at least 0, got -1"),
        (symmetric_cross_entropy, {"beta": float("nan")}, "beta must be a finite number of at least 0, got nan"),
        (symmetric_cross_entropy, {"log_zero": 0.0}, r"log_zero must be a finite number below 0, got 0\.0"),
        (bootstrap_cross_entropy, {"beta": 2}, r"beta must be in \[0, 1\], got 2"),
    ],
)
def test_bad_options_are_named(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss([0], [[0.0, 1.0]], **options)
