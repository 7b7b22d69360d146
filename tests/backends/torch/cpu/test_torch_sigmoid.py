"""The sigmoid cross-entropy kernel for PyTorch's tensors on the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import assert_close, require_backend  # noqa: E402

from lsmooth.backends import formulas  # noqa: E402
from lsmooth.backends.options import SigmoidOptions, are_known  # noqa: E402
from lsmooth.backends.torch import BACKEND, thresholds  # noqa: E402
from lsmooth.backends.torch.cpu import sigmoid  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

# In one block, in several, the last one short; and in few calls on so little.
SIZES = {"small": (3, 5), "one block": (200, 300), "blocks": (1000, 700)}
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "pos_weight": {"label_smoothing": 0.2, "pos_weight": True},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": True},
    "all": {"label_smoothing": 0.2, "pos_weight": True, "sample_weight": True, "reduction": "none"},
}


@pytest.fixture(autouse=True)
def backend():
    """PyTorch, which every test here needs."""
    return require_backend("torch")


def arrays(size, dtype, **options):
    rng = np.random.default_rng(0)
    logits = 4.0 * rng.standard_normal(size)
    logits[0, :3] = 0.0, 40.0, -40.0
    logits = torch.from_numpy(logits).to(getattr(torch, dtype))
    labels = rng.choice([0.0, 1.0, 0.3], size)
    given = {
        "pos_weight": np.linspace(0.5, 2.0, size[1]),
        "sample_weight": np.linspace(0.0, 2.0, size[0])[:, None],
    }
    return labels, logits, {name: given[name] if value is True else value for name, value in options.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_loss_equals_the_reference(backend, options, size, dtype):
    labels, logits, options = arrays(size, dtype, **options)
    z = logits.requires_grad_()
    loss = sigmoid_cross_entropy(torch.from_numpy(labels), z, **options)
    native = logits.numel() <= thresholds.SMALL_SIGMOID or options.get("reduction") == "none"  # smoothed labels
    assert "Attach" in type(loss.grad_fn).__name__ or native
    expected, gradient = reference.sigmoid_cross_entropy(labels, logits.detach().double().numpy(), **options)
    assert_close(backend, loss, expected, "float64" if dtype == "float64" else "float32")
    loss.sum().backward()
    # Relative to the largest: a mean's gradient has no entry near 1.
    largest = np.abs(gradient).max()
    assert_close(backend, z.grad / largest, gradient / largest, dtype)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_both_tails_are_exact(size):
    """A confident answer's loss is right to its own size, not to that of the logit."""
    logits = torch.full(size, 30.0)
    labels = (torch.arange(size[1]) % 2).float().expand(size)
    z = torch.where(labels == 1, logits, -logits).requires_grad_()
    loss = sigmoid_cross_entropy(labels, z)
    loss.backward()
    np.testing.assert_allclose(loss.item(), np.exp(-30.0), rtol=1e-5)
    np.testing.assert_allclose(z.grad.abs().numpy() * z.numel(), np.exp(-30.0), rtol=1e-5)


def test_infinite_logits_use_the_formula():
    z = torch.randn(200, 300)
    z[0, 0], z[1, 1] = torch.inf, -torch.inf
    labels = torch.zeros(200, 300)
    labels[0, 0] = 1.0
    z.requires_grad_()
    loss = sigmoid_cross_entropy(labels, z)
    loss.backward()
    assert loss.isfinite()
    assert (z.grad[0, 0], z.grad[1, 1]) == (0.0, 0.0)


def test_second_derivatives():
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels, weight = torch.rand(4, 3, dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def loss(z):
        return sigmoid_cross_entropy(labels, z, label_smoothing=0.2, pos_weight=weight, reduction="none")

    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


def test_no_gradient_is_computed_unless_required():
    z = torch.randn(200, 300, requires_grad=True)
    with torch.no_grad():
        assert not sigmoid_cross_entropy(torch.ones(200, 300), z).requires_grad


def test_labels_that_require_a_gradient_get_one():
    labels = torch.full((200, 300), 0.5, requires_grad=True)
    z = torch.randn(200, 300, requires_grad=True)
    sigmoid_cross_entropy(labels, z, reduction="sum").backward()
    torch.testing.assert_close(labels.grad, -z.detach())


def test_shapes_of_any_rank():
    for shape in ((), (7,), (2, 3, 4)):
        z = torch.randn(shape, requires_grad=True)
        loss = sigmoid_cross_entropy(torch.ones(shape), z, reduction="none")
        loss.sum().backward()
        assert loss.shape == shape
        torch.testing.assert_close(z.grad, torch.sigmoid(z.detach()) - 1.0)


@pytest.mark.parametrize(
    ("shape", "weights"),
    [
        ((4, 3, 50, 60), (3, 1, 1)),
        ((4, 3, 50, 60), (1, 60)),
        ((6, 7000), (6, 1)),
        ((6, 7000), (7000,)),
        ((9, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_weights_of_positives_along_any_axis_are_known_to_the_kernel(monkeypatch, shape, weights, reduction):
    from lsmooth.backends import formulas
    from lsmooth.losses import sigmoid_cross_entropy

    z, labels = torch.randn(shape, requires_grad=True), torch.rand(shape)
    weight = torch.rand(weights) + 0.5
    peer = torch.nn.functional.binary_cross_entropy_with_logits(z, labels, pos_weight=weight, reduction=reduction)
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", None)  # fail if the formula is called
    loss = sigmoid_cross_entropy(labels, z, pos_weight=weight, reduction=reduction)
    torch.testing.assert_close(loss, peer)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), z)[0] for x in (loss, peer)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"scale": 0.5, "total": True}, {"label_smoothing": 0.1, "pos_weight": 2.0}])
def test_the_kernel_takes_a_mask(options, dtype):
    torch.manual_seed(0)
    z, labels, counted = torch.randn(60, 33).to(dtype), torch.rand(60, 33), torch.rand(60, 33) > 0.3
    options = {name: torch.tensor(x) if name == "pos_weight" else x for name, x in options.items()}
    dirty = z.masked_fill(~counted, torch.nan).requires_grad_()
    asked = SigmoidOptions(counted=counted, **options)
    assert are_known(asked, sigmoid.KNOWN)
    assert sigmoid.fits(dirty, labels, asked)
    found = sigmoid.rows(dirty, labels.masked_fill(~counted, torch.nan), never, asked)
    clean = z.double().requires_grad_()
    wanted = formulas.sigmoid_cross_entropy(BACKEND, clean, labels.double(), SigmoidOptions(**options))
    if options.get("total"):
        of_elements = formulas.sigmoid_cross_entropy(BACKEND, clean, labels.double(), SigmoidOptions(scale=0.5))
        wanted = torch.where(counted, of_elements, 0.0).sum()
    else:
        wanted = torch.where(counted, wanted, 0.0)
    near = {"rtol": 2e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    gradients = (torch.autograd.grad(x.sum(), leaf)[0].double() for x, leaf in ((found, dirty), (wanted, clean)))
    torch.testing.assert_close(*gradients, **near)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.25}, {"label_smoothing": 0.1, "alpha": 0.8, "scale": 0.5}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_kernel_takes_the_focal_loss(gamma, options, dtype):
    torch.manual_seed(0)
    z = 20.0 * torch.randn(60, 33, dtype=dtype)
    z[0, :3] = 0.0
    labels = torch.randint(2, (60, 33)).to(dtype)
    labels[:9] = torch.rand(9, 33, dtype=dtype)
    asked = SigmoidOptions(gamma=gamma, **options)
    ours, theirs = z.clone().requires_grad_(), z.double().requires_grad_()
    found = sigmoid.rows(ours, labels, never, asked)
    wanted = formulas.sigmoid_cross_entropy(BACKEND, theirs, labels.double(), asked)
    near = {"rtol": 1e-11, "atol": 1e-14} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.double(), wanted, **near)
    upstream = torch.rand(60, 33, dtype=dtype)
    gradients = (torch.autograd.grad(x, leaf, upstream.to(x.dtype))[0] for x, leaf in ((found, ours), (wanted, theirs)))
    torch.testing.assert_close(*(x.double() for x in gradients), **near)


@pytest.mark.parametrize("options", [{"alpha": 0.5}, {"gamma": 0.5}, {"gamma": 0.5, "alpha": 0.5}])
def test_unsupported_focal_losses_use_the_formula(options):
    z = torch.randn(3, 4)
    assert not sigmoid.fits(z, torch.ones(3, 4), SigmoidOptions(**options))


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "sum_over_batch_size"])
@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": (5, 1, 1)},
        {"sample_weight": (5, 3, 4)},
        {"pos_weight": (3, 1), "sample_weight": (1, 3, 1), "label_smoothing": 0.1},
        {"pos_weight": (4,), "mask": (5, 3, 4)},
        {"pos_weight": (), "sample_weight": (), "mask": (5, 3, 4)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_weights_of_every_shape(backend, options, reduction, labels, dtype, size, monkeypatch):
    """By PyTorch's functions and by the kernel, in blocks of a few rows."""
    if size == "large":
        monkeypatch.setattr(thresholds, "SMALL_SIGMOID", 0)
        monkeypatch.setattr(thresholds, "SCRATCH_BYTES", 2**10)
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", never)
    rng = np.random.default_rng(0)
    z = torch.from_numpy(4.0 * rng.standard_normal((5, 3, 4))).to(dtype).requires_grad_()
    y = rng.integers(0, 2, z.shape).astype(float) if labels == "hard" else rng.uniform(0.0, 1.0, z.shape)
    given = {name: rng.uniform(0.5, 2.0, x) if isinstance(x, tuple) else x for name, x in options.items()}
    if "mask" in given:
        given["mask"] = given["mask"] > 1.0
    tensors = {name: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for name, x in given.items()}
    tensors |= {
        name: torch.tensor(x) for name, x in given.items() if isinstance(x, float) and name != "label_smoothing"
    }
    loss = sigmoid_cross_entropy(torch.from_numpy(y), z, reduction=reduction, **tensors)
    kept = given.pop("mask", np.ones(z.shape, bool))
    weight = np.where(kept, given.pop("sample_weight", 1.0), 0.0)
    losses, slopes = reference.sigmoid_cross_entropy(y, z.detach().double().numpy(), reduction="none", **given)
    divisor = {"mean": weight.sum(), "sum_over_batch_size": kept.sum()}.get(reduction, 1.0)
    expected = losses * weight / divisor
    assert_close(
        backend,
        loss,
        expected if reduction == "none" else expected.sum(),
        "float64" if dtype == torch.float64 else "float32",
    )
    upstream = torch.from_numpy(rng.uniform(0.5, 2.0, loss.shape)).to(loss.dtype)
    (gradient,) = torch.autograd.grad(loss, z, upstream)
    found, wanted = gradient.double(), torch.from_numpy(slopes * weight / divisor) * upstream
    near = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(found / wanted.abs().max(), wanted / wanted.abs().max(), rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_labels_of_every_dtype_in_blocks(dtype, masked, monkeypatch):
    monkeypatch.setattr(thresholds, "SMALL_SIGMOID", 0)
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", never)
    z, labels = torch.randn(40, 30, requires_grad=True), torch.rand(40, 30) < 0.3
    mask = torch.rand(40, 30) < 0.5 if masked else None
    found, wanted = (sigmoid_cross_entropy(y, z, mask=mask) for y in (labels.to(dtype), labels.float()))
    assert found == wanted
    assert torch.equal(*(torch.autograd.grad(x, z)[0] for x in (found, wanted)))


def test_labels_outside_of_the_mask_may_be_anything(monkeypatch):
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", never)
    z, mask = torch.randn(300, 200), torch.rand(300, 200) < 0.5
    labels = torch.where(mask, 1.0, -1.0)
    assert sigmoid_cross_entropy(labels, z, mask=mask) == sigmoid_cross_entropy(labels.abs(), z, mask=mask)


@pytest.mark.parametrize("shape", [(3, 4), (300, 200)])
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"label_smoothing": 0.1, "reduction": "none"}])
def test_labels_out_of_range_make_their_loss_nan(shape, options):
    labels = torch.ones(shape)
    labels[0, 1] = 1.5
    assert sigmoid_cross_entropy(labels, torch.zeros(shape), **options).isnan().any()


def never(*args):
    raise AssertionError("the formula")


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "pos_weight"])
@pytest.mark.parametrize("poison", [0.0, float("nan"), float("inf")])
def test_the_quick_mean_skips_masked_elements(eps, weighted, poison, monkeypatch):
    """Whatever the values of masked elements; by logarithms of products, and with an odd number of elements."""
    monkeypatch.setattr("lsmooth.backends.torch.thresholds.SMALL_SIGMOID", 0)
    torch.manual_seed(0)
    z, labels, mask = torch.randn(37, 3, dtype=torch.float64), torch.rand(37, 3).double(), torch.rand(37, 3) < 0.6
    weight = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    own = z.masked_fill(~mask, poison).requires_grad_()
    options = {"label_smoothing": eps, "pos_weight": weight if weighted else None}
    loss = sigmoid_cross_entropy(labels, own, mask=mask, **options)
    loss.backward()
    kept = z.clone().requires_grad_()
    smoothed = (1.0 - eps) * labels + 0.5 * eps
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        kept, smoothed, mask.double() / mask.sum(), reduction="sum", pos_weight=options["pos_weight"]
    )
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(own.grad, kept.grad)
