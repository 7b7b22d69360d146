"""Several teachers, peers, sequences, and no teacher at all."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close, require_backend
from pair_parity import LABELS, kl, kl_of_logits, logits

from lsmooth.distillation import (
    MovingAverageTeacher,
    contrastive_distillation_loss,
    distillation_loss,
    ensemble_distillation_loss,
    gkd_loss,
    mutual_distillation_losses,
    virtual_teacher_logits,
)
from lsmooth.losses import softmax_cross_entropy
from lsmooth.smoothing import smooth_labels

TEACHERS, STUDENT = [logits(0), logits(1), logits(2)], logits(3)


@pytest.mark.parametrize("weights", [None, [1.0, 0.0, 3.0]])
def test_several_teachers_are_averaged(backend, weights):
    t, s = [backend.asarray(x) for x in TEACHERS], backend.asarray(STUDENT)
    expected = np.average([4 * kl_of_logits(x / 2, STUDENT / 2) for x in TEACHERS], axis=0, weights=weights)
    value = ensemble_distillation_loss(t, s, teacher_weights=weights, temperature=2.0, reduction="none")
    assert_close(backend, value, expected, "float64", 10)


def test_the_gradient_of_several_teachers_is_that_of_their_mean(differentiable_backend):
    xp = differentiable_backend
    _, slope = xp.value_and_grad(
        lambda s: ensemble_distillation_loss(TEACHERS, s, reduction="sum"), xp.asarray(STUDENT)
    )
    mean = np.mean([softmax(t) for t in TEACHERS], axis=0)
    assert_close(xp, slope, softmax(STUDENT) - mean, "float64", 10)


def test_each_peer_learns_from_the_mean_of_the_others(backend):
    peers = [backend.asarray(x) for x in TEACHERS]
    for i, value in enumerate(mutual_distillation_losses(peers, reduction="none")):
        others = [kl_of_logits(TEACHERS[j], TEACHERS[i]) for j in range(3) if j != i]
        assert_close(backend, value, np.mean(others, axis=0), "float64", 10)


def test_peers_get_no_gradient_as_teachers(differentiable_backend):
    xp, other = differentiable_backend, differentiable_backend.asarray(TEACHERS[1])
    _, slope = xp.value_and_grad(
        lambda x: mutual_distillation_losses([x, other])[1] + 0.0 * xp.sum(x), xp.asarray(TEACHERS[0])
    )
    assert (xp.to_numpy(slope) == 0).all()


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_gkd_is_a_mean_over_the_tokens_that_count(backend, beta):
    t, s = logits(4, shape=(2, 3, 5)), logits(5, shape=(2, 3, 5))
    labels = np.array([[1, 2, -100], [0, -100, -100]])
    p, q = softmax(t / 2), softmax(s / 2)
    m = beta * p + (1 - beta) * q
    tokens = kl(p, q) if beta == 0 else kl(q, p) if beta == 1 else beta * kl(p, m) + (1 - beta) * kl(q, m)
    options = {"beta": beta, "temperature": 2.0}
    value = gkd_loss(backend.asarray(t), backend.asarray(s), labels=labels, **options)
    assert_close(backend, value, tokens[labels != -100].mean(), "float64", 10)
    assert_close(backend, gkd_loss(backend.asarray(t), backend.asarray(s), **options), tokens.mean(), "float64", 10)


def test_a_virtual_teacher_at_temperature_one_is_label_smoothing(differentiable_backend):
    xp = differentiable_backend
    teacher = virtual_teacher_logits(xp.asarray(LABELS), 4, confidence=0.9)
    assert_close(xp, xp.exp(teacher), np.where(np.eye(4)[LABELS] == 1, 0.9, 0.1 / 3), xp.dtype(teacher), 2)
    smoothed = smooth_labels(LABELS, 0.1, num_classes=4, exclude_target=True)
    s = xp.asarray(STUDENT)
    _, ours = xp.value_and_grad(lambda x: distillation_loss(teacher, x), s)
    _, theirs = xp.value_and_grad(lambda x: softmax_cross_entropy(smoothed, x), s)
    assert_close(xp, ours, xp.to_numpy(theirs), "float32")  # the labels come in the default dtype


def test_a_label_out_of_range_gives_a_row_of_nan(backend):
    rows = backend.to_numpy(virtual_teacher_logits(backend.asarray(np.array([0, 4])), 4))
    assert np.isnan(rows).all(-1).tolist() == [False, True]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_self_distillation_averages_are_unbiased_from_the_first_visit(backend, momentum):
    teacher = MovingAverageTeacher(8, 4, momentum=momentum)
    first, second = backend.asarray(TEACHERS[0][:2]), backend.asarray(TEACHERS[1][:2])
    indices = backend.asarray(np.array([6, 1]))
    teacher.update_state(indices, first)
    assert_close(backend, teacher.logits(indices, like=first), np.log(softmax(TEACHERS[0][:2])), "float32")
    teacher.update_state(indices, second)
    p, q = (softmax(x[:2]) for x in TEACHERS[:2])
    mean = (momentum * p + q) / (momentum + 1)
    assert_close(backend, teacher.logits(indices), np.log(mean), "float32", 2)
    unseen = teacher.logits(backend.asarray(np.array([0])))
    assert_close(backend, unseen, np.log(np.full((1, 4), 0.25)), "float32")
    copy = MovingAverageTeacher.from_config(teacher.get_config())
    copy.set_state(teacher.get_state())
    assert_close(backend, copy.logits(indices), backend.to_numpy(teacher.logits(indices)), "float32")


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 0, 2, 1])])
def test_contrastive_distillation_equals_its_formula(backend, labels):
    t, s = logits(6, shape=(5, 3)), logits(7, shape=(5, 3))
    c = (t / np.linalg.norm(t, axis=1)[:, None]) @ (s / np.linalg.norm(s, axis=1)[:, None]).T
    h = np.exp(c / 0.5) / (np.exp(c / 0.5) + 0.1)
    rows = np.zeros(5)
    for i in range(5):
        negatives = [j for j in range(5) if j != i and (labels is None or labels[i] != labels[j])]
        rows[i] = -np.log(h[i, i]) - np.log(1 - h[i, negatives]).sum()
    options = {"labels": labels, "temperature": 0.5, "prior_ratio": 0.1}
    value = contrastive_distillation_loss(backend.asarray(t), backend.asarray(s), reduction="none", **options)
    assert_close(backend, value, rows, "float64", 10)
    assert_close(
        backend,
        contrastive_distillation_loss(backend.asarray(t), backend.asarray(s), **options),
        rows.mean(),
        "float64",
        10,
    )


def test_contrastive_distillation_does_not_overflow(differentiable_backend):
    xp = differentiable_backend
    t = xp.asarray(np.eye(3), "float32")
    value, slope = xp.value_and_grad(lambda s: contrastive_distillation_loss(t, s, temperature=1e-3), -t)
    assert float(xp.to_numpy(value)) == pytest.approx(1000.0 + 2 * np.log(2), rel=1e-6)
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_the_losses_can_be_traced():
    xp = require_backend("jax")
    import jax

    s = xp.asarray(STUDENT)
    traced = jax.jit(lambda t, x: ensemble_distillation_loss(t, x))([xp.asarray(t) for t in TEACHERS], s)
    np.testing.assert_allclose(traced, ensemble_distillation_loss(TEACHERS, STUDENT), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(gkd_loss)(s + 1.0, s), 0.0, atol=1e-15)
    embedded = jax.jit(contrastive_distillation_loss)(s, s)
    np.testing.assert_allclose(embedded, contrastive_distillation_loss(STUDENT, STUDENT), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ensemble_distillation_loss([], STUDENT), ValueError, "teacher_weights must be 0 non-negative numbers"),
        (
            lambda: ensemble_distillation_loss(TEACHERS, STUDENT, teacher_weights=[1.0]),
            ValueError,
            "must be 3 non-neg",
        ),
        (
            lambda: ensemble_distillation_loss(TEACHERS, STUDENT, teacher_weights=[0, 0, 0]),
            ValueError,
            "at least one of them above 0",
        ),
        (lambda: mutual_distillation_losses([STUDENT]), ValueError, "two or more students' logits, got 1"),
        (lambda: gkd_loss(STUDENT, STUDENT, beta=2.0), ValueError, r"beta must be in \[0, 1\], got 2"),
        (lambda: virtual_teacher_logits([0], 1), ValueError, "num_classes must be at least 2, got 1"),
        (
            lambda: virtual_teacher_logits([0], 2, confidence=1.0),
            ValueError,
            r"confidence must be in \[0\.5, 1\), got 1",
        ),
        (lambda: virtual_teacher_logits([0.0], 2), TypeError, "labels must be integer class ids"),
        (lambda: MovingAverageTeacher(0, 2), ValueError, "num_examples must be at least 1, got 0"),
        (lambda: MovingAverageTeacher(2, 2, momentum=1.0), ValueError, r"momentum must be in \[0, 1\), got 1"),
        (lambda: MovingAverageTeacher(2, 2).logits([2]), ValueError, r"indices must be flat and in 0\.\.1, got \[2\]"),
        (lambda: MovingAverageTeacher(2, 2).update_state([0], [[0.0]]), ValueError, r"logits must have shape \(1, 2\)"),
        (
            lambda: MovingAverageTeacher(2, 2).set_state({"mean": [[1.0]], "visits": [1]}),
            ValueError,
            "state must be of",
        ),
        (lambda: contrastive_distillation_loss(STUDENT, STUDENT, temperature=0), ValueError, "temperature must be"),
        (
            lambda: contrastive_distillation_loss(STUDENT, STUDENT, labels=[0]),
            ValueError,
            r"labels must have shape \(5,\)",
        ),
        (lambda: contrastive_distillation_loss(STUDENT, STUDENT[:, :2]), ValueError, "must have the same shape"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
