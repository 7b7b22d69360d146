"""lsmooth.integrations.torch.DistillationLoss: the student first, as everywhere in torch."""

from __future__ import annotations

import copy

import pytest

from lsmooth import distillation

torch = pytest.importorskip("torch", reason="torch is not installed")
F = torch.nn.functional
integration = pytest.importorskip("lsmooth.integrations.torch")
DistillationLoss = integration.DistillationLoss


@pytest.fixture
def batch():
    """A student's logits, a teacher's, and targets of which one is ignored."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher, torch.tensor([0, 4, 2, -100, 1, 3])


def test_the_loss_matches_the_torch_recipe(batch):
    student, teacher, target = batch
    loss = DistillationLoss(alpha=0.7, temperature=3.0, label_smoothing=0.1)(student, teacher, target)
    kept = target != -100
    soft = F.kl_div(
        F.log_softmax(student[kept] / 3, 1), F.log_softmax(teacher[kept] / 3, 1), reduction="batchmean", log_target=True
    )
    recipe = 0.3 * F.cross_entropy(student, target, label_smoothing=0.1) + 0.7 * 9 * soft
    torch.testing.assert_close(loss, recipe)
    torch.testing.assert_close(*(torch.autograd.grad(x, student)[0] for x in (loss, recipe)))


def test_only_the_student_gets_a_gradient(batch):
    student, teacher, target = batch
    teacher.requires_grad_()
    DistillationLoss()(student, teacher, target).backward()
    assert student.grad.any()
    assert teacher.grad is None or not teacher.grad.any()


@pytest.mark.parametrize(
    "options",
    [
        {"divergence": "jensen_shannon", "beta": 0.2, "label_smoothing": 0.1},
        {"divergence": "alpha", "divergence_alpha": 0.2, "reduction": "sum"},
        {"scale_by_temperature_squared": False, "reduction": "none"},
    ],
)
def test_every_option_of_the_class_is_one_of_the_module(batch, options):
    student, teacher, target = batch
    options |= {"alpha": 0.3, "temperature": 2.0}
    expected = distillation.DistillationLoss(**options, ignore_index=-100)(target, teacher, student)
    torch.testing.assert_close(DistillationLoss(**options)(student, teacher, target), expected)


def test_the_caller_chooses_the_ignored_class_and_the_class_axis(batch):
    student, teacher, target = batch[0].detach(), batch[1], batch[2].clamp(min=0)
    expected = distillation.DistillationLoss(ignore_index=4)(target, teacher, student)
    torch.testing.assert_close(DistillationLoss(ignore_index=4)(student, teacher, target), expected)
    expected = DistillationLoss()(student, teacher, target)
    torch.testing.assert_close(DistillationLoss(axis=0)(student.T, teacher.T, target), expected)
    images = student.T[None], teacher.T[None], target[None]
    torch.testing.assert_close(DistillationLoss()(*images), expected)
    torch.testing.assert_close(
        DistillationLoss()(student[0], teacher[0], target[0]), DistillationLoss()(student[:1], teacher[:1], target[:1])
    )


def test_distributions_as_targets_have_no_class_to_ignore(batch):
    student, teacher, _ = batch
    targets = torch.softmax(teacher.detach().flip(0), 1)
    expected = distillation.DistillationLoss()(targets, teacher, student)
    torch.testing.assert_close(DistillationLoss()(student, teacher, targets), expected)


def test_the_module_has_no_state_and_can_be_copied(batch):
    loss = DistillationLoss(alpha=0.9, temperature=4.0)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    assert repr(loss) == "DistillationLoss(alpha=0.9, temperature=4.0)"
    student, teacher, target = batch
    assert copy.deepcopy(loss)(student, teacher, target) == loss(student, teacher, target)


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon"])
def test_the_module_compiles_without_a_graph_break(batch, divergence):
    student, teacher, target = batch[0].detach().float().requires_grad_(), batch[1].float(), batch[2]
    loss = DistillationLoss(0.9, 2.0, divergence=divergence, label_smoothing=0.1)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values = [f(student, teacher, target) for f in (compiled, loss)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in values))


def test_a_bad_option_is_named_at_construction():
    with pytest.raises(ValueError, match="alpha must be in"):
        DistillationLoss(alpha=2.0)
    with pytest.raises(ValueError, match="divergence must be one of"):
        DistillationLoss(divergence="kl")
