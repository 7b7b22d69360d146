"""The kernel of the softmax focal loss equals the formula, differentiated by autograd."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.backends import formulas
from lsmooth.backends.options import SoftmaxOptions

torch = pytest.importorskip("torch")
focal = pytest.importorskip("lsmooth.backends.torch.cpu.focal")
BACKEND = pytest.importorskip("lsmooth.backends.torch").BACKEND

NUM_CLASSES = 7
OPTIONS = {
    "a number of smoothing": {"label_smoothing": 0.1},
    "smoothing of each row": {"label_smoothing": torch.linspace(0.0, 1.0, 5, dtype=torch.float64)},
    "a prior": {"label_smoothing": 0.3, "prior": torch.arange(1.0, NUM_CLASSES + 1, dtype=torch.float64)},
    "class weights": {"label_smoothing": 0.1, "class_weight": torch.linspace(0.0, 2.0, NUM_CLASSES).double()},
    "ignored rows": {"label_smoothing": 0.1, "counted": torch.tensor([True, False, True, True, False])},
    "a scale of each row": {"label_smoothing": 0.1, "scale": torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)},
}


def logits(rows=5, num_classes=NUM_CLASSES, seed=0, spread=3.0):
    return torch.randn(rows, num_classes, generator=torch.Generator().manual_seed(seed)).double() * spread


def labels(z, soft):
    if soft:
        return torch.softmax(logits(*z.shape, seed=9), -1)
    return torch.arange(len(z)) * 3 % z.shape[-1]


def formula(z, y, options):
    return formulas.softmax_cross_entropy(BACKEND, z, y, options)


def losses_and_gradient(function, z, y, options):
    z = z.clone().requires_grad_()
    losses = function(z, y, options)
    assert losses is not None
    weights = torch.ones_like(losses) if losses.ndim == 0 else torch.linspace(0.5, 1.5, losses.numel(), dtype=z.dtype)
    (losses * weights).sum().backward()
    return losses.detach().numpy(), z.grad.numpy()


def kernel(z, y, options):
    assert focal.fits(z, y, options)
    return focal.rows(z, y, formula, options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_the_kernel_equals_the_formula(options, soft, total, gamma):
    z = logits()
    options = SoftmaxOptions(gamma=gamma, total=total, **options)
    for ours, theirs in zip(
        losses_and_gradient(kernel, z, labels(z, soft), options),
        losses_and_gradient(formula, z, labels(z, soft), options),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_rows_of_several_blocks_and_axes_are_joined():
    z = logits(600, 700).view(3, 200, 700)
    y = labels(z.view(600, 700), False).view(3, 200)
    options = SoftmaxOptions(label_smoothing=0.1, gamma=2.0)
    for ours, theirs in zip(
        losses_and_gradient(lambda *call: kernel(*call).flatten(), z, y, options),
        losses_and_gradient(lambda *call: formula(*call).flatten(), z, y, options),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("gap", [5.0, 20.0, 40.0, 300.0])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_a_likely_class_is_exact(gap, gamma):
    z = torch.zeros(1, 3, dtype=torch.float64)
    z[:, 1] = gap
    y, options = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64), SoftmaxOptions(gamma=gamma, total=True)
    losses, gradient = losses_and_gradient(kernel, z, y, options)
    others = 2 * np.exp(-gap)
    expected = (others / (1 + others)) ** gamma * np.log1p(others)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    slope = -((others / (1 + others)) ** gamma) * (gamma / (1 + others) * np.log1p(others) + others / (1 + others))
    np.testing.assert_allclose(gradient[:, 1], slope, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("label", [-1, NUM_CLASSES])
def test_labels_out_of_range_use_the_formula(label):
    z = logits()
    y = torch.tensor([0, 1, label, 3, 4])
    losses = BACKEND.softmax_cross_entropy(z, y, SoftmaxOptions(label_smoothing=0.1, gamma=2.0))
    assert losses.isnan().tolist() == [False, False, True, False, False]


def test_masked_classes_use_the_formula():
    z = logits()
    z[:, 6] = -torch.inf
    y, options = torch.arange(5), SoftmaxOptions(label_smoothing=0.1, gamma=2.0)
    ours, without = BACKEND.softmax_cross_entropy(z, y, options), BACKEND.softmax_cross_entropy(z[:, :6], y, options)
    np.testing.assert_allclose(ours, without, rtol=1e-12)


def test_the_gradient_has_a_derivative():
    options = SoftmaxOptions(label_smoothing=0.1, gamma=2.0)
    z = logits(3, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: kernel(x, labels(x, False), options), z)
