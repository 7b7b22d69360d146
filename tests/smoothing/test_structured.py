"""Smoothing by similarity and by a hierarchy of classes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.smoothing import hierarchy_similarity, similarity_smooth_labels, smooth_labels

RNG = np.random.default_rng(0)
SIMILARITY = RNG.uniform(0.0, 1.0, (4, 4))
SHARE = SIMILARITY / SIMILARITY.sum(-1, keepdims=True)
LABELS = np.array([[0, 3, 2], [1, 1, 0]])
TREE = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])  # cat, tiger; dog; car, lorry


@pytest.mark.parametrize("eps", [0.0, 0.25, 1.0, np.linspace(0.0, 1.0, 6).reshape(2, 3)])
@pytest.mark.parametrize("soft", [False, True])
def test_mass_is_spread_as_the_table_says(backend, eps, soft):
    labels = RNG.dirichlet(np.ones(4), (2, 3)) if soft else LABELS
    t = labels if soft else np.eye(4)[LABELS]
    e = np.asarray(eps)[..., None]
    expected = (1 - e) * t + e * (t @ SHARE)
    q = similarity_smooth_labels(backend.asarray(labels), eps, similarity=SIMILARITY)
    assert backend.is_array(q)
    assert_close(backend, q, expected, backend.dtype(q))


def test_one_label_and_one_row_are_enough(backend):
    q = similarity_smooth_labels(backend.asarray(2), 0.5, similarity=SIMILARITY)
    assert_close(backend, q, 0.5 * np.eye(4)[2] + 0.5 * SHARE[2], backend.dtype(q))
    q = similarity_smooth_labels(backend.asarray(np.eye(4)[2]), 0.5, similarity=SIMILARITY)
    assert_close(backend, q, 0.5 * np.eye(4)[2] + 0.5 * SHARE[2], "float64")


def test_the_dtype_is_that_of_floating_labels(backend):
    labels = backend.asarray(np.eye(4)[LABELS], "float32")
    assert backend.dtype(similarity_smooth_labels(labels, 0.1, similarity=SIMILARITY)) == "float32"


def test_a_table_of_ones_is_uniform_smoothing(backend):
    labels = backend.asarray(LABELS)
    ours = similarity_smooth_labels(labels, 0.3, similarity=np.ones((4, 4)))
    assert_close(backend, ours, backend.to_numpy(smooth_labels(labels, 0.3, num_classes=4)), backend.dtype(ours))


def test_a_label_out_of_range_gives_a_row_of_nan(backend):
    q = backend.to_numpy(similarity_smooth_labels(backend.asarray(np.array([0, 4])), 0.1, similarity=SIMILARITY))
    assert np.isnan(q).tolist() == [[False] * 4, [True] * 4]


def height(a: int, b: int) -> float:
    if a == b:
        return 0.0
    for level in range(TREE.shape[1]):
        if TREE[a, level] != TREE[b, level]:
            return (TREE.shape[1] + 1 - level) / (TREE.shape[1] + 1)
    return 1 / (TREE.shape[1] + 1)


@pytest.mark.parametrize("beta", [0.5, 10.0])
def test_classes_with_a_low_common_ancestor_are_similar(backend, beta):
    expected = np.exp(-beta * np.array([[height(a, b) for b in range(5)] for a in range(5)]))
    table = hierarchy_similarity(backend.asarray(TREE), beta=beta)
    assert_close(backend, table, expected / expected.sum(-1, keepdims=True), backend.dtype(table))


def test_a_fine_group_counts_only_within_its_coarse_one(backend):
    # dog (0, 1) and car (1, 0), cat (0, 0) and car (1, 0): both pairs meet at the root alone.
    table = backend.to_numpy(hierarchy_similarity(backend.asarray(TREE)))
    assert table[0, 3] == pytest.approx(table[0, 4])
    assert table[0, 1] > table[0, 2] > table[0, 3]


def test_jax_and_tensorflow_trace_it(backend):
    if backend.name == "jax":
        import jax

        traced = jax.jit(lambda y, s: similarity_smooth_labels(y, 0.5, similarity=s))
        q = traced(backend.asarray(LABELS), backend.asarray(SIMILARITY))
    elif backend.name == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([4, 4], tf.float32)]
        traced = tf.function(lambda y, s: similarity_smooth_labels(y, 0.5, similarity=s), input_signature=signature)
        q = traced(backend.asarray(LABELS), backend.asarray(SIMILARITY, "float32"))
    else:
        pytest.skip(f"{backend.name} does not trace")
    assert_close(backend, q, 0.5 * np.eye(4)[LABELS] + 0.5 * SHARE[LABELS], backend.dtype(q))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: similarity_smooth_labels([0], 0.1, similarity=np.ones((3, 4))),
            ValueError,
            r"similarity must have shape",
        ),
        (lambda: similarity_smooth_labels([[1.0, 0.0]], 0.1, similarity=SIMILARITY), ValueError, r"shape \(2, 2\)"),
        (
            lambda: similarity_smooth_labels([0], 2, similarity=SIMILARITY),
            ValueError,
            r"label_smoothing must be in \[0, 1\]",
        ),
        (
            lambda: hierarchy_similarity([0, 1]),
            ValueError,
            r"ancestors must have shape \(classes, levels\), got \(2,\)",
        ),
        (lambda: hierarchy_similarity([[0.0]]), TypeError, "ancestors must be integers, got float64"),
        (lambda: hierarchy_similarity([[0]], beta=0), ValueError, "beta must be a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
