"""Softmax cross-entropy where numbers end: huge logits, masked classes, rows that do not count."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from loss_parity import DRAWN, check_parity, distributions, float32_exact

from lsmooth.losses import softmax_cross_entropy

INF = np.inf
SMOOTHED = {"label_smoothing": 0.1, "reduction": "none"}
OPTIONS = {
    "smoothed": {"label_smoothing": 0.1},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": np.arange(1.0, 5.0)},
    "class_weight": {"label_smoothing": 0.2, "class_weight": np.arange(1.0, 5.0)},
    "prior, class_weight": {
        "label_smoothing": 0.2,
        "smoothing_prior": np.arange(1.0, 5.0),
        "class_weight": np.arange(1.0, 5.0),
    },
    "softcap": {"label_smoothing": 0.1, "logit_softcap": 30.0},
    "temperature, z_loss": {"label_smoothing": 0.1, "temperature": 2.0, "z_loss": 1e-3},
    "rows": {"label_smoothing": np.array([0.0, 0.3]), "temperature": np.array([0.5, 2.0])},
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits_of_ten_thousand(backend, options, dtype):
    logits = np.array([[1e4, -1e4, 0.0, 1e4], [-1e4, 0.0, 1e4, 3.0]])
    check_parity(backend, np.array([0, 1]), logits, dtype=dtype, **options)
    check_parity(backend, np.eye(4)[[1, 2]], logits, dtype=dtype, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_masked_classes_take_no_mass(backend, options, dtype):
    """Loss and gradient are finite; the smoothing mass is spread over the unmasked classes."""
    logits = np.array([[0.5, -INF, 2.0, -INF], [-INF, -INF, -INF, 3.0]])
    upstream = np.array([2.0, -0.5])
    check_parity(backend, np.array([2, 3]), logits, dtype=dtype, reduction="none", upstream=upstream, **options)
    soft = np.array([[0.25, 0.0, 0.75, 0.0], [0.0, 0.0, 0.0, 1.0]])
    check_parity(backend, soft, logits, dtype=dtype, reduction="none", upstream=upstream, **options)


def test_mass_on_a_masked_class_gives_infinite_loss(backend):
    logits = backend.asarray(np.array([[0.5, -INF, 2.0], [0.0, 1.0, 2.0]]))
    hard = softmax_cross_entropy(backend.asarray([1, 1]), logits, **SMOOTHED)
    soft = softmax_cross_entropy(backend.asarray([[0.5, 0.5, 0.0]] * 2), logits, **SMOOTHED)
    for value in (hard, soft):
        assert np.isposinf(backend.to_numpy(value)[0])
        assert np.isfinite(backend.to_numpy(value)[1])


def test_a_masked_label_of_weight_0_costs_only_its_smoothing(backend):
    logits, weight = np.array([[0.5, -INF, 2.0]]), np.array([1.0, 0.0, 3.0])
    for labels in (np.array([1]), np.eye(3)[[1]]):
        check_parity(backend, labels, logits, class_weight=weight, **SMOOTHED)


@DRAWN
@given(
    logits=st_numpy.arrays(
        np.float64, (3, 4), elements=st.sampled_from([0.0, 1.0, -5.0, 88.75, -104.0, 709.75, 1e4, -1e4, -INF])
    ),
    labels=st_numpy.arrays(np.int64, (3,), elements=st.integers(0, 3)),
    soft=st.booleans(),
    options=st.sampled_from([options for name, options in OPTIONS.items() if name != "rows"]),
)
def test_any_extreme_logits(backend, logits, labels, soft, options):
    logits[np.arange(3), labels] = np.maximum(logits[np.arange(3), labels], -1e4)  # the label's class is not masked
    target = np.eye(4)[labels] if soft else labels
    check_parity(backend, target, logits, **options)


def test_infinite_logits_are_finite_under_a_cap(backend):
    logits = np.array([[INF, 0.0, 1.0], [1.0, INF, 2.0]])
    check_parity(backend, np.array([0, 2]), logits, logit_softcap=5.0, label_smoothing=0.1)


def test_one_class_costs_nothing(backend):
    for labels in (np.zeros(3, np.int64), np.ones((3, 1))):
        check_parity(backend, labels, np.array([[1.0], [-1e4], [1e4]]), **SMOOTHED)


@pytest.mark.parametrize("junk", [np.nan, INF, -INF], ids=str)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values_of_ignored_rows_do_not_matter(backend, junk, reduction):
    logits = float32_exact(np.random.default_rng(0), (4, 3))
    logits[1], logits[3, 0] = junk, junk
    options = {"ignore_index": -100, "label_smoothing": 0.1, "z_loss": 0.1, "reduction": reduction}
    for extra in ({}, {"class_weight": np.array([1.0, 2.0, 0.5])}, {"logit_softcap": 3.0, "temperature": 2.0}):
        check_parity(backend, np.array([0, -100, 2, -100]), logits, **options, **extra)
    check_parity(backend, np.array([-100] * 4), logits, **options)


def test_a_nan_weight_of_an_ignored_row_does_not_matter(backend):
    logits = float32_exact(np.random.default_rng(0), (3, 3))
    weight = np.array([1.0, np.nan, 2.0])
    for reduction in ("mean", "mean_with_sample_weight", "sum"):
        check_parity(backend, np.array([0, 9, 1]), logits, ignore_index=9, sample_weight=weight, reduction=reduction)


@pytest.mark.parametrize("label", [-1, -100, 3, 127])
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"class_weight": np.array([1.0, 2.0, 3.0])}, {"ignore_index": 2, "z_loss": 0.1}],
    ids=["plain", "smoothed", "class_weight", "ignore_index"],
)
def test_a_label_out_of_range_makes_its_row_nan(backend, label, dtype, options):
    logits = backend.asarray(float32_exact(np.random.default_rng(1), (4, 3)))
    labels = np.array([0, label, 2, label], dtype)
    for given_labels in (labels, backend.asarray(labels)):
        value = softmax_cross_entropy(given_labels, logits, reduction="none", **options)
        np.testing.assert_array_equal(np.isnan(backend.to_numpy(value)), [False, True, False, True])
        assert np.isnan(backend.to_numpy(softmax_cross_entropy(given_labels, logits, **options)))


def test_the_gradient_of_a_label_out_of_range_is_nan_in_its_row_alone(differentiable_backend):
    xp = differentiable_backend
    for options in ({}, {"label_smoothing": 0.1}):
        _, gradient = xp.value_and_grad(
            lambda z, options=options: softmax_cross_entropy([0, 7, 2], z, reduction="sum", **options),
            xp.asarray(float32_exact(np.random.default_rng(2), (3, 4))),
        )
        np.testing.assert_array_equal(np.isnan(xp.to_numpy(gradient)).all(-1), [False, True, False])
        assert not np.isnan(xp.to_numpy(gradient)[[0, 2]]).any()


def test_a_nan_logit_makes_its_row_nan(backend):
    logits = np.zeros((3, 4))
    logits[1, 2] = np.nan
    for labels in (np.array([0, 1, 2]), distributions(np.random.default_rng(3), (3, 4))):
        value = softmax_cross_entropy(labels, backend.asarray(logits), **SMOOTHED)
        np.testing.assert_array_equal(np.isnan(backend.to_numpy(value)), [False, True, False])


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_an_empty_batch_gives_an_empty_result(backend, rows):
    for shape, labels in [((rows, 3), np.zeros(rows, int)), ((2, rows, 3), np.zeros((2, rows), int))]:
        value = softmax_cross_entropy(labels, backend.asarray(np.zeros(shape)), reduction="none")
        assert backend.shape(value) == shape[:-1]
        assert_close(backend, value, np.full(shape[:-1], np.log(3.0)), "float64")
