"""Reductions and their divisors on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from loss_parity import check_parity, distributions, float32_exact

from lsmooth._rows.reductions import REDUCTIONS
from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy

LABELS = np.array([[0, 2, 4], [2, 1, 3]])
WEIGHTS = {
    "no weight": {},
    "rows": {"sample_weight": np.array([[0.5, 0.0, 2.0], [1.0, 3.0, 0.25]])},
    "one for all": {"sample_weight": 2.5},
    "zero for all": {"sample_weight": 0.0},
    "repeated along rows": {"sample_weight": np.array([[0.5], [2.0]])},
    "repeated along columns": {"sample_weight": np.array([[0.5, 0.0, 2.0]])},
    "repeated everywhere": {"sample_weight": np.array([[2.0]])},
}
CLASS_WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 3.0])


@pytest.mark.parametrize("reduction", [None, *REDUCTIONS])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_softmax_cross_entropy(backend, weights, reduction):
    rng = np.random.default_rng(0)
    logits, soft = float32_exact(rng, (2, 3, 5)), distributions(rng, (2, 3, 5))
    check_parity(backend, LABELS, logits, reduction=reduction, ignore_index=2, **weights)
    for labels in (LABELS, soft):
        check_parity(backend, labels, logits, reduction=reduction, class_weight=CLASS_WEIGHT, **weights)


@pytest.mark.parametrize("reduction", [None, *REDUCTIONS])
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_sigmoid_cross_entropy(backend, weights, reduction):
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, (2, 3)), float32_exact(rng, (2, 3))
    check_parity(backend, labels, logits, loss="sigmoid_cross_entropy", reduction=reduction, **weights)


@pytest.mark.parametrize("reduction", [name for name in REDUCTIONS if name != "none"])
@pytest.mark.parametrize("weights", [{}, {"class_weight": CLASS_WEIGHT}, {"sample_weight": np.ones(2)}])
def test_reductions_over_no_rows_are_0(backend, reduction, weights):
    """An empty batch, and one of ignored rows, have the value 0 and a zero gradient; never NaN."""
    logits = np.ones((2, 5))
    check_parity(backend, np.array([3, 3]), logits, ignore_index=3, reduction=reduction, **weights)
    weights = {name: x[:0] if name == "sample_weight" else x for name, x in weights.items()}
    check_parity(backend, np.array([], np.int32), logits[:0], reduction=reduction, **weights)
    check_parity(backend, np.ones((0, 5)), logits[:0], reduction=reduction, label_smoothing=0.1, **weights)


def test_weights_that_sum_to_zero_count_as_no_rows(backend):
    check_parity(backend, np.array([0, 1]), np.eye(2), sample_weight=np.array([1.0, -1.0]), reduction="mean")


@pytest.mark.parametrize("loss", [softmax_cross_entropy, sigmoid_cross_entropy])
@pytest.mark.parametrize("reduction", ["avg", "MEAN", "batchmean", ""])
def test_an_unknown_name_raises_an_error_that_lists_the_known_ones(backend, loss, reduction):
    logits = backend.asarray(np.eye(2))
    with pytest.raises(ValueError, match=r"reduction must be None or one of none, sum, mean, .*; got"):
        loss(backend.asarray(np.eye(2)), logits, reduction=reduction)
