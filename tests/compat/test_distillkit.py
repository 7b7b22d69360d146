"""`lsmooth.compat.distillkit` is DistillKit's formula, and says which call of lsmooth is the same."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.compat.distillkit import sparse_kl_div
from lsmooth.distillation import sparse_distillation_loss

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 3, 6)), 2 * RNG.normal(size=(2, 3, 6))
IDS = np.argsort(-TEACHER, -1)[..., :3]
MASK = np.array([[True, False, True], [True, True, False]])


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


VALUES = np.take_along_axis(log_softmax(TEACHER), IDS, -1)


def written_out(missing, temperature, mask=None):
    """The divergence per token, over the kept classes and optionally the missing mass as one class."""
    t = np.exp(VALUES) ** (1 / temperature)
    rest = (1 - np.exp(VALUES).sum(-1, keepdims=True)) ** (1 / temperature)
    t = t / (t.sum(-1, keepdims=True) + (rest if missing == "symmetric_uniform" else 0.0))
    s = np.take_along_axis(np.exp(log_softmax(STUDENT / temperature)), IDS, -1)
    rows = (t * np.log(t / s)).sum(-1)
    if missing == "symmetric_uniform":
        rows = rows + (1 - t.sum(-1)) * np.log((1 - t.sum(-1)) / (1 - s.sum(-1)))
    return (rows * (1.0 if mask is None else mask)).sum()


@pytest.mark.parametrize("missing", ["zero", "symmetric_uniform"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_the_sum_over_tokens_matches_distillkit(backend, missing, temperature, mask):
    value = sparse_kl_div(backend.asarray(STUDENT), IDS, VALUES, mask, missing=missing, temperature=temperature)
    assert_close(backend, value, written_out(missing, temperature, mask), "float64", 20.0)


def test_logits_of_the_teacher_are_normalised_over_the_kept_classes(backend):
    logits = np.take_along_axis(TEACHER, IDS, -1)
    value = sparse_kl_div(backend.asarray(STUDENT), IDS, logits, log_target=False, temperature=2.0)
    assert_close(backend, value, written_out("zero", 2.0), "float64", 20.0)


@pytest.mark.parametrize(("missing", "tail"), [("zero", "drop"), ("symmetric_uniform", "bucket")])
def test_the_equivalent_call_of_lsmooth_agrees(differentiable_backend, missing, tail):
    """``"zero"`` is ``tail="drop"`` of a renormalised teacher."""
    xp = differentiable_backend
    values = log_softmax(VALUES) if missing == "zero" else VALUES

    def theirs(x):
        return sparse_kl_div(x, IDS, VALUES, missing=missing)

    def ours(x):
        return sparse_distillation_loss(IDS, values, x, tail=tail, reduction="sum")

    (value, slope), (expected, right) = (xp.value_and_grad(f, xp.asarray(STUDENT)) for f in (theirs, ours))
    assert_close(xp, value, xp.to_numpy(expected), "float64", 20.0)
    assert_close(xp, slope, xp.to_numpy(right), "float64", 20.0)


def test_a_teacher_without_missing_mass_has_no_other_classes(backend):
    every = np.tile(np.arange(6), (2, 3, 1))
    value = sparse_kl_div(backend.asarray(STUDENT), every, log_softmax(TEACHER), missing="symmetric_uniform")
    log_t, log_s = log_softmax(TEACHER), log_softmax(STUDENT)
    assert_close(backend, value, (np.exp(log_t) * (log_t - log_s)).sum(), "float64", 20.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "uniform"}, "missing must be one of zero, symmetric_uniform; got 'uniform'"),
        ({"missing": "symmetric_uniform", "log_target": False}, "needs log-probabilities"),
        ({"temperature": 0.0}, "temperature must be"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        sparse_kl_div(STUDENT, IDS, VALUES, **options)
