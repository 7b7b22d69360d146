"""Invalid labels and NaN give NaN or the same error on every backend."""

import numpy as np
import pytest

import lsmooth
from lsmooth import losses
from lsmooth.distillation import decoupled_distillation_loss, distillation_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 2.0, (4, 3))
SOFT = RNG.dirichlet(np.ones(3), 4)
NEGATIVE = np.where(np.arange(4)[:, None] == 2, [1.5, -0.25, -0.25], SOFT)
BINARY = (LOGITS > 0).astype(float)

OVER_CLASSES = [
    losses.softmax_cross_entropy,
    losses.softmax_focal_loss,
    losses.poly_cross_entropy,
    losses.generalized_cross_entropy,
    losses.bootstrap_cross_entropy,
    losses.margin_label_smoothing,
    lambda y, z, **o: losses.linear_softmax_cross_entropy(y, z, np.eye(3), **o),
]
OVER_ELEMENTS = [losses.sigmoid_cross_entropy, losses.sigmoid_focal_loss]


@pytest.mark.parametrize("loss", OVER_CLASSES)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_a_distribution_with_negative_mass_makes_its_row_nan(backend, loss, eps):
    rows = backend.to_numpy(loss(NEGATIVE, backend.asarray(LOGITS), label_smoothing=eps, reduction="none"))
    assert np.isnan(rows).tolist() == [False, False, True, False]


@pytest.mark.parametrize("loss", OVER_CLASSES)
def test_the_gradient_of_a_row_with_negative_mass_is_nan(differentiable_backend, loss):
    xp = differentiable_backend
    found = xp.to_numpy(xp.value_and_grad(lambda z: loss(NEGATIVE, z, reduction="sum"), xp.asarray(LOGITS))[1])
    assert np.isnan(found).all(-1).tolist() == [False, False, True, False]


@pytest.mark.parametrize("loss", OVER_ELEMENTS)
@pytest.mark.parametrize("wrong", [255.0, -1.0, 1.0 + 1e-3, np.nan])
@pytest.mark.parametrize("eps", [0.0, 0.2])
def test_a_binary_label_outside_0_and_1_makes_its_element_nan(backend, loss, wrong, eps):
    labels = BINARY.copy()
    labels[1, 2] = wrong
    elements = backend.to_numpy(loss(labels, backend.asarray(LOGITS), label_smoothing=eps, reduction="none"))
    assert np.argwhere(np.isnan(elements)).tolist() == [[1, 2]]
    assert np.isnan(backend.to_numpy(loss(labels, backend.asarray(LOGITS), label_smoothing=eps)))


def test_integer_labels_of_255_are_not_binary(backend):
    labels = (BINARY * 255).astype(np.uint8)
    found = losses.sigmoid_cross_entropy(backend.asarray(labels), backend.asarray(LOGITS), reduction="none")
    assert (np.isnan(backend.to_numpy(found)) == (labels == 255)).all()
    with lsmooth.validate(), pytest.raises(ValueError, match=r"labels must be in \[0, 1\], got 255 at index"):
        losses.sigmoid_cross_entropy(backend.asarray(labels), backend.asarray(LOGITS))


def test_validate_refuses_negative_mass(backend):
    with lsmooth.validate(), pytest.raises(ValueError, match=r"labels must be distributions.* at index \(2, 1\)"):
        losses.softmax_cross_entropy(NEGATIVE, backend.asarray(LOGITS))


def test_validate_allows_nan_in_rows_that_do_not_count(backend):
    ids, counted = np.array([0, 1, -100, 2]), np.array([True, True, False, True])
    z = backend.asarray(np.where(counted[:, None], LOGITS, np.nan))
    with lsmooth.validate():
        value = losses.softmax_cross_entropy(ids, z, ignore_index=-100)
        assert np.isfinite(backend.to_numpy(value))
        soft = np.where(counted[:, None], SOFT, np.nan)
        assert np.isfinite(backend.to_numpy(losses.softmax_cross_entropy(soft, z, mask=counted)))
        assert np.isfinite(backend.to_numpy(distillation_loss(z, z, mask=counted)))
        elements = np.repeat(counted[:, None], 3, 1)
        assert np.isfinite(backend.to_numpy(losses.sigmoid_cross_entropy(soft, z, mask=elements)))
        with pytest.raises(ValueError, match="logits must hold no NaN"):
            losses.softmax_cross_entropy(SOFT, z)


def test_validate_checks_tensors_of_numbers(backend):
    eps = backend.asarray(np.array([0.1, 0.2, 1.5, 0.0]))
    with lsmooth.validate(), pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got 1.5"):
        losses.softmax_cross_entropy(SOFT, backend.asarray(LOGITS), label_smoothing=eps)


@pytest.mark.parametrize("value", [None, "0.1", True], ids=["None", "text", "bool"])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("label_smoothing", losses.softmax_cross_entropy),
        ("temperature", losses.softmax_cross_entropy),
        ("z_loss", losses.softmax_cross_entropy),
        ("label_smoothing", losses.sigmoid_cross_entropy),
        ("gamma", losses.softmax_focal_loss),
        ("gamma", losses.sigmoid_focal_loss),
        ("epsilon", losses.poly_cross_entropy),
        ("q", losses.generalized_cross_entropy),
        ("alpha", losses.margin_label_smoothing),
        ("beta", losses.confidence_penalty),
        ("log_zero", losses.symmetric_cross_entropy),
        ("temperature", distillation_loss),
    ],
)
def test_options_that_are_not_numbers_are_named(backend, name, call, value):
    with pytest.raises(TypeError, match=f"{name} must be a number"):
        call(SOFT, backend.asarray(LOGITS), **{name: value})


@pytest.mark.parametrize(
    "value", [None, "logits", np.array(["a"] * 4), object()], ids=["None", "text", "texts", "object"]
)
@pytest.mark.parametrize("name", ["labels", "logits"])
@pytest.mark.parametrize("loss", [losses.softmax_cross_entropy, losses.sigmoid_cross_entropy])
def test_arguments_that_are_not_arrays_are_named(backend, loss, name, value):
    arguments = {"labels": backend.asarray(SOFT), "logits": backend.asarray(LOGITS)}
    with pytest.raises(TypeError, match=f"{name} must be an array, a tensor or numbers"):
        loss(**{**arguments, name: value})


@pytest.mark.parametrize("value", [True, 1.5, "0", [1]])
def test_ignore_index_is_an_integer(backend, value):
    with pytest.raises(TypeError, match="ignore_index must be None or an integer"):
        losses.softmax_cross_entropy([0, 1, 2, 0], backend.asarray(LOGITS), ignore_index=value)


def test_numbers_of_numpy_are_numbers(backend):
    ids, z = [0, 1, 2, 0], backend.asarray(LOGITS)
    plain = losses.softmax_cross_entropy(ids, z, label_smoothing=0.125, temperature=2.0, ignore_index=1, axis=1)
    numpy = losses.softmax_cross_entropy(
        ids, z, label_smoothing=np.float32(0.125), temperature=np.int64(2), ignore_index=np.int32(1), axis=np.int64(1)
    )
    assert backend.to_numpy(plain) == backend.to_numpy(numpy)


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (
            losses.softmax_cross_entropy,
            {"label_smoothing": 0.1, "temperature": 2.0, "z_loss": 0.1, "logit_softcap": 5.0},
        ),
        (losses.sigmoid_cross_entropy, {"label_smoothing": 0.1}),
        (losses.softmax_focal_loss, {"gamma": 1.5, "alpha": 0.25}),
        (losses.sigmoid_focal_loss, {"gamma": 1.5, "alpha": 0.25}),
        (losses.poly_cross_entropy, {"epsilon": 2.0}),
        (losses.generalized_cross_entropy, {"q": 0.5}),
        (losses.symmetric_cross_entropy, {"alpha": 0.5, "beta": 0.5, "log_zero": -3.0}),
        (losses.bootstrap_cross_entropy, {"beta": 0.5}),
        (losses.margin_label_smoothing, {"alpha": 0.5, "margin": 1.0}),
        (losses.max_suppression, {"alpha": 0.5}),
        (losses.confidence_penalty, {"beta": 0.5}),
        (losses.logit_penalty, {"beta": 0.5}),
        (distillation_loss, {"temperature": 2.0, "divergence": "jensen_shannon", "beta": 0.3}),
        (decoupled_distillation_loss, {"labels": [0, 1, 2, 0], "alpha": 0.5, "beta": 2.0, "temperature": 2.0}),
    ],
)
def test_float32_stays_float32_beside_numbers_of_numpy(backend, call, options):
    wide = {name: np.float64(x) if isinstance(x, float) else x for name, x in options.items()}
    first, second = (backend.asarray(x, "float32") for x in (SOFT, LOGITS))
    plain, numpy = call(first, second, **options), call(first, second, **wide)
    assert backend.dtype(numpy) == "float32"
    np.testing.assert_allclose(backend.to_numpy(numpy), backend.to_numpy(plain), rtol=1e-6)


def test_labels_off_by_rounding_are_accepted(backend):
    """Labels as MixUp makes them in float32 are accepted."""
    logits = backend.asarray(LOGITS)
    binary = BINARY + np.where(BINARY == 1, 2e-7, -2e-7)
    soft = np.where(np.eye(3)[[0, 1, 2, 0]] == 1, 1.0 + 2e-7, -1e-7)
    with lsmooth.validate():
        for loss in OVER_ELEMENTS:
            assert np.isfinite(backend.to_numpy(loss(binary, logits)))
        for loss in (losses.softmax_cross_entropy, losses.margin_label_smoothing):
            found = backend.to_numpy(loss(soft, logits, label_smoothing=0.1))
            expected = backend.to_numpy(loss(np.array([0, 1, 2, 0]), logits, label_smoothing=0.1))
            np.testing.assert_allclose(found, expected, rtol=1e-5)
