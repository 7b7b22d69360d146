"""Properties of the losses of the PyTorch kernels under autograd."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from lsmooth import losses  # noqa: E402
from lsmooth.distillation import DistillationLoss, distillation_loss, linear_distillation_loss  # noqa: E402
from lsmooth.integrations import torch as modules  # noqa: E402

CLASSES, FEATURES = 70, 12
SMALL, LARGE = 5, 2000  # rows: PyTorch's own operations, and the blocks of a kernel


def of_linear(labels, z, **options):
    weight = torch.linspace(-1, 1, CLASSES * z.shape[-1], dtype=z.dtype).reshape(CLASSES, -1)
    return losses.linear_softmax_cross_entropy(labels, z, weight, **options)


def of_linear_distillation(labels, z, **options):
    weight = torch.linspace(-1, 1, CLASSES * z.shape[-1], dtype=z.dtype).reshape(CLASSES, -1)
    return linear_distillation_loss(z.detach().cos(), weight, z, weight.flip(0), **options)


def other(z):
    return z.detach().float().cos()


CALLS = {
    "plain": losses.softmax_cross_entropy,
    "smoothed": lambda y, z, **o: losses.softmax_cross_entropy(y, z, label_smoothing=0.1, **o),
    "ignoring": lambda y, z, **o: losses.softmax_cross_entropy(y, z, label_smoothing=0.1, ignore_index=3, **o),
    "weighted": lambda y, z, **o: losses.softmax_cross_entropy(y, z, class_weight=torch.ones(CLASSES), **o),
    "soft labels": lambda y, z, **o: losses.softmax_cross_entropy(other(z).softmax(-1), z, **o),
    "module": lambda y, z, **o: modules.CrossEntropyLoss(**o)(z, y),
    "sigmoid": lambda y, z, **o: losses.sigmoid_cross_entropy(other(z).abs(), z, **o),
    "focal": losses.softmax_focal_loss,
    "smoothed focal": lambda y, z, **o: losses.softmax_focal_loss(y, z, label_smoothing=0.1, **o),
    "sigmoid focal": lambda y, z, **o: losses.sigmoid_focal_loss((z.detach() > 0).to(z), z, **o),
    "distillation": lambda y, z, **o: distillation_loss(other(z), z, temperature=2.0, **o),
    "reverse": lambda y, z, **o: distillation_loss(other(z), z, divergence="reverse_kl", **o),
    "hard and soft": lambda y, z, **o: DistillationLoss(alpha=0.3, **o)(y, other(z), z),
    "linear": of_linear,
    "linear distillation": of_linear_distillation,
}


def inputs(rows, name, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows)
    columns = FEATURES if "linear" in name else CLASSES
    z = torch.randn(rows, columns, generator=generator).mul(3.0).to(dtype).requires_grad_()
    return torch.randint(CLASSES, (rows,), generator=generator), z


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", CALLS)
def test_returned_losses_can_be_changed_in_place(name, rows, reduction):
    labels, z = inputs(rows, name)
    expected = torch.autograd.grad(CALLS[name](labels, z, reduction=reduction).sum() / 4, z)[0]
    loss = CALLS[name](labels, z, reduction=reduction)
    loss /= 4
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", CALLS)
def test_entries_of_returned_losses_can_be_overwritten(name):
    labels, z = inputs(LARGE, name)
    loss = CALLS[name](labels, z, reduction="none")
    loss[:7] = 0.0
    loss.masked_fill_(torch.isnan(loss.detach()), 0.0).clamp_(max=1e6)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert not gradient[:7].any()
    assert gradient[7:].any()


@pytest.mark.parametrize("rows", [SMALL, 1200])
@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_a_batch_of_upstream_gradients(name, rows):
    labels, z = inputs(rows, name)
    loss = CALLS[name](labels, z, reduction="none")
    upstream = torch.randn(2, *loss.shape)
    (batched,) = torch.autograd.grad(loss, z, upstream, is_grads_batched=True, retain_graph=True)
    mapped = torch.func.vmap(lambda v: torch.autograd.grad(loss, z, v, retain_graph=True)[0])(upstream)
    for i in range(2):
        (one,) = torch.autograd.grad(loss, z, upstream[i], retain_graph=True)
        torch.testing.assert_close(batched[i], one, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(mapped[i], one, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", ["smoothed", "sigmoid", "distillation", "focal"])
def test_vectorized_jacobians(name, create_graph):
    labels, z = inputs(1000, name)
    labels, z = labels[:3], z[:3].detach()

    def loss(z):
        padded = torch.cat([z, torch.zeros(1997, CLASSES)])
        return CALLS[name](torch.cat([labels, labels.new_zeros(1997)]), padded, reduction="none")[:3]

    options = {"vectorize": True, "create_graph": create_graph}
    got = torch.autograd.functional.jacobian(loss, z, **options)
    torch.testing.assert_close(got, torch.autograd.functional.jacobian(loss, z), atol=1e-6, rtol=1e-4)


def of_labels(z, labels):
    return losses.softmax_cross_entropy(labels, z, label_smoothing=0.1, reduction="none")


def of_weights(z, weight):
    return losses.softmax_cross_entropy(torch.zeros(len(z), dtype=torch.long), z, sample_weight=weight, reduction="sum")


def of_distributions(z, labels):
    return losses.softmax_cross_entropy(labels, z, reduction="none")


def of_binary_labels(z, labels):
    return losses.sigmoid_cross_entropy(labels, z, reduction="none")


def of_teacher(z, teacher):
    return distillation_loss(teacher, z, reduction="none")


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (of_labels, None),
        (of_weights, (LARGE,)),
        (of_distributions, (LARGE, CLASSES)),
        (of_binary_labels, (LARGE, CLASSES)),
        (of_teacher, (LARGE, CLASSES)),
    ],
)
def test_changing_an_argument_raises_an_error_in_the_backward_pass(loss, shape):
    labels, z = inputs(LARGE, "")
    other = labels if shape is None else torch.rand(shape)
    total = loss(z, other).sum()
    total.backward(retain_graph=True)
    other.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


@pytest.mark.parametrize("loss", [of_distributions, of_binary_labels, of_teacher])
def test_no_large_tensor_outlives_the_backward_pass(loss):
    _, z = inputs(LARGE, "")
    other = torch.rand(LARGE, CLASSES)
    alive = weakref.ref(other)
    total = loss(z, other).sum()
    del other
    total.backward()
    gc.collect()
    assert alive() is None


def test_inference_mode_teachers_are_accepted():
    _, z = inputs(LARGE, "")
    with torch.inference_mode():
        teacher = torch.rand(LARGE, CLASSES)
    distillation_loss(teacher, z).backward()
    assert z.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["plain", "smoothed", "ignoring", "soft labels", "sigmoid", "focal", "distillation"])
def test_gradients_in_half_precision_are_rounded_once(name, dtype):
    labels, z = inputs(LARGE, name, dtype)
    upstream = torch.rand(LARGE, *([CLASSES] if name == "sigmoid" else [])) + 0.1
    (gradient,) = torch.autograd.grad(CALLS[name](labels, z, reduction="none"), z, upstream)
    wide = z.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(CALLS[name](labels, wide, reduction="none"), wide, upstream.double())
    assert gradient.dtype == dtype
    assert (gradient != expected.to(dtype)).float().mean() < 2e-3  # where float32 itself is at a tie


@pytest.mark.parametrize("name", ["plain", "smoothed", "ignoring", "soft labels", "sigmoid", "distillation"])
def test_a_loss_scale_keeps_small_gradients_of_a_float16_mean(name):
    labels, z = inputs(LARGE, name, torch.float16)
    scale = 2.0**12
    (gradient,) = torch.autograd.grad(CALLS[name](labels, z) * scale, z)
    wide = z.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(CALLS[name](labels, wide) * scale, wide)
    assert (gradient != expected.half()).float().mean() < 2e-3


@pytest.mark.parametrize("rows", [SMALL, LARGE])
@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_does_not_matter(name, rows):
    labels, z = inputs(rows, name)
    expected = CALLS[name](labels, z, reduction="mean") if "linear" not in name and name != "weighted" else None
    if expected is None:
        pytest.skip("the call itself makes tensors")
    with torch.device("meta"):
        loss = CALLS[name](labels, z, reduction="mean")
        (gradient,) = torch.autograd.grad(loss, z)
    assert gradient.is_cpu
    torch.testing.assert_close(loss, expected)
