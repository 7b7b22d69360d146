"""The forward and the reverse KL as a Triton kernel."""

import numpy as np
import pytest
from conftest import assert_close
from triton_cases import IGNORE_WARNINGS, ROWS, took_the_kernel, torch

from lsmooth.backends import formulas
from lsmooth.backends import torch as torch_backend
from lsmooth.backends.torch.gpu import divergence as kernel
from lsmooth.distillation import distillation_loss, linear_distillation_loss

pytestmark = IGNORE_WARNINGS

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
    q[1, 3], p[1, 30] = -torch.inf, 900.0  # the mass of p there is rounded to 0
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
def test_blocks_of_distilled_heads_go_through_the_kernel(backend, divergence, written_over, monkeypatch):
    t_hidden, t_weight, s_hidden, s_weight = (torch.randn(n, 8) for n in (ROWS, 37, ROWS, 37))
    h, w = s_hidden.clone().requires_grad_(), s_weight.clone().requires_grad_()
    exact = [x.double().requires_grad_() for x in (s_hidden, s_weight)]
    logits = t_hidden.double() @ t_weight.double().T, exact[0] @ exact[1].T
    expected = distillation_loss(*logits, divergence=divergence)
    expected.backward()
    monkeypatch.setattr(formulas, "softmax_divergence", None)  # fail if the formula is called
    loss = linear_distillation_loss(t_hidden, t_weight, h, w, block_size=2, divergence=divergence)
    loss.backward()
    assert written_over == [True] * 3
    assert_close(backend, loss, expected.detach().numpy(), "float32", factor=4.0)
    for ours, theirs in zip((h, w), exact, strict=True):
        assert_close(backend, ours.grad, theirs.grad.numpy(), "float32", factor=4.0)


def test_unsupported_divergences_use_the_formula(monkeypatch):
    monkeypatch.setattr(kernel, "rows", lambda *args, **options: pytest.fail("the kernel was called"))
    teacher, student = pair(7, torch.float32, torch.float32)
    distillation_loss(teacher, student, divergence="jensen_shannon")
    distillation_loss(teacher.double(), student)
    distillation_loss(teacher.requires_grad_(), student, stop_teacher_gradient=False).backward()
    assert teacher.grad is not None


def test_divergences_support_more_than_2_31_logits():
    near, student = torch.randn(3, 5).bfloat16(), torch.randn(3, 5)
    far = torch.empty(2**31 + 16, dtype=torch.bfloat16).as_strided((3, 5), (2**30, 1)).copy_(near)
    torch.testing.assert_close(distillation_loss(far, student), distillation_loss(near, student), rtol=0.0, atol=0.0)
