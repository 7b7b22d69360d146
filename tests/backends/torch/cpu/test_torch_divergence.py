"""Divergence kernels on the CPU, which compute the gradient of the student, equal the formula."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.options import DivergenceOptions  # noqa: E402
from lsmooth.backends.torch import sweep, thresholds  # noqa: E402
from lsmooth.backends.torch.cpu import divergence as kernel  # noqa: E402
from lsmooth.distillation import distillation_loss, standardized_distillation_loss  # noqa: E402

FUSED = tuple(kernel._BLOCKS)
# One block and several, the last of them short; classes beyond the sample.
SIZES = [(3, 2), (40, 10), (300, 700), (70, 3000)]
CLOSE = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2.0**-7, "atol": 2.0**-9},
    torch.float16: {"rtol": 2.0**-10, "atol": 2.0**-12},
}


@pytest.fixture(autouse=True)
def _needs_torch():
    require_backend("torch")


@pytest.fixture
def fused(monkeypatch):
    """Fail if the formula is called during the test."""

    def never(*args, **options):
        raise AssertionError("the formula was asked")

    monkeypatch.setattr(formulas, "softmax_divergence", never)


def pair(rows, classes, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.normal(0.0, 2.0, (rows, classes))).to(dtype) for _ in range(2))


def formula(teacher, student, **options):
    """The rows' losses and gradients, by autograd of the formula in float64."""
    z = student.detach().double().requires_grad_()
    losses = formulas.softmax_divergence(load_backend("torch"), teacher.double(), z, DivergenceOptions(**options))
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    return losses.detach(), gradient


def close(actual, expected, dtype=torch.float64):
    torch.testing.assert_close(actual.detach().double(), expected.double(), **CLOSE[dtype])


# Values and gradients.


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("divergence", FUSED)
def test_values_and_gradients_match_the_formula(monkeypatch, divergence, size, dtype):
    monkeypatch.setattr(kernel, "SAMPLE", 64)
    t, s = pair(*size, dtype=dtype)
    expected, each = formula(t, s, divergence=divergence, temperature=2.0)
    monkeypatch.setattr(formulas, "softmax_divergence", None)
    s.requires_grad_()
    options = {"divergence": divergence, "temperature": 2.0, "scale_by_temperature_squared": False}
    rows = distillation_loss(t, s, reduction="none", **options)
    assert rows.dtype == torch.promote_types(dtype, torch.float32)
    close(rows, expected, dtype if dtype == torch.float64 else torch.float32)
    upstream = torch.linspace(-1.0, 2.0, len(s), dtype=rows.dtype)
    (gradient,) = torch.autograd.grad(rows, s, upstream)
    assert gradient.dtype == dtype
    close(gradient, each * upstream[:, None].double(), dtype)
    for small in (0, 2**20):
        monkeypatch.setattr(thresholds, "SMALL_DIVERGENCE", small)
        mean = distillation_loss(t, s, **options)
        assert mean.dtype == rows.dtype
        close(mean, expected.mean(), dtype if dtype == torch.float64 else torch.float32)
        gradient = torch.autograd.grad(mean, s)[0]
        assert gradient.dtype == dtype
        close(gradient * len(s), each, dtype)


@pytest.mark.parametrize("classes", [1, 2**17 - 1, 2**17 + 1])
def test_a_row_alone(fused, classes):
    t, s = pair(1, classes)
    s.requires_grad_()
    loss = distillation_loss(t, s)
    p, q = torch.softmax(t, -1), torch.softmax(s.detach(), -1)
    close(loss, (p * (p.log() - q.log())).sum())
    close(torch.autograd.grad(loss, s)[0], q - p)


def test_blocks_do_not_depend_on_the_number_of_threads(monkeypatch):
    t, s = pair(50, 20)
    expected = distillation_loss(t, s, reduction="none")
    for elements in (1, 20, 140, 1000):
        monkeypatch.setattr(thresholds, "DIVERGENCE_BLOCK_ELEMENTS", elements)
        close(distillation_loss(t, s, reduction="none"), expected)


def test_a_block_has_as_many_rows_for_each_thread(monkeypatch):
    for threads, rows, classes, expected in [(1, 9, 40, 2), (2, 9, 40, 4), (3, 99, 100, 3), (2, 3, 40, 3)]:
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert sweep.block_rows(rows, classes, 80) == expected


@pytest.mark.parametrize("divergence", FUSED)
def test_beta_and_row_weights(fused, monkeypatch, divergence):
    t, s = pair(40, 30)
    weight = torch.linspace(0.0, 3.0, 40, dtype=torch.float64)
    s.requires_grad_()
    loss = distillation_loss(
        t, s, divergence=divergence, beta=0.2, temperature=3.0, sample_weight=weight, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, s)
    monkeypatch.undo()
    options = {"divergence": divergence, "parameter": 0.2, "temperature": 3.0, "scale": 9.0 * weight}
    losses, each = formula(t, s, **options)
    close(loss, losses.sum())
    close(gradient, each)


def test_classes_along_another_axis_and_views(fused):
    t, s = pair(60, 7)
    expected = distillation_loss(t, s, reduction="none")
    for view in (
        lambda z: z.t().contiguous().t(),
        lambda z: torch.stack([z, z], -1)[..., 0],
        lambda z: torch.stack([z, z], 1)[:, 0],
    ):
        x = view(s).detach().requires_grad_()
        rows = distillation_loss(view(t), x, reduction="none")
        close(rows, expected)
        close(torch.autograd.grad(rows.sum(), x)[0], torch.softmax(s, -1) - torch.softmax(t, -1))
    cube = [z.reshape(3, 4, 5, 7).movedim(-1, 1) for z in (t, s)]
    close(distillation_loss(*cube, axis=1, reduction="none"), expected.reshape(3, 4, 5))


@pytest.mark.parametrize("elements", [1, 100, 2**18], ids=["rows", "parts of an image", "one block"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("divergence", FUSED)
def test_images_with_a_temperature_and_a_mask_of_rows(fused, monkeypatch, divergence, dtype, elements):
    monkeypatch.setattr(thresholds, "DIVERGENCE_BLOCK_ELEMENTS", elements)
    t, s = (z.reshape(3, 4, 5, 7).movedim(-1, 1).contiguous() for z in pair(60, 7, dtype=dtype))
    temperature = torch.linspace(0.5, 3.0, 60, dtype=torch.float64).reshape(3, 4, 5)
    mask = torch.arange(60).reshape(3, 4, 5) % 4 != 0
    t[~mask.unsqueeze(1).expand(t.shape)] = torch.nan
    s.requires_grad_()
    loss = distillation_loss(t, s, divergence=divergence, temperature=temperature, mask=mask, axis=1, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, s)
    monkeypatch.undo()
    rows = (z.detach().movedim(1, -1)[mask] for z in (t, s))
    squared = temperature[mask] ** 2
    expected, each = formula(*rows, divergence=divergence, temperature=temperature[mask])
    close(loss, (expected * squared).sum(), dtype)
    assert gradient.stride() == s.stride()
    close(gradient.movedim(1, -1)[mask], each * squared.unsqueeze(-1), dtype)
    assert (gradient.movedim(1, -1)[~mask] == 0).all()


def test_upstream_gradients_of_every_kind(fused):
    t, s = pair(40, 7)
    s.requires_grad_()
    each = torch.softmax(s.detach(), -1) - torch.softmax(t, -1)
    rows = distillation_loss(t, s, reduction="none").reshape(8, 5)
    weights = torch.arange(80.0, dtype=torch.float64).reshape(5, 16)[:, ::2]
    (gradient,) = torch.autograd.grad((rows.t() * weights).sum(), s)
    close(gradient, each * weights.t().reshape(-1, 1))
    total = distillation_loss(t, s, reduction="sum")
    close(torch.autograd.grad(-3.0 * total, s)[0], -3.0 * each)


@pytest.mark.parametrize("divergence", FUSED)
def test_no_rows(divergence):
    t = torch.zeros(0, 5, dtype=torch.float64)
    s = t.clone().requires_grad_()
    loss = distillation_loss(t, s, divergence=divergence)
    assert loss.item() == 0.0
    assert torch.autograd.grad(loss, s)[0].shape == (0, 5)


# Derivatives of derivatives, and backward again.


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("divergence", FUSED)
def test_first_and_second_derivatives(divergence, reduction):
    t, s = pair(4, 5)
    s.requires_grad_()

    def loss(z):
        return distillation_loss(t, z, temperature=2.0, divergence=divergence, reduction=reduction)

    assert torch.autograd.gradcheck(loss, s)
    assert torch.autograd.gradgradcheck(loss, s)


@pytest.mark.parametrize("divergence", FUSED)
def test_backward_again_gives_the_same(fused, divergence):
    t, s = pair(300, 700)
    s.requires_grad_()
    loss = distillation_loss(t, s, divergence=divergence)
    first, second, third = (
        torch.autograd.grad(loss, s, x, retain_graph=True)[0] for x in torch.tensor([1.0, 2.0, 1.0])
    )
    close(second, 2.0 * first)
    close(third, first)


def test_the_logits_are_not_modified(fused):
    t, s = pair(300, 700)
    before = t.clone(), s.clone()
    distillation_loss(t, s.requires_grad_()).backward()
    torch.testing.assert_close((t, s.detach()), before, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("divergence", FUSED)
def test_without_gradients(fused, mode, divergence):
    t, s = pair(300, 700)
    s.requires_grad_()
    with mode():
        value = distillation_loss(t, s, divergence=divergence)
    assert not value.requires_grad
    close(value, distillation_loss(t, s, divergence=divergence))


# Masked classes, large logits and ignored rows.


@pytest.mark.parametrize("classes", [5, 3000])
@pytest.mark.parametrize("divergence", FUSED)
def test_classes_masked_by_both_use_the_kernel(fused, divergence, classes):
    t, s = pair(30, classes)
    wide = [torch.cat([z, torch.full((30, 2), -torch.inf, dtype=z.dtype)], 1) for z in (t, s)]
    narrow = s.requires_grad_()
    expected = distillation_loss(t, narrow, divergence=divergence)
    student = wide[1].requires_grad_()
    loss = distillation_loss(wide[0], student, divergence=divergence)
    close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student)
    close(gradient[:, :classes], torch.autograd.grad(expected, narrow)[0])
    assert (gradient[:, classes:] == 0).all()


@pytest.mark.parametrize("divergence", ["jensen_shannon", "total_variation", "forward_kl"])
def test_a_class_that_the_teacher_masks(divergence):
    t, s = pair(30, 50)
    t[3:, 7] = -torch.inf
    expected, each = formula(t, s, divergence=divergence)
    s.requires_grad_()
    rows = distillation_loss(t, s, divergence=divergence, reduction="none")
    close(rows, expected)
    close(torch.autograd.grad(rows.sum(), s)[0], each)


def test_an_infinite_divergence_is_infinite():
    t, s = pair(30, 50)
    s[4, 7] = -torch.inf
    rows = distillation_loss(t, s, reduction="none")
    assert rows.isinf().nonzero().tolist() == [[4]]


@pytest.mark.parametrize("divergence", FUSED)
def test_a_class_far_above_the_sampled_ones(fused, monkeypatch, divergence):
    """Exp overflows with the first guess of the row's size; the second knows it."""
    t, s = pair(30, 3000)
    t[::2, 2000] += 2000.0
    s[1::3, 2500] += 1500.0
    s.requires_grad_()
    rows = distillation_loss(t, s, divergence=divergence, reduction="none")
    (gradient,) = torch.autograd.grad(rows.sum(), s)
    monkeypatch.undo()
    expected, each = formula(t, s, divergence=divergence)
    close(rows, expected)
    close(gradient, each)


@pytest.mark.parametrize("divergence", FUSED)
@pytest.mark.parametrize("who", [0, 1])
def test_a_sum_that_overflows_where_no_class_does(fused, monkeypatch, divergence, who):
    t, s = both = pair(30, 3000, dtype=torch.float32)
    both[who][:, :1100] = 0.0
    both[who][:, 2000:2010] = 88.5
    rows = distillation_loss(t, s, divergence=divergence, reduction="none")
    monkeypatch.undo()
    close(rows, formula(t, s, divergence=divergence)[0], torch.float32)


def test_overflow_in_counted_rows_beside_ignored_rows():
    t, s = pair(2, 3000, dtype=torch.float32)
    s[:, :1100] = 0.0
    s[0, 2000:2010] = 88.5
    counted = torch.tensor([True, False])
    losses = kernel.rows(t, s, None, DivergenceOptions("total_variation", counted=counted))
    close(losses, formula(t, s, divergence="total_variation", counted=counted)[0], torch.float32)


def test_a_small_sum_leaves_out_rows_that_do_not_count():
    t, s = pair(6, 5)
    counted = torch.arange(6) % 2 == 0
    total = kernel.rows(t, s, None, DivergenceOptions(counted=counted, scale=0.5, total=True))
    close(total, 0.5 * formula(t, s, counted=counted)[0].sum())


def test_no_further_block_overwrites_logits_after_a_failure():
    t, s = pair(6, 5)
    expected, each = formula(t, s)
    z = s.clone().requires_grad_()
    rows = kernel.rows(t, z, None, DivergenceOptions(), overwrite=True)
    close(rows, expected)
    assert torch.autograd.grad(rows.sum(), z)[0].data_ptr() == z.data_ptr()
    close(z, each)
    t[:, 0] = s[:, 0] = -torch.inf
    assert kernel.rows(t, s.requires_grad_(), None, DivergenceOptions(), overwrite=True) is None


def test_a_prefix_of_masked_classes(fused):
    t, s = pair(30, 3000)
    for z in (t, s):
        z[:, :2000] = -torch.inf
    s.requires_grad_()
    loss = distillation_loss(t, s)
    close(loss, distillation_loss(t[:, 2000:], s[:, 2000:]))
    assert torch.autograd.grad(loss, s)[0].isfinite().all()


@pytest.mark.parametrize("garbage", [0.0, torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("divergence", FUSED)
def test_masked_rows_may_hold_any_finite_or_infinite_values(divergence, garbage, fused):
    t, s = pair(300, 700)
    counted = torch.arange(300) % 3 != 0
    expected = distillation_loss(t[counted], s[counted], divergence=divergence)
    t[~counted], s[~counted] = garbage, garbage
    s.requires_grad_()
    loss = distillation_loss(t, s, divergence=divergence, mask=counted)
    close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, s)
    assert (gradient[~counted] == 0).all()
    assert (gradient[counted] != 0).all()


def test_all_rows_ignored(fused):
    t, s = pair(30, 70)
    s.requires_grad_()
    loss = distillation_loss(t, s, mask=torch.zeros(30, dtype=torch.bool))
    assert loss.item() == 0.0
    assert (torch.autograd.grad(loss, s)[0] == 0).all()


def test_not_a_number_stays_one():
    t, s = pair(30, 70)
    s[3, 3] = torch.nan
    assert distillation_loss(t, s, reduction="none").isnan().nonzero().tolist() == [[3]]


# Cases that use the formula.


def test_a_teacher_that_requires_a_gradient_gets_one():
    t, s = pair(4, 5)

    def loss(a, b):
        return distillation_loss(a, b, stop_teacher_gradient=False)

    assert torch.autograd.gradcheck(loss, (t.requires_grad_(), s.requires_grad_()))


def test_weights_and_temperatures_that_require_a_gradient_get_one():
    t, s = pair(4, 5)
    weight = torch.linspace(0.5, 2.0, 4, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def loss(z, w, x):
        return distillation_loss(t, z, sample_weight=w, temperature=x)

    assert torch.autograd.gradcheck(loss, (s.requires_grad_(), weight, temperature))


@pytest.mark.parametrize("divergence", FUSED)
def test_torch_func(divergence):
    t, s = pair(6, 5)
    losses, each = formula(t, s, divergence=divergence)

    def loss(z, teacher=t):
        return distillation_loss(teacher, z, divergence=divergence, reduction="sum")

    close(torch.func.grad(loss)(s), each)
    close(torch.func.vmap(lambda a, b: loss(b, a))(t, s), losses)
    close(torch.func.jacfwd(loss)(s), each)
    tangent = torch.linspace(-1.0, 1.0, 30, dtype=torch.float64).reshape(6, 5)
    close(torch.func.jvp(loss, (s,), (tangent,))[1], (each * tangent).sum())


@pytest.mark.parametrize("divergence", FUSED)
def test_the_gradient_compiles_without_graph_breaks(divergence):
    t, s = pair(6, 5)
    losses, each = formula(t, s, divergence=divergence)
    torch._dynamo.reset()
    run = torch.compile(
        lambda a, b: distillation_loss(a, b, divergence=divergence, reduction="sum"),
        fullgraph=True,
        backend="aot_eager",
    )
    value = run(t, s.requires_grad_())
    close(value, losses.sum())
    close(torch.autograd.grad(value, s)[0], each)


def test_standardized_logits_are_unchanged_by_standardization(fused):
    t, s = pair(40, 30)

    def standard(z):
        return (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True, correction=0)

    s.requires_grad_()
    loss = standardized_distillation_loss(t, s, temperature=2.0)
    log_p, log_q = (torch.log_softmax(standard(z) / 2.0, -1) for z in (t, s))
    expected = 4.0 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    close(loss, expected.detach())
    close(torch.autograd.grad(loss, s)[0], torch.autograd.grad(expected, s)[0])


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("shape", [(2, 3, 300, 300), (3, 21, 60, 60)])
def test_channels_of_images_are_not_moved(divergence, shape):
    generator = torch.Generator().manual_seed(0)
    t, s = (torch.randn(shape, generator=generator) for _ in range(2))

    class Copies(TorchDispatchMode):
        """Copies of arrays of the size of the logits."""

        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_):
                self.count += out.numel() >= s.numel()
            return out

    s.requires_grad_()
    with Copies() as copies:
        loss = distillation_loss(t, s, axis=1, divergence=divergence, temperature=2.0)
        (gradient,) = torch.autograd.grad(loss, s)
    assert copies.count == 0
    moved = [z.detach().movedim(1, -1).reshape(-1, shape[1]) for z in (t, s)]
    losses, each = formula(*moved, divergence=divergence, temperature=2.0)
    close(loss, 4.0 * losses.mean(), torch.float32)
    close(gradient.movedim(1, -1).reshape(each.shape) * len(each), 4.0 * each, torch.float32)
