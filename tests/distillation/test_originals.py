"""Distillation losses match torchdistill and Liger-Kernel."""

from __future__ import annotations

import math

import pytest

from lsmooth import distillation

torch = pytest.importorskip("torch", reason="torch is not installed")


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(ours, originals, student):
    """Value and gradient of two losses of the same student."""
    torch.testing.assert_close(ours, originals, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (ours, originals)), rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def torchdistill():
    return pytest.importorskip("torchdistill.losses.mid_level", reason="torchdistill is not installed")


@pytest.fixture
def logits():
    """A teacher's, a student's, and labels."""
    return drawn(6, 5), drawn(6, 5, seed=1).requires_grad_(), torch.tensor([0, 4, 2, 3, 1, 3])


@pytest.fixture
def maps():
    """A teacher's and a student's feature maps, channels on axis 1."""
    return drawn(4, 6, 3, 3), drawn(4, 6, 3, 3, seed=1).requires_grad_()


def inside(x):
    """The outputs of layers in the form that torchdistill reads."""
    return {"layer": {"output": x}}


PATHS = {"student_output_path": "layer", "teacher_output_path": "layer"}
OF_LOGITS = {
    f"{who}_module_{what}": name
    for who in ("student", "teacher")
    for what, name in (("path", "layer"), ("io", "output"))
}


def test_torchdistill_kd_weights_the_labels_by_alpha(torchdistill, logits):
    teacher, student, labels = logits
    theirs = torchdistill.KDLoss(**OF_LOGITS, temperature=4.0, alpha=0.3)(inside(student), inside(teacher), labels)
    check(distillation.DistillationLoss(0.7, 4.0)(labels, teacher, student), theirs, student)


def test_torchdistill_kd_without_labels_omits_the_squared_temperature(torchdistill, logits):
    teacher, student, _ = logits
    theirs = torchdistill.KDLoss(**OF_LOGITS, temperature=4.0, alpha=0.0)(inside(student), inside(teacher))
    options = {"temperature": 4.0, "scale_by_temperature_squared": False}
    check(distillation.distillation_loss(teacher, student, **options), theirs, student)


def test_torchdistill_standardises_with_the_classes_less_one(torchdistill, logits):
    teacher, student, labels = logits
    theirs = torchdistill.LogitStdKDLoss(**OF_LOGITS, temperature=2.0, alpha=0.3, eps=0.0)
    hard = torch.nn.functional.cross_entropy(student, labels)
    soft = distillation.standardized_distillation_loss(teacher, student, temperature=2.0 * math.sqrt(5 / 4))
    # T is higher by sqrt(K / (K - 1)) here, so that its square is taken out of ours.
    check(0.3 * hard + 0.7 * soft / (5 / 4), theirs(inside(student), inside(teacher), labels), student)


def test_torchdistill_attention_transfer(torchdistill, maps):
    teacher, student = maps
    where = {"io": "output", "path": "layer"}
    theirs = torchdistill.ATLoss({"pair": {"teacher": where, "student": where}}, mode="code")
    ours = distillation.attention_transfer_loss(teacher, student, axis=1)
    check(ours, theirs(inside(student), inside(teacher)), student)


def test_torchdistill_similarity_preserving_matches_up_to_the_norm(torchdistill, maps, monkeypatch):
    teacher, student = maps
    loss = torchdistill.SPKDLoss(**PATHS, reduction="batchmean")
    ours, theirs = distillation.similarity_preserving_loss(teacher, student), loss(inside(student), inside(teacher))
    # Its ``normalize(gram, 1)`` says p=1 where the paper's norm is Euclidean, and dim=1 may have been meant.
    assert theirs < 0.7 * ours
    monkeypatch.setattr(torchdistill, "normalize", lambda gram, _: torch.nn.functional.normalize(gram))
    check(ours, loss(inside(student), inside(teacher)), student)


def test_torchdistill_relational(torchdistill, maps):
    teacher, student = maps
    theirs = torchdistill.RKDLoss(**PATHS, dist_factor=1.0, angle_factor=2.0, reduction="mean")
    ours = distillation.relational_distance_loss(teacher, student) + 2.0 * distillation.relational_angle_loss(
        teacher, student
    )
    check(ours, theirs(inside(student), inside(teacher)), student)


@pytest.fixture(scope="module")
def liger():
    return pytest.importorskip("liger_kernel.chunked_loss.jsd_loss", reason="liger-kernel is not installed")


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
def test_liger_fused_jensen_shannon(liger, beta):
    names = {0.0: "forward_kl", 1.0: "reverse_kl"}
    teacher, student = drawn(10, 6), drawn(10, 4, seed=1).requires_grad_()
    teacher_weight, weight = drawn(7, 6, seed=2), drawn(7, 4, seed=3).requires_grad_()
    labels = torch.tensor([0, 6, 2, -100, 1, 3, 5, -100, 4, 4])
    theirs = liger.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.3, weight_soft_loss=0.7, beta=beta, temperature=2.0, compiled=False, chunk_size=4
    )
    ours = distillation.linear_distillation_loss(
        teacher,
        teacher_weight,
        student,
        weight,
        labels=labels,
        ignore_index=-100,
        alpha=0.7,
        temperature=2.0,
        divergence=names.get(beta, "jensen_shannon"),
        beta=0.5 if beta in names else beta,
        scale_by_temperature_squared=False,
    )
    value = theirs(student, weight, teacher, teacher_weight, labels)
    # Liger takes the hard part in float32.
    for found, expected in zip(
        (ours, *torch.autograd.grad(ours, (student, weight))),
        (value, *torch.autograd.grad(value, (student, weight))),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, check_dtype=False)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_jensen_shannon_loss_of_liger_matches_gkd(liger, beta):
    teacher, student = drawn(2, 5, 7), drawn(2, 5, 7, seed=1).requires_grad_()
    labels = torch.tensor([[0, 1, -100, 2, 3], [-100, -100, 4, 5, 6]])
    total = liger.LigerFusedLinearJSDFunction.distillation_loss_fn(
        student.reshape(10, 7), teacher.reshape(10, 7), beta, labels.reshape(10)
    )
    check(distillation.gkd_loss(teacher, student, beta=beta, labels=labels), total / 7, student)
