"""The loss of a linear layer as an operator that a compiled program calls, for many logits on the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

from lsmooth.backends.torch import compiled  # noqa: E402
from lsmooth.losses import linear_softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

ROWS, FEATURES, CLASSES = 7, 3, 10
LABELS = np.array([0, 9, 3, 5, 5, 1, 2])
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "sum": {"reduction": "sum"},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 5},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": np.linspace(0.0, 2.0, ROWS)},
    "rows weighted": {"ignore_index": 5, "sample_weight": np.linspace(0.0, 2.0, ROWS), "reduction": "none"},
}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with a switch that few classes are enough for."""
    monkeypatch.setattr(compiled, "WIDE", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


def head(dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return [torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, dtype)).requires_grad_() for shape in shapes]


def run(labels, *head, dynamic=None, **options):
    """The loss of a compiled call, and whether the operator is in its graph."""
    names = []

    def look(module, inputs):
        names.extend(str(node.target) for node in module.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    function = torch.compile(
        lambda labels, *head: linear_softmax_cross_entropy(labels, *head, **options),
        backend=look,
        fullgraph=True,
        dynamic=dynamic,
    )
    return function(torch.as_tensor(labels), *head), any("lsmooth" in name for name in names)


def expect(labels, hidden, weight, bias=None, upstream=1.0, **options):
    """The loss and the gradients of the head, of the reference."""
    hidden, weight = (x.detach().double().numpy() for x in (hidden, weight))
    logits = hidden @ weight.T + (0.0 if bias is None else bias.detach().double().numpy())
    loss, of_logits = reference.softmax_cross_entropy(labels, logits, **options)
    of_logits = of_logits * (upstream[:, None] if np.ndim(upstream) else upstream)
    return loss, [of_logits @ weight, of_logits.T @ hidden, of_logits.sum(0)]


@pytest.mark.parametrize("block_size", [2, None])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_equals_the_reference(backend, options, dtype, block_size):
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
def test_only_what_is_wanted_gets_a_gradient(backend, wanted, reduction):
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
def test_what_the_kernel_gives_up_on_is_as_in_eager_mode(backend, case, reduction):
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


def test_what_is_ignored_may_hold_anything(backend):
    given = head()
    expected, each = expect(LABELS, *given, label_smoothing=0.2, ignore_index=5)
    given[0] = given[0].detach().index_fill_(0, torch.tensor([3, 4]), torch.nan).requires_grad_()
    loss, is_operator = run(LABELS, *given, label_smoothing=0.2, ignore_index=5, reduction="none")
    assert is_operator
    loss.sum().backward()
    counted = LABELS != 5
    assert_close(backend, loss.sum() / counted.sum(), expected, "float64")
    assert_close(backend, given[0].grad / counted.sum(), each[0], "float64")


def test_the_number_of_rows_may_be_open(backend):
    given = head()
    loss, is_operator = run(LABELS, *given, dynamic=True, label_smoothing=0.2)
    assert_close(backend, loss, expect(LABELS, *given, label_smoothing=0.2)[0], "float64")
    assert not is_operator  # the number of classes is open as well, and nothing says that they are many
    torch._dynamo.reset()
    labels, hidden = torch.from_numpy(LABELS), given[0].detach()
    torch._dynamo.mark_dynamic(labels, 0)
    torch._dynamo.mark_dynamic(hidden, 0)
    loss, is_operator = run(labels, hidden, *given[1:], label_smoothing=0.2)
    assert_close(backend, loss, expect(LABELS, *given, label_smoothing=0.2)[0], "float64")
    assert is_operator


@pytest.mark.parametrize(
    "options",
    [{"z_loss": 0.1}, {"temperature": 2.0}, {"logit_softcap": 5.0}, {"class_weight": np.linspace(0.5, 2.0, CLASSES)}],
)
def test_other_options_are_left_to_the_formula(backend, options):
    given = head()
    loss, is_operator = run(LABELS, *given, label_smoothing=0.2, **options)
    assert not is_operator
    assert_close(backend, loss, expect(LABELS, *given, label_smoothing=0.2, **options)[0], "float64")


def test_it_is_an_operator_in_order():
    """Its fake gives the shapes, its gradient is registered, and it writes into none of its arguments."""
    hidden, weight, bias = head()
    labels = torch.from_numpy(LABELS)[:, None]
    arguments = hidden, weight, bias, labels, None, None, 0.2
    for total in (False, True):
        torch.library.opcheck(
            torch.ops.lsmooth.linear_softmax_cross_entropy.default, (*arguments, total, [True] * 3, 3)
        )
