"""The loss of a linear head under PyTorch's transformations, its products and its memory."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402
from largest_tensor import Largest  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy  # noqa: E402

LABELS = torch.tensor([0, 2, 4, 2, 1, 3, 2])
OPTIONS = {"label_smoothing": 0.1, "ignore_index": 3}


@pytest.fixture(autouse=True)
def _needs_torch():
    require_backend("torch")


def head(rows=7, features=3, classes=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, features), (classes, features), (classes,))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def fused(*arrays, **options):
    return linear_softmax_cross_entropy(LABELS, *arrays, block_size=3, **OPTIONS | options)


def plain(hidden, weight, bias, **options):
    return softmax_cross_entropy(LABELS, hidden @ weight.T + bias, **OPTIONS | options)


def close(ours, theirs, tolerance=1e-11):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_first_and_second_derivatives(reduction):
    arrays = head()
    assert torch.autograd.gradcheck(lambda *a: fused(*a, reduction=reduction), arrays)
    assert torch.autograd.gradgradcheck(lambda *a: fused(*a, reduction=reduction), arrays)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_differentiable_gradients_equal_the_gradient(reduction):
    arrays = head()
    ours, theirs = fused(*arrays, reduction=reduction), plain(*arrays, reduction=reduction)
    upstream = torch.linspace(-1.0, 2.0, ours.numel(), dtype=torch.float64).reshape(ours.shape)
    close(*(torch.autograd.grad(x, arrays, upstream, create_graph=True) for x in (ours, theirs)))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_options_that_require_a_gradient_get_one(reduction):
    options = {
        "label_smoothing": torch.tensor(0.2, dtype=torch.float64, requires_grad=True),
        "temperature": torch.linspace(0.5, 2.0, 7, dtype=torch.float64).requires_grad_(),
        "sample_weight": torch.linspace(0.5, 2.0, 7, dtype=torch.float64).requires_grad_(),
        "class_weight": torch.linspace(0.5, 2.0, 5, dtype=torch.float64).requires_grad_(),
    }
    names = list(options)

    def loss(hidden, *given):
        return fused(hidden, *arrays[1:], **dict(zip(names, given, strict=True)), reduction=reduction)

    arrays = head()
    assert torch.autograd.gradcheck(loss, (arrays[0], *options.values()))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_backward_again_gives_the_same(reduction):
    arrays = head()
    value = fused(*arrays, reduction=reduction)
    upstream = torch.linspace(-1.0, 2.0, value.numel(), dtype=torch.float64).reshape(value.shape)
    first, second = (torch.autograd.grad(value, arrays, f * upstream, retain_graph=True) for f in (1.0, -2.0))
    for a, b in zip(first, second, strict=True):
        close(-2.0 * a, b)


def test_func_transforms():
    arrays = [x.detach() for x in head()]
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        close(transform(fused)(*arrays), transform(plain)(*arrays))
    rows = torch.func.vmap(lambda y, h: linear_softmax_cross_entropy(y, h, *arrays[1:], label_smoothing=0.1))(
        LABELS, arrays[0]
    )
    close(rows, plain(*arrays, reduction="none", ignore_index=None))


def test_forward_mode_dual_numbers():
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x.detach(), x.detach().cos()) for x in head()]
        close(*(forward_ad.unpack_dual(loss(*duals)).tangent for loss in (fused, plain)))


def test_traced_for_any_number_of_rows():
    hidden, weight, bias = (x.detach() for x in head(rows=12))
    labels = torch.cat([LABELS, LABELS[:5]])
    traced = torch.jit.trace(
        lambda y, h: linear_softmax_cross_entropy(y, h, weight, bias, reduction="none", block_size=3),
        (LABELS, hidden[:7]),
    )
    close(traced(labels, hidden), softmax_cross_entropy(labels, hidden @ weight.T + bias, reduction="none"))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_loss_compiles_without_graph_breaks(reduction):
    torch._dynamo.reset()
    run = torch.compile(lambda *a: fused(*a, reduction=reduction), backend="aot_eager", fullgraph=True)
    arrays = head()
    ours, theirs = run(*arrays), plain(*arrays, reduction=reduction)
    close(ours, theirs)
    close(torch.autograd.grad(ours.sum(), arrays), torch.autograd.grad(theirs.sum(), arrays))


def test_the_loss_can_be_checkpointed():
    arrays = head()
    value = torch.utils.checkpoint.checkpoint(fused, *arrays, use_reentrant=False)
    close(torch.autograd.grad(value, arrays), torch.autograd.grad(plain(*arrays), arrays))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_autocast(reduction):
    """Inputs and products of gradients in bfloat16; logits, sums, and gradients of float32 parameters in float32."""
    arrays = head(dtype=torch.float32)
    with Products() as products:
        with torch.autocast("cpu", torch.bfloat16):
            value = fused(*arrays, reduction=reduction)
        gradients = torch.autograd.grad(value.sum(), arrays)
    assert products.dtypes == {torch.bfloat16, torch.float32}
    assert {value.dtype, *(g.dtype for g in gradients)} == {torch.float32}
    close(gradients, torch.autograd.grad(plain(*arrays, reduction=reduction).sum(), arrays), 0.05)


class Products(TorchDispatchMode):
    """Counts matrix products by the shape that comes out, and names their dtypes."""

    def __init__(self):
        super().__init__()
        self.shapes, self.dtypes = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if "mm" in func.__name__:
            self.shapes.append(tuple(result.shape))
            self.dtypes.add(result.dtype)
        return result


@pytest.mark.parametrize(
    ("frozen", "expected"),
    [([], {(2, 5), (2, 3), (5, 3)}), ([1, 2], {(2, 5), (2, 3)}), ([0], {(2, 5), (5, 3)}), ([0, 1, 2], {(2, 5)})],
    ids=["nothing frozen", "a frozen head", "frozen states", "all frozen"],
)
def test_only_gradients_that_are_asked_for_are_computed(frozen, expected):
    arrays = head(rows=6)
    for i in frozen:
        arrays[i].requires_grad_(False)
    with Products() as products:
        linear_softmax_cross_entropy(LABELS[:6], *arrays, block_size=2)
    assert set(products.shapes) == expected


def test_no_gradient_is_computed_under_no_grad():
    with Products() as products, torch.no_grad():
        value = linear_softmax_cross_entropy(LABELS[:6], *head(rows=6), block_size=2)
    assert set(products.shapes) == {(2, 5)}
    assert not value.requires_grad


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_no_tensor_is_as_large_as_the_logits(reduction):
    rows, classes, block = 600, 700, 50
    hidden, weight, _ = head(rows, 4, classes, torch.float32)
    labels = torch.arange(rows) % classes
    with Largest() as largest:
        value = linear_softmax_cross_entropy(labels, hidden, weight, reduction=reduction, block_size=block, **OPTIONS)
        value.sum().backward()
    assert largest.elements == block * classes


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("sizes", [{"rows": 0}, {"features": 0}, {"rows": 0, "features": 0}], ids=str)
def test_empty_sizes(sizes, reduction):
    arrays = head(**sizes)
    labels = LABELS[: len(arrays[0])]
    ours = linear_softmax_cross_entropy(labels, *arrays, reduction=reduction, **OPTIONS)
    theirs = softmax_cross_entropy(labels, arrays[0] @ arrays[1].T + arrays[2], reduction=reduction, **OPTIONS)
    close(ours, theirs)
    close(torch.autograd.grad(ours.sum(), arrays), torch.autograd.grad(theirs.sum(), arrays))


@pytest.mark.parametrize("rows", [49, 300])
def test_blocks_on_both_sides_of_the_kernels_switch(rows):
    """A block of up to 2^16 logits takes another way through the loss than a larger one."""
    hidden, weight, bias = head(rows, 8, 1500, torch.float32)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 1500, rows))
    for block in (40, 300):
        ours = linear_softmax_cross_entropy(labels, hidden, weight, bias, label_smoothing=0.1, block_size=block)
        theirs = softmax_cross_entropy(labels, hidden @ weight.T + bias, label_smoothing=0.1)
        close(ours, theirs, 1e-5)
        arrays = (hidden, weight, bias)
        close(torch.autograd.grad(ours, arrays), torch.autograd.grad(theirs, arrays), 1e-5)


# The gradient written over the logits of its block.

LARGE = {"rows": 130, "features": 8, "classes": 1500}  # blocks of 50 rows are beyond the kernel's small batches
MANY_LABELS = torch.from_numpy(np.random.default_rng(0).integers(0, LARGE["classes"], LARGE["rows"]))


@pytest.fixture
def no_second_block(monkeypatch):
    """Within the test no kernel may take memory for a gradient."""

    def never(*args):
        raise AssertionError("a gradient of its own")

    monkeypatch.setattr("lsmooth.backends.torch.cpu.cross_entropy.empty_like", never)


def agree(arrays, tolerance, labels=MANY_LABELS, **options):
    """The value and the gradients are those of the logits' loss in float64."""
    ours = linear_softmax_cross_entropy(labels, *arrays, block_size=50, **options)
    exact = [x.detach().double().requires_grad_() for x in arrays]
    logits = exact[0] @ exact[1].T + exact[2]
    theirs = torch.vmap(lambda y, z: softmax_cross_entropy(y, z, **_for_rows(options)))(labels, logits)
    weights = options.get("sample_weight")
    theirs = theirs if weights is None else theirs * weights
    upstream = torch.linspace(-1.0, 2.0, ours.numel()).reshape(ours.shape) if ours.ndim else torch.tensor(1.0)
    close(ours.double(), theirs if ours.ndim else theirs.sum(), tolerance)
    found = torch.autograd.grad(ours, arrays, upstream.to(ours.dtype))
    wanted = torch.autograd.grad(theirs, exact, upstream.double().expand_as(theirs))
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm()
    assert [x.dtype for x in found] == [x.dtype for x in arrays]


def _for_rows(options):
    return {name: x for name, x in options.items() if name != "sample_weight"} | {"reduction": "none"}


WITH = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "a prior": {"label_smoothing": 0.2, "smoothing_prior": torch.linspace(0.0, 1.0, LARGE["classes"])},
    "temperature": {"label_smoothing": 0.1, "temperature": 2.0},
    "weights": {"label_smoothing": 0.1, "sample_weight": torch.linspace(0.0, 2.0, LARGE["rows"])},
}


@pytest.mark.parametrize("options", WITH.values(), ids=WITH)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_options_with_overwritten_logits(no_second_block, options, reduction):
    agree(head(**LARGE, dtype=torch.float32), 1e-5, reduction=reduction, **options)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.bfloat16, 0.02), (torch.float16, 3e-3)]
)
def test_dtypes_with_overwritten_logits(no_second_block, dtype, tolerance):
    agree(head(**LARGE, dtype=dtype), tolerance, label_smoothing=0.1, reduction="sum")


def test_gradients_of_half_precision_logits_are_summed_before_they_are_rounded():
    """1 / 1000 / 4096 has three bits in float16."""
    hidden, weight, bias = (torch.zeros(n, dtype=torch.float16) for n in ((4096, 1), (1000, 1), (1000,)))
    linear_softmax_cross_entropy(torch.zeros(4096).long(), hidden, weight, bias.requires_grad_()).backward()
    close(bias.grad[1:], torch.full((999,), 1e-3, dtype=torch.float16), 1e-6)


def test_the_blocks_gradients_are_summed_before_they_are_rounded():
    """In bfloat16, 0.25 / 1024 added up would come to rest at 0.06."""
    hidden, weight = (torch.ones(n, 1, dtype=torch.bfloat16) for n in (1024, 4))
    linear_softmax_cross_entropy(torch.zeros(1024).long(), hidden, weight.requires_grad_(), block_size=1).backward()
    close(weight.grad[:, 0].float(), torch.tensor([-0.75, 0.25, 0.25, 0.25]), 1e-2)


def test_ignored_rows_with_overwritten_logits(no_second_block):
    labels = MANY_LABELS.where(torch.arange(LARGE["rows"]) % 3 != 0, -1)
    agree(head(**LARGE), 1e-11, labels, label_smoothing=0.1, reduction="sum", ignore_index=-1)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_overwritten_logits_are_recomputed(reduction):
    """Labels of probability 0, and smoothing with a masked class, use the formula."""
    arrays = head(**LARGE)
    with torch.no_grad():
        arrays[0][60:70] *= 200.0
    agree(arrays, 1e-11, label_smoothing=0.1, reduction=reduction)
    with torch.no_grad():
        arrays[2][7] = -torch.inf
    labels = MANY_LABELS.where(MANY_LABELS != 7, 8)
    ours = linear_softmax_cross_entropy(labels, *arrays, label_smoothing=0.1, reduction="sum", block_size=50)
    theirs = softmax_cross_entropy(labels, arrays[0] @ arrays[1].T + arrays[2], label_smoothing=0.1, reduction="sum")
    close(ours, theirs)
    close(torch.autograd.grad(ours, arrays), torch.autograd.grad(theirs, arrays), 1e-9)


def test_logits_are_overwritten_once():
    """After a failure in one block, the other blocks keep their logits."""
    arrays = head(**LARGE)
    with torch.no_grad():
        arrays[0] *= 200.0
    with Products() as products:
        linear_softmax_cross_entropy(MANY_LABELS, *arrays, block_size=50)
    assert products.shapes.count((50, LARGE["classes"])) == 3
