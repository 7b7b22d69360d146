"""Sigmoid cross-entropy: every backend gives the reference's value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend
from hypothesis import given
from hypothesis import strategies as st
from loss_parity import DRAWN, check_parity, float32_exact

from lsmooth._rows.reductions import REDUCTIONS
from lsmooth.losses import sigmoid_cross_entropy

SIGMOID = {"loss": "sigmoid_cross_entropy"}
OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "all smoothing": {"label_smoothing": 1.0},
    "label_smoothing per column": {"label_smoothing": np.array([0.0, 0.5, 1.0])},
    "pos_weight": {"pos_weight": np.array([0.5, 0.0, 4.0])},
    "pos_weight, smoothed": {"pos_weight": 3.0, "label_smoothing": 0.2},
    "sample_weight": {"sample_weight": np.array([[0.5], [2.0]])},
}


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.array([[0.0, 1.0, 0.25], [1.0, 0.0, 0.75]]), float32_exact(rng, (2, 3))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_and_dtypes(backend, options, dtype):
    labels, logits = example(0)
    check_parity(backend, labels, logits, dtype=dtype, upstream=np.array(-3.0), **SIGMOID, **options)
    check_parity(backend, labels, logits, dtype=dtype, reduction="none", tensors=True, **SIGMOID, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_element_with_its_own_upstream_gradient(backend, options):
    labels, logits = example(1)
    upstream = np.array([[1.0, -2.0, 0.0], [0.5, 3.0, 7.0]])
    check_parity(backend, labels, logits, reduction="none", upstream=upstream, **SIGMOID, **options)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float32"])
def test_label_dtypes(backend, dtype):
    labels, logits = np.array([[0, 1, 0], [1, 1, 0]], dtype), example(2)[1]
    for tensors in (False, True):
        check_parity(backend, labels, logits, label_smoothing=0.1, tensors=tensors, **SIGMOID)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_extreme_logits(backend, dtype):
    """Exact in both tails, down to the smallest losses that the dtype holds."""
    logits = np.array([1e4, -1e4, 0.0, 40.0, -40.0, 88.0, -88.0, 20.5, -20.5])
    for labels in (np.zeros(9), np.ones(9), np.full(9, 0.5)):
        for options in ({}, {"label_smoothing": 0.1}, {"pos_weight": 2.0}):
            check_parity(backend, labels, logits, dtype=dtype, reduction="none", **SIGMOID, **options)
    tiny = sigmoid_cross_entropy(np.ones(1), backend.asarray(np.array([30.0]), dtype))
    np.testing.assert_allclose(backend.to_numpy(tiny), np.log1p(np.exp(-30.0)), rtol=1e-6)


def test_an_infinite_logit_on_the_right_side_has_zero_loss(backend):
    check_parity(backend, np.array([1.0, 0.0]), np.array([np.inf, -np.inf]), reduction="none", **SIGMOID)
    check_parity(backend, np.array([0.0, 1.0]), np.array([np.inf, -np.inf]), reduction="none", **SIGMOID)


@DRAWN
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_any_call(backend, data, seed):
    rng = np.random.default_rng(seed)
    shape = data.draw(st.sampled_from([(), (1,), (4,), (2, 3), (0,), (2, 1, 3)]))
    choices = {
        "label_smoothing": [0.2, rng.uniform(0.0, 1.0, shape)],
        "pos_weight": [2.0, rng.uniform(0.0, 3.0, shape)],
        "sample_weight": [0.5, rng.integers(0, 3, shape).astype(np.float64)],
    }
    options = {name: data.draw(st.sampled_from(either)) for name, either in choices.items() if data.draw(st.booleans())}
    options |= {"reduction": data.draw(st.sampled_from(REDUCTIONS)), "compiled": True, "factor": 10.0}
    check_parity(backend, rng.uniform(0.0, 1.0, shape), rng.normal(0.0, 10.0, shape), **SIGMOID, **options)


def test_torch_binary_cross_entropy_with_logits():
    require_backend("torch")
    import torch

    labels, logits = (torch.from_numpy(x) for x in example(3))
    pos_weight = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    for reduction in ("none", "mean", "sum"):
        theirs = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, labels, pos_weight=pos_weight, reduction=reduction
        )
        ours = sigmoid_cross_entropy(labels, logits, pos_weight=pos_weight, reduction=reduction)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_optax_sigmoid_binary_cross_entropy():
    require_backend("jax")
    optax = pytest.importorskip("optax", reason="optax is not installed")
    labels, logits = example(4)
    theirs = optax.sigmoid_binary_cross_entropy(logits, optax.smooth_labels(np.array(labels)[..., None], 0.0)[..., 0])
    ours = sigmoid_cross_entropy(labels, require_backend("jax").asarray(logits), reduction="none")
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_keras_binary_crossentropy():
    require_backend("tensorflow")
    keras = pytest.importorskip("keras", reason="keras is not installed")
    labels, logits = (x.astype(np.float32) for x in example(5))
    theirs = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)(labels, logits)
    ours = sigmoid_cross_entropy(labels, logits, label_smoothing=0.1)
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), rtol=1e-6)


def test_tf_losses_sigmoid_cross_entropy(monkeypatch):
    xp = require_backend("tensorflow")
    import tensorflow as tf

    labels, logits = example(6)
    weights = np.array([[0.0], [2.0]])
    for eps in (0.0, 0.1, 1.0):
        theirs = tf.compat.v1.losses.sigmoid_cross_entropy(labels, logits, weights, label_smoothing=eps)
        ours = sigmoid_cross_entropy(
            labels, xp.asarray(logits), sample_weight=weights, label_smoothing=eps, reduction="sum_by_nonzero_weights"
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
