"""Sparse teachers, with only the largest classes."""

from __future__ import annotations

import numpy as np
import pytest
from complex_step import softmax
from conftest import assert_close, require_backend
from pair_parity import CALLS, check_pair, logits

from lsmooth.distillation import distillation_loss, sparse_distillation_loss

CLASSES, KEPT = 6, 3
TEACHER, STUDENT = logits(0, shape=(5, CLASSES)), logits(1, shape=(5, CLASSES))
INDICES = np.argsort(-TEACHER, -1)[:, :KEPT]
LOG_PROBS = np.log(np.take_along_axis(softmax(TEACHER), INDICES, -1))
TAILS = ("renormalize", "drop", "bucket")
DIVERGENCES = ("forward_kl", "reverse_kl", "jensen_shannon")


def sparse(tail, temperature=1.0, divergence="forward_kl", beta=0.3):
    """The definition: the classes that are not kept are one more class, with the same T."""

    def at_temperature(p):
        p = p ** (1 / temperature)
        return p / p.sum(-1, keepdims=True)

    def rows(log_t, s):
        pair = [np.exp(log_t), np.take_along_axis(softmax(s), INDICES, -1)]
        if tail != "renormalize":
            pair = [np.concatenate([p, 1 - p.sum(-1, keepdims=True)], -1) for p in pair]
        t, q = (at_temperature(p) for p in pair)
        m = beta * t + (1 - beta) * q
        terms = {
            "forward_kl": t * np.log(t / q),
            "reverse_kl": q * np.log(q / t),
            "jensen_shannon": beta * t * np.log(t / m) + (1 - beta) * q * np.log(q / m),
        }[divergence]
        return (terms[..., :KEPT] if tail == "drop" else terms).sum(-1) * temperature**2

    return rows


def loss(log_probs, student, **options):
    return sparse_distillation_loss(INDICES, log_probs, student, **options)


@pytest.mark.parametrize(("options", "factor"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("tail", TAILS)
def test_values_and_gradients_equal_the_formula(backend, tail, options, factor):
    check_pair(backend, loss, sparse(tail), LOG_PROBS, STUDENT, factor=factor, tail=tail, **options)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergences_at_a_temperature(backend, tail, divergence, temperature):
    formula = sparse(tail, temperature, divergence)
    options = {"tail": tail, "divergence": divergence, "beta": 0.3, "reduction": "none"}
    check_pair(backend, loss, formula, LOG_PROBS, STUDENT, temperature=temperature, **options)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_temperature_for_each_row(differentiable_backend, tail, divergence):
    xp, t = differentiable_backend, np.array([0.5, 1.0, 2.0, 3.0, 4.0])
    options = {"tail": tail, "divergence": divergence, "beta": 0.3, "reduction": "none"}
    expected = [sparse(tail, T, divergence)(LOG_PROBS, STUDENT)[i] for i, T in enumerate(t)]
    assert_close(xp, loss(LOG_PROBS, xp.asarray(STUDENT), temperature=t, **options), expected, "float64", 20)
    places = np.insert(LOG_PROBS, 1, -np.inf, axis=1), np.insert(INDICES, 1, -1, axis=1)
    _, slope = xp.value_and_grad(
        lambda x: xp.sum(sparse_distillation_loss(places[1], places[0], STUDENT, temperature=x, **options)),
        xp.asarray(t),
    )
    step = 1e-6
    up, down = (
        [sparse(tail, T + d, divergence)(LOG_PROBS, STUDENT)[i] for i, T in enumerate(t)] for d in (step, -step)
    )
    np.testing.assert_allclose(xp.to_numpy(slope), (np.array(up) - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_classes_kept_is_the_dense_divergence(backend, tail, divergence):
    every = np.tile(np.arange(CLASSES)[::-1], (5, 1))
    log_probs = np.log(np.take_along_axis(softmax(TEACHER), every, -1))
    options = {"divergence": divergence, "beta": 0.3, "temperature": 2.0, "reduction": "none"}
    expected = backend.to_numpy(distillation_loss(TEACHER, backend.asarray(STUDENT), **options))
    found = sparse_distillation_loss(every, log_probs, backend.asarray(STUDENT), tail=tail, **options)
    assert_close(backend, found, expected, "float64", 20)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_teacher_with_almost_all_mass_kept(differentiable_backend, divergence, dtype):
    """The tail of the teacher rounds to 0; that of the student does not."""
    xp = differentiable_backend
    kept, student = xp.asarray([[0.0, -40.0]], dtype), xp.asarray([[1.0, 2.0, 0.0]], dtype)
    value, slope = xp.value_and_grad(
        lambda x: sparse_distillation_loss([[0, 1]], kept, x, tail="bucket", divergence=divergence), student
    )
    assert np.isfinite(float(xp.to_numpy(value)))
    assert np.isfinite(xp.to_numpy(slope)).all()


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_log_probabilities_at_a_temperature_match_trl(backend, beta):
    """TRL: both sides' top-k log-probabilities at T and their tail, then the divergence of beta, without T^2."""

    def with_tail(log_p):
        return np.concatenate([log_p, np.log(-np.expm1(np.log(np.exp(log_p).sum(-1, keepdims=True))))], -1)

    def kl(log_p, log_q):
        return (np.exp(log_p) * (log_p - log_q)).sum(-1)

    temperature = 2.0
    kept = [np.take_along_axis(np.log(softmax(z / temperature)), INDICES, -1) for z in (TEACHER, STUDENT)]
    log_t, log_s = (with_tail(log_p) for log_p in kept)
    if beta in (0.0, 1.0):
        expected = kl(log_t, log_s) if beta == 0.0 else kl(log_s, log_t)
    else:
        log_m = np.logaddexp(log_s + np.log(1 - beta), log_t + np.log(beta))
        expected = beta * kl(log_t, log_m) + (1 - beta) * kl(log_s, log_m)
    name = {0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "jensen_shannon")
    options = {"tail": "bucket", "divergence": name, "reduction": "none"} | ({"beta": beta} if 0 < beta < 1 else {})
    assert_close(backend, loss(kept[0], backend.asarray(STUDENT / temperature), **options), expected, "float64", 20)


def test_renormalization_accepts_logits(backend):
    s = backend.asarray(STUDENT)
    expected = backend.to_numpy(loss(LOG_PROBS, s))
    assert_close(backend, loss(np.take_along_axis(TEACHER, INDICES, -1), s), expected, "float64", 10)


@pytest.mark.parametrize("tail", TAILS)
def test_all_classes_kept_is_the_forward_kl(backend, tail):
    every = np.tile(np.arange(CLASSES)[::-1], (5, 1))
    log_probs = np.log(np.take_along_axis(softmax(TEACHER), every, -1))
    s = backend.asarray(STUDENT)
    expected = backend.to_numpy(distillation_loss(backend.asarray(TEACHER), s))
    assert_close(backend, sparse_distillation_loss(every, log_probs, s, tail=tail), expected, "float64", 10)


@pytest.mark.parametrize("tail", ["renormalize", "bucket"])
def test_a_student_equal_to_the_teacher_has_zero_loss(backend, tail):
    value = backend.to_numpy(loss(LOG_PROBS, backend.asarray(TEACHER), tail=tail, reduction="none"))
    np.testing.assert_allclose(value, 0.0, atol=1e-14)


def test_dropping_the_tail_can_go_below_zero(backend):
    s = TEACHER[:1] + 20.0 * np.isin(np.arange(CLASSES), INDICES[0])
    rows = sparse_distillation_loss(INDICES[:1], LOG_PROBS[:1], backend.asarray(s), tail="drop", reduction="none")
    assert (backend.to_numpy(rows) < 0).all()
    rows = sparse_distillation_loss(INDICES[:1], LOG_PROBS[:1], backend.asarray(s), tail="bucket", reduction="none")
    assert (backend.to_numpy(rows) > 0).all()


@pytest.mark.parametrize("tail", TAILS)
def test_empty_entries_do_not_contribute(differentiable_backend, tail):
    xp, s = differentiable_backend, differentiable_backend.asarray(STUDENT)
    indices = np.insert(INDICES, 1, -1, axis=1)
    values = xp.asarray(np.insert(LOG_PROBS, 1, -np.inf, axis=1))
    value, slope = xp.value_and_grad(lambda x: sparse_distillation_loss(indices, values, x, tail=tail), s)
    expected, narrow = xp.value_and_grad(lambda x: loss(LOG_PROBS, x, tail=tail), s)
    assert_close(xp, value, xp.to_numpy(expected), "float64")
    assert_close(xp, slope, xp.to_numpy(narrow), "float64")


@pytest.mark.parametrize("tail", TAILS)
def test_masked_classes_outside_the_top_k_match_removed_classes(differentiable_backend, tail):
    xp = differentiable_backend
    wide = xp.asarray(np.append(STUDENT, np.full((5, 1), -np.inf), axis=1))
    value, slope = xp.value_and_grad(lambda x: loss(LOG_PROBS, x, tail=tail), wide)
    assert_close(xp, value, sparse(tail)(LOG_PROBS, STUDENT).mean(), "float64", 10)
    assert (xp.to_numpy(slope)[:, -1] == 0).all()
    assert np.isfinite(xp.to_numpy(slope)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tail", TAILS)
def test_a_student_with_almost_no_tail_mass_gives_a_finite_loss(differentiable_backend, tail, dtype):
    xp = differentiable_backend
    s = xp.asarray(np.array([[1e4, 0.0, -1e4]]), dtype)
    kept = xp.asarray(np.log([[0.5, 0.25]]), dtype)
    value, slope = xp.value_and_grad(lambda x: sparse_distillation_loss([[0, 1]], kept, x, tail=tail), s)
    known = 0.5 * np.log(0.5) + 0.25 * (np.log(0.25) + 1e4)
    expected = {
        "drop": known,
        "bucket": known + 0.25 * (np.log(0.25) + 2e4),
        "renormalize": 2 / 3 * np.log(2 / 3) + 1 / 3 * (np.log(1 / 3) + 1e4),
    }
    assert float(xp.to_numpy(value)) == pytest.approx(expected[tail], rel=1e-6)
    assert np.isfinite(xp.to_numpy(slope)).all()


def test_a_class_out_of_range_makes_its_row_nan_unless_ignored(backend):
    indices, s = INDICES.copy(), backend.asarray(STUDENT)
    indices[1, 0], indices[3, 2] = CLASSES, -1
    for tail in TAILS:
        rows = sparse_distillation_loss(indices, LOG_PROBS, s, tail=tail, reduction="none")
        assert np.isnan(backend.to_numpy(rows)).tolist() == [False, True, False, True, False]
        counted = np.array([True, False, True, False, True])
        value = sparse_distillation_loss(indices, LOG_PROBS, s, tail=tail, mask=counted)
        assert_close(backend, value, sparse(tail)(LOG_PROBS, STUDENT)[counted].mean(), "float64", 10)


@pytest.mark.parametrize("tail", TAILS)
def test_the_loss_can_be_traced(tail):
    xp = require_backend("jax")
    import jax

    traced = jax.jit(lambda i, t, s: sparse_distillation_loss(i, t, s, tail=tail))
    value = traced(INDICES.astype(np.int32), xp.asarray(LOG_PROBS), xp.asarray(STUDENT))
    np.testing.assert_allclose(value, sparse(tail)(LOG_PROBS, STUDENT).mean(), rtol=1e-10)


@pytest.mark.parametrize("tail", TAILS)
def test_tensorflow_traces_it_for_any_batch(tail):
    require_backend("tensorflow")
    import tensorflow as tf

    signature = [
        tf.TensorSpec([None, KEPT], tf.int64),
        tf.TensorSpec([None, KEPT], tf.float64),
        tf.TensorSpec([None, CLASSES], tf.float64),
    ]
    traced = tf.function(lambda i, t, s: sparse_distillation_loss(i, t, s, tail=tail), input_signature=signature)
    value = traced(tf.constant(INDICES), tf.constant(LOG_PROBS), tf.constant(STUDENT))
    np.testing.assert_allclose(value, sparse(tail)(LOG_PROBS, STUDENT).mean(), rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (INDICES, LOG_PROBS, STUDENT),
            {"tail": "spread"},
            ValueError,
            "tail must be one of renormalize, drop, bucket; got 'spread'",
        ),
        (
            (INDICES, LOG_PROBS, STUDENT),
            {"divergence": "total_variation"},
            ValueError,
            "divergence must be one of forward_kl, reverse_kl, jensen_shannon; got 'total_variation'",
        ),
        (
            (INDICES[:, :2], LOG_PROBS, STUDENT),
            {},
            ValueError,
            "teacher_indices must have the shape of the teacher_log_probs",
        ),
        ((LOG_PROBS, LOG_PROBS, STUDENT), {}, TypeError, "teacher_indices must be integers, got float64"),
        ((INDICES, LOG_PROBS[:2], STUDENT), {}, ValueError, "teacher_log_probs must fit student_logits of shape"),
        ((INDICES, INDICES, STUDENT), {}, TypeError, "teacher_log_probs must be floating point, got int64"),
    ],
)
def test_bad_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        sparse_distillation_loss(*arguments, **options)


@pytest.mark.parametrize("tail", TAILS)
def test_empty_entries_stand_for_no_class(backend, tail):
    """For any index, including kept ones and rows without kept classes."""
    places = np.array([[2, 5, 0], [2, 2, 2], [-1, 3, 3]])
    with np.errstate(divide="ignore"):
        log_t = np.log([[0.4, 0.3, 0.2], [0.6, 0.0, 0.0], [0.0, 0.5, 0.0]])
    rows = sparse_distillation_loss(places, log_t, backend.asarray(STUDENT[:3]), tail=tail, reduction="none")
    for i, kept in enumerate([[0, 1, 2], [0], [1]]):
        alone = sparse_distillation_loss(places[i : i + 1, kept], log_t[i : i + 1, kept], STUDENT[i : i + 1], tail=tail)
        assert_close(backend, rows[i], alone, "float64", 10)
    if tail == "bucket":  # all of the teacher's mass is in the bucket, and all of the student's
        nothing = sparse_distillation_loss(places, np.full((3, 3), -np.inf), backend.asarray(STUDENT[:3]), tail=tail)
        assert_close(backend, nothing, 0.0, "float64", 10)


@pytest.mark.parametrize("tail", ["drop", "bucket"])
def test_the_number_of_passes_does_not_grow_with_the_kept_classes(tail):
    require_backend("torch")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Passes(TorchDispatchMode):
        """Operations that write arrays of the size of the logits."""

        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            self.count += isinstance(out, torch.Tensor) and out.numel() >= 4 * 50
            return out

    counts = []
    for kept in (2, 20):
        student = torch.randn(4, 50, requires_grad=True)
        log_t, indices = torch.log_softmax(torch.randn(4, 50), -1).topk(kept)
        with Passes() as passes:
            sparse_distillation_loss(indices, log_t, student, tail=tail).backward()
        counts.append(passes.count)
    assert counts[0] == counts[1]
    assert counts[0] <= 20
