"""Rows and elements that a mask leaves out, with class ids, distributions and yes-or-no labels."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import losses
from lsmooth.distillation import DistillationLoss
from lsmooth.testing import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 2.0, (6, 4))
IDS = np.array([0, 1, 2, 3, 0, 1])
SOFT = RNG.dirichlet(np.ones(4), 6)
MASK = np.array([True, False, True, True, False, True])
REDUCTIONS = ["mean", "sum", "none", "sum_over_batch_size", "mean_with_sample_weight", "sum_by_nonzero_weights"]

OVER_CLASSES = {
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "smoothed": lambda y, z, **o: losses.softmax_cross_entropy(y, z, label_smoothing=0.2, **o),
    "class weights": lambda y, z, **o: losses.softmax_cross_entropy(y, z, class_weight=[1.0, 2.0, 0.5, 3.0], **o),
    "z_loss": lambda y, z, **o: losses.softmax_cross_entropy(y, z, z_loss=0.1, temperature=2.0, **o),
    "linear": lambda y, z, **o: losses.linear_softmax_cross_entropy(y, z, np.eye(4), block_size=2, **o),
    "softmax_focal_loss": losses.softmax_focal_loss,
    "poly_cross_entropy": losses.poly_cross_entropy,
    "generalized_cross_entropy": losses.generalized_cross_entropy,
    "symmetric_cross_entropy": losses.symmetric_cross_entropy,
    "bootstrap_cross_entropy": losses.bootstrap_cross_entropy,
    "margin_label_smoothing": losses.margin_label_smoothing,
    "max_suppression": losses.max_suppression,
    "adaptive_conditional_label_smoothing": losses.adaptive_conditional_label_smoothing,
    "confidence_penalty": losses.confidence_penalty,
    "logit_penalty": losses.logit_penalty,
    "DistillationLoss": lambda y, z, **o: DistillationLoss()(y, np.ones((len(y), 4)), z, **o),
}
OVER_ELEMENTS = {
    "sigmoid_cross_entropy": losses.sigmoid_cross_entropy,
    "pos_weight": lambda y, z, **o: losses.sigmoid_cross_entropy(y, z, pos_weight=[1.0, 2.0, 3.0, 0.5], **o),
    "sigmoid_focal_loss": losses.sigmoid_focal_loss,
}


def dirty(x, mask, value=np.nan):
    """``x``, with ``value`` wherever the mask is False."""
    return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, value)


def gradient(backend, loss, z):
    return backend.to_numpy(backend.value_and_grad(loss, z)[1])


@pytest.mark.parametrize("loss", OVER_CLASSES.values(), ids=OVER_CLASSES)
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
def test_masked_rows_have_zero_loss(backend, loss, labels):
    """The mean over the rows that count is that of these rows alone."""
    kept = backend.to_numpy(loss(backend.asarray(labels[MASK]), backend.asarray(LOGITS[MASK])))
    y = dirty(labels, MASK) if labels is SOFT else dirty(labels, MASK, -7)
    z = backend.asarray(dirty(LOGITS, MASK))
    value = backend.to_numpy(loss(backend.asarray(y), z, mask=backend.asarray(MASK)))
    np.testing.assert_allclose(value, kept, rtol=1e-12)


@pytest.mark.parametrize("loss", OVER_CLASSES.values(), ids=OVER_CLASSES)
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
def test_a_masked_row_has_a_zero_gradient(differentiable_backend, loss, labels):
    xp = differentiable_backend
    y = dirty(labels, MASK) if labels is SOFT else dirty(labels, MASK, -7)
    found = gradient(xp, lambda z: loss(xp.asarray(y), z, mask=xp.asarray(MASK)), xp.asarray(dirty(LOGITS, MASK)))
    clean = gradient(xp, lambda z: loss(xp.asarray(labels), z, mask=xp.asarray(MASK)), xp.asarray(LOGITS))
    assert (found[~MASK] == 0).all()
    np.testing.assert_allclose(found, clean, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
def test_every_reduction_counts_the_rows_of_the_mask(backend, reduction, labels):
    options = {"reduction": reduction, "label_smoothing": 0.1, "sample_weight": np.array([1.0, 2, 0, 3, 1, 0.5])}
    expected, _ = reference.softmax_cross_entropy(labels, LOGITS, mask=MASK, **options)
    value = losses.softmax_cross_entropy(labels, backend.asarray(LOGITS), mask=MASK, **options)
    assert_close(backend, value, expected, "float64")


def test_a_mask_and_ignored_labels_go_together(backend):
    value = losses.softmax_cross_entropy(
        dirty(IDS, np.arange(6) != 3, -100), backend.asarray(LOGITS), mask=MASK, ignore_index=-100
    )
    expected = losses.softmax_cross_entropy(IDS[[0, 2, 5]], backend.asarray(LOGITS[[0, 2, 5]]))
    assert_close(backend, value, backend.to_numpy(expected), "float64")


def test_a_mask_has_the_rows_axes_where_classes_are_not_last(backend):
    z, mask = RNG.normal(size=(2, 4, 3)), RNG.random((2, 3)) > 0.4
    ids = RNG.integers(0, 4, (2, 3))
    expected, _ = reference.softmax_cross_entropy(ids, z, axis=1, mask=mask)
    assert_close(backend, losses.softmax_cross_entropy(ids, backend.asarray(z), axis=1, mask=mask), expected, "float64")


@pytest.mark.parametrize("loss", OVER_ELEMENTS.values(), ids=OVER_ELEMENTS)
def test_masked_elements_have_zero_loss(backend, loss):
    mask, labels = RNG.random(LOGITS.shape) > 0.4, RNG.random(LOGITS.shape)
    z, y = dirty(LOGITS, mask, np.inf), dirty(labels, mask)
    for reduction in REDUCTIONS:
        value = loss(backend.asarray(y), backend.asarray(z), mask=backend.asarray(mask), reduction=reduction)
        clean = loss(backend.asarray(labels), backend.asarray(LOGITS), mask=mask, reduction=reduction)
        np.testing.assert_allclose(backend.to_numpy(value), backend.to_numpy(clean), rtol=1e-12)
    elements = backend.to_numpy(loss(labels, backend.asarray(LOGITS), reduction="none"))
    mean = backend.to_numpy(loss(y, backend.asarray(z), mask=mask))
    np.testing.assert_allclose(mean, elements[mask].mean(), rtol=1e-12)


@pytest.mark.parametrize("loss", OVER_ELEMENTS.values(), ids=OVER_ELEMENTS)
def test_masked_elements_have_a_zero_gradient(differentiable_backend, loss):
    xp, mask, labels = differentiable_backend, RNG.random(LOGITS.shape) > 0.4, RNG.random(LOGITS.shape)
    found = gradient(xp, lambda z: loss(dirty(labels, mask), z, mask=mask), xp.asarray(dirty(LOGITS, mask)))
    clean = gradient(xp, lambda z: loss(labels, z, mask=mask), xp.asarray(LOGITS))
    assert (found[~mask] == 0).all()
    np.testing.assert_allclose(found, clean, rtol=1e-11, atol=1e-14)


def test_a_batch_without_counted_rows_has_zero_loss(backend):
    none = np.zeros(6, bool)
    for labels in (IDS, SOFT):
        assert backend.to_numpy(losses.softmax_cross_entropy(labels, backend.asarray(LOGITS), mask=none)) == 0
    assert backend.to_numpy(losses.sigmoid_cross_entropy(SOFT, backend.asarray(LOGITS), mask=np.inf < LOGITS)) == 0


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (np.ones(6), TypeError, "mask must be bool"),
        (np.ones((6, 4), bool), ValueError, r"mask must have the shape of the rows, \(6,\)"),
        ("all", TypeError, "mask must be an array"),
    ],
)
def test_invalid_masks_are_refused(backend, mask, error, message):
    with pytest.raises(error, match=message):
        losses.softmax_cross_entropy(IDS, backend.asarray(LOGITS), mask=mask)


def test_the_error_for_distributions_with_ignore_index_names_the_mask(backend):
    with pytest.raises(ValueError, match="mask="):
        losses.softmax_cross_entropy(SOFT, backend.asarray(LOGITS), ignore_index=-100)
