"""Derivatives by labels and by label_smoothing, at points where a class has no mass."""

import numpy as np
import pytest

from lsmooth import losses

RNG = np.random.default_rng(1)
LOGITS = RNG.normal(0.0, 2.0, (4, 5))
ONE_HOT = np.eye(5)[[0, 3, 1, 4]]
STEP = 1e-6

OVER_CLASSES = {
    "cross-entropy": losses.softmax_cross_entropy,
    "focal": losses.softmax_focal_loss,
    "focal, gamma 0.5": lambda y, z, **o: losses.softmax_focal_loss(y, z, gamma=0.5, **o),
    "poly": losses.poly_cross_entropy,
    "generalized": losses.generalized_cross_entropy,
    "bootstrap": losses.bootstrap_cross_entropy,
    "margin": losses.margin_label_smoothing,
}


def one_sided(function, x):
    """Derivatives of a function of NumPy arrays by forward differences, at the left end of its domain."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        steps = []
        for n in (1, 2):
            moved = x.copy()
            moved[at] += n * STEP
            steps.append(function(moved))
        gradient[at] = (4 * steps[0] - steps[1] - 3 * function(x)) / (2 * STEP)
    return gradient


@pytest.mark.parametrize("loss", OVER_CLASSES.values(), ids=OVER_CLASSES)
@pytest.mark.parametrize("soft", [False, True], ids=["class ids", "distributions"])
def test_the_derivative_by_label_smoothing_at_zero(differentiable_backend, loss, soft):
    xp = differentiable_backend
    labels = ONE_HOT if soft else ONE_HOT.argmax(1)
    expected = one_sided(lambda eps: loss(labels, LOGITS, label_smoothing=eps), np.zeros(4))

    def of_eps(eps):
        return loss(xp.asarray(labels), xp.asarray(LOGITS), label_smoothing=eps)

    found = xp.to_numpy(xp.value_and_grad(of_eps, xp.asarray(np.zeros(4)))[1])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", OVER_CLASSES.values(), ids=OVER_CLASSES)
def test_the_derivative_by_distributions_at_the_corners(differentiable_backend, loss):
    xp = differentiable_backend
    expected = one_sided(lambda y: loss(y, LOGITS), ONE_HOT)
    found = xp.to_numpy(xp.value_and_grad(lambda y: loss(y, xp.asarray(LOGITS)), xp.asarray(ONE_HOT))[1])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_derivative_of_the_sigmoid_focal_loss_at_labels_0_and_1(differentiable_backend, gamma, dtype):
    xp = differentiable_backend
    z, inside = np.array([-3.0, -0.5, 0.5, 3.0, 30.0, -100.0] * 2), np.array([0.0] * 6 + [1.0] * 6)

    def value(y):
        # By p from the label, as in the docstring, in float64.
        p = 1.0 / (1.0 + np.exp(-z))
        error = np.where(z > 0, 1.0 - y + (2.0 * y - 1.0) * np.exp(-z) * p, y + (1.0 - 2.0 * y) * p)
        return (error**gamma * (np.logaddexp(0.0, z) - y * z)).sum()

    step = np.where(inside == 0, STEP, -STEP)
    each = np.eye(12)
    expected = [(4 * value(inside + step * e) - value(inside + 2 * step * e) - 3 * value(inside)) / 2 for e in each]
    expected = np.array(expected) / step

    def loss(y):
        return losses.sigmoid_focal_loss(y, xp.asarray(z, dtype), gamma=gamma, reduction="sum")

    found = xp.to_numpy(xp.value_and_grad(loss, xp.asarray(inside, dtype))[1])
    assert np.isfinite(found).all()
    # At gamma 0.5 the derivative is infinite where the error is: of large logits no step is small enough.
    sure = np.abs(z) <= 3.0 if gamma < 1.0 else np.abs(z) < 31.0
    np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    "name", ["categorical_crossentropy", "categorical_focal_crossentropy", "binary_crossentropy", "kl_divergence"]
)
def test_the_derivative_of_the_keras_losses_at_the_corners(differentiable_backend, name, from_logits):
    xp, loss = differentiable_backend, getattr(losses, name)
    # A step beyond 1 would make a binary label NaN; the KL divergence clips labels, and is not smooth at the corners.
    labels = {"binary_crossentropy": 0.5 * ONE_HOT, "kl_divergence": np.full((4, 5), 0.2)}.get(name, ONE_HOT)
    options = {} if name == "kl_divergence" else {"from_logits": from_logits}
    from_logits = from_logits and name != "kl_divergence"
    scores = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    if from_logits:
        scores = LOGITS
    expected = one_sided(lambda y: np.sum(loss(y, scores, **options)), labels)
    found = xp.value_and_grad(lambda y: xp.sum(loss(y, xp.asarray(scores), **options)), xp.asarray(labels))[1]
    np.testing.assert_allclose(xp.to_numpy(found), expected, rtol=1e-5, atol=1e-7)
