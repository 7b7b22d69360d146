"""Common uses of losses of PyTorch tensors in training loops: in-place changes, storage, batched gradients."""

from __future__ import annotations

import weakref

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth import distillation, losses  # noqa: E402

FEATURES = 4
# Rows and classes of the paths for few and for many logits.
SIZES = [(4, 5), (300, 700)]


def linear(student, weight):
    return student[:, :FEATURES], weight[: student.shape[1], :FEATURES]


LOSSES = {
    "cross-entropy": lambda y, t, s, w, **o: losses.softmax_cross_entropy(y, s, label_smoothing=0.1, **o),
    "soft labels": lambda y, t, s, w, **o: losses.softmax_cross_entropy(t.softmax(-1), s, **o),
    "weighted": lambda y, t, s, w, **o: losses.softmax_cross_entropy(y, s, class_weight=w[: s.shape[1], 0].abs(), **o),
    "sigmoid": lambda y, t, s, w, **o: losses.sigmoid_cross_entropy(t.sigmoid(), s, **o),
    "focal": lambda y, t, s, w, **o: losses.softmax_focal_loss(y, s, **o),
    "sigmoid focal": lambda y, t, s, w, **o: losses.sigmoid_focal_loss(t.sigmoid(), s, **o),
    "poly": lambda y, t, s, w, **o: losses.poly_cross_entropy(y, s, **o),
    "generalized": lambda y, t, s, w, **o: losses.generalized_cross_entropy(y, s, **o),
    "symmetric": lambda y, t, s, w, **o: losses.symmetric_cross_entropy(y, s, **o),
    "margin": lambda y, t, s, w, **o: losses.margin_label_smoothing(y, s, **o),
    "max suppression": lambda y, t, s, w, **o: losses.max_suppression(y, s, **o),
    "linear": lambda y, t, s, w, **o: losses.linear_softmax_cross_entropy(y % s.shape[1], *linear(s, w), **o),
    "linear distillation": lambda y, t, s, w, **o: distillation.linear_distillation_loss(
        *linear(t, w), *linear(s, w), **o
    ),
    "decoupled": lambda y, t, s, w, **o: distillation.decoupled_distillation_loss(t, s, y, **o),
    "standardized": lambda y, t, s, w, **o: distillation.standardized_distillation_loss(t, s, **o),
    "gkd": lambda y, t, s, w, **o: distillation.gkd_loss(t, s, **o),
    "ensemble": lambda y, t, s, w, **o: distillation.ensemble_distillation_loss([t, -t], s, **o),
    "hard and soft": lambda y, t, s, w, **o: distillation.DistillationLoss(**o)(y, t, s),
}
for name in ("forward_kl", "reverse_kl", "jensen_shannon", "total_variation", "alpha", "mse_logits"):
    LOSSES[name] = lambda y, t, s, w, name=name, **o: distillation.distillation_loss(t, s, divergence=name, **o)
for name in ("renormalize", "drop", "bucket"):
    LOSSES[name] = lambda y, t, s, w, name=name, **o: distillation.sparse_distillation_loss(
        t.topk(3)[1], t.log_softmax(-1).topk(3)[0], s, tail=name, **o
    )
REDUCTIONS = ["none", "mean", "sum"]


@pytest.fixture(autouse=True)
def _needs_torch():
    require_backend("torch")


def arrays(rows, classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    return labels, *(torch.randn(shape, generator=generator) for shape in [(rows, classes)] * 2 + [(classes, FEATURES)])


def changed_in_place(loss):
    loss /= 4
    loss *= 3
    loss += 1
    loss.clamp_(max=1e9)
    loss.masked_fill_(loss > 1e8, 0.0)
    if loss.ndim:
        loss[loss < -1e8] = 0.0
    return loss.sum()


def gradient(function, rows, classes):
    labels, teacher, student, weight = arrays(rows, classes)
    student.requires_grad_()
    return torch.autograd.grad(function(labels, teacher, student, weight), student)[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_can_be_changed_in_place(name, reduction, size):
    def ours(*given):
        return changed_in_place(LOSSES[name](*given, reduction=reduction))

    def out_of_place(*given):
        return (LOSSES[name](*given, reduction=reduction) * 0.75).sum()

    torch.testing.assert_close(gradient(ours, *size), gradient(out_of_place, *size))


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", ["cross-entropy", "forward_kl", "hard and soft", "linear", "linear distillation"])
def test_a_loss_of_a_compiled_program_can_be_changed_in_place(name, reduction):
    def ours(*given):
        return LOSSES[name](*given, reduction=reduction)

    torch._dynamo.reset()
    program = torch.compile(ours, backend="aot_eager", fullgraph=True)
    found = gradient(lambda *given: changed_in_place(program(*given)), *SIZES[0])
    torch.testing.assert_close(found, gradient(lambda *given: (ours(*given) * 0.75).sum(), *SIZES[0]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_can_be_batched(name, size):
    labels, teacher, student, weight = arrays(*size)
    student.requires_grad_()
    rows = LOSSES[name](labels, teacher, student, weight, reduction="none")
    upstream = torch.randn(3, *rows.shape, generator=torch.Generator().manual_seed(1))
    (batch,) = torch.autograd.grad(rows, student, upstream, is_grads_batched=True, retain_graph=True)
    for one, each in zip(upstream, batch, strict=True):
        torch.testing.assert_close(each, torch.autograd.grad(rows, student, one, retain_graph=True)[0])


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "hard and soft", "linear distillation", "cross-entropy"])
def test_arguments_that_change_before_the_backward_pass_are_refused(name):
    labels, teacher, student, weight = arrays(*SIZES[1])
    student.requires_grad_()
    loss = LOSSES[name](labels, teacher, student, weight, reduction="none")
    (labels if name == "cross-entropy" else teacher).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon", "hard and soft", "linear distillation"])
def test_the_teacher_is_freed_by_the_backward_pass(name, reduction):
    labels, teacher, student, weight = arrays(*SIZES[1])
    student.requires_grad_()
    teacher = teacher + 0.0
    watched = weakref.ref(teacher.untyped_storage())
    loss = LOSSES[name](labels, teacher, student, weight, reduction=reduction)
    del teacher
    loss.sum().backward()
    assert watched() is None
    assert loss is not None


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_without_values(name):
    """Meta tensors: as many numbers, none of them computed."""
    given = [x.to("meta") for x in arrays(*SIZES[0])]
    given[2].requires_grad_()
    loss = LOSSES[name](*given)
    loss.backward()
    assert loss.shape == ()
    assert given[2].grad.shape == given[2].shape


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_default_device_is_not_used(name, size):
    expected = gradient(LOSSES[name], *size)
    given = arrays(*size)
    given[2].requires_grad_()
    with torch.device("meta"):
        loss = LOSSES[name](*given)
    loss.backward()
    torch.testing.assert_close(given[2].grad, expected)
