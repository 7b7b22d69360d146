"""Losses of linear heads in a compiled program equal the reference, gradients included."""

import numpy as np
import pytest
from compiled_heads import CLASSES, FEATURES, LABELS, ROWS, expect, head, run, run_any, torch
from conftest import assert_close, require_backend

from lsmooth.backends.torch import thresholds
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with operators also for few classes."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "sum": {"reduction": "sum"},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 5},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": np.linspace(0.0, 2.0, ROWS)},
    "rows weighted": {"ignore_index": 5, "sample_weight": np.linspace(0.0, 2.0, ROWS), "reduction": "none"},
    "temperature": {"temperature": 2.0},
    "temperatures": {"temperature": np.linspace(0.5, 2.0, ROWS), "reduction": "none"},
    "z_loss": {"z_loss": 0.1, "reduction": "sum"},
    "softcap": {"logit_softcap": 2.0, "reduction": "none"},
    "class_weight": {"label_smoothing": 0.2, "class_weight": np.linspace(0.5, 2.0, CLASSES)},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": np.linspace(0.0, 1.0, CLASSES), "reduction": "none"},
    "smoothing of rows": {"label_smoothing": np.linspace(0.0, 1.0, ROWS)},
    "everything": {
        "label_smoothing": np.linspace(0.0, 1.0, ROWS),
        "smoothing_prior": np.linspace(0.1, 1.0, CLASSES),
        "class_weight": np.linspace(0.5, 2.0, CLASSES),
        "sample_weight": np.linspace(0.0, 2.0, ROWS),
        "ignore_index": 5,
        "temperature": 1.5,
        "z_loss": 0.1,
        "logit_softcap": 3.0,
    },
}

SOFT = np.random.default_rng(1).dirichlet(np.ones(CLASSES), ROWS)


@pytest.mark.parametrize("block_size", [2, None])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_losses_equal_the_reference(backend, options, dtype, block_size):
    given = head(dtype)
    loss, is_operator = run(LABELS, *given, block_size=block_size, **options)
    assert is_operator
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    gradients = torch.autograd.grad(loss, given, upstream)
    expected, each = expect(LABELS, *given, upstream=upstream.double().numpy(), **options)
    assert_close(backend, loss, expected, dtype, factor=4)
    for gradient, right in zip(gradients, each, strict=True):
        assert_close(backend, gradient, right, dtype, factor=4)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, True, True), (False,) * 3])
def test_only_arrays_that_require_one_get_a_gradient(backend, wanted, reduction):
    given = [x.detach().requires_grad_(want) for x, want in zip(head(), wanted, strict=True)]
    loss, is_operator = run(LABELS, *given, label_smoothing=0.2, reduction=reduction)
    expected, each = expect(LABELS, *given, label_smoothing=0.2, reduction=reduction)
    assert is_operator
    assert_close(backend, loss, expected, "float64")
    assert loss.requires_grad == any(wanted)
    if any(wanted):
        loss.sum().backward()
    for x, right, want in zip(given, each, wanted, strict=True):
        assert (x.grad is not None) == want
        if want:
            assert_close(backend, x.grad, right, "float64")


def test_leading_axes_and_no_bias(backend):
    hidden, weight, _ = head()
    labels, options = LABELS[:6].reshape(2, 3), {"label_smoothing": 0.2, "reduction": "none"}
    hidden = hidden[:6].detach().reshape(2, 3, FEATURES).requires_grad_()
    loss, is_operator = run(labels, hidden, weight, **options)
    assert is_operator
    assert loss.shape == (2, 3)
    loss.sum().backward()
    expected, each = expect(labels.reshape(-1), hidden.reshape(-1, FEATURES), weight, **options)
    assert_close(backend, loss.reshape(-1), expected, "float64")
    assert_close(backend, hidden.grad.reshape(-1, FEATURES), each[0], "float64")
    assert_close(backend, weight.grad, each[1], "float64")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("case", ["masked class", "low label", "high label", "no rows"])
def test_rows_that_the_kernel_rejects_match_eager_mode(backend, case, reduction):
    labels, given = torch.tensor(LABELS), head()
    if case == "masked class":
        given[2] = given[2].detach().index_fill_(0, torch.tensor([4]), -torch.inf).requires_grad_()
    elif case == "no rows":
        labels, given[0] = labels[:0], given[0].detach()[:0].requires_grad_()
    else:
        labels[2] = -3 if case == "low label" else CLASSES
    options = {"label_smoothing": 0.2, "reduction": reduction}
    loss, is_operator = run(labels, *given, **options)
    eager = linear_softmax_cross_entropy(labels, *given, **options)
    assert is_operator
    torch.testing.assert_close(loss, eager, equal_nan=True, rtol=1e-12, atol=1e-12)
    found, right = (torch.autograd.grad(x.sum(), given) for x in (loss, eager))
    torch.testing.assert_close(found, right, equal_nan=True, rtol=1e-12, atol=1e-12)


def test_ignored_rows_may_hold_nan(backend):
    given = head()
    expected, each = expect(LABELS, *given, label_smoothing=0.2, ignore_index=5)
    given[0] = given[0].detach().index_fill_(0, torch.tensor([3, 4]), torch.nan).requires_grad_()
    loss, is_operator = run(LABELS, *given, label_smoothing=0.2, ignore_index=5, reduction="none")
    assert is_operator
    loss.sum().backward()
    counted = LABELS != 5
    assert_close(backend, loss.sum() / counted.sum(), expected, "float64")
    assert_close(backend, given[0].grad / counted.sum(), each[0], "float64")


@pytest.mark.parametrize("block_size", [2, None])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_distributions_for_labels(backend, reduction, block_size):
    given, options = head(), {"label_smoothing": 0.2, "reduction": reduction}
    loss, is_operator = run(SOFT, *given, block_size=block_size, **options)
    assert is_operator
    expected, each = expect(SOFT, *given, **options)
    assert_close(backend, loss, expected, "float64")
    for gradient, right in zip(torch.autograd.grad(loss.sum(), given), each, strict=True):
        assert_close(backend, gradient, right, "float64", factor=4)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_gradients_of_options(reduction):
    def number(x):
        return torch.tensor(x, dtype=torch.float64).requires_grad_()

    wanted = {
        "label_smoothing": number(0.2),
        "temperature": number(np.linspace(0.5, 2.0, ROWS)),
        "sample_weight": number(np.linspace(0.5, 2.0, ROWS)),
        "class_weight": number(np.linspace(0.5, 2.0, CLASSES)),
        "smoothing_prior": number(np.linspace(0.1, 1.0, CLASSES)),
    }
    targets = torch.from_numpy(SOFT).requires_grad_()
    given = head()

    def fused(targets, hidden, weight, bias, *options):
        options = dict(zip(wanted, options, strict=True))
        return linear_softmax_cross_entropy(targets, hidden, weight, bias, **options, reduction=reduction, block_size=3)

    def plain(targets, hidden, weight, bias, *options):
        options = dict(zip(wanted, options, strict=True))
        return softmax_cross_entropy(targets, hidden @ weight.T + bias, **options, reduction=reduction)

    arrays = (targets, *given, *wanted.values())
    loss, is_operator = run_any(fused)(*arrays)
    assert is_operator
    right = plain(*arrays)
    torch.testing.assert_close(loss, right, rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    found, expected = (torch.autograd.grad(x, arrays, upstream) for x in (loss, right))
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_arrays_that_are_views(dtype, reduction):
    given = [x.detach().t().contiguous().t().requires_grad_() for x in head(dtype)[:2]]
    options = {"temperature": 2.0, "reduction": reduction, "block_size": 3}
    loss, is_operator = run(LABELS, *given, **options)
    assert is_operator
    assert not given[1].is_contiguous()
    eager = linear_softmax_cross_entropy(torch.from_numpy(LABELS), *given, **options)
    torch.testing.assert_close(loss, eager)
    found, right = (torch.autograd.grad(x.sum(), given) for x in (loss, eager))
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_half_precision_matches_eager_mode(dtype, reduction):
    given = [x.detach().to(dtype).requires_grad_() for x in head()]
    options = {"label_smoothing": 0.2, "z_loss": 0.01, "reduction": reduction, "block_size": 3}
    loss, is_operator = run(LABELS, *given, **options)
    eager = linear_softmax_cross_entropy(torch.from_numpy(LABELS), *given, **options)
    assert is_operator
    torch.testing.assert_close(loss, eager)
    found, right = (torch.autograd.grad(x.sum(), given) for x in (loss, eager))
    assert {x.dtype for x in found} == {dtype}
    torch.testing.assert_close(found, right)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_autocast_matches_eager_mode(compiler, reduction):
    """Products in bfloat16 inside the region and in the backward pass outside it; parameters stay in float32."""
    given, options = head("float32"), {"temperature": 2.0, "reduction": reduction, "block_size": 3}
    labels = torch.from_numpy(LABELS)

    def fused(*arrays):
        return linear_softmax_cross_entropy(labels, *arrays, **options)

    with torch.autocast("cpu", torch.bfloat16):
        loss, is_operator = run_any(fused, backend=compiler)(*given)
        eager = fused(*given)
    assert is_operator
    torch.testing.assert_close(loss, eager, rtol=0, atol=0)
    assert not torch.equal(loss, fused(*given))
    found, right = (torch.autograd.grad(x.sum(), given) for x in (loss, eager))
    torch.testing.assert_close(found, right, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_second_derivatives(reduction):
    """Right where PyTorch runs the graph itself; refused by PyTorch where it has compiled the backward pass."""
    given = head()

    def fused(*arrays):
        return linear_softmax_cross_entropy(torch.from_numpy(LABELS), *arrays, z_loss=0.1, reduction=reduction)

    def curvature(loss):
        first = torch.autograd.grad(loss.square().sum(), given, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), given)

    loss, is_operator = run_any(fused, backend="eager")(*given)
    assert is_operator
    torch.testing.assert_close(curvature(loss), curvature(fused(*given)), rtol=1e-11, atol=1e-12)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="double backward"):
        curvature(run_any(fused)(*given)[0])
