"""Softmax cross-entropy under PyTorch's transformations, and on tensors of every kind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402
from loss_parity import distributions, float32_exact  # noqa: E402

from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 2])
LOGITS = float32_exact(RNG, (4, 3))
SOFT = distributions(RNG, (4, 3))
EPS, TEMPERATURE, WEIGHT = 0.2, 2.0, np.array([0.5, 1.0, 0.0, 2.0])
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 2},
    "temperature": {"label_smoothing": 0.2, "temperature": 2.0},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": np.array([0.2, 0.3, 0.5])},
    "class_weight": {"label_smoothing": 0.2, "class_weight": np.array([0.5, 2.0, 1.0])},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": WEIGHT},
    "z_loss, softcap": {"label_smoothing": 0.2, "z_loss": 0.1, "logit_softcap": 5.0},
}
# Rows and classes on both sides of the kernel's switches.
SIZES = [(3, 2), (40, 10), (300, 400)]


@pytest.fixture(autouse=True)
def _needs_torch():
    require_backend("torch")


def close(actual, expected, tolerance=1e-12):
    actual = actual.detach().double().numpy() if isinstance(actual, torch.Tensor) else actual
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def tensors(*arrays):
    return [torch.from_numpy(np.array(array)) for array in arrays]


def example(rows, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, rows), float32_exact(rng, (rows, classes))


# Derivatives.


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_first_and_second_derivatives(options, soft, reduction):
    """By PyTorch's own check, the double backward included."""
    if soft and "ignore_index" in options:
        pytest.skip("distributions have no id to ignore")
    labels, logits = tensors(SOFT if soft else LABELS, LOGITS)

    def loss(z):
        return softmax_cross_entropy(labels, z, reduction=reduction, **options)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(loss, logits)


def test_second_derivatives_where_a_class_is_masked():
    labels, logits = tensors(LABELS, LOGITS)
    logits[0, 1] = -torch.inf
    hessian = torch.autograd.functional.hessian(lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS), logits)
    assert hessian.isfinite().all()
    assert (hessian[0, 1] == 0).all()


@pytest.mark.parametrize(("rows", "classes"), SIZES)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_again_gives_the_same(rows, classes, reduction):
    """A gradient that the forward pass has stored is not written over by the first backward."""
    labels, logits = example(rows, classes)
    z = torch.from_numpy(logits).requires_grad_()
    value = softmax_cross_entropy(torch.from_numpy(labels), z, label_smoothing=EPS, reduction=reduction)
    upstream = torch.from_numpy(RNG.normal(size=value.shape))
    first, second, third = (
        torch.autograd.grad(value, z, factor * upstream, retain_graph=True)[0] for factor in (1.0, 2.0, 1.0)
    )
    torch.testing.assert_close(second, 2.0 * first, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(third, first, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(z.detach(), torch.from_numpy(logits), rtol=0, atol=0)


@pytest.mark.parametrize(("rows", "classes"), SIZES)
def test_gradients_accumulate_and_may_be_modified(rows, classes):
    labels, logits = example(rows, classes)
    z = torch.from_numpy(logits).requires_grad_()
    y = torch.from_numpy(labels)
    expected = reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)[1]
    value = softmax_cross_entropy(y, z, label_smoothing=EPS)
    value.backward(retain_graph=True)
    z.grad.zero_()
    value.backward()
    softmax_cross_entropy(y, z, label_smoothing=EPS).backward()
    close(z.grad, 2.0 * expected)


@pytest.mark.parametrize(("rows", "classes"), SIZES)
def test_a_sum_of_two_losses_of_the_same_logits(rows, classes):
    labels, logits = example(rows, classes)
    z, y = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels)
    rows_weight = torch.linspace(0.0, 1.0, rows, dtype=torch.float64)
    value = softmax_cross_entropy(y, z, reduction="none") @ rows_weight + 3.0 * softmax_cross_entropy(y, z)
    (gradient,) = torch.autograd.grad(value, z)
    each = reference.softmax_cross_entropy(labels, logits, reduction="none")[1]
    close(gradient, each * rows_weight.numpy()[:, None] + 3.0 * each / rows)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_the_gradient_at_every_size(size):
    """A gradient penalty: the derivative of |gradient|^2 against that of torch's own loss."""
    labels, logits = example(*size)
    y, z = torch.from_numpy(labels), torch.from_numpy(logits).requires_grad_()

    def penalty(loss):
        (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), z)[0]

    ours = penalty(softmax_cross_entropy(y, z, label_smoothing=EPS))
    theirs = penalty(torch.nn.functional.cross_entropy(z, y, label_smoothing=EPS))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_options_that_require_a_gradient_get_one_beside_the_logits():
    labels, logits = tensors(LABELS, LOGITS)
    options = {
        "label_smoothing": torch.tensor(EPS, dtype=torch.float64, requires_grad=True),
        "temperature": torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True),
        "sample_weight": torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True),
        "smoothing_prior": torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64, requires_grad=True),
        "class_weight": torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64, requires_grad=True),
    }
    names = list(options)

    def loss(z, *given):
        return softmax_cross_entropy(labels, z, **dict(zip(names, given, strict=True)))

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(), *options.values()))


# torch.func.


def test_func_grad_vmap_jvp_and_hessian():
    labels, logits = tensors(LABELS, LOGITS)
    _, gradient = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS)
    _, rows = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="sum")

    def loss(z, y=labels):
        return softmax_cross_entropy(y, z, label_smoothing=EPS)

    close(torch.func.grad(loss)(logits), gradient)
    close(torch.func.vmap(loss)(logits, labels), reference_rows())
    close(torch.func.vmap(torch.func.grad(loss))(logits, labels), rows)
    close(torch.func.jacrev(loss)(logits), gradient)
    close(torch.func.jacfwd(loss)(logits), gradient)
    tangent = torch.ones_like(logits) * torch.tensor([1.0, 2.0, -1.0])
    close(torch.func.jvp(loss, (logits,), (tangent,))[1], (gradient * tangent.numpy()).sum())
    hessian = torch.func.hessian(loss)(logits)
    close(hessian, torch.func.hessian(lambda z: torch.nn.functional.cross_entropy(z, labels))(logits))


def reference_rows():
    return reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="none")[0]


def test_vmap_over_an_option():
    labels, logits = tensors(LABELS, LOGITS)
    values = torch.func.vmap(lambda eps: softmax_cross_entropy(labels, logits, label_smoothing=eps))(
        torch.tensor([0.0, 0.5], dtype=torch.float64)
    )
    close(values, [reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=eps)[0] for eps in (0.0, 0.5)])


def test_per_example_gradients_of_a_model():
    model = torch.nn.Linear(3, 5).double()
    parameters = dict(model.named_parameters())
    x, labels = torch.from_numpy(LOGITS), torch.tensor([0, 4, 2, 3])

    def loss(parameters, x, y):
        return softmax_cross_entropy(y, torch.func.functional_call(model, parameters, (x,)), label_smoothing=EPS)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, labels)
    mean = torch.func.grad(loss)(parameters, x, labels)
    torch.testing.assert_close(each["weight"].mean(0), mean["weight"])


def test_forward_mode_dual_numbers():
    labels, logits = tensors(LABELS, LOGITS)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(logits, torch.ones_like(logits))
        tangent = torch.autograd.forward_ad.unpack_dual(
            softmax_cross_entropy(labels, dual, label_smoothing=EPS)
        ).tangent
    close(tangent, 0.0)  # the loss does not depend on a constant offset


# torch.compile.

COMPILERS = ["aot_eager", "inductor"]


def compiled(function, compiler, **options):
    if compiler == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.reset()
    return torch.compile(function, backend=compiler, **options)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_one_compiled_graph_serves_any_batch_size(compiler):
    """One graph for all sizes: counted by the compiler's own counter of unique graphs."""

    def loss(labels, logits, weight):
        return softmax_cross_entropy(
            labels, logits, label_smoothing=EPS, temperature=TEMPERATURE, sample_weight=weight, ignore_index=1
        )

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run = compiled(loss, compiler, fullgraph=True, dynamic=True)
    for rows in (2, 5, 40, 7):
        labels, logits = example(rows, 6, seed=rows)
        weight = np.linspace(0.0, 2.0, rows)
        z = torch.from_numpy(logits).requires_grad_()
        value = run(torch.from_numpy(labels), z, torch.from_numpy(weight))
        (gradient,) = torch.autograd.grad(value, z, torch.tensor(-3.0, dtype=torch.float64))
        expected, expected_gradient = reference.softmax_cross_entropy(
            labels, logits, label_smoothing=EPS, temperature=TEMPERATURE, sample_weight=weight, ignore_index=1
        )
        close(value, expected)
        close(gradient, -3.0 * expected_gradient)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_compiles(options, soft):
    if soft and "ignore_index" in options:
        pytest.skip("distributions have no id to ignore")
    labels = SOFT if soft else LABELS
    y, z = tensors(labels, LOGITS)
    options = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    run = compiled(lambda y, z: softmax_cross_entropy(y, z, reduction="none", **options), "aot_eager", fullgraph=True)
    numpy_options = {name: x.numpy() if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    expected, expected_gradient = reference.softmax_cross_entropy(labels, LOGITS, reduction="none", **numpy_options)
    value = run(y, z.requires_grad_())
    close(value, expected)
    close(torch.autograd.grad(value.sum(), z)[0], expected_gradient)


def test_sigmoid_cross_entropy_compiles():
    y, z = tensors(SOFT, LOGITS)
    run = compiled(lambda y, z: sigmoid_cross_entropy(y, z, label_smoothing=EPS), "aot_eager", fullgraph=True)
    close(run(y, z), reference.sigmoid_cross_entropy(SOFT, LOGITS, label_smoothing=EPS)[0])


@pytest.mark.parametrize(
    "body",
    [
        "lsmooth.losses.softmax_cross_entropy(y, z, label_smoothing=0.1)",
        "lsmooth.losses.sigmoid_cross_entropy(z, z)",
        "lsmooth.compat.torch.cross_entropy(z, y, label_smoothing=0.1)",
        "lsmooth.losses.linear_softmax_cross_entropy(y, z.detach(), weight)",
    ],
)
def test_the_first_call_of_a_process_may_be_a_compiled_one(body):
    """The backend is imported while tracing; dispatch has no tensor types yet and adds none."""
    script = f"""
        import torch
        import lsmooth

        @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
        def loss(y, z):
            return {body}

        y, z = torch.tensor([0, 1]), torch.tensor([[0.0, 1.0], [0.5, 0.25]], requires_grad=True)
        weight = torch.nn.Parameter(torch.ones(3, 2))
        traced = loss(y, z)
        traced.backward()
        assert abs(traced.item() - {body}.item()) < 1e-6
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_loss_exports():
    class Loss(torch.nn.Module):
        def forward(self, labels, logits):
            return softmax_cross_entropy(labels, logits, label_smoothing=EPS)

    rows = torch.export.Dim("rows", min=2, max=100)
    program = torch.export.export(Loss(), tuple(tensors(LABELS, LOGITS)), dynamic_shapes=({0: rows}, {0: rows}))
    labels, logits = example(9, 3)
    close(
        program.module()(*tensors(labels, logits)),
        reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)[0],
    )


# Modes and kinds of tensor.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode, size):
    labels, logits = example(*size)
    z = torch.from_numpy(logits).requires_grad_()
    with mode():
        value = softmax_cross_entropy(torch.from_numpy(labels), z, label_smoothing=EPS)
    assert not value.requires_grad
    close(value, reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)[0])
    assert not softmax_cross_entropy(torch.from_numpy(labels), z.detach()).requires_grad


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(size, dtype):
    """Half-precision logits of an autocast layer: the loss is float32, their gradient in their dtype."""
    labels, features = example(*size)
    layer = torch.nn.Linear(size[1], size[1])
    with torch.autocast("cpu", dtype):
        logits = layer(torch.from_numpy(features).float())
        logits.retain_grad()
        value = softmax_cross_entropy(torch.from_numpy(labels), logits, label_smoothing=EPS)
    assert logits.dtype == dtype
    value.backward()
    assert (value.dtype, logits.grad.dtype, layer.weight.grad.dtype) == (torch.float32, dtype, torch.float32)
    expected, gradient = reference.softmax_cross_entropy(labels, logits.detach().float().numpy(), label_smoothing=EPS)
    close(value, expected, 1e-5)
    close(logits.grad, gradient, 2.0**-8)


def kinds_of_tensor(z):
    yield "parameter", torch.nn.Parameter(z.clone())
    yield "buffer", torch.nn.Buffer(z.clone())
    yield "transposed", z.t().contiguous().t()
    yield "every other row", torch.stack([z, z], 1)[:, 0]
    yield "every other class", torch.stack([z, z], -1)[..., 0]
    yield "expanded", z[:1].expand(len(z), -1)
    yield "a view", torch.cat([z, z])[len(z) :]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [name for name, _ in kinds_of_tensor(torch.ones(1, 1))])
def test_kinds_of_tensor(kind, size):
    labels, logits = example(*size)
    z = dict(kinds_of_tensor(torch.from_numpy(logits)))[kind]
    before = z.detach().clone()
    z = z if z.requires_grad else z.detach().requires_grad_()
    expected, expected_gradient = reference.softmax_cross_entropy(labels, before.numpy(), label_smoothing=EPS)
    for y in (torch.from_numpy(labels), torch.from_numpy(np.repeat(labels, 2))[::2]):
        value = softmax_cross_entropy(y, z, label_smoothing=EPS)
        close(value, expected)
        close(torch.autograd.grad(value, z)[0], expected_gradient)
    torch.testing.assert_close(z.detach(), before, rtol=0, atol=0)


def test_a_tensor_subclass_is_a_tensor():
    class Named(torch.Tensor):
        pass

    z = torch.from_numpy(LOGITS).as_subclass(Named)
    close(softmax_cross_entropy(torch.from_numpy(LABELS), z).as_subclass(torch.Tensor), reference_value())


def reference_value():
    return reference.softmax_cross_entropy(LABELS, LOGITS)[0]


def test_tensors_without_values():
    """On the meta device and as fake tensors: shapes and dtypes propagate without values."""
    y, z = torch.empty(7, dtype=torch.int64, device="meta"), torch.empty(7, 5, device="meta", requires_grad=True)
    for options in ({}, {"label_smoothing": EPS}, {"ignore_index": 1, "reduction": "none"}):
        value = softmax_cross_entropy(y, z, **options)
        assert value.shape == ((7,) if "reduction" in options else ())
        value.sum().backward()
        assert z.grad.shape == z.shape
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        value = softmax_cross_entropy(torch.zeros(7, dtype=torch.int64), torch.zeros(7, 5), label_smoothing=EPS)
        assert value.shape == ()


def test_checkpointing_recomputes_the_loss():
    labels, logits = example(40, 10)
    z, y = torch.from_numpy(logits).requires_grad_(), torch.from_numpy(labels)
    value = torch.utils.checkpoint.checkpoint(
        lambda z: softmax_cross_entropy(y, z, label_smoothing=EPS), z, use_reentrant=False
    )
    close(torch.autograd.grad(value, z)[0], reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)[1])


def test_threads_do_not_share_what_a_call_keeps():
    from concurrent.futures import ThreadPoolExecutor

    def run(seed):
        labels, logits = example(300, 50, seed)
        z = torch.from_numpy(logits).requires_grad_()
        softmax_cross_entropy(torch.from_numpy(labels), z, label_smoothing=EPS).backward()
        close(z.grad, reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)[1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(12)))
