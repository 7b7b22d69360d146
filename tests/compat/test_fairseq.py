"""`lsmooth.compat.fairseq` on every backend, held to the formula of fairseq 0.12.3 in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from peers import assert_same, log_softmax, others_share

import lsmooth
from lsmooth.compat.fairseq import label_smoothed_nll_loss

LPROBS = log_softmax(3 * np.random.default_rng(0).normal(size=(4, 5)))
TARGET = np.array([0, 4, 2, 4])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("ignore_index", [None, 4, -100])
def test_both_losses_and_their_gradients_match_fairseq(backend, epsilon, ignore_index):
    counted = (ignore_index != TARGET)[:, None]
    smooth = counted * others_share(TARGET, 5, epsilon)
    plain = counted * np.eye(5)[TARGET]
    target = backend.asarray(TARGET)
    for part, q in enumerate((smooth, plain)):
        rows = -(q * LPROBS).sum(-1)
        for reduce in (True, False):
            value = rows.sum() if reduce else rows if ignore_index is None else rows[:, None]
            loss = lambda x: label_smoothed_nll_loss(x, target, epsilon, ignore_index, reduce)[part]  # noqa: B023, E731
            assert_same(backend, loss, LPROBS, value, -q)


def test_a_column_of_targets_is_accepted(backend):
    lprobs = backend.asarray(LPROBS)
    flat = label_smoothed_nll_loss(lprobs, backend.asarray(TARGET), 0.1)
    column = label_smoothed_nll_loss(lprobs, backend.asarray(TARGET[:, None]), 0.1)
    for a, b in zip(flat, column, strict=True):
        assert_close(backend, a, backend.to_numpy(b), "float64")


def test_half_precision_results_keep_their_dtype(backend):
    loss, nll = label_smoothed_nll_loss(backend.asarray(LPROBS, "float16"), backend.asarray(TARGET), 0.1)
    assert backend.dtype(loss) == backend.dtype(nll) == "float16"
    assert_close(backend, loss, -(others_share(TARGET, 5, 0.1) * LPROBS).sum(), "float16", 2.0)


def test_bad_targets_are_named(backend):
    lprobs = backend.asarray(LPROBS)
    with pytest.raises(ValueError, match=r"target must have shape \(4,\), one class id per row; got \(3,\)"):
        label_smoothed_nll_loss(lprobs, backend.asarray(TARGET[:3]), 0.1)
    with pytest.raises(TypeError, match="target must be integer class ids"):
        label_smoothed_nll_loss(lprobs, backend.asarray(TARGET + 0.5), 0.1)
    rows, _ = label_smoothed_nll_loss(lprobs, backend.asarray([0, 5, -1, 1]), 0.1, reduce=False)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(rows)), [False, True, True, False])
    with lsmooth.validate(), pytest.raises(ValueError, match="got 5 at index"):
        label_smoothed_nll_loss(lprobs, backend.asarray([0, 5, -1, 1]), 0.1)
