"""Statistics from the blocks that the loss goes through on PyTorch's CPU, and their gradient by blocks."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import require_backend  # noqa: E402

from lsmooth.backends.torch import linear as torch_linear  # noqa: E402
from lsmooth.backends.torch import statistics as kernel  # noqa: E402
from lsmooth.losses import (  # noqa: E402
    linear_softmax_cross_entropy,
    linear_softmax_cross_entropy_with_statistics,
    softmax_cross_entropy,
    softmax_cross_entropy_with_statistics,
    softmax_statistics,
)

CASES = {
    "plain": ({}, {}),
    "smoothed rows": ({"label_smoothing": 0.1, "reduction": "none"}, {}),
    "every option": ({"label_smoothing": 0.1, "temperature": 2.0, "z_loss": 0.01, "logit_softcap": 9.0}, {}),
    "row temperature": ({"temperature": torch.linspace(0.5, 2.0, 60)}, {}),
    "mask": ({"mask": torch.arange(60) % 3 > 0, "label_smoothing": 0.1}, {"nan": True}),
    "masked classes": ({}, {"masked": True}),
    "masked classes, smoothed": ({"label_smoothing": 0.1}, {"masked": True}),
    "distributions": ({"label_smoothing": 0.1}, {"soft": True}),
    "distributions, masked classes": ({}, {"soft": True, "masked": True}),
    "far from 0": ({}, {"offset": 1e4}),
    "few classes": ({}, {"shape": (6000, 50)}),
}


@pytest.fixture(autouse=True)
def _torch():
    require_backend("torch")


def example(dtype, shape=(60, 5001), nan=False, masked=False, soft=False, offset=0.0):
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(0.0, 3.0, shape) + offset).to(dtype)
    z[2, 40:42] = z[2].max() + 1  # the first of two
    if masked:
        z[1, 5:], z[:, 7] = -np.inf, -np.inf
    y = torch.from_numpy(rng.integers(0, 4, shape[0]))
    if soft:
        y = torch.from_numpy(rng.dirichlet(np.ones(shape[1]), shape[0])).to(dtype) * (z > -np.inf)
    if nan:
        z[0] = np.nan
    return y, z


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("options", "form"), CASES.values(), ids=CASES)
def test_statistics_of_blocks_equal_the_formula_in_float64(monkeypatch, options, form, dtype):
    y, z = example(dtype, **form)
    a, b, exact = z.clone().requires_grad_(), z.clone().requires_grad_(), z.double().requires_grad_()
    loss, got = softmax_cross_entropy_with_statistics(y, a, **options)
    alone = softmax_cross_entropy(y, b, **options)
    loss.sum().backward()
    alone.sum().backward()
    assert torch.equal(loss, alone)
    assert torch.equal(a.grad, b.grad)

    monkeypatch.setattr(kernel, "fits", lambda *_: False)
    _, wanted = softmax_cross_entropy_with_statistics(y.double() if y.ndim > 1 else y, exact, **options)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for x, w in zip(got[:3], wanted[:3], strict=True):
        torch.testing.assert_close(x.double(), w, rtol=tolerance, atol=10 * tolerance)
    assert torch.equal(got.predicted, wanted.predicted)
    assert torch.equal(got.correct, wanted.correct)

    a.grad = None
    upstream = torch.randn(3, len(z), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sum((x * u).sum() for x, u in zip(got[:3], upstream, strict=True)).backward()
    sum((x * u).sum() for x, u in zip(wanted[:3], upstream, strict=True)).backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(a.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_a_gradient_of_statistics_is_computed_only_for_what_is_used(monkeypatch):
    y, z = example(torch.float32)
    z.requires_grad_()
    loss, _ = softmax_cross_entropy_with_statistics(y, z)
    monkeypatch.setattr("lsmooth.backends.torch.row_statistics", None)
    loss.backward()
    assert z.grad.isfinite().all()


def test_statistics_are_differentiated_twice():
    y, z = example(torch.float64)
    z.requires_grad_()
    (first,) = torch.autograd.grad(softmax_statistics(y, z).entropy.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad((first * z.detach()).sum(), z)
    p = torch.softmax(z.detach(), -1)
    log_p, x = p.log(), z.detach()
    entropy = -(p * log_p).sum(-1, keepdim=True)
    mean, slope = (p * x).sum(-1, keepdim=True), -p * (log_p + entropy)
    along = (slope * x).sum(-1, keepdim=True)
    wanted = (x - mean) * slope - p * (x - mean) - p * along
    torch.testing.assert_close(second, wanted, rtol=1e-9, atol=1e-11)


def test_classes_that_are_not_last_in_memory():
    z = torch.randn(3, 700, 11, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, 700, (3, 11, 13))
    got = softmax_statistics(y, z, axis=1)
    wanted = softmax_statistics(y.numpy(), z.numpy(), axis=1)
    for x, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x.numpy(), w, rtol=1e-12)


@pytest.mark.parametrize("form", ["plain", "rows", "mask", "masked classes", "bfloat16", "few"])
def test_statistics_of_a_linear_head_come_from_the_sweep_of_its_loss(monkeypatch, form):
    """The same numbers and gradients as in two sweeps, and one product of hidden states and weight."""
    make = torch.Generator().manual_seed(0)
    dtype, rows = torch.bfloat16 if form == "bfloat16" else torch.float64, 5 if form == "few" else 300
    hidden, weight = (torch.randn(n, 8, generator=make, dtype=torch.float64).to(dtype) for n in (rows, 3000))
    ids, bias = torch.randint(0, 2000, (rows,), generator=make), torch.zeros(3000, dtype=dtype)
    options = {"label_smoothing": 0.1, "block_size": 128, "reduction": "none" if form == "rows" else "mean"}
    if form == "mask":
        options["mask"], hidden[0] = torch.arange(rows) % 3 > 0, torch.nan
    if form == "masked classes":
        bias[2500:] = -torch.inf
    found = []
    for sweeps in (2, 1):
        if sweeps == 2:
            monkeypatch.setattr(torch_linear, "is_eager", lambda call: False)
        leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
        loss, got = linear_softmax_cross_entropy_with_statistics(ids, *leaves, **options)
        monkeypatch.undo()
        counted = got.predicted >= 0
        total = loss.sum() + (got.entropy * counted).sum() + 0.5 * (got.log_prob * counted).mean()
        gradients = torch.autograd.grad(total, leaves)
        alone = torch.autograd.grad(linear_softmax_cross_entropy(ids, *leaves, **options).sum(), leaves)
        loss, got = linear_softmax_cross_entropy_with_statistics(ids, *leaves, **options)
        for x, y in zip(torch.autograd.grad(loss.sum(), leaves), alone, strict=True):
            assert torch.equal(x.nan_to_num(0.0), y.nan_to_num(0.0))
        found.append([loss, *got, *gradients])
    tolerance = 2e-2 if form == "bfloat16" else 1e-11
    for x, y in zip(*found, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
