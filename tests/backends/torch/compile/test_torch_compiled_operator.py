"""The operator of linear heads in compiled programs: when it is called, its graphs, and its memory."""

import shutil

import numpy as np
import pytest
from compiled_heads import CLASSES, FEATURES, LABELS, ROWS, expect, head, in_torch, run, run_any, torch
from conftest import assert_close, require_backend
from largest_tensor import Largest
from torch._functorch.aot_autograd import aot_module_simplified

from lsmooth.backends.torch import linear, thresholds
from lsmooth.backends.torch.compile import linear as compiled_linear
from lsmooth.distillation import linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with operators also for few classes."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


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


def test_the_name_of_a_plan_holds_no_address():
    """A name with an address in it would be another one in the process that finds the program on disk."""
    run(LABELS, *head(), temperature=2.0)
    run(LABELS, *head(), z_loss=0.1)
    names = list(compiled_linear._PLANS)
    assert not any("0x" in name for name in names)
    run(LABELS, *head(), temperature=3.0)
    assert list(compiled_linear._PLANS) == names


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
def test_transforms_use_the_formula(transform):
    labels, (hidden, weight, _) = torch.from_numpy(LABELS), (x.detach() for x in head())

    def loss(h, y=labels):
        return linear_softmax_cross_entropy(y, h, weight, label_smoothing=0.1)

    function = getattr(torch.func, transform)(loss)
    arguments = (hidden, labels) if transform == "vmap" else (hidden,)
    value, is_operator = run_any(function)(*arguments)
    assert not is_operator
    torch.testing.assert_close(value, function(*arguments))


def test_subclasses_use_the_formula():
    class Named(torch.Tensor):
        pass

    labels, given = torch.from_numpy(LABELS), [x.detach() for x in head()]
    linear_softmax_cross_entropy(labels, given[0].as_subclass(Named), *given[1:])  # dispatch learns of it
    for i in range(3):
        arrays = [x.as_subclass(Named) if i == j else x for j, x in enumerate(given)]
        assert not run_any(linear_softmax_cross_entropy, backend="eager")(labels, *arrays)[1]
        torch._dynamo.reset()


def test_exported_programs_need_no_operator():
    class Loss(torch.nn.Module):
        def forward(self, labels, hidden, weight):
            return linear_softmax_cross_entropy(labels, hidden, weight, label_smoothing=0.1)

    program = torch.export.export(Loss(), (torch.from_numpy(LABELS), *head()[:2]))
    assert "lsmooth" not in str(program.graph)


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
    """Neither in the forward and backward graphs nor in the operators that they call."""
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
    # A divergence takes memory for four arrays of a block, and for as many numbers of each row.
    assert (
        block * classes
        <= largest.elements
        <= (block * (classes + 1) * 4 if kind == "distillation" else block * classes)
    )


def test_the_operator_passes_opcheck():
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
        ((_, *others),) = arguments
        labels, *arrays = given
        torch.library.opcheck(operator.default, ([*arrays, labels], *others))


def test_two_programs_at_once(backend):
    labels, given = torch.from_numpy(LABELS), head()
    cases = ({}, {"reduction": "none"}, {"reduction": "sum"}, {"z_loss": 0.1}, {"temperature": np.ones(ROWS) * 2.0})
    programs = []
    for options in cases:
        given_options = in_torch(options)
        programs.append(run_any(lambda *a, o=given_options: linear_softmax_cross_entropy(labels, *a, **o)))
    for _ in range(2):
        for program, options in zip(programs, cases, strict=True):
            loss, is_operator = program(*given)
            assert is_operator
            assert_close(backend, loss, expect(LABELS, *given, **options)[0], "float64")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_computed_without_requires_grad(monkeypatch, backend, mode):
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


def test_backward_may_run_twice():
    given = head()
    loss, _ = run(LABELS, *given, temperature=2.0)
    first, second = (torch.autograd.grad(loss, given, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
