"""Logits from ``num_classes`` on are padding: they do not contribute, and their gradient is 0."""

import numpy as np
import pytest

import lsmooth
from lsmooth import losses

RNG = np.random.default_rng(0)
N, PADDED, CLASSES = 6, 9, 5
IDS = RNG.integers(0, CLASSES, N)
SOFT = RNG.dirichlet(np.ones(CLASSES), N)
LOGITS = RNG.normal(0.0, 2.0, (N, PADDED))
PER_CLASS = {"class_weight": RNG.random(CLASSES) + 0.5, "smoothing_prior": RNG.random(CLASSES) + 0.1}
ROWS = {"label_smoothing": RNG.random(N), "temperature": 1.0 + RNG.random(N), "reduction": "none"}

LOSSES = {
    "plain": losses.softmax_cross_entropy,
    "smoothed": lambda y, z, **o: losses.softmax_cross_entropy(y, z, label_smoothing=0.2, **o),
    "per class": lambda y, z, **o: losses.softmax_cross_entropy(y, z, label_smoothing=0.2, **PER_CLASS, **o),
    "per row": lambda y, z, **o: losses.softmax_cross_entropy(y, z, **ROWS, **o),
    "soft-cap": lambda y, z, **o: losses.softmax_cross_entropy(y, z, logit_softcap=3.0, z_loss=0.1, mask=IDS > 0, **o),
    "softmax_focal_loss": lambda y, z, **o: losses.softmax_focal_loss(y, z, label_smoothing=0.1, **o),
    "focal, per class": lambda y, z, **o: losses.softmax_focal_loss(y, z, alpha=PER_CLASS["class_weight"], **o),
    "focal, ids alone": losses.softmax_focal_loss,
    "poly_cross_entropy": lambda y, z, **o: losses.poly_cross_entropy(y, z, label_smoothing=0.1, **o),
    "generalized_cross_entropy": lambda y, z, **o: losses.generalized_cross_entropy(y, z, label_smoothing=0.1, **o),
    "symmetric_cross_entropy": lambda y, z, **o: losses.symmetric_cross_entropy(y, z, label_smoothing=0.1, **o),
    "bootstrap_cross_entropy": lambda y, z, **o: losses.bootstrap_cross_entropy(y, z, label_smoothing=0.1, **o),
    "margin_label_smoothing": lambda y, z, **o: losses.margin_label_smoothing(y, z, margin=1.0, **o),
    "max_suppression": losses.max_suppression,
    "adaptive_conditional_label_smoothing": lambda y, z, **o: losses.adaptive_conditional_label_smoothing(
        y, z, margin=1.0, **o
    ),
    "confidence_penalty": losses.confidence_penalty,
    "logit_penalty": losses.logit_penalty,
}


def value_and_gradient(xp, loss, z):
    if xp.name == "numpy":
        return xp.to_numpy(loss(z)), np.zeros(z.shape)
    rows = loss(z)
    return xp.to_numpy(rows), xp.to_numpy(xp.value_and_grad(lambda z: xp.sum(loss(z)), z)[1])


@pytest.mark.parametrize("content", [0.0, 1e4, np.nan], ids=["zeros", "large", "nan"])
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_padding_does_not_contribute_and_has_no_gradient(backend, loss, labels, content):
    padded = LOGITS.copy()
    padded[:, CLASSES:] = content
    value, gradient = value_and_gradient(
        backend, lambda z: loss(labels, z, num_classes=CLASSES), backend.asarray(padded)
    )
    wanted, slope = value_and_gradient(backend, lambda z: loss(labels, z), backend.asarray(LOGITS[:, :CLASSES]))
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(gradient[:, :CLASSES], slope, rtol=1e-11, atol=1e-13)
    assert (gradient[:, CLASSES:] == 0).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_distributions_may_be_padded_too(backend, loss):
    padded = np.concatenate([SOFT, np.ones((N, PADDED - CLASSES))], 1)
    value = loss(padded, backend.asarray(LOGITS), num_classes=CLASSES)
    wanted = loss(SOFT, backend.asarray(LOGITS), num_classes=CLASSES)
    np.testing.assert_array_equal(backend.to_numpy(value), backend.to_numpy(wanted))


@pytest.mark.parametrize("name", ["plain", "softmax_focal_loss", "max_suppression"])
def test_a_label_in_the_padding_is_out_of_range(backend, name):
    ids = np.array([0, 1, CLASSES, 2, 3, 4])
    rows = LOSSES[name](ids, backend.asarray(LOGITS), num_classes=CLASSES, reduction="none")
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(rows)), ids == CLASSES)
    with lsmooth.validate(), pytest.raises(ValueError, match=r"class ids in 0\.\.4, got 5"):
        LOSSES[name](ids, backend.asarray(LOGITS), num_classes=CLASSES)


@pytest.mark.parametrize("option", ["class_weight", "smoothing_prior"])
def test_options_of_classes_have_none_for_padding(backend, option):
    with pytest.raises(ValueError, match=rf"{option} must have shape \(5,\)"):
        losses.softmax_cross_entropy(IDS, backend.asarray(LOGITS), num_classes=CLASSES, **{option: np.ones(PADDED)})


def test_padding_of_a_linear_head_has_no_gradient(differentiable_backend):
    xp = differentiable_backend
    hidden, weight, bias = RNG.normal(size=(N, 4)), RNG.normal(size=(PADDED, 4)), RNG.normal(size=PADDED)
    weight[CLASSES:] = np.nan

    def loss(w, classes):
        given = xp.asarray(hidden), w, bias[: xp.shape(w)[0]]
        return losses.linear_softmax_cross_entropy(IDS, *given, num_classes=classes, label_smoothing=0.1, block_size=2)

    value, gradient = value_and_gradient(xp, lambda w: loss(w, CLASSES), xp.asarray(weight))
    wanted, slope = value_and_gradient(xp, lambda w: loss(w, None), xp.asarray(weight[:CLASSES]))
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_allclose(gradient[:CLASSES], slope, rtol=1e-11, atol=1e-13)
    assert (gradient[CLASSES:] == 0).all()


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_gradient_of_many_logits_is_written_once(differentiable_backend, dtype, axis):
    """Through PyTorch's blocks, as the logits lie in memory."""
    xp, shape = differentiable_backend, (3, 700, 11, 17)
    z = RNG.normal(size=shape if axis == 1 else (3, 11, 17, 700))
    ids = RNG.integers(0, 650, (3, 11, 17))
    options = {"label_smoothing": 0.1, "axis": axis}
    value, gradient = value_and_gradient(
        xp, lambda z: losses.softmax_cross_entropy(ids, z, num_classes=650, **options), xp.asarray(z, dtype)
    )
    part = z[:, :650] if axis == 1 else z[..., :650]
    wanted, slope = value_and_gradient(
        xp, lambda z: losses.softmax_cross_entropy(ids, z, **options), xp.asarray(part, dtype)
    )
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    gradient = np.moveaxis(gradient, axis, -1)
    tolerance = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-7}[dtype]
    np.testing.assert_allclose(gradient[..., :650], np.moveaxis(slope, axis, -1), rtol=tolerance, atol=1e-7)
    assert (gradient[..., 650:] == 0).all()
