"""Facts about likelihood, Brier score and top-k accuracy."""

from __future__ import annotations

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.metrics import brier_score, negative_log_likelihood, top_k_accuracy


def drawn(dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    logits = (3 * rng.standard_normal((50, 6))).astype(dtype)
    return rng.integers(0, 6, 50), logits, rng.random(50)


def oracle(name: str, labels: np.ndarray, p: np.ndarray, weight: np.ndarray) -> float:
    onehot = np.eye(p.shape[1])[labels]
    rows = {
        "nll": -np.log((p * onehot).sum(axis=1)),
        "brier": ((p - onehot) ** 2).sum(axis=1),
        "top2": np.array([y in np.argsort(-row, kind="stable")[:2] for y, row in zip(labels, p, strict=True)]),
    }[name]
    return float(np.average(rows, weights=weight))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", ["nll", "brier", "top2"])
def test_each_score_matches_its_definition(backend: Backend, memory, dtype, from_logits, name):
    labels, logits, weight = drawn(dtype)
    p = reference.softmax(logits.astype(np.float64))
    given = logits if from_logits else p.astype(dtype)
    function = {"nll": negative_log_likelihood, "brier": brier_score, "top2": top_k_accuracy}[name]
    options = {"k": 2} if name == "top2" else {"from_logits": from_logits}
    got = function(backend.asarray(labels), backend.asarray(given), sample_weight=backend.asarray(weight), **options)
    expected = oracle(name, labels, p if from_logits else given.astype(np.float64), weight)
    assert_close(backend, got, expected, dtype)


@pytest.mark.parametrize("function", [negative_log_likelihood, brier_score, top_k_accuracy])
def test_masked_rows_may_hold_any_finite_or_infinite_values(backend: Backend, memory, function):
    labels, logits, _ = drawn("float64")
    p = reference.softmax(logits)
    ids = backend.asarray(np.concatenate([labels, [-1]]))
    junk = backend.asarray(np.concatenate([p, np.full((1, 6), np.nan)]))
    expected = backend.to_numpy(function(backend.asarray(labels), backend.asarray(p)))
    assert_close(backend, function(ids, junk, ignore_index=-1), expected, "float64")
    nothing = function(backend.asarray(np.array([-1])), junk[-1:], ignore_index=-1)
    assert_close(backend, nothing, 0.0, "float64")


@pytest.mark.parametrize("function", [negative_log_likelihood, brier_score, top_k_accuracy])
def test_labels_out_of_range_give_nan(backend: Backend, memory, function):
    for label in (-1, 3):
        got = function(backend.asarray(np.array([0, label])), backend.asarray(np.full((2, 3), 1 / 3)))
        assert np.isnan(backend.to_numpy(got))


def test_a_label_of_probability_zero_is_infinitely_unlikely(backend: Backend, memory):
    ids, p = backend.asarray(np.array([1])), backend.asarray(np.array([[1.0, 0.0]]))
    assert np.isinf(backend.to_numpy(negative_log_likelihood(ids, p)))


def test_ties_between_classes_go_to_the_first(backend: Backend, memory):
    p = backend.asarray(np.full((3, 3), 1 / 3))
    assert_close(backend, top_k_accuracy(backend.asarray(np.array([0, 1, 2])), p, k=2), 2 / 3, "float64")


def test_k_beyond_the_number_of_classes_gives_accuracy_1(backend: Backend, memory):
    p = backend.asarray(np.full((3, 3), 1 / 3))
    assert_close(backend, top_k_accuracy(backend.asarray(np.array([0, 1, 2])), p, k=9), 1.0, "float64")


@pytest.mark.parametrize("k", [0, 1.0, True])
def test_k_is_a_count(k):
    with pytest.raises(ValueError, match="k must be an integer of at least 1"):
        top_k_accuracy([0], [[0.5, 0.5]], k=k)
