"""Ignored rows of linear heads on PyTorch do not affect gradients and are dropped before the products."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lsmooth.backends.torch import thresholds  # noqa: E402
from lsmooth.distillation import linear_distillation_loss  # noqa: E402
from lsmooth.losses import linear_softmax_cross_entropy  # noqa: E402

ROWS, FEATURES, CLASSES = 9, 3, 5
IGNORED = {"some": [0, 4, 5], "most": [0, 1, 2, 3, 4, 6, 7, 8], "all": list(range(ROWS)), "none": []}
LABELS = torch.tensor([0, 2, 4, 2, 1, 3, 2, 1, 0])
WEIGHT = torch.linspace(0.5, 2.0, ROWS, dtype=torch.float64)
LOSSES = {
    "cross-entropy": lambda y, w, th, tw, h, c, b, **o: linear_softmax_cross_entropy(
        y, h, c, b, sample_weight=w, label_smoothing=0.1, ignore_index=-100, block_size=2, **o
    ),
    "temperatures": lambda y, w, th, tw, h, c, b, **o: linear_softmax_cross_entropy(
        y, h, c, b, sample_weight=w, temperature=w, ignore_index=-100, block_size=2, **o
    ),
    "soft": lambda y, w, th, tw, h, c, b, **o: linear_distillation_loss(
        th, tw, h, c, student_bias=b, sample_weight=w, mask=y >= 0, temperature=2.0, block_size=2, **o
    ),
    "hard and soft": lambda y, w, th, tw, h, c, b, **o: linear_distillation_loss(
        th, tw, h, c, student_bias=b, labels=y, sample_weight=w, ignore_index=-100, block_size=2, **o
    ),
    "teacher's gradient": lambda y, w, th, tw, h, c, b, **o: linear_distillation_loss(
        th, tw, h, c, student_bias=b, mask=y >= 0, stop_teacher_gradient=False, block_size=2, **o
    ),
}


@pytest.fixture(autouse=True)
def _needs_torch():
    require_backend("torch")


def given(ignored):
    """Labels, weights, and the arrays of both heads."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, 4), (CLASSES, 4), (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,))
    labels = LABELS.clone()
    labels[ignored] = -100
    return labels, [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def with_ignored(x, value, ignored):
    """A copy with a value in its ignored rows."""
    x = x.clone()
    x[ignored] = value
    return x


def eager(loss, arrays):
    arrays = [x.clone().requires_grad_() for x in arrays]
    value = loss(*arrays)
    upstream = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, torch.autograd.grad(value, arrays, upstream, allow_unused=True)


def transformed(loss, arrays):
    def weighted(*arrays):
        value = loss(*arrays)
        return (value * torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)).sum()

    return loss(*arrays), torch.func.grad(weighted, tuple(range(len(arrays))))(*arrays)


def twice(loss, arrays):
    """The gradient, computed so that it can be differentiated again."""
    arrays = [x.clone().requires_grad_() for x in arrays]
    value = loss(*arrays)
    upstream = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, torch.autograd.grad(value, arrays, upstream, allow_unused=True, create_graph=True)


def compiled_program(loss, arrays):
    torch._dynamo.reset()
    return eager(torch.compile(loss, backend="aot_eager", fullgraph=True), arrays)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("run", [eager, transformed, twice, compiled_program])
def test_ignored_rows_do_not_affect_gradients(monkeypatch, run, name, reduction, bad):
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    for ignored in IGNORED.values() if run is eager else [IGNORED["some"]]:
        labels, (th, tw, h, c, b) = given(ignored)

        def loss(*arrays, labels=labels):
            return LOSSES[name](labels, WEIGHT, *arrays, reduction=reduction)

        expected = eager(loss, [th, tw, h, c, b])
        assert all(g is None or g.isfinite().all() for g in expected[1])
        assert not expected[1][2][ignored].any()
        value, gradients = run(loss, [with_ignored(th, bad, ignored), tw, with_ignored(h, bad, ignored), c, b])
        torch.testing.assert_close(value, expected[0])
        for ours, theirs in zip(gradients, expected[1], strict=True):
            torch.testing.assert_close(ours if theirs is not None else None, theirs)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignored", IGNORED.values(), ids=IGNORED)
def test_ignored_rows_do_not_change_the_loss(name, ignored):
    labels, (th, tw, h, c, b) = given(ignored)
    kept = labels >= 0
    value, gradients = eager(lambda *a: LOSSES[name](labels, WEIGHT, *a, reduction="sum"), [th, tw, h, c, b])
    fewer, of_fewer = eager(
        lambda *a: LOSSES[name](labels[kept], WEIGHT[kept], *a, reduction="sum"), [th[kept], tw, h[kept], c, b]
    )
    torch.testing.assert_close(value, fewer)
    for along_rows, ours, theirs in zip((True, False, True, False, False), gradients, of_fewer, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours[kept] if along_rows else ours, theirs)


class ProductRows(TorchDispatchMode):
    """The rows of every matrix product in turn."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.rows.append(args[-2].shape[0])
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self.rows = []
        return super().__enter__()


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_rows_are_dropped_before_the_products(name, reduction):
    labels, arrays = given(IGNORED["most"])
    with ProductRows() as products:
        eager(lambda *a: LOSSES[name](labels, WEIGHT, *a, reduction=reduction), arrays)
    assert set(products.rows) <= {1, FEATURES, CLASSES, 4}
    assert products.rows
