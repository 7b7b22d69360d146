"""A common offset of the logits of a row does not change a loss, however large it is."""

import numpy as np
import pytest

from lsmooth import losses
from lsmooth.testing import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 3.0, (5, 7))
IDS = np.array([0, 3, 6, 2, 2])
SOFT = RNG.dirichlet(np.ones(7), 5)
OFFSETS = [0.0, 1e4, -1e6, 1e8]

LOSSES = {
    "plain": lambda y, z: losses.softmax_cross_entropy(y, z, reduction="none"),
    "smoothed": lambda y, z: losses.softmax_cross_entropy(y, z, label_smoothing=0.1, reduction="none"),
    "mean": lambda y, z: losses.softmax_cross_entropy(y, z, label_smoothing=0.1),
    "temperature": lambda y, z: losses.softmax_cross_entropy(y, z, temperature=3.0, reduction="none"),
    "temperature of rows": lambda y, z: losses.softmax_cross_entropy(
        y, z, temperature=np.linspace(0.5, 2.0, 5, dtype=np.float32), label_smoothing=0.1, reduction="none"
    ),
    "prior": lambda y, z: losses.softmax_cross_entropy(
        y, z, label_smoothing=0.1, smoothing_prior=np.arange(1.0, 8.0), reduction="none"
    ),
    "class weights": lambda y, z: losses.softmax_cross_entropy(
        y, z, label_smoothing=0.1, class_weight=np.arange(1.0, 8.0), reduction="none"
    ),
    "focal": lambda y, z: losses.softmax_focal_loss(y, z, reduction="none"),
    "smoothed focal": lambda y, z: losses.softmax_focal_loss(y, z, label_smoothing=0.1, reduction="none"),
    "poly": lambda y, z: losses.poly_cross_entropy(y, z, reduction="none"),
    "generalized": lambda y, z: losses.generalized_cross_entropy(y, z, reduction="none"),
    "symmetric": lambda y, z: losses.symmetric_cross_entropy(y, z, reduction="none"),
    "bootstrap": lambda y, z: losses.bootstrap_cross_entropy(y, z, reduction="none"),
    "margin": lambda y, z: losses.margin_label_smoothing(y, z, margin=1.0, reduction="none"),
    "max suppression": lambda y, z: losses.max_suppression(y, z, reduction="none"),
    "confidence penalty": lambda y, z: losses.confidence_penalty(y, z, reduction="none"),
}


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_float32_logits_give_the_value_of_float64(backend, loss, labels, offset):
    z = (LOGITS + offset).astype(np.float32)
    y = labels if labels is IDS else SOFT.astype(np.float32)
    expected = np.asarray(loss(y if labels is IDS else y.astype(np.float64), z.astype(np.float64)))
    np.testing.assert_allclose(backend.to_numpy(loss(y, backend.asarray(z))), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
def test_float32_gradients_match_float64(differentiable_backend, labels, offset):
    xp, z = differentiable_backend, (LOGITS + offset).astype(np.float32)
    for options in ({"label_smoothing": 0.1}, {"temperature": 2.0}, {"class_weight": np.arange(1.0, 8.0)}):
        _, expected = reference.softmax_cross_entropy(labels, z, **options)
        y = labels if labels is IDS else xp.asarray(SOFT, "float32")

        def loss(z, y=y, options=options):
            return losses.softmax_cross_entropy(y, z, **options)

        found = xp.to_numpy(xp.value_and_grad(loss, xp.asarray(z))[1])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_numpy_formula_is_the_reference(backend):
    """The oracle of this file, against a formula that is written out."""
    z = (LOGITS + 1e4).astype(np.float32).astype(np.float64)
    for labels in (IDS, SOFT):
        expected, _ = reference.softmax_cross_entropy(labels, z, label_smoothing=0.1, reduction="none")
        np.testing.assert_allclose(LOSSES["smoothed"](labels, z), expected, rtol=1e-11)


def test_the_z_loss_includes_the_offset(backend):
    z = (LOGITS + 100.0).astype(np.float32)
    expected, _ = reference.softmax_cross_entropy(IDS, z, z_loss=0.01, temperature=2.0)
    found = losses.softmax_cross_entropy(IDS, backend.asarray(z), z_loss=0.01, temperature=2.0)
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=2e-6)
