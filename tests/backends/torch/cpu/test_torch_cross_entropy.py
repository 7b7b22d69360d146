"""The softmax kernel of the PyTorch CPU backend: every option, every layout, in blocks."""

import itertools
import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from lsmooth.backends import formulas  # noqa: E402
from lsmooth.backends.options import SoftmaxOptions  # noqa: E402
from lsmooth.backends.torch import BACKEND, thresholds  # noqa: E402
from lsmooth.backends.torch.cpu import cross_entropy  # noqa: E402
from lsmooth.losses import softmax_cross_entropy  # noqa: E402

TOLERANCES = {torch.float64: (1e-11, 1e-10), torch.float32: (3e-5, 3e-5), torch.bfloat16: (3e-5, 1e-2)}
LAYOUTS = {"vector": ((40,), None), "rows": ((60, 33), None), "axis 0": ((9, 13), 0), "image": ((3, 5, 4, 17), 1)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", 0)
    monkeypatch.setattr(thresholds, "FEW_CLASSES", 0)
    monkeypatch.setattr(thresholds, "ONE_BLOCK", 0)
    monkeypatch.setattr(thresholds, "BLOCK_ELEMENTS", 100)


def formula(logits, labels, options):
    return formulas.softmax_cross_entropy(BACKEND, logits, labels, options)


def draw(choices, generator):
    return choices[torch.randint(len(choices), (), generator=generator).item()]


def example(layout, dtype, masked, soft, seed):
    """Logits in that layout, labels, and options drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    shape, axis = LAYOUTS[layout]
    rows, classes = shape[:-1], shape[-1]

    def uniform(*size):
        return torch.rand(size, generator=generator, dtype=wide)

    z = 3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    z = (z + draw([0.0, 30.0, 1e3], generator)).to(dtype)
    if masked:
        z[uniform(*shape) < 0.2] = -math.inf
    if axis is not None:
        z = z.movedim(-1, axis).contiguous().movedim(axis, -1)
    if soft:
        labels = uniform(*shape) * (z > -math.inf)
    else:
        labels = torch.randint(draw([0, -1], generator), classes + draw([0, 2], generator), rows, generator=generator)
    options = SoftmaxOptions(
        label_smoothing=draw([0.0, 0.1, uniform(*rows)], generator),
        prior=draw([None, uniform(classes)], generator),
        class_weight=draw([None, uniform(classes)], generator),
        temperature=draw([1.0, 2.0, 0.5 + uniform(*rows)], generator),
        z_loss=draw([0.0, 0.01], generator),
        logit_softcap=draw([None, None, 5.0], generator),
        counted=draw([None, uniform(*rows) < 0.7], generator),
        scale=draw([None, 0.3, uniform(*rows), torch.tensor(0.2, dtype=wide)], generator),
        total=draw([False, True], generator),
    )
    return z, labels, options


def doubled(x):
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("masked", "soft"), list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize(("small", "one_block"), [(2**16, 2**18), (0, 2**18), (0, 0)], ids=["few", "block", "blocks"])
def test_any_options_agree_with_the_formula_in_float64(layout, dtype, masked, soft, small, one_block, monkeypatch):
    monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", small)
    monkeypatch.setattr(thresholds, "ONE_BLOCK", one_block)
    monkeypatch.setattr(thresholds, "FEW_CLASSES", 100 if small else 0)
    monkeypatch.setattr(thresholds, "IMAGE_BLOCK_ELEMENTS", one_block or 100)
    for seed in range(12):
        z, labels, options = example(layout, dtype, masked, soft, seed)
        ours, theirs = z.requires_grad_(), z.detach().double().requires_grad_()
        loss = cross_entropy.rows(ours, labels, formula, options)
        upstream = torch.linspace(0.5, 1.5, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
        (gradient,) = torch.autograd.grad(loss, ours, upstream)
        expected = formula(theirs, doubled(labels), SoftmaxOptions(*map(doubled, options)))
        (slope,) = torch.autograd.grad(expected, theirs, upstream.double())
        for got, right, tolerance in zip((loss, gradient), (expected, slope), TOLERANCES[dtype], strict=True):
            torch.testing.assert_close(got.double(), right, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("layout", ["rows", "image"])
@pytest.mark.parametrize("options", [SoftmaxOptions(label_smoothing=0.1), SoftmaxOptions(z_loss=0.1, temperature=2.0)])
def test_gradients_have_the_memory_layout_of_the_logits(layout, options):
    z, _, _ = example(layout, torch.float32, False, False, 0)
    labels = torch.zeros(z.shape[:-1], dtype=torch.long)
    loss = cross_entropy.rows(z.requires_grad_(), labels, formula, options)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert gradient.stride() == z.stride()


@pytest.mark.parametrize("gap", [50.0, 90.0, 300.0])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 1e-3}, {"temperature": 0.5}])
def test_confident_and_wrong(gap, options):
    z = torch.randn(9, 50)
    z[:, 3] += gap
    labels = torch.arange(4, 13)
    for given in (labels, torch.nn.functional.one_hot(labels, 50).float()):
        loss = softmax_cross_entropy(given, z, **options)
        expected = softmax_cross_entropy(given, z.double(), **options)
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3, 1e4, 1e6, 1e8])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.3},
        {"class_weight": torch.linspace(0.1, 2.0, 50)},
        {"label_smoothing": 0.3, "smoothing_prior": torch.linspace(0.1, 2.0, 50)},
        {"label_smoothing": 0.3, "temperature": 2.0},
        {"ignore_index": 3},
    ],
)
@pytest.mark.parametrize("kind", ["ids", "distributions", "masked"])
@pytest.mark.parametrize("small", [0, 2**16])
def test_a_common_offset_of_float32_logits_does_not_change_the_loss(monkeypatch, offset, options, kind, small):
    monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", small)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(30, 50, generator=generator) * 3.0 + offset
    labels = torch.randint(50, (30,), generator=generator)
    if kind == "masked":
        z[:, 7] = -math.inf
        labels[labels == 7] = 8
    elif kind == "distributions":
        if "ignore_index" in options:
            pytest.skip("class ids only")
        labels = torch.rand(30, 50, generator=generator).softmax(-1)
    loss = softmax_cross_entropy(labels, z, **options).double()
    expected = softmax_cross_entropy(doubled(labels), z.double(), **options)
    torch.testing.assert_close(loss, expected, rtol=2e-6, atol=0.0)


def test_no_copy_of_image_logits_is_made(monkeypatch):
    z = torch.randn(4, 5, 60, 60, requires_grad=True)
    seen = []
    contiguous, reshape = torch.Tensor.contiguous, torch.Tensor.reshape
    monkeypatch.setattr(torch.Tensor, "contiguous", lambda x, *a, **k: seen.append(x.numel()) or contiguous(x, *a, **k))
    monkeypatch.setattr(
        torch.Tensor,
        "reshape",
        lambda x, *a: (y := reshape(x, *a), seen.append(0 if y.data_ptr() == x.data_ptr() else x.numel()))[0],
    )
    softmax_cross_entropy(torch.zeros(4, 60, 60, dtype=torch.long), z, axis=1, label_smoothing=0.1).backward()
    assert z.numel() not in seen


OPTIONS = {
    "plain": {},
    "class_weight": {"class_weight": torch.rand(40) + 0.5},
    "sample_weight": {"sample_weight": torch.rand(30)},
    "mask": {"mask": torch.arange(30) % 3 > 0},
    "temperature": {"temperature": torch.rand(30) + 0.5},
    "label_smoothing": {"label_smoothing": torch.rand(30) / 2},
    "smoothing_prior": {"label_smoothing": 0.1, "smoothing_prior": torch.rand(40)},
    "z_loss": {"z_loss": 0.1},
}


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("small", "one_block"), [(0, 0), (0, 2**18), (2**16, 0)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("first", OPTIONS)
@pytest.mark.parametrize("second", ["plain", "class_weight", "sample_weight"])
def test_arguments_stay_unchanged_and_a_second_backward_pass_repeats_the_gradient(
    first, second, reduction, small, one_block, soft, axis, monkeypatch
):
    monkeypatch.setattr(thresholds, "SMALL_CROSS_ENTROPY", small)
    monkeypatch.setattr(thresholds, "ONE_BLOCK", one_block)
    options = OPTIONS[first] | OPTIONS[second]
    labels = torch.softmax(torch.randn(30, 40), 1) if soft else torch.randint(40, (30,))
    logits = torch.randn(30, 40)
    if axis == 0:
        labels, logits = labels.T.contiguous() if soft else labels, logits.T.contiguous()
    given = {"labels": labels, "logits": logits, **options}
    before = {name: x.clone() for name, x in given.items() if isinstance(x, torch.Tensor)}
    logits.requires_grad_()
    loss = softmax_cross_entropy(labels, logits, axis=axis, reduction=reduction, **options).sum()
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0].clone() for _ in range(3)]
    for name, x in before.items():
        assert torch.equal(given[name], x), name
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
