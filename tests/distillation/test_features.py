"""Losses between features, against the authors' formulas in NumPy."""

from __future__ import annotations

import itertools

import complex_step
import numpy as np
import pytest
from complex_step import absolute
from conftest import assert_close, require_backend
from pair_parity import logits

from lsmooth import distillation

MAPS = logits(0, shape=(3, 2, 2, 4)), logits(1, shape=(3, 2, 2, 4))
POINTS = logits(2, shape=(5, 3)), logits(3, shape=(5, 2))


def length(x):
    return ((x**2).sum(-1, keepdims=True)) ** 0.5


def hint(t, s):
    return ((t - s) ** 2).reshape(len(t), -1).mean(-1)


def attention(t, s, power=2.0):
    t, s = ((absolute(x) ** power).mean(-1).reshape(len(x), -1) for x in (t, s))
    return ((t / length(t) - s / length(s)) ** 2).mean(-1)


def similarity(t, s):
    t, s = (x @ x.T for x in (t.reshape(len(t), -1), s.reshape(len(s), -1)))
    return ((t / length(t) - s / length(s)) ** 2).sum() / len(t) ** 2


def huber(x):
    size = absolute(x)
    return np.where(size.real < 1, x**2 / 2, size - 0.5)


def distance(t, s):
    def relative(x):
        d = np.zeros((len(x), len(x)), x.dtype)
        for i, j in itertools.permutations(range(len(x)), 2):
            d[i, j] = ((x[i] - x[j]) ** 2).sum() ** 0.5
        return d / d[d.real > 0].mean()

    return huber(relative(t) - relative(s)).mean()


def angle(t, s):
    def cosines(x):
        c = np.zeros([len(x)] * 3, x.dtype)
        for i, j, k in itertools.product(range(len(x)), repeat=3):
            if i not in (j, k):
                a, b = x[j] - x[i], x[k] - x[i]
                c[i, j, k] = (a * b).sum() / ((a**2).sum() * (b**2).sum()) ** 0.5
        return c

    return huber(cosines(t) - cosines(s)).mean()


LOSSES = {
    "hint_loss": (hint, MAPS),
    "attention_transfer_loss": (attention, (MAPS[0], MAPS[1][..., :3])),
    "similarity_preserving_loss": (similarity, (MAPS[0], MAPS[1][:, 0])),
    "relational_distance_loss": (distance, POINTS),
    "relational_angle_loss": (angle, POINTS),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_equal_the_formula(backend, name, dtype):
    loss, (formula, (teacher, student)) = getattr(distillation, name), LOSSES[name]
    t, s = backend.asarray(teacher, dtype), backend.asarray(student, dtype)
    value = loss(t, s)
    assert backend.is_array(value)
    assert backend.dtype(value) == dtype
    assert_close(backend, value, formula(teacher, student).mean(), dtype, 10)
    if backend.name == "numpy":
        return
    _, slope = backend.value_and_grad(lambda x: loss(t, x), s)
    assert_close(backend, slope, complex_step.gradient(lambda x: formula(teacher, x).mean(), student), dtype, 10)
    _, slope = backend.value_and_grad(lambda x: loss(x, s, stop_teacher_gradient=False), t)
    assert_close(backend, slope, complex_step.gradient(lambda x: formula(x, student).mean(), teacher), dtype, 10)
    _, slope = backend.value_and_grad(lambda x: loss(x, s) + 0.0 * backend.sum(x), t)
    assert (backend.to_numpy(slope) == 0).all()


@pytest.mark.parametrize("name", ["hint_loss", "attention_transfer_loss"])
def test_examples_have_weights(backend, name):
    loss, (formula, (teacher, student)) = getattr(distillation, name), LOSSES[name]
    weights, rows = np.array([0.5, 0.0, 2.0]), formula(teacher, student)
    t, s = backend.asarray(teacher), backend.asarray(student)
    assert_close(backend, loss(t, s, reduction="none"), rows, "float64")
    assert_close(backend, loss(t, s, sample_weight=weights), (weights * rows).sum() / 2.5, "float64")


def test_attention_takes_channels_on_any_axis_and_any_power(backend):
    t, s = (backend.asarray(np.moveaxis(x, -1, 1)) for x in MAPS)
    value = distillation.attention_transfer_loss(t, s, axis=1, power=1.5)
    assert_close(backend, value, attention(*MAPS, power=1.5).mean(), "float64")


@pytest.mark.parametrize("name", LOSSES)
def test_equal_and_zero_features_have_finite_gradients(differentiable_backend, name):
    xp, loss, (_, (teacher, _)) = differentiable_backend, getattr(distillation, name), LOSSES[name]
    t = xp.asarray(teacher)
    value, slope = xp.value_and_grad(lambda x: loss(t, x), t)
    assert float(xp.to_numpy(value)) == pytest.approx(0.0, abs=1e-15)
    assert np.isfinite(xp.to_numpy(slope)).all()
    value, slope = xp.value_and_grad(lambda x: loss(t, x), xp.asarray(np.zeros_like(teacher)))
    assert np.isfinite(xp.to_numpy(value))
    assert np.isfinite(xp.to_numpy(slope)).all()


@pytest.mark.parametrize("name", ["similarity_preserving_loss", "relational_distance_loss", "relational_angle_loss"])
def test_relations_do_not_depend_on_scale(backend, name):
    x = POINTS[0]
    value = getattr(distillation, name)(backend.asarray(x), backend.asarray(3.0 * x))
    assert float(backend.to_numpy(value)) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_single(differentiable_backend, name):
    xp, loss, (formula, (teacher, student)) = differentiable_backend, getattr(distillation, name), LOSSES[name]
    t, s = (xp.asarray(x, "float16") for x in (teacher, student))
    value, slope = xp.value_and_grad(lambda x: loss(t, x), s)
    assert (xp.dtype(value), xp.dtype(slope)) == ("float32", "float16")
    exact = formula(*(xp.to_numpy(x).astype(np.float64) for x in (t, s))).mean()
    assert_close(xp, value, exact, "float32", 10)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_can_be_traced(name):
    xp = require_backend("jax")
    import jax

    loss, (formula, (teacher, student)) = getattr(distillation, name), LOSSES[name]
    value = jax.jit(loss)(xp.asarray(teacher), xp.asarray(student))
    np.testing.assert_allclose(value, formula(teacher, student).mean(), rtol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_tensorflow_traces_it_for_any_batch(name):
    require_backend("tensorflow")
    import tensorflow as tf

    loss, (formula, (teacher, student)) = getattr(distillation, name), LOSSES[name]
    signature = [tf.TensorSpec([None, *x.shape[1:]], tf.float64) for x in (teacher, student)]
    traced = tf.function(lambda t, s: loss(t, s), input_signature=signature)
    np.testing.assert_allclose(
        traced(tf.constant(teacher), tf.constant(student)), formula(teacher, student).mean(), rtol=1e-10
    )


@pytest.mark.parametrize("name", LOSSES)
def test_torch_compiles_without_graph_breaks(name):
    require_backend("torch")
    import torch

    loss, (_, (teacher, student)) = getattr(distillation, name), LOSSES[name]
    t, s = torch.from_numpy(teacher), torch.from_numpy(student)
    torch.compiler.reset()
    expected = loss(t, s)
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="eager")(t, s), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_bad_features_are_named(name):
    loss = getattr(distillation, name)
    with pytest.raises(ValueError, match="teacher_features and student_features must share their first axis"):
        loss(np.ones((3, 2, 2)), np.ones((2, 2, 2)))
    with pytest.raises(TypeError, match="student_features must be floating point, got int64"):
        loss(np.ones((3, 2)), np.ones((3, 2), np.int64))


def test_bad_shapes_and_options_are_named():
    with pytest.raises(ValueError, match="must have the same shape"):
        distillation.hint_loss(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="must have the same shape"):
        distillation.attention_transfer_loss(np.ones((3, 2, 2)), np.ones((3, 4, 2)))
    with pytest.raises(ValueError, match="power must be a finite number above 0"):
        distillation.attention_transfer_loss(np.ones((3, 2, 2)), np.ones((3, 2, 2)), power=0)
