"""The kernels for GPUs, under Triton's interpreter: ``TRITON_INTERPRET=1``, set before torch starts.

Without that Triton would want a GPU, so these tests have an environment of their own: tox -e triton.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed: it comes with torch's builds for CUDA")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton's interpreter is off; tox -e triton sets TRITON_INTERPRET=1", allow_module_level=True)

from conftest import assert_close, require_backend  # noqa: E402

from lsmooth.backends import formulas  # noqa: E402
from lsmooth.backends import torch as torch_backend  # noqa: E402
from lsmooth.backends.options import SoftmaxOptions  # noqa: E402
from lsmooth.backends.torch import thresholds  # noqa: E402
from lsmooth.backends.torch.gpu import cross_entropy as triton_cross_entropy  # noqa: E402
from lsmooth.backends.torch.gpu import divergence as triton_divergence  # noqa: E402
from lsmooth.backends.torch.gpu import rows as triton_rows  # noqa: E402
from lsmooth.distillation import distillation_loss, linear_distillation_loss  # noqa: E402
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy, softmax_cross_entropy_with_statistics  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

# NumPy, which interprets, says more than a GPU would.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")

KERNELS = {"cross_entropy": triton_cross_entropy, "divergence": triton_divergence}
ROWS = 5
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "all mass": {"label_smoothing": 1.0},
    "none": {"label_smoothing": 0.2, "reduction": "none"},
    "prior": {"label_smoothing": 0.2, "smoothing_prior": True},
    "class_weight": {"class_weight": True},
    "smoothed class_weight": {"label_smoothing": 0.2, "class_weight": True, "reduction": "none"},
    "sample_weight": {"label_smoothing": 0.2, "sample_weight": True},
    "ignore_index": {"label_smoothing": 0.2, "ignore_index": 0},
    "temperature": {"label_smoothing": 0.2, "temperature": 2.5},
    "z_loss": {"label_smoothing": 0.2, "z_loss": 1e-2},
    "softcap": {"label_smoothing": 0.2, "logit_softcap": 3.0},
    "label_smoothing of rows": {"label_smoothing": np.linspace(0.0, 1.0, ROWS)},
    "temperature of rows": {"label_smoothing": 0.2, "temperature": np.linspace(0.5, 2.5, ROWS)},
    "everything": {
        "label_smoothing": 0.2,
        "smoothing_prior": True,
        "class_weight": True,
        "sample_weight": True,
        "ignore_index": 0,
        "temperature": 0.7,
        "z_loss": 1e-2,
        "logit_softcap": 3.0,
        "reduction": "none",
    },
}


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """PyTorch, which takes the kernels for tensors of every device, small ones too."""
    monkeypatch.setattr(torch_backend, "kernel_for", lambda loss, device: KERNELS[loss])
    monkeypatch.setattr(torch_backend.TorchBackend, "quick_mean", lambda *_: None)
    return require_backend("torch")


@pytest.fixture(params=["one block", "blocks"])
def blocks(request, monkeypatch):
    """All columns at once; and in blocks, the last one short."""
    if request.param == "blocks":
        monkeypatch.setattr(thresholds, "GPU_COLUMNS", 16)


def arrays(num_classes, dtype="float32", **options):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(4.0 * rng.standard_normal((ROWS, num_classes))).to(getattr(torch, dtype))
    labels = torch.from_numpy(rng.integers(0, num_classes, ROWS))
    labels[1] = 0
    given = {
        "smoothing_prior": rng.random(num_classes),
        "class_weight": np.linspace(0.5, 2.0, num_classes),
        "sample_weight": np.linspace(0.0, 2.0, ROWS),
    }
    return labels, logits, {name: given[name] if value is True else value for name, value in options.items()}


def took_the_kernel(loss):
    """Whether a kernel brought the gradient, which in float16 is scaled and added up after it."""
    nodes = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if "Attach" in type(node).__name__:
            return True
        nodes += [following for following, _ in node.next_functions if following is not None]
    return False


def assert_it_equals_the_reference(backend, labels, logits, dtype="float32", **options):
    z = logits.clone().requires_grad_()
    loss = softmax_cross_entropy(labels, z, **options)
    assert took_the_kernel(loss)
    assert loss.dtype == torch.float32
    expected, gradient = reference.softmax_cross_entropy(labels.numpy(), logits.double().numpy(), **options)
    assert_close(backend, loss, expected, "float32")
    loss.sum().backward()
    largest = np.nanmax(np.abs(gradient))
    assert_close(backend, z.grad / largest, gradient / largest, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_it_equals_the_reference(backend, options, dtype, blocks):
    labels, logits, options = arrays(37, dtype, **options)
    assert_it_equals_the_reference(backend, labels, logits, dtype, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_distributions_equal_the_reference(backend, options, dtype, blocks):
    _, logits, options = arrays(37, dtype, **{k: x for k, x in options.items() if k != "ignore_index"})
    target = np.random.default_rng(1).dirichlet(np.ones(37), ROWS)
    target[0], target[1] = 0.5 * target[0], np.eye(37)[5]  # half of a row's mass, and one class
    assert_it_equals_the_reference(backend, torch.from_numpy(target), logits, dtype, **options)


def test_a_distribution_with_a_negative_or_missing_part_makes_its_row_nan(blocks):
    _, logits, _ = arrays(37)
    target = torch.full((ROWS, 37), 1 / 37)
    target[1, 30], target[3, 2] = -0.1, torch.nan
    z = logits.requires_grad_()
    losses = softmax_cross_entropy(target, z, reduction="none")
    losses.sum().backward()
    assert losses.isnan().tolist() == z.grad.isnan().all(1).tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("soft", [False, True])
def test_an_offset_of_the_logits_changes_nothing(soft, blocks):
    labels, logits, _ = arrays(37, "float32")
    logits = (logits * 1024).round() / 1024  # exact after the offset
    target = torch.eye(37)[labels] * 0.5 + 0.5 / 37 if soft else labels
    options = {"label_smoothing": 0.1, "reduction": "none"}
    expected = softmax_cross_entropy(target, logits, **options)
    torch.testing.assert_close(softmax_cross_entropy(target, logits + 1e4, **options), expected, rtol=1e-6, atol=1e-6)


STATISTICS = [name for name in OPTIONS if name not in ("sample_weight", "none")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", STATISTICS)
@pytest.mark.parametrize("soft", [False, True])
def test_statistics_are_those_of_the_formula(options, soft, dtype, blocks, monkeypatch):
    monkeypatch.setattr(thresholds, "ONE_BLOCK", 0)  # the tensors are on the CPU here
    labels, logits, options = arrays(37, dtype, **OPTIONS[options])
    if soft:
        labels = torch.eye(37)[labels] * 0.5 + 0.3 / 37
        options = {name: x for name, x in options.items() if name not in ("ignore_index", "class_weight")}
    logits[1, 5:9] = logits[1, 20] = 16.0  # ties, in two blocks
    logits[2, 3:20] = -torch.inf
    if not soft:
        labels[2] = 30
    z, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss, found = softmax_cross_entropy_with_statistics(labels, z, **options)
    assert took_the_kernel(loss)
    soft_labels = labels.double() if soft else labels
    _, expected = softmax_cross_entropy_with_statistics(soft_labels, exact, **options)
    for ours, theirs in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs.detach().float(), rtol=2e-6, atol=2e-6)
    assert torch.equal(found.predicted, expected.predicted)
    assert torch.equal(found.correct, expected.correct)
    finite = expected.log_prob.isfinite()
    total, exact_total = (x.entropy.sum() + 0.5 * x.log_prob[finite].sum() for x in (found, expected))
    (ours,), (theirs,) = torch.autograd.grad(total, z), torch.autograd.grad(exact_total, exact)
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-2 if dtype == "bfloat16" else 1e-5, atol=1e-6)


def test_statistics_of_padded_logits(blocks, monkeypatch):
    monkeypatch.setattr(thresholds, "ONE_BLOCK", 0)
    labels, logits, _ = arrays(37)
    padded = torch.cat([logits, torch.full((ROWS, 11), 50.0)], 1)
    found = softmax_cross_entropy_with_statistics(labels, padded, num_classes=37)[1]
    expected = softmax_cross_entropy_with_statistics(labels, logits)[1]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("num_classes", [1, 2, 15, 16, 17, 64, 1001])
def test_any_number_of_classes(backend, num_classes, blocks):
    labels, logits, _ = arrays(num_classes)
    if num_classes == 1:
        assert softmax_cross_entropy(labels, logits, label_smoothing=0.1) == 0.0
    else:
        assert_it_equals_the_reference(backend, labels, logits, label_smoothing=0.1)


@pytest.mark.parametrize("options", ["plain", "smoothed", "prior", "smoothed class_weight", "softcap"])
def test_smoothing_spreads_over_the_classes_that_are_not_masked(backend, options, blocks):
    labels, logits, options = arrays(37, **OPTIONS[options])
    logits[0, :20] = logits[1, 20:] = logits[2, 5] = -torch.inf  # whole blocks, the first and the last
    labels[:3] = torch.tensor([30, 3, 8])
    assert_it_equals_the_reference(backend, labels, logits, **options)


@pytest.mark.parametrize("late", [False, True])
def test_padding_has_no_gradient(backend, late, blocks):
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(size=(ROWS, 1200)), rng.integers(0, 1000, ROWS)
    wanted, slope = reference.softmax_cross_entropy(ids, logits[:, :1000], label_smoothing=0.1)
    leaf = backend.asarray(logits, "float32").requires_grad_()
    z = leaf * 1.0
    value = softmax_cross_entropy(ids, z, label_smoothing=0.1, num_classes=1000, overwrite_logits=late)
    value.backward()
    np.testing.assert_allclose(value.item(), wanted, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad[:, :1000].numpy(), slope, atol=1e-7)
    assert not leaf.grad[:, 1000:].any()


def test_the_gradient_is_written_over_the_logits(backend, blocks):
    leaf = torch.randn(ROWS, 300, requires_grad=True)
    z, ids = leaf * 1.0, np.arange(ROWS)
    before = z.detach().clone()
    softmax_cross_entropy(ids, z, label_smoothing=0.1, overwrite_logits=True).backward()
    softmax_cross_entropy(ids, other := before.requires_grad_(), label_smoothing=0.1).backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    torch.testing.assert_close(z.detach(), other.grad)


def test_a_masked_label_costs_infinity_and_an_empty_row_is_not_a_number(blocks):
    labels, logits, _ = arrays(37)
    logits[0, labels[0]] = -torch.inf
    logits[1] = -torch.inf
    z = logits.requires_grad_()
    losses = softmax_cross_entropy(labels, z, reduction="none")
    losses.sum().backward()
    assert losses[0] == torch.inf
    assert z.grad[0].isfinite().all()
    assert losses[1].isnan()
    assert losses[2:].isfinite().all()


def test_a_masked_label_without_weight_costs_nothing(backend):
    labels, logits, _ = arrays(37)
    weight = np.linspace(0.0, 2.0, 37)
    labels[0], logits[0, 0] = 0, -torch.inf
    assert_it_equals_the_reference(backend, labels, logits, class_weight=weight, reduction="none")


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("label", [-1, 37, 2**40])
def test_a_label_out_of_range_makes_its_row_nan(label, label_smoothing):
    labels, logits, _ = arrays(37)
    labels[3] = label
    z = logits.requires_grad_()
    losses = softmax_cross_entropy(labels, z, label_smoothing=label_smoothing, reduction="none")
    losses.sum().backward()
    assert losses.isnan().tolist() == z.grad.isnan().all(1).tolist() == [False, False, False, True, False]
    assert z.grad.isnan().sum() == 37


def test_ignored_rows_may_hold_anything(backend, blocks):
    labels, logits, _ = arrays(37)
    labels[2], logits[2] = -100, torch.nan
    z = logits.requires_grad_()
    losses = softmax_cross_entropy(labels, z, label_smoothing=0.2, ignore_index=-100, reduction="none")
    losses.sum().backward()
    assert losses[2] == 0.0
    assert (z.grad[2] == 0.0).all()
    assert z.grad[[0, 1, 3, 4]].all()


def test_confident_rows_keep_their_digits(backend):
    """Logits near 1000, whose log-sum-exp has three digits fewer than the loss."""
    labels, logits, _ = arrays(37)
    logits = (logits + 1000.0).requires_grad_()
    assert_it_equals_the_reference(backend, labels, logits.detach(), reduction="none")


def test_labels_of_any_integer_type_and_logits_of_any_layout(backend):
    labels, logits, _ = arrays(37)
    for dtype in (torch.uint8, torch.int32):
        assert_it_equals_the_reference(backend, labels.to(dtype), logits, label_smoothing=0.2)
    wide = torch.cat([logits, logits], 1)
    by_column = logits.t().contiguous().t()
    for z in (wide[:, :37], by_column):
        ours = softmax_cross_entropy(labels, z, label_smoothing=0.2)
        torch.testing.assert_close(ours, softmax_cross_entropy(labels, logits, label_smoothing=0.2))
    images = torch.randn(2, 3, 4, 5)
    labels = torch.randint(3, (2, 4, 5))
    assert_it_equals_the_reference(backend, labels, images, label_smoothing=0.2, axis=1, reduction="none")


def test_there_may_be_more_logits_than_int32_counts():
    near = torch.randn(3, 5).bfloat16()
    memory = torch.empty(2**31 + 16, dtype=torch.bfloat16)  # pages never touched cost nothing
    far = memory.as_strided((3, 5), (2**30, 1))
    labels, z = torch.tensor([1, 3, 4]), far.copy_(near).requires_grad_()
    softmax_cross_entropy(labels, z, reduction="sum").backward()
    probabilities = torch.softmax(near.float(), 1)
    torch.testing.assert_close(z.grad.float(), probabilities - torch.eye(5)[labels], rtol=2**-8, atol=2**-8)


def test_there_may_be_more_logits_of_a_teacher_too():
    near, student = torch.randn(3, 5).bfloat16(), torch.randn(3, 5)
    far = torch.empty(2**31 + 16, dtype=torch.bfloat16).as_strided((3, 5), (2**30, 1)).copy_(near)
    torch.testing.assert_close(distillation_loss(far, student), distillation_loss(near, student), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_what_comes_from_above_multiplies_the_gradient(reduction, blocks):
    labels, logits, _ = arrays(37)
    z = logits.requires_grad_()
    upstream = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0]) if reduction == "none" else torch.tensor(3.0)
    losses = softmax_cross_entropy(labels, z, label_smoothing=0.2, reduction=reduction)
    (once,) = torch.autograd.grad(losses, z, torch.ones_like(losses), retain_graph=True)
    (again,) = torch.autograd.grad(losses, z, upstream)
    torch.testing.assert_close(again, once * upstream.reshape(-1, 1))


def test_second_derivatives_are_those_of_the_formula(monkeypatch):
    labels, logits, _ = arrays(7)
    z = logits.requires_grad_()

    def curvature():
        loss = softmax_cross_entropy(labels, z, label_smoothing=0.2, temperature=2.0)
        (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), z)[0]

    ours = curvature()
    monkeypatch.setattr(torch_backend, "kernel_for", lambda loss, device: None)
    torch.testing.assert_close(ours, curvature())


@pytest.fixture
def written_over(monkeypatch):
    """Of each call of a kernel, whether the gradient takes the memory of the logits."""
    seen = []

    def sweep(kernel, logits, *args, **options):
        losses, gradient = triton_rows.sweep(kernel, logits, *args, **options)
        seen.append(gradient is not None and gradient.data_ptr() == logits.data_ptr())
        return losses, gradient

    monkeypatch.setattr(triton_cross_entropy, "sweep_rows", sweep)
    monkeypatch.setattr(triton_divergence, "sweep", sweep)
    return seen


@pytest.mark.parametrize("block_size", [2, None])
def test_linear_heads_take_it_for_their_blocks(backend, block_size, written_over, blocks):
    labels, _, _ = arrays(37)
    hidden, weight = torch.randn(ROWS, 8), torch.randn(37, 8)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = linear_softmax_cross_entropy(labels, h, w, label_smoothing=0.1, block_size=block_size)
    loss.backward()
    assert written_over == [True] * (3 if block_size else 1)
    z = hidden.double().numpy() @ weight.double().numpy().T
    expected, gradient = reference.softmax_cross_entropy(labels.numpy(), z, label_smoothing=0.1)
    assert_close(backend, loss, expected, "float32")
    assert_close(backend, h.grad, gradient @ weight.double().numpy(), "float32")
    assert_close(backend, w.grad, gradient.T @ hidden.double().numpy(), "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_linear_heads_with_options_and_rows_that_do_not_count(backend, dtype, written_over, blocks):
    labels, _, options = arrays(37, **OPTIONS["everything"])
    hidden, weight = (torch.randn(n, 8).to(getattr(torch, dtype)).requires_grad_() for n in (ROWS, 37))
    losses = linear_softmax_cross_entropy(labels, hidden, weight, block_size=2, **options)
    found = torch.autograd.grad(losses.sum(), (hidden, weight))
    blocks_of_counted = -(-int((labels != options["ignore_index"]).sum()) // 2)  # ignored rows are dropped before
    # Rows wait for what each is multiplied by.
    assert written_over == [False] * blocks_of_counted + [True] * blocks_of_counted
    z = (hidden.detach().double() @ weight.detach().double().T).requires_grad_()  # accumulated in float32
    expected = softmax_cross_entropy(labels, z, **options)
    (g,) = torch.autograd.grad(expected.sum(), z)
    assert_close(backend, losses, expected.detach().numpy(), "float32")
    for ours, theirs in zip(found, (g @ weight.double(), g.T @ hidden.double()), strict=True):
        theirs = theirs.detach()
        assert_close(backend, ours / theirs.abs().max(), (theirs / theirs.abs().max()).numpy(), dtype, factor=4.0)


@pytest.mark.parametrize("layout", ["as it is", "part of something wider", "by column"])
def test_only_rows_side_by_side_are_written_over(layout, blocks):
    labels, logits, _ = arrays(37)
    labels[2] = -100
    options = SoftmaxOptions(0.2, counted=labels >= 0, total=True)
    plain, wide = logits.clone().requires_grad_(), torch.cat([logits, logits], 1)
    z = {
        "as it is": logits.clone(),
        "part of something wider": wide[:, :37],
        "by column": logits.t().contiguous().t(),
    }[layout]
    expected = triton_cross_entropy.rows(plain, labels, None, options)
    loss = triton_cross_entropy.rows(z.requires_grad_(), labels, None, options, overwrite=True)
    assert loss == expected
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(z, gradient) == (layout == "as it is")
    assert torch.equal(gradient, *torch.autograd.grad(expected, plain))
    assert torch.equal(wide[:, 37:], logits)


def test_what_it_does_not_know_takes_the_formula(monkeypatch):
    monkeypatch.setattr(triton_cross_entropy, "rows", lambda *args, **options: pytest.fail("the kernel was called"))
    labels, logits, _ = arrays(37)
    weight = torch.ones(37, requires_grad=True)
    softmax_cross_entropy(labels, logits.double())
    softmax_cross_entropy(logits.softmax(1).requires_grad_(), logits).backward()
    softmax_cross_entropy(labels, logits, class_weight=weight).backward()
    softmax_cross_entropy(labels, logits, temperature=torch.tensor(2.0, requires_grad=True)).backward()
    torch.func.grad(lambda z: softmax_cross_entropy(labels, z))(logits)
    torch.compile(lambda z: softmax_cross_entropy(labels, z), backend="aot_eager", fullgraph=True)(logits)
    assert weight.grad is not None


# Distillation: the forward and the reverse KL.

DISTILLATION = {
    "plain": {},
    "reverse": {"divergence": "reverse_kl"},
    "temperature of rows": {"temperature": np.linspace(0.5, 3.0, ROWS), "scale_by_temperature_squared": False},
    "reverse, temperature": {"divergence": "reverse_kl", "temperature": 3.0, "reduction": "none"},
    "reverse, mask": {
        "divergence": "reverse_kl",
        "sample_weight": torch.linspace(0.0, 2.0, ROWS),
        "mask": torch.tensor([True, False, True, True, False]),
    },
    "none": {"reduction": "none"},
    "temperature": {"temperature": 3.0},
    "sample_weight": {"temperature": 0.5, "sample_weight": torch.linspace(0.0, 2.0, ROWS)},
    "mask": {"mask": torch.tensor([True, False, True, True, False]), "reduction": "none"},
}


def pair(num_classes, *dtypes):
    rng = np.random.default_rng(1)
    return tuple(torch.from_numpy(3.0 * rng.standard_normal((ROWS, num_classes))).to(dtype) for dtype in dtypes)


def assert_it_equals_the_formula(backend, teacher, student, dtype="float32", **options):
    s, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    loss = distillation_loss(teacher, s, **options)
    assert took_the_kernel(loss)
    assert loss.dtype == torch.float32
    expected = distillation_loss(teacher.double(), exact, **options)
    assert_close(backend, loss, expected.detach().numpy(), "float32")
    loss.sum().backward()
    expected.sum().backward()
    largest = exact.grad.abs().max()
    assert_close(backend, s.grad / largest, (exact.grad / largest).numpy(), dtype, factor=2.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", DISTILLATION.values(), ids=DISTILLATION.keys())
def test_distillation_equals_its_formula_in_float64(backend, options, dtype, blocks):
    teacher, student = pair(37, torch.float32, getattr(torch, dtype))
    assert_it_equals_the_formula(backend, teacher, student, dtype, **options)


def test_distillation_of_rows_of_any_layout(backend):
    teacher, student = pair(37, torch.float32, torch.float32)
    assert_it_equals_the_formula(backend, torch.cat([teacher, student], 1)[:, :37], student.t().contiguous().t())
    assert_it_equals_the_formula(backend, *torch.randn(2, 3, 5, 4), axis=1, reduction="none")


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_classes_without_mass(backend, divergence, blocks):
    options = {"divergence": divergence, "reduction": "none"}
    p, q = pair(37, torch.float32, torch.float32)
    teacher, student = (p, q) if divergence == "forward_kl" else (q, p)
    p[0, :20] = q[0, :16] = -torch.inf  # of both, of p alone
    q[1, 3], p[1, 30] = -torch.inf, 900.0  # what p has there is lost to rounding
    assert_it_equals_the_formula(backend, teacher, student, **options)
    q[2, 20] = -torch.inf
    p[2] += 300.0
    losses = distillation_loss(teacher, student, **options)
    assert losses.isinf().tolist() == [False, False, True, False, False]
    p[3], q[4] = -torch.inf, -torch.inf
    assert distillation_loss(teacher, student, **options)[3:].isnan().all()


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_second_derivatives_of_distillation(divergence, monkeypatch):
    teacher, student = pair(7, torch.float32, torch.float32)
    student.requires_grad_()

    def curvature():
        loss = distillation_loss(teacher, student, temperature=2.0, divergence=divergence)
        (gradient,) = torch.autograd.grad(loss, student, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), student)[0]

    ours = curvature()
    monkeypatch.setattr(torch_backend, "kernel_for", lambda loss, device: None)
    torch.testing.assert_close(ours, curvature())


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_linear_heads_distil_through_it(backend, divergence, written_over, monkeypatch):
    t_hidden, t_weight, s_hidden, s_weight = (torch.randn(n, 8) for n in (ROWS, 37, ROWS, 37))
    h, w = s_hidden.clone().requires_grad_(), s_weight.clone().requires_grad_()
    exact = [x.double().requires_grad_() for x in (s_hidden, s_weight)]
    logits = t_hidden.double() @ t_weight.double().T, exact[0] @ exact[1].T
    expected = distillation_loss(*logits, divergence=divergence)
    expected.backward()
    monkeypatch.setattr(formulas, "softmax_divergence", None)  # the formula may not be asked
    loss = linear_distillation_loss(t_hidden, t_weight, h, w, block_size=2, divergence=divergence)
    loss.backward()
    assert written_over == [True] * 3
    assert_close(backend, loss, expected.detach().numpy(), "float32", factor=4.0)
    for ours, theirs in zip((h, w), exact, strict=True):
        assert_close(backend, ours.grad, theirs.grad.numpy(), "float32", factor=4.0)


def test_other_divergences_take_the_formula(monkeypatch):
    monkeypatch.setattr(triton_divergence, "rows", lambda *args, **options: pytest.fail("the kernel was called"))
    teacher, student = pair(7, torch.float32, torch.float32)
    distillation_loss(teacher, student, divergence="jensen_shannon")
    distillation_loss(teacher.double(), student)
    distillation_loss(teacher.requires_grad_(), student, stop_teacher_gradient=False).backward()
    assert teacher.grad is not None


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from lsmooth.backends.torch.gpu.cross_entropy import cross_entropy
from lsmooth.backends.torch.gpu.divergence import kl
from lsmooth.backends.torch.gpu.rows import multiply_rows

STRIDES = ("stride", "teacher_stride", "upstream_stride", "scale_stride", "target_stride", "num_rows")
NUMBERS = dict(dict.fromkeys(STRIDES, "i32"), num_classes="i32")
POINTERS = dict(logits="*bf16", teacher="*fp16", labels="*i64", losses="*fp32", upstream="*fp32")
ALWAYS = dict(NUMBERS, **POINTERS, scale="fp32", inverse_temperature="fp32", least="fp32")
GRADIENT = dict(gradient="*bf16", eps="fp32")
OPTIONS = dict(prior="*fp32", class_weight="*fp32", counted="*i1", row_scale="*fp32", z_loss="fp32", softcap="fp32")

ROWS = dict(row_eps="*fp32", row_temperature="*fp32")
EVERYTHING = dict(ALWAYS, **GRADIENT, **OPTIONS, **ROWS)
SOFT = dict(EVERYTHING, target="*bf16", known="*fp32", predicted="*i64")
del SOFT["labels"]
COUNTED = dict(EVERYTHING, known="*fp32", predicted="*i64")

def check(kernel, types, constants):
    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    values = {(i,): constants.get(name) for i, name in enumerate(names) if signature[name] == "constexpr"}
    for capability in (75, 90):
        compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", capability, 32))

check(multiply_rows, dict(ALWAYS, **GRADIENT), dict(block=4096))
WITH_GRADIENT = dict(ALWAYS, **GRADIENT)
LOSS_ALONE = dict(ALWAYS, **OPTIONS)
for types in (ALWAYS, WITH_GRADIENT, dict(WITH_GRADIENT, **OPTIONS), LOSS_ALONE, EVERYTHING, COUNTED, SOFT):
    for kernel, constants in ((cross_entropy, {}), (kl, dict(reverse=False)), (kl, dict(reverse=True))):
        check(kernel, types, dict(constants, block=4096))
        # Whole numbers that are 1 are constants to Triton.
        others = {name: kind for name, kind in types.items() if name not in NUMBERS}
        check(kernel, others, dict(dict.fromkeys(NUMBERS, 1), **constants, block=1))
"""


def test_it_compiles_for_gpus_that_need_not_be_there():
    """The interpreter is lenient where the compiler is not: about types that change in a loop, for one."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-"], input=COMPILE, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
