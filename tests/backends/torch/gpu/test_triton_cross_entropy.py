"""The softmax cross-entropy as a Triton kernel."""

import numpy as np
import pytest
from triton_cases import IGNORE_WARNINGS, OPTIONS, ROWS, arrays, assert_it_equals_the_reference, torch

from lsmooth.backends import torch as torch_backend
from lsmooth.backends.torch.gpu import cross_entropy
from lsmooth.losses import softmax_cross_entropy
from lsmooth.testing import reference

pytestmark = IGNORE_WARNINGS


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_losses_equal_the_reference(backend, options, dtype, blocks):
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


def test_masked_labels_give_infinity_and_rows_without_classes_nan(blocks):
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


def test_a_masked_label_of_weight_0_has_zero_loss(backend):
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


def test_ignored_rows_may_hold_nan(backend, blocks):
    labels, logits, _ = arrays(37)
    labels[2], logits[2] = -100, torch.nan
    z = logits.requires_grad_()
    losses = softmax_cross_entropy(labels, z, label_smoothing=0.2, ignore_index=-100, reduction="none")
    losses.sum().backward()
    assert losses[2] == 0.0
    assert (z.grad[2] == 0.0).all()
    assert z.grad[[0, 1, 3, 4]].all()


def test_confident_rows_are_exact(backend):
    """Logits near 1000, with a log-sum-exp that has three digits fewer than the loss."""
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


def test_losses_support_more_than_2_31_logits():
    near = torch.randn(3, 5).bfloat16()
    memory = torch.empty(2**31 + 16, dtype=torch.bfloat16)  # untouched pages use no memory
    far = memory.as_strided((3, 5), (2**30, 1))
    labels, z = torch.tensor([1, 3, 4]), far.copy_(near).requires_grad_()
    softmax_cross_entropy(labels, z, reduction="sum").backward()
    probabilities = torch.softmax(near.float(), 1)
    torch.testing.assert_close(z.grad.float(), probabilities - torch.eye(5)[labels], rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_upstream_gradient_multiplies_the_gradient(reduction, blocks):
    labels, logits, _ = arrays(37)
    z = logits.requires_grad_()
    upstream = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0]) if reduction == "none" else torch.tensor(3.0)
    losses = softmax_cross_entropy(labels, z, label_smoothing=0.2, reduction=reduction)
    (once,) = torch.autograd.grad(losses, z, torch.ones_like(losses), retain_graph=True)
    (again,) = torch.autograd.grad(losses, z, upstream)
    torch.testing.assert_close(again, once * upstream.reshape(-1, 1))


def test_second_derivatives_equal_those_of_the_formula(monkeypatch):
    labels, logits, _ = arrays(7)
    z = logits.requires_grad_()

    def curvature():
        loss = softmax_cross_entropy(labels, z, label_smoothing=0.2, temperature=2.0)
        (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), z)[0]

    ours = curvature()
    monkeypatch.setattr(torch_backend, "kernel_for", lambda loss, device: None)
    torch.testing.assert_close(ours, curvature())


def test_calls_that_the_kernel_does_not_support_use_the_formula(monkeypatch):
    monkeypatch.setattr(cross_entropy, "rows", lambda *args, **options: pytest.fail("the kernel was called"))
    labels, logits, _ = arrays(37)
    weight = torch.ones(37, requires_grad=True)
    softmax_cross_entropy(labels, logits.double())
    softmax_cross_entropy(logits.softmax(1).requires_grad_(), logits).backward()
    softmax_cross_entropy(labels, logits, class_weight=weight).backward()
    softmax_cross_entropy(labels, logits, temperature=torch.tensor(2.0, requires_grad=True)).backward()
    torch.func.grad(lambda z: softmax_cross_entropy(labels, z))(logits)
    torch.compile(lambda z: softmax_cross_entropy(labels, z), backend="aot_eager", fullgraph=True)(logits)
    assert weight.grad is not None
