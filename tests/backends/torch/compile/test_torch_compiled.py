"""The softmax cross-entropy as an operator that a compiled program calls, for many logits on the CPU."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

from lsmooth.backends.torch import thresholds  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

ROWS, CLASSES = 6, 10
LABELS = np.array([0, 9, 3, 5, 5, 1])
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "sum": {"reduction": "sum"},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 5},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": np.linspace(0.0, 2.0, ROWS)},
    "both": {"ignore_index": 5, "sample_weight": np.linspace(0.0, 2.0, ROWS), "reduction": "none"},
    "axis": {"label_smoothing": 0.2, "axis": 0},
    "eps per row": {"label_smoothing": np.linspace(0.0, 0.4, ROWS)},
    "temperature": {"label_smoothing": 0.2, "temperature": 2.0},
    "temperature per row": {"temperature": np.linspace(0.5, 2.0, ROWS)},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": np.linspace(0.1, 1.0, CLASSES)},
    "class_weight": {"label_smoothing": 0.2, "class_weight": np.linspace(0.1, 1.0, CLASSES)},
    "z_loss": {"z_loss": 0.1},
    "softcap": {"label_smoothing": 0.2, "logit_softcap": 5.0},
}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, with a switch that few classes are enough for."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES)
    torch._dynamo.reset()
    return require_backend("torch")


def logits_of(dtype="float64"):
    z = 3.0 * np.random.default_rng(0).standard_normal((ROWS, CLASSES))
    return torch.from_numpy(z).to(getattr(torch, dtype))


def compiled_loss(labels, z, compiler="aot_eager", **options):
    """The loss of a compiled call, and whether the operator is in its graph."""
    names = []

    def look(module, inputs):
        names.extend(str(node.target) for node in module.graph.nodes)
        return torch._dynamo.lookup_backend(compiler)(module, inputs)

    options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    run = torch.compile(lambda y, z: softmax_cross_entropy(y, z, **options), backend=look, fullgraph=True)
    return run(torch.as_tensor(labels), z), any("lsmooth" in name for name in names)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_loss_equals_the_reference(backend, options, dtype):
    z = logits_of(dtype).requires_grad_()
    given = z.detach().t().contiguous().requires_grad_() if "axis" in options else z
    loss, is_operator = compiled_loss(LABELS, given, **options)
    assert is_operator
    upstream = torch.linspace(0.5, 2.0, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    (gradient,) = torch.autograd.grad(loss, given, upstream)
    assert gradient.dtype == z.dtype
    known = {name: value for name, value in options.items() if name != "axis"}
    expected, each = reference.softmax_cross_entropy(LABELS, z.detach().double().numpy(), **known)
    assert_close(backend, loss, expected, "float64" if dtype == "float64" else "float32")
    each = each * (upstream.double().numpy()[:, None] if loss.ndim else upstream.item())
    assert_close(backend, gradient.t() if "axis" in options else gradient, each, dtype)


@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("case", ["masked", "masked label", "row masked", "low label", "high label", "ignored", "nan"])
def test_inputs_that_the_kernel_rejects_match_eager_mode(case, reduction, eps):
    labels, z, options = LABELS.copy(), logits_of(), {"label_smoothing": eps, "reduction": reduction}
    if case == "masked":
        z[0, 3:7] = -torch.inf
    elif case == "masked label":
        z[0, 0] = -torch.inf
    elif case == "row masked":
        z[0] = -torch.inf
    elif case == "low label":
        labels[1] = -1
    elif case == "high label":
        labels[2] = CLASSES
    else:
        options["ignore_index"] = 5 if case == "ignored" else None
        z[3] = torch.nan
        z[4, 2] = torch.inf if case == "ignored" else torch.nan
    results = []
    for call in (lambda *args, **to: compiled_loss(*args, **to)[0], softmax_cross_entropy):
        x = z.clone().requires_grad_()
        loss = call(torch.from_numpy(labels), x, **options)
        results.append((loss, *torch.autograd.grad(loss.sum(), x)))
    for ours, eager in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-12, atol=1e-14, equal_nan=True)


def test_distributions_and_images_are_known(backend):
    rng = np.random.default_rng(1)
    labels = rng.dirichlet(np.ones(CLASSES), ROWS)
    z = logits_of().requires_grad_()
    loss, is_operator = compiled_loss(labels, z, label_smoothing=0.1)
    assert is_operator
    expected, gradient = reference.softmax_cross_entropy(labels, logits_of().numpy(), label_smoothing=0.1)
    assert_close(backend, loss, expected, "float64")
    assert_close(backend, torch.autograd.grad(loss, z)[0], gradient, "float64")
    torch._dynamo.reset()
    image = torch.randn(2, CLASSES, 3, 4, requires_grad=True)
    ids = torch.randint(CLASSES, (2, 3, 4))
    loss, is_operator = compiled_loss(ids, image, axis=1, label_smoothing=0.1)
    assert is_operator
    expected = torch.nn.functional.cross_entropy(image, ids, label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, image)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_few_logits_use_the_formula(monkeypatch):
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES + 1)
    for large in (ROWS * CLASSES + 1, ROWS * CLASSES):
        monkeypatch.setattr(thresholds, "COMPILED_LOGITS", large)
        torch._dynamo.reset()
        assert compiled_loss(LABELS, logits_of())[1] == (large == ROWS * CLASSES)


def test_tensor_subclasses_use_the_formula():
    class Named(torch.Tensor):
        pass

    softmax_cross_entropy(torch.from_numpy(LABELS), logits_of().as_subclass(Named))  # dispatch learns of it
    assert not compiled_loss(LABELS, logits_of().as_subclass(Named), "eager")[1]
    assert compiled_loss(LABELS, torch.nn.Parameter(logits_of()))[1]


@pytest.mark.parametrize("transform", ["grad", "jacfwd", "jacrev", "hessian", "vmap"])
def test_transforms_use_the_formula(transform):
    labels = torch.from_numpy(LABELS)

    def loss(z, y=labels):
        return softmax_cross_entropy(y, z, label_smoothing=0.1)

    function, arguments = getattr(torch.func, transform)(loss), (logits_of(),)
    if transform == "vmap":
        arguments = (logits_of(), labels)
    run = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(*arguments), function(*arguments))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_one_graph_for_every_batch_size(backend, compiler):
    if compiler == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.utils.counters.clear()
    run = torch.compile(
        lambda y, z: softmax_cross_entropy(y, z, label_smoothing=0.2, ignore_index=1),
        backend=compiler,
        fullgraph=True,
        dynamic=True,
    )
    for rows in (2, 5, 40):
        rng = np.random.default_rng(rows)
        labels, logits = rng.integers(0, 3, rows), rng.standard_normal((rows, CLASSES))
        y, z = torch.from_numpy(labels), torch.from_numpy(logits).requires_grad_()
        torch._dynamo.mark_dynamic(z, 0)
        loss = run(y, z)
        expected, gradient = reference.softmax_cross_entropy(labels, logits, label_smoothing=0.2, ignore_index=1)
        assert_close(backend, loss, expected, "float64")
        assert_close(backend, torch.autograd.grad(loss, z)[0], gradient, "float64")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_unknown_sizes_are_not_evaluated(monkeypatch):
    """A guard would specialise a size that the user has marked as dynamic, which the compiler refuses."""
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", 10 * CLASSES)
    monkeypatch.setattr(thresholds, "COMPILED_LOGITS", 20 * CLASSES)
    run = torch.compile(softmax_cross_entropy, backend="aot_eager", fullgraph=True)
    torch._dynamo.utils.counters.clear()
    for rows in (ROWS, 40):
        labels, z = torch.zeros(rows, dtype=torch.int64), torch.randn(rows, CLASSES)
        torch._dynamo.mark_dynamic(z, 0)
        torch._dynamo.mark_dynamic(labels, 0)
        torch.testing.assert_close(run(labels, z), softmax_cross_entropy(labels, z))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_exported_graphs_contain_no_custom_operator():
    class Loss(torch.nn.Module):
        def forward(self, labels, logits):
            return softmax_cross_entropy(labels, logits, label_smoothing=0.1)

    for strict in (False, True):
        program = torch.export.export(Loss(), (torch.from_numpy(LABELS), logits_of()), strict=strict)
        assert "lsmooth" not in str(program.graph)


@pytest.mark.parametrize("ignored", [False, True])
def test_the_operator_follows_the_rules_of_the_compiler(ignored):
    labels = torch.from_numpy(LABELS)
    counted = labels != 5 if ignored else None
    operator = torch.ops.lsmooth.softmax_cross_entropy.default

    def check(logits, labels, counted, eps):
        numbers = torch.tensor([eps, 1.0, 0.0, torch.inf], dtype=torch.float64)
        torch.library.opcheck(operator, (logits, labels, counted, None, None, None, None, numbers))

    check(logits_of().requires_grad_(), labels, counted, 0.1)
    check(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), None, 0.1)
    check(torch.stack([logits_of("float32")] * 2, -1)[..., 0].requires_grad_(), labels.int(), counted, 0.0)


@pytest.mark.parametrize("name", ["z_loss", "label_smoothing", "temperature", "logit_softcap"])
@pytest.mark.parametrize("is_operator", [True, False])
def test_a_schedule_of_numbers_does_not_recompile(monkeypatch, name, is_operator):
    monkeypatch.setattr(thresholds, "COMPILED_CLASSES", CLASSES if is_operator else CLASSES + 1)
    torch._dynamo.utils.counters.clear()
    labels, z = torch.from_numpy(LABELS), logits_of().requires_grad_()
    run = torch.compile(
        lambda y, z, value: softmax_cross_entropy(y, z, **{name: value}), backend="aot_eager", fullgraph=True
    )
    for step in range(1, 6):
        ours, theirs = run(labels, z, 0.1 * step), softmax_cross_entropy(labels, z, **{name: 0.1 * step})
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize("labels", [[0, 2], (0, 2), np.array([0, 2])], ids=["list", "tuple", "array"])
def test_plain_labels_are_traced(labels):
    z = torch.randn(2, 3, dtype=torch.float64)
    compiled = torch.compile(lambda z: softmax_cross_entropy(labels, z), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z), softmax_cross_entropy(labels, z))
