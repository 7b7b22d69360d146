"""Properties of every variant of the cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend
from loss_parity import as_dtype
from variant_parity import LABELS, logits

import lsmooth
from lsmooth import losses

VARIANTS = {
    "softmax_focal_loss": {},
    "poly_cross_entropy": {},
    "generalized_cross_entropy": {},
    "symmetric_cross_entropy": {},
    "bootstrap_cross_entropy": {},
    "bootstrap_cross_entropy, hard": {"hard": True},
    "margin_label_smoothing": {"margin": 1.0},
    "max_suppression": {},
    "adaptive_conditional_label_smoothing": {"margin": 1.0},
    "confidence_penalty": {},
    "logit_penalty": {},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """A variant with its options, and smoothing, bound."""
    loss, options = getattr(losses, request.param.split(",")[0]), VARIANTS[request.param]
    return lambda labels, z, **more: loss(labels, z, **{"label_smoothing": 0.1, **options, **more})


def total(backend, variant, labels, **options):
    return lambda z: backend.sum(variant(labels, z, **options))


def test_ignored_rows_do_not_count(backend, variant):
    z, labels = logits(), np.where(LABELS == 1, -100, LABELS)
    z[labels == -100] = [np.nan, np.inf, 0.0, -np.inf]
    kept = labels != -100
    inputs = backend.asarray(z)
    expected = backend.to_numpy(variant(labels[kept], backend.asarray(z[kept])))
    assert_close(backend, variant(labels, inputs, ignore_index=-100), expected, "float64")
    if backend.name != "numpy":
        _, gradient = backend.value_and_grad(total(backend, variant, labels, ignore_index=-100), inputs)
        gradient = backend.to_numpy(gradient)
        assert (gradient[~kept] == 0).all()
        assert np.isfinite(gradient).all()


def test_only_ignored_rows_give_zero(backend, variant):
    value = variant(np.full(6, 3), backend.asarray(logits()), ignore_index=3)
    assert float(backend.to_numpy(value)) == 0.0


def test_masked_classes_match_removed_classes(backend, variant):
    z = logits(1)
    wide = np.insert(z, 2, -np.inf, axis=1)
    labels = np.where(LABELS >= 2, LABELS + 1, LABELS)
    expected = backend.to_numpy(variant(LABELS, backend.asarray(z)))
    assert_close(backend, variant(labels, backend.asarray(wide)), expected, "float64", 10)
    if backend.name != "numpy":
        _, gradient = backend.value_and_grad(total(backend, variant, labels), backend.asarray(wide))
        _, narrow = backend.value_and_grad(total(backend, variant, LABELS), backend.asarray(z))
        expected = np.insert(backend.to_numpy(narrow), 2, 0.0, axis=1)
        assert_close(backend, gradient, expected, "float64", 10)


def test_the_only_unmasked_class_is_certain(differentiable_backend, variant):
    z = differentiable_backend.asarray(np.array([[-np.inf, 0.5, -np.inf]]))
    value, gradient = differentiable_backend.value_and_grad(total(differentiable_backend, variant, [1]), z)
    assert float(differentiable_backend.to_numpy(value)) == pytest.approx(0.0, abs=1e-3)  # 0 but for the logit's length
    assert np.isfinite(differentiable_backend.to_numpy(gradient)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_far_logits_are_finite(differentiable_backend, variant, dtype):
    z = as_dtype(differentiable_backend, np.array([[1e4, 0.0, -1e4], [0.0, 1e4, -1e4]]), dtype)
    value, gradient = differentiable_backend.value_and_grad(total(differentiable_backend, variant, [0, 0]), z)
    assert differentiable_backend.dtype(gradient) == dtype
    assert np.isfinite(differentiable_backend.to_numpy(value))
    assert np.isfinite(differentiable_backend.to_numpy(gradient)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_is_reduced_in_single(backend, variant, dtype):
    z = as_dtype(backend, logits(2), dtype)
    exact = variant(LABELS, backend.asarray(backend.to_numpy(z), "float64"))
    value = variant(LABELS, z)
    assert backend.dtype(value) == "float32"
    assert_close(backend, value, backend.to_numpy(exact), "float32")


def test_classes_lie_along_any_axis(backend, variant):
    z = logits(3, shape=(2, 4, 3))
    labels = LABELS.reshape(2, 3)
    expected = backend.to_numpy(variant(labels, backend.asarray(np.moveaxis(z, 1, -1)), reduction="none"))
    assert_close(backend, variant(labels, backend.asarray(z), axis=1, reduction="none"), expected, "float64")


def test_a_label_out_of_range_makes_its_row_nan(backend, variant):
    rows = backend.to_numpy(variant([0, 4, -1, 3, 1, 2], backend.asarray(logits()), reduction="none"))
    assert np.isnan(rows).tolist() == [False, True, True, False, False, False]


def test_a_label_out_of_range_is_an_error_under_validate(variant):
    with (
        lsmooth.validate(),
        pytest.raises(ValueError, match=r"labels must be class ids in 0\.\.3, got 4 at index \(1,\)"),
    ):
        variant([0, 4], logits()[:2])


@pytest.mark.parametrize(
    ("labels", "z", "options", "error", "message"),
    [
        ([0], [[0.0, 1.0]], {"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1\.5"),
        ([0], [[0.0, 1.0]], {"reduction": "average"}, ValueError, "reduction must be None or one of"),
        ([0.5], [[0.0, 1.0]], {}, TypeError, "class ids and must be integers"),
        ([0, 1], [[0.0, 1.0]], {}, ValueError, "labels must have shape"),
        ([0], [[0, 1]], {}, TypeError, "logits must be floating point, got int64"),
        ([0], [[0.0, 1.0]], {"axis": 2}, ValueError, "axis must be an integer"),
        ([[0.5, 0.5]], [[0.0, 1.0]], {"ignore_index": 0}, ValueError, "ignore_index needs integer labels"),
        ([0], [[0.0, 1.0]], {"sample_weight": [1.0, 2.0]}, ValueError, "sample_weight must be a scalar or have shape"),
    ],
)
def test_bad_arguments_are_named(variant, labels, z, options, error, message):
    with pytest.raises(error, match=message):
        variant(labels, z, **options)


def test_jax_traces_it(variant):
    jax_backend = require_backend("jax")
    import jax

    z, labels = jax_backend.asarray(logits()), jax_backend.asarray(LABELS)
    expected = np.asarray(variant(labels, z, reduction="none"))
    traced = jax.jit(lambda y, x, eps: variant(y, x, label_smoothing=eps, ignore_index=-1, reduction="none"))
    np.testing.assert_allclose(traced(labels, z, 0.1), expected, rtol=1e-12)
    mapped = jax.vmap(lambda y, x: variant(y, x, reduction="none"))
    np.testing.assert_allclose(mapped(labels, z), expected, rtol=1e-12)


def test_tensorflow_traces_it_for_any_batch(variant):
    require_backend("tensorflow")
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 4], tf.float64)]
    traced = tf.function(lambda y, x: variant(y, x, ignore_index=-1), input_signature=signature)
    z, labels = tf.constant(logits()), tf.constant(LABELS)
    for rows in (6, 2):
        expected = variant(labels[:rows], z[:rows])
        np.testing.assert_allclose(traced(labels[:rows], z[:rows]), expected, rtol=1e-12)


def test_torch_compiles_without_graph_breaks(variant):
    require_backend("torch")
    import torch

    torch.compiler.reset()  # a code object may be compiled eight times
    z, labels = torch.from_numpy(logits()), torch.from_numpy(LABELS)
    expected = variant(labels, z)
    compiled = torch.compile(lambda y, x: variant(y, x, ignore_index=-1), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(labels, z), expected)
