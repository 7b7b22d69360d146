"""The hard loss and the soft loss together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import assert_close, require_backend
from pair_parity import LABELS, logits

from lsmooth.distillation import DistillationLoss, distillation_loss
from lsmooth.losses import softmax_cross_entropy

TEACHER, STUDENT = logits(0), logits(1)


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon", "alpha"])
@pytest.mark.parametrize("ignore_index", [None, 1])
def test_the_loss_is_the_sum_of_its_terms(backend, divergence, ignore_index):
    t, s = backend.asarray(TEACHER), backend.asarray(STUDENT)
    weights = np.array([0.5, 1.0, 2.0, 1.0, 3.0])
    loss = DistillationLoss(
        0.3,
        2.0,
        label_smoothing=0.1,
        divergence=divergence,
        beta=0.2,
        divergence_alpha=0.7,
        ignore_index=ignore_index,
    )
    common = {"sample_weight": weights, "ignore_index": ignore_index}
    hard = backend.to_numpy(softmax_cross_entropy(LABELS, s, label_smoothing=0.1, **common))
    soft = distillation_loss(t, s, temperature=2.0, divergence=divergence, beta=0.2, alpha=0.7, labels=LABELS, **common)
    expected = 0.7 * hard + 0.3 * backend.to_numpy(soft)
    assert_close(backend, loss(LABELS, t, s, sample_weight=weights), expected, "float64")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_the_sum_of_the_gradients_of_the_terms(differentiable_backend, reduction, weighted):
    xp = differentiable_backend
    teacher, student = xp.asarray(TEACHER), xp.asarray(STUDENT)
    common = {"sample_weight": np.array([0.5, 1.0, 2.0, 1.0, 3.0]) if weighted else None, "reduction": reduction}

    def parts(s):
        hard = softmax_cross_entropy(LABELS, s, label_smoothing=0.1, **common)
        return xp.sum(0.75 * hard + 0.25 * distillation_loss(teacher, s, temperature=2.0, **common))

    loss = DistillationLoss(0.25, 2.0, label_smoothing=0.1, reduction=reduction)
    _, expected = xp.value_and_grad(parts, student)
    _, gradient = xp.value_and_grad(
        lambda s: xp.sum(loss(LABELS, teacher, s, sample_weight=common["sample_weight"])), student
    )
    assert_close(xp, gradient, xp.to_numpy(expected), "float64")


def test_ignored_rows_may_hold_any_values(backend):
    labels, student = np.array(LABELS), STUDENT.copy()
    labels[1], student[1] = -100, np.nan
    loss = DistillationLoss(0.3, 2.0, ignore_index=-100)
    kept = labels != -100
    expected = DistillationLoss(0.3, 2.0)(labels[kept], TEACHER[kept], student[kept])
    assert_close(backend, loss(labels, backend.asarray(TEACHER), backend.asarray(student)), expected, "float64")


@pytest.mark.parametrize(("alpha", "of_teacher"), [(0.0, False), (1.0, True)])
def test_alpha_of_0_or_1_leaves_one_term(backend, alpha, of_teacher):
    t, s = backend.asarray(TEACHER), backend.asarray(STUDENT)
    expected = distillation_loss(t, s, temperature=4.0) if of_teacher else softmax_cross_entropy(LABELS, s)
    loss = DistillationLoss(alpha, 4.0)
    assert_close(backend, loss(LABELS, t, s), backend.to_numpy(expected), "float64")


def test_labels_may_be_distributions(backend):
    soft = np.eye(4)[LABELS]
    t, s = backend.asarray(TEACHER), backend.asarray(STUDENT)
    expected = backend.to_numpy(DistillationLoss()(LABELS, t, s))
    assert_close(backend, DistillationLoss()(soft, t, s), expected, "float64")


def test_the_config_survives_json():
    loss = DistillationLoss(0.9, 4.0, divergence="jensen_shannon", beta=0.3, ignore_index=-100, reduction="sum")
    copy = DistillationLoss.from_config(json.loads(json.dumps(loss.get_config())))
    assert copy.get_config() == loss.get_config()
    assert float(copy(LABELS, TEACHER, STUDENT)) == float(loss(LABELS, TEACHER, STUDENT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1\.5"),
        ({"temperature": 0}, "temperature must be a finite number above 0, got 0"),
        ({"label_smoothing": -1}, r"label_smoothing must be in \[0, 1\], got -1"),
        ({"divergence": "kl"}, "divergence must be one of"),
        ({"divergence": "alpha", "divergence_alpha": 1}, r"alpha must be in \(0, 1\), got 1"),
    ],
)
def test_bad_options_are_named_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**options)


def test_the_gradients_of_both_parts_are_one_array(monkeypatch):
    require_backend("torch")
    import torch

    from lsmooth.backends.torch import memory
    from lsmooth.backends.torch.cpu import cross_entropy, divergence

    written = []

    def empty_like(x):
        gradient = memory.empty_like(x)
        written.append(gradient.data_ptr())
        return gradient

    for kernel in (cross_entropy, divergence):
        monkeypatch.setattr(kernel, "empty_like", empty_like)
    teacher, student = torch.randn(600, 500), torch.randn(600, 500, requires_grad=True)
    DistillationLoss(0.3, 2.0)(torch.zeros(600, dtype=torch.long), teacher, student).backward()
    assert student.grad is not None
    assert written == [student.grad.data_ptr()]


@pytest.mark.parametrize(
    "case", ["plain", "ignored", "weighted", "masked by both", "masked late", "label out of range"]
)
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon", "total_variation"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_one_sweep_matches_two(monkeypatch, case, divergence, dtype, reduction):
    require_backend("torch")
    import torch

    from lsmooth.backends import load_backend
    from lsmooth.backends.base import Backend
    from lsmooth.backends.torch import thresholds

    monkeypatch.setattr(thresholds, "SMALL_DIVERGENCE", 0)
    monkeypatch.setattr(thresholds, "DIVERGENCE_BLOCK_ELEMENTS", 140)
    rng = np.random.default_rng(0)
    teacher, student = (torch.from_numpy(rng.normal(size=(50, 20))).to(getattr(torch, dtype)) for _ in range(2))
    labels = torch.from_numpy(rng.integers(0, 19, 50))
    weight = None
    if case == "ignored":
        labels[::3], student[::3] = -100, torch.nan
    elif case == "weighted":
        weight = torch.linspace(0.5, 2.0, 50)
    elif case == "masked by both":
        teacher[:, 19] = student[:, 19] = -torch.inf
    elif case == "masked late":
        teacher[40:, 19] = -torch.inf
    elif case == "label out of range":
        labels[7] = 20
    loss = DistillationLoss(0.3, 2.0, divergence=divergence, ignore_index=-100, reduction=reduction)

    def both():
        z = student.clone().requires_grad_()
        rows = loss(labels, teacher, z, sample_weight=weight)
        return rows.detach(), torch.autograd.grad((rows * torch.linspace(1.0, 2.0, rows.numel())).sum(), z)[0]

    actual = both()
    torch_backend = type(load_backend("torch"))
    monkeypatch.setattr(torch_backend, "hard_and_soft", Backend.hard_and_soft)
    close = {"float64": {"rtol": 1e-11, "atol": 1e-13}, "float32": {}, "bfloat16": {"rtol": 2**-6, "atol": 2**-9}}[
        dtype
    ]
    torch.testing.assert_close(actual, both(), equal_nan=True, **close)


def test_derivatives_of_one_sweep(monkeypatch):
    require_backend("torch")
    import torch

    from lsmooth.backends.torch import thresholds

    monkeypatch.setattr(thresholds, "SMALL_DIVERGENCE", 0)
    teacher, student = (torch.from_numpy(z) for z in (TEACHER, STUDENT))
    loss = DistillationLoss(0.3, 2.0, label_smoothing=0.1)
    labels = torch.tensor(LABELS)
    assert torch.autograd.gradcheck(lambda z: loss(labels, teacher, z), student.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda z: loss(labels, teacher, z), student)
    value = loss(labels, teacher, student)
    first, second = (torch.autograd.grad(value, student, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    with torch.no_grad():
        torch.testing.assert_close(loss(labels, teacher, student), value.detach())
