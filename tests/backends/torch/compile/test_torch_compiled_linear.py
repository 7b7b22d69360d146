"""Losses of linear layers as an operator that a compiled program calls, for many logits."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402
from largest_tensor import Largest  # noqa: E402
from torch._functorch.aot_autograd import aot_module_simplified  # noqa: E402

from lsmooth.backends.torch import linear, thresholds  # noqa: E402
from lsmooth.backends.torch.compile import linear as compiled_linear  # noqa: E402
from lsmooth.distillation import linear_distillation_loss  # noqa: E402
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy  # noqa: E402
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
# What reaches a distillation loss, in its arguments' order.
DISTILLED = {
    "soft": {"temperature": 2.0},
    "soft and hard": {"labels": LABELS, "alpha": 0.7, "label_smoothing": 0.1, "temperature": 2.0, "ignore_index": 5},
    "jensen_shannon": {"divergence": "jensen_shannon", "beta": 0.3, "temperature": np.linspace(0.5, 2.0, ROWS)},
    "mse_logits": {"divergence": "mse_logits", "sample_weight": np.linspace(0.0, 2.0, ROWS)},
}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with a switch that few classes are enough for."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


def head(dtype="float64"):
    rng = np.random.default_rng(0)
    shapes = (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return [torch.from_numpy(rng.standard_normal(shape)).to(getattr(torch, dtype)).requires_grad_() for shape in shapes]


def run(labels, *head, dynamic=None, **options):
    """The loss of a compiled call, and whether the operator is in its graph."""
    options = in_torch(options)
    return run_any(lambda labels, *head: linear_softmax_cross_entropy(labels, *head, **options), dynamic)(
        torch.as_tensor(labels), *head
    )


def in_torch(options):
    return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}


def run_any(function, dynamic=None, backend="aot_eager"):
    """A function compiled, which says as well whether the operator was in its graph."""
    names = []

    def look(module, inputs):
        names.extend(str(node.target) for node in module.graph.nodes)
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    whole = torch.compile(function, backend=look, fullgraph=True, dynamic=dynamic)
    return lambda *args: (whole(*args), any("lsmooth" in name for name in names))


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


def heads(dtype=torch.float64):
    """Teacher's and student's."""
    rng = np.random.default_rng(2)
    shapes = (ROWS, 4), (CLASSES, 4), (ROWS, FEATURES), (CLASSES, FEATURES), (CLASSES,)
    return [torch.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("options", DISTILLED.values(), ids=DISTILLED)
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("still", [False, True])
def test_distillation_is_as_in_eager_mode(options, reduction, still):
    given = heads()
    options = in_torch(options) | {"reduction": reduction, "stop_teacher_gradient": still, "block_size": 3}

    def distil(*arrays):
        return linear_distillation_loss(*arrays[:4], student_bias=arrays[4], **options)

    loss, is_operator = run_any(distil)(*given)
    eager = distil(*given)
    assert is_operator
    torch.testing.assert_close(loss, eager, rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    found, right = (
        torch.autograd.grad(x, given, upstream, allow_unused=True, materialize_grads=True) for x in (loss, eager)
    )
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_teacher_of_another_precision(dtype):
    given = [x.detach() for x in heads(torch.float32)]
    given = [*(x.to(dtype) for x in given[:2]), *(x.requires_grad_() for x in given[2:4])]

    def distil(*arrays):
        return linear_distillation_loss(*arrays, temperature=2.0)

    loss, is_operator = run_any(distil)(*given)
    assert is_operator
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distil(*given))
    found, right = (torch.autograd.grad(x, given[2:]) for x in (loss, distil(*given)))
    torch.testing.assert_close(found, right)


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


def test_two_programs_at_once(backend):
    labels, given = torch.from_numpy(LABELS), head()
    cases = ({}, {"reduction": "none"}, {"reduction": "sum"}, {"z_loss": 0.1}, {"temperature": np.ones(ROWS) * 2.0})
    programs = []
    for options in cases:
        told = in_torch(options)
        programs.append(run_any(lambda *a, told=told: linear_softmax_cross_entropy(labels, *a, **told)))
    for _ in range(2):
        for program, options in zip(programs, cases, strict=True):
            loss, is_operator = program(*given)
            assert is_operator
            assert_close(backend, loss, expect(LABELS, *given, **options)[0], "float64")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_half_precision_is_as_in_eager_mode(dtype, reduction):
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
def test_autocast_is_as_in_eager_mode(compiler, reduction):
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


def test_weights_that_are_tied():
    """One tensor is the student's head, the teacher's, and a part of the hidden states."""
    weight = head()[1]

    def fused(weight):
        hidden = weight[:ROWS]
        return linear_distillation_loss(hidden.flip(0), weight, hidden, weight, stop_teacher_gradient=False)

    loss, is_operator = run_any(fused)(weight)
    assert is_operator
    torch.testing.assert_close(loss, fused(weight))
    found, right = (torch.autograd.grad(x, weight) for x in (loss, fused(weight)))
    torch.testing.assert_close(found, right)


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


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(monkeypatch, backend, mode):
    given = head()
    wanted = []
    sweep = linear.sweep
    monkeypatch.setattr(linear, "sweep", lambda *args: wanted.extend(args[0].form.values(args[2])) or sweep(*args))
    with mode():
        loss, is_operator = run(LABELS, *given, label_smoothing=0.2, z_loss=0.1)
    assert is_operator
    assert not any(wanted)
    assert not loss.requires_grad
    assert_close(backend, loss, expect(LABELS, *given, label_smoothing=0.2, z_loss=0.1)[0], "float64")


def test_backward_twice():
    given = head()
    loss, _ = run(LABELS, *given, temperature=2.0)
    first, second = (torch.autograd.grad(loss, given, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_one_graph_for_every_number_of_rows(backend, compiler, reduction):
    if compiler == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.utils.counters.clear()
    options = {"temperature": 2.0, "label_smoothing": 0.2, "reduction": reduction}
    fused = run_any(lambda *a: linear_softmax_cross_entropy(*a, **options), backend=compiler)
    given = head()
    for rows in (ROWS, 3, 40):
        rng = np.random.default_rng(rows)
        labels, hidden = rng.integers(0, CLASSES, rows), torch.from_numpy(rng.standard_normal((rows, FEATURES)))
        given[0] = hidden.requires_grad_()
        y = torch.from_numpy(labels)
        for x in (y, hidden):
            torch._dynamo.mark_dynamic(x, 0)
        loss, is_operator = fused(y, *given)
        assert is_operator
        expected, each = expect(labels, *given, **options)
        assert_close(backend, loss, expected, "float64")
        for gradient, right in zip(torch.autograd.grad(loss.sum(), given), each, strict=True):
            assert_close(backend, gradient, right, "float64", factor=4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_plan_is_known_by_what_it_says():
    """A name with an address in it would be another one in the process that finds the program on disk."""
    run(LABELS, *head(), temperature=2.0)
    run(LABELS, *head(), z_loss=0.1)
    names = list(compiled_linear._PLANS)
    assert not any("0x" in name for name in names)
    run(LABELS, *head(), temperature=3.0)
    assert list(compiled_linear._PLANS) == names


# Where the formula is left to the compiler.


@pytest.mark.parametrize("is_known", [True, False])
def test_logits_known_to_be_few_are_left_to_the_compiler(monkeypatch, backend, is_known):
    given = head()
    for wide, large, many in ((CLASSES, 10**9, True), (CLASSES + 1, ROWS * CLASSES, True), (10**9, 10**9, False)):
        monkeypatch.setattr(thresholds, "COMPILED_CLASSES", wide)
        monkeypatch.setattr(thresholds, "COMPILED_LOGITS", large)
        torch._dynamo.reset()
        hidden, labels = given[0].detach(), torch.from_numpy(LABELS)
        if not is_known:
            torch._dynamo.mark_dynamic(hidden, 0)
            torch._dynamo.mark_dynamic(labels, 0)
        options = {"label_smoothing": 0.2, "z_loss": 0.1, "temperature": 1.5}
        loss, is_operator = run(labels, hidden, *given[1:], **options)
        assert is_operator == (many or not is_known)
        expected, each = expect(LABELS, *given, **options)
        assert_close(backend, loss, expected, "float64")
        assert_close(backend, torch.autograd.grad(loss, given[1])[0], each[1], "float64", factor=4)


@pytest.mark.parametrize("transform", ["grad", "jacfwd", "vmap"])
def test_transforms_take_the_formula(transform):
    labels, (hidden, weight, _) = torch.from_numpy(LABELS), (x.detach() for x in head())

    def loss(h, y=labels):
        return linear_softmax_cross_entropy(y, h, weight, label_smoothing=0.1)

    function = getattr(torch.func, transform)(loss)
    arguments = (hidden, labels) if transform == "vmap" else (hidden,)
    value, is_operator = run_any(function)(*arguments)
    assert not is_operator
    torch.testing.assert_close(value, function(*arguments))


def test_subclasses_take_the_formula():
    class Named(torch.Tensor):
        pass

    labels, given = torch.from_numpy(LABELS), [x.detach() for x in head()]
    linear_softmax_cross_entropy(labels, given[0].as_subclass(Named), *given[1:])  # dispatch learns of it
    for i in range(3):
        arrays = [x.as_subclass(Named) if i == j else x for j, x in enumerate(given)]
        assert not run_any(linear_softmax_cross_entropy, backend="eager")(labels, *arrays)[1]
        torch._dynamo.reset()


def test_what_is_exported_needs_no_operator():
    class Loss(torch.nn.Module):
        def forward(self, labels, hidden, weight):
            return linear_softmax_cross_entropy(labels, hidden, weight, label_smoothing=0.1)

    program = torch.export.export(Loss(), (torch.from_numpy(LABELS), *head()[:2]))
    assert "lsmooth" not in str(program.graph)


# Memory.


ALL_KINDS = {
    "class_weight": {"class_weight": np.linspace(0.5, 2.0, 700)},
    "prior": {"smoothing_prior": np.linspace(0.5, 2.0, 700), "label_smoothing": 0.1},
    "temperature": {"temperature": np.linspace(0.5, 2.0, 600)},
    "z_loss and cap": {"z_loss": 0.1, "logit_softcap": 5.0, "ignore_index": 3},
    "distillation": None,
}


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_no_tensor_is_as_large_as_the_logits(monkeypatch, kind, reduction):
    """Neither in the graphs, forward and backward, nor within the operators that they call."""
    rows, features, classes, block = 600, 4, 700, 50
    largest, in_graphs = Largest(), []
    sweep = linear.sweep

    def watched(*args):
        with largest:
            return sweep(*args)

    def look(graph, inputs):
        values = [node.meta["val"] for node in graph.graph.nodes if "val" in node.meta]
        in_graphs.append(max(x.numel() for x in values if isinstance(x, torch.Tensor)))
        return graph

    def compiler(module, inputs):
        return aot_module_simplified(module, inputs, fw_compiler=look, bw_compiler=look)

    monkeypatch.setattr(linear, "sweep", watched)
    options = {"reduction": reduction, "block_size": block}
    hidden, weight = torch.randn(rows, features), torch.randn(classes, features)
    if kind == "distillation":

        def loss(*arrays):
            return linear_distillation_loss(*arrays, temperature=2.0, labels=labels, **options)

        arrays = (hidden.flip(0), weight.flip(0), hidden.requires_grad_(), weight.requires_grad_())
    else:

        def loss(*arrays):
            return linear_softmax_cross_entropy(labels, *arrays, **options)

        options |= in_torch(ALL_KINDS[kind])
        arrays = (hidden.requires_grad_(), weight.requires_grad_())
    labels = torch.arange(rows) % classes
    torch.compile(loss, backend=compiler, fullgraph=True)(*arrays).sum().backward()
    assert hidden.grad is not None
    assert len(in_graphs) == 2
    assert max(in_graphs) == classes * features
    assert block * classes <= largest.elements <= block * classes * (4 if kind == "distillation" else 1)


def test_it_is_an_operator_in_order():
    """Its fake gives the shapes, its gradient is registered, and it writes into none of its arguments."""
    given = [torch.from_numpy(LABELS), *head()]
    for reduction in ("none", "mean"):
        torch._dynamo.reset()
        arguments = []
        operator = torch.ops.lsmooth.linear_rows

        def look(module, inputs, arguments=arguments):
            arguments.extend(node.args for node in module.graph.nodes if "linear_rows" in str(node.target))
            return module

        torch.compile(
            lambda *a, r=reduction: linear_softmax_cross_entropy(*a, label_smoothing=0.1, reduction=r),
            backend=look,
        )(*given)
        ((_, *told),) = arguments
        labels, *arrays = given
        torch.library.opcheck(operator.default, ([*arrays, labels], *told))
