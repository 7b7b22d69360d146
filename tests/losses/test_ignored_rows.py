"""Ignored rows of linear heads do not affect losses and gradients, whatever their values."""

import numpy as np
import pytest

from lsmooth.distillation import linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy

RNG = np.random.default_rng(0)
HIDDEN, WEIGHT, BIAS = RNG.normal(size=(7, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=5)
TEACHER = RNG.normal(size=(5, 4))
LABELS = np.array([0, 1, -100, 3, -100, 2, 4])
IGNORED = LABELS == -100


def cross_entropy(hidden, weight, bias, **options):
    return linear_softmax_cross_entropy(LABELS, hidden, weight, bias, label_smoothing=0.1, **options)


def cross_entropy_of_rows(hidden, weight, bias, **options):
    eps = np.linspace(0.0, 0.5, 7)
    return linear_softmax_cross_entropy(LABELS, hidden, weight, bias, label_smoothing=eps, **options)


def distillation(hidden, weight, bias, **options):
    return linear_distillation_loss(hidden, TEACHER, hidden, weight, student_bias=bias, labels=LABELS, **options)


def soft_distillation(hidden, weight, bias, **options):
    return linear_distillation_loss(
        hidden, TEACHER, hidden, weight, student_bias=bias, labels=LABELS, alpha=1.0, temperature=2.0, **options
    )


@pytest.mark.parametrize("block_size", [None, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_of_rows, distillation, soft_distillation])
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e300])
def test_hidden_states_of_ignored_rows_do_not_contribute(differentiable_backend, loss, reduction, block_size, junk):
    xp = differentiable_backend
    clean = [HIDDEN, WEIGHT, BIAS]
    dirty = [np.where(IGNORED[:, None], junk, HIDDEN), WEIGHT, BIAS]
    options = {"ignore_index": -100, "reduction": reduction, "block_size": block_size}
    for moving in range(3):
        found = []
        for arrays in (dirty, clean):

            def total(x, arrays=arrays, moving=moving):
                given = [xp.asarray(a) for a in arrays]
                return xp.sum(loss(*[x if i == moving else a for i, a in enumerate(given)], **options))

            value, gradient = xp.value_and_grad(total, xp.asarray(arrays[moving]))
            found.append((xp.to_numpy(value), xp.to_numpy(gradient)))
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-13)


def test_values_on_numpy(backend):
    dirty = np.where(IGNORED[:, None], np.nan, HIDDEN)
    for loss in (cross_entropy, cross_entropy_of_rows, distillation, soft_distillation):
        value = backend.to_numpy(loss(backend.asarray(dirty), WEIGHT, BIAS, ignore_index=-100, block_size=3))
        assert value == pytest.approx(float(loss(HIDDEN, WEIGHT, BIAS, ignore_index=-100)), rel=1e-12)
