"""`lsmooth.compat.annotated_transformer` and `opennmt` on every backend, held to their formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from peers import assert_same, kl_divergence, log_softmax, padded

import lsmooth
from lsmooth.compat.annotated_transformer import LabelSmoothing
from lsmooth.compat.opennmt import LabelSmoothingLoss

X = log_softmax(3 * np.random.default_rng(0).normal(size=(5, 6)))
TARGET = np.array([2, 0, 5, 3, 1])


@pytest.mark.parametrize("padding_idx", [0, 3])
@pytest.mark.parametrize("smoothing", [0.1, 0.4, 1.0])
def test_the_summed_divergence_and_its_gradient_match_the_notebook(backend, padding_idx, smoothing):
    q = padded(TARGET, 6, smoothing, padding_idx)
    target = backend.asarray(TARGET)
    criterion = LabelSmoothing(6, padding_idx, smoothing)
    assert criterion.true_dist is None
    assert_same(backend, lambda x: criterion(x, target), X, np.asarray(kl_divergence(q, X)), -q)
    criterion(backend.asarray(X), target)
    assert_close(backend, criterion.true_dist, q, "float64")
    opennmt = LabelSmoothingLoss(smoothing, 6, ignore_index=padding_idx)
    assert_same(backend, lambda x: opennmt(x, target), X, np.asarray(kl_divergence(q, X)), -q)


def test_without_smoothing_the_loss_is_the_summed_nll_of_rows_that_are_not_padding(backend):
    loss = LabelSmoothing(6, 0)(backend.asarray(X), backend.asarray(TARGET))
    assert_close(backend, loss, -X[[0, 2, 3, 4], [2, 5, 3, 1]].sum(), "float64")


def test_the_worked_example_of_the_notebook(backend):
    """Size 5, padding 0, smoothing .5: a label, another, and padding."""
    criterion = LabelSmoothing(size=5, padding_idx=0, smoothing=0.5)
    predict = np.array([[0, 0.2, 0.7, 0.1, 0]] * 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = criterion(backend.asarray(np.log(predict), "float32"), backend.asarray([2, 1, 0]))
    expected = [[0, 1 / 6, 0.5, 1 / 6, 1 / 6], [0, 0.5, 1 / 6, 1 / 6, 1 / 6], [0, 0, 0, 0, 0]]
    assert backend.dtype(criterion.true_dist) == "float32"
    assert_close(backend, criterion.true_dist, np.array(expected), "float32")
    np.testing.assert_array_equal(
        backend.to_numpy(criterion.true_dist).round(4)[0], np.float32([0, 0.1667, 0.5, 0.1667, 0.1667])
    )
    # 0 log 0 with a target of 0: torch's KLDivLoss gives NaN, and so does this.
    assert np.isnan(backend.to_numpy(loss))


def test_the_divergence_matches_torch(backend):
    torch = pytest.importorskip("torch", reason="its KLDivLoss is what the notebook calls")
    for predict in (np.exp(X), np.array([[0, 0.2, 0.7, 0.1, 0]] * 3)):
        target = np.array([2, 1, 0, 3, 3])[: len(predict)]
        classes = predict.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = np.log(predict)
            loss = LabelSmoothing(classes, 0, 0.4)(backend.asarray(x), backend.asarray(target))
        q = torch.tensor(padded(target, classes, 0.4, 0))
        expected = torch.nn.KLDivLoss(reduction="sum")(torch.tensor(x), q)
        assert_close(backend, loss, expected.numpy(), "float64")


def test_invalid_arguments_are_refused_and_named(backend):
    x, target = backend.asarray(X), backend.asarray(TARGET)
    with pytest.raises(ValueError, match=r"x must have 5 classes, got shape \(5, 6\)"):
        LabelSmoothing(5, 0, 0.1)(x, target)
    with pytest.raises(ValueError, match=r"padding_idx must be in 0\.\.5, got -100"):
        LabelSmoothingLoss(0.1, 6)(x, target)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \(0, 1\], got 0\.0"):
        LabelSmoothingLoss(0.0, 6)
    assert np.isnan(backend.to_numpy(LabelSmoothing(6, 0, 0.1)(x, backend.asarray(TARGET + 1))))
    with lsmooth.validate(), pytest.raises(ValueError, match="got 6 at index"):
        LabelSmoothing(6, 0, 0.1)(x, backend.asarray(TARGET + 1))
