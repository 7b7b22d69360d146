"""Decoupled distillation: the terms of the label and of the other classes."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close, require_backend
from pair_parity import CALLS, CLASSES, LABELS, ROWS, check_pair, kl, logits

from lsmooth.distillation import decoupled_distillation_loss, distillation_loss

TEACHER, STUDENT = logits(0), logits(1)
OTHERS = np.array([[k for k in range(CLASSES) if k != y] for y in LABELS])


def decoupled(alpha=1.0, beta=8.0, temperature=1.0):
    def rows(t, s):
        (p, q), at = (softmax(z / temperature) for z in (t, s)), (np.arange(ROWS), LABELS)
        of_target = kl(np.stack([p[at], 1 - p[at]], -1), np.stack([q[at], 1 - q[at]], -1))
        of_others = kl(*(softmax(np.take_along_axis(z / temperature, OTHERS, -1)) for z in (t, s)))
        return temperature**2 * (alpha * of_target + beta * of_others)

    return rows


def loss(teacher, student, **options):
    return decoupled_distillation_loss(teacher, student, LABELS, **options)


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
def test_values_and_gradients_equal_the_formula(backend, options, factor):
    check_pair(backend, loss, decoupled(temperature=4.0), TEACHER, STUDENT, factor=factor, temperature=4.0, **options)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_the_terms_are_weighted(backend, alpha, beta):
    options = {"alpha": alpha, "beta": beta, "reduction": "none"}
    check_pair(backend, loss, decoupled(alpha, beta), TEACHER, STUDENT, **options)


def test_the_parts_make_up_the_forward_kl(backend):
    t, s = backend.asarray(TEACHER), backend.asarray(STUDENT)
    one = backend.to_numpy(loss(t, s, beta=0.0, reduction="none"))
    other = backend.to_numpy(loss(t, s, alpha=0.0, beta=1.0, reduction="none"))
    rest = 1 - softmax(TEACHER)[np.arange(ROWS), LABELS]
    assert_close(backend, distillation_loss(t, s, reduction="none"), one + rest * other, "float64", 10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_overconfident_student_gives_a_finite_loss(differentiable_backend, dtype):
    # The published code overflows here.
    xp = differentiable_backend
    t, s = xp.asarray([[0.0, 1.0, 2.0]], dtype), xp.asarray([[1e4, 0.0, -1e4]], dtype)
    value, slope = xp.value_and_grad(lambda x: decoupled_distillation_loss(t, x, [0]), s)
    p = softmax(np.array([0.0, 1.0, 2.0]))
    target = p[0] * np.log(p[0]) + (1 - p[0]) * (np.log(1 - p[0]) + 1e4)
    r = softmax(np.array([1.0, 2.0]))
    others = (r * np.log(r)).sum() + r[1] * 1e4
    assert float(xp.to_numpy(value)) == pytest.approx(target + 8 * others, rel=1e-6)
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_an_overconfident_teacher_gives_a_finite_loss(differentiable_backend):
    xp = differentiable_backend
    t, s = xp.asarray([[1e4, 0.0, -1e4]]), xp.asarray([[0.0, 1.0, 2.0]])
    value, slope = xp.value_and_grad(lambda x: decoupled_distillation_loss(t, x, [0], beta=0.0), s)
    assert float(xp.to_numpy(value)) == pytest.approx(-np.log(softmax(np.array([0.0, 1.0, 2.0]))[0]), rel=1e-6)
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_classes_masked_by_both_match_removed_classes(differentiable_backend):
    xp = differentiable_backend
    t, s = (xp.asarray(np.append(z, np.full((ROWS, 1), -np.inf), axis=1)) for z in (TEACHER, STUDENT))
    value, slope = xp.value_and_grad(lambda x: loss(t, x), s)
    expected, narrow = xp.value_and_grad(lambda x: loss(xp.asarray(TEACHER), x), xp.asarray(STUDENT))
    assert_close(xp, value, xp.to_numpy(expected), "float64")
    assert_close(xp, slope, np.append(xp.to_numpy(narrow), np.zeros((ROWS, 1)), axis=1), "float64")


def test_a_label_without_other_classes_has_zero_loss(differentiable_backend):
    xp = differentiable_backend
    z = xp.asarray(np.array([[1.0, -np.inf, -np.inf]]))
    value, slope = xp.value_and_grad(lambda x: decoupled_distillation_loss(z, x, [0]), z)
    assert float(xp.to_numpy(value)) == 0.0
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_ignored_rows_do_not_count_and_labels_out_of_range_are_nan(backend):
    labels = np.array([0, -100, 1, 4, 2])
    t, s = backend.asarray(TEACHER), backend.asarray(STUDENT)
    rows = decoupled_distillation_loss(t, s, labels, ignore_index=-100, reduction="none")
    rows = backend.to_numpy(rows)
    assert np.isnan(rows).tolist() == [False, False, False, True, False]
    assert rows[1] == 0.0


def test_the_loss_can_be_traced():
    xp = require_backend("jax")
    import jax

    t, s = xp.asarray(TEACHER), xp.asarray(STUDENT)
    traced = jax.jit(decoupled_distillation_loss)(t, s, LABELS)
    np.testing.assert_allclose(traced, decoupled()(TEACHER, STUDENT).mean(), rtol=1e-12)


def test_tensorflow_traces_it_for_any_batch():
    require_backend("tensorflow")
    import tensorflow as tf

    signature = [*[tf.TensorSpec([None, CLASSES], tf.float64)] * 2, tf.TensorSpec([None], tf.int32)]
    traced = tf.function(decoupled_distillation_loss, input_signature=signature)
    value = traced(tf.constant(TEACHER), tf.constant(STUDENT), tf.constant(LABELS, tf.int32))
    np.testing.assert_allclose(value, decoupled()(TEACHER, STUDENT).mean(), rtol=1e-12)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 0, got -1"):
        loss(TEACHER, STUDENT, alpha=-1)
    with pytest.raises(ValueError, match="beta must be a finite number of at least 0, got -1"):
        loss(TEACHER, STUDENT, beta=-1)
    with pytest.raises(ValueError, match=r"labels must have the rows' shape \(5,\), got \(2,\)"):
        decoupled_distillation_loss(TEACHER, STUDENT, [0, 1])
    with pytest.raises(TypeError, match="labels must be integer class ids, got float64"):
        decoupled_distillation_loss(TEACHER, STUDENT, np.ones(5))
