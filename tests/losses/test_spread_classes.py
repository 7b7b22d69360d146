"""Losses of members that hold slices of the classes, or of the rows, against the loss of all in one place."""

from itertools import pairwise

import numpy as np
import pytest
from conftest import require_backend
from members_in_threads import Exchange

from lsmooth import losses
from lsmooth.distillation import distillation_loss, linear_distillation_loss

RNG = np.random.default_rng(0)
SIZES = (5, 3, 7, 1)
CLASSES, ROWS, FEATURES = sum(SIZES), 6, 4
ENDS = np.cumsum((0, *SIZES))
SLICES = [slice(*ends) for ends in pairwise(ENDS)]

LOGITS = RNG.normal(0.0, 3.0, (ROWS, CLASSES)) + 1e4  # an offset that sums of products would lose digits to
LOGITS[:, [2, 9]] = -np.inf
LOGITS[0, SLICES[0]] = -np.inf  # a slice without a class
EVERY = np.where(np.isfinite(LOGITS), LOGITS, 1e4)  # without a masked class
IDS = np.array([9 - 1, 0, -100, 15, 5, 12])
SOFT = RNG.dirichlet(np.ones(CLASSES), ROWS) * np.isfinite(LOGITS)
HIDDEN, WEIGHT, BIAS = RNG.normal(size=(ROWS, FEATURES)), RNG.normal(size=(CLASSES, FEATURES)), RNG.normal(size=CLASSES)
BIAS[[2, 9]] = -np.inf
TEMPERATURES = np.linspace(0.5, 2.0, ROWS)
PER_CLASS = ("smoothing_prior", "class_weight")
OPTIONS = {
    "plain": {},
    "eps": {"label_smoothing": 0.1},
    "eps of rows": {"label_smoothing": np.linspace(0.0, 1.0, ROWS), "reduction": "none"},
    "prior and weights": {
        "label_smoothing": 0.2,
        "smoothing_prior": RNG.random(CLASSES),
        "class_weight": RNG.random(CLASSES),
        "z_loss": 1e-3,
    },
    "weights": {"class_weight": RNG.random(CLASSES), "reduction": "sum"},
    "soft-cap and T": {"logit_softcap": 1.5e4, "temperature": 2.5, "label_smoothing": 0.1},
    "padding": {"num_classes": 13, "label_smoothing": 0.1, "reduction": "none"},
    "weights of rows": {"sample_weight": RNG.random(ROWS), "reduction": "mean_with_sample_weight"},
    "T of rows": {"temperature": TEMPERATURES, "label_smoothing": 0.1, "smoothing_prior": RNG.random(CLASSES)},
    "mask": {"mask": np.array([True, False, True, True, True, False]), "temperature": 0.5},
}


@pytest.fixture(params=["numpy", "torch"])
def xp(request, monkeypatch):
    backend = require_backend(request.param)
    monkeypatch.setattr(type(backend), "members", lambda self, group, option: group)
    return backend


@pytest.fixture
def torch_members(monkeypatch):
    """PyTorch, with threads as members."""
    monkeypatch.setattr(type(require_backend("torch")), "members", lambda self, group, option: group)
    return pytest.importorskip("torch")


def tensors(xp, *arrays, wanted=()):
    """Tensors of the arrays; of those wanted, the gradient is."""
    made = [None if x is None else xp.asarray(np.array(x)) for x in arrays]
    for i in wanted if xp.name == "torch" else ():
        made[i].requires_grad_()
    return made


def of_slice(options, part):
    """The options of a member: arrays along classes are cut."""
    return {name: x[part] if name in PER_CLASS else x for name, x in options.items()}


def gradients(xp, loss, *arrays):
    if xp.name != "torch":
        return []
    loss.sum().backward()
    return [x.grad.numpy() for x in arrays]


def value(x):
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


def close(actual, expected):
    np.testing.assert_allclose(value(actual), value(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("logits", [LOGITS, EVERY], ids=["masked", "every class"])
@pytest.mark.parametrize("name", OPTIONS)
def test_slices_of_the_classes_give_the_loss_of_all_and_their_own_gradient(xp, name, logits, labels):
    options = dict(OPTIONS[name])
    soft = labels.ndim == 2
    if not soft:
        options["ignore_index"] = -100
    count = options.get("num_classes")
    t, z = tensors(xp, labels, logits, wanted=[1])
    whole = losses.softmax_cross_entropy(t[:, :count] if soft else t, z, **options)
    expected = gradients(xp, whole, z)

    def member(members):
        part = SLICES[members.index]
        t, z = tensors(xp, labels[:, part] if soft else labels, logits[:, part], wanted=[1])
        loss = losses.softmax_cross_entropy(t, z, class_shards=members, **of_slice(options, part))
        return loss, gradients(xp, loss, z)

    exchange = Exchange(len(SIZES), SIZES)
    found = exchange.together(member)
    for loss, _ in found:
        close(loss, whole)
    if expected:
        close(np.concatenate([g[0] for _, g in found], -1), expected[0])
    # Two exchanges of at most four numbers per row; distributions with smoothing take up to two more.
    assert [kind for kind, _ in exchange.calls] == ["max", "sum"]
    assert all(shape[-1] <= (6 if soft else 4) for _, shape in exchange.calls)


@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("bias", [BIAS, np.nan_to_num(BIAS, neginf=0.0)], ids=["masked", "every class"])
@pytest.mark.parametrize("name", [x for x in OPTIONS if x != "soft-cap and T"])
def test_slices_of_a_linear_head_give_its_loss_and_gradients(xp, name, bias, labels):
    options = dict(OPTIONS[name])
    soft = labels.ndim == 2
    if not soft:
        options["ignore_index"] = -100
    count = options.get("num_classes")
    t, *arrays = tensors(xp, labels, HIDDEN, WEIGHT, bias, wanted=[1, 2, 3])
    whole = losses.linear_softmax_cross_entropy(t[:, :count] if soft else t, *arrays, **options)
    expected = gradients(xp, whole, *arrays)

    def member(members):
        part = SLICES[members.index]
        t, *arrays = tensors(
            xp, labels[:, part] if soft else labels, HIDDEN, WEIGHT[part], bias[part], wanted=[1, 2, 3]
        )
        given = of_slice(options, part)
        loss = losses.linear_softmax_cross_entropy(t, *arrays, class_shards=members, block_size=2, **given)
        return loss, gradients(xp, loss, *arrays)

    found = Exchange(len(SIZES), SIZES).together(member)
    for loss, _ in found:
        close(loss, whole)
    if expected:
        for _, (hidden, *_rest) in found:
            close(hidden, expected[0])
        for i in (1, 2):
            close(np.concatenate([g[i] for _, g in found]), expected[i])


@pytest.mark.parametrize("labels", [IDS, SOFT], ids=["class ids", "distributions"])
@pytest.mark.parametrize("options", [{}, {"logit_softcap": 1.0}, {"temperature": 0.5}, {"num_classes": 13}])
def test_slices_give_the_statistics_of_all(xp, options, labels):
    soft, count = labels.ndim == 2, options.get("num_classes")
    logits = np.round(LOGITS - 1e4) if "logit_softcap" in options else LOGITS  # with ties over the members
    t, z = tensors(xp, labels, logits)
    whole = losses.softmax_statistics(t[:, :count] if soft else t, z, **options)

    def member(members):
        part = SLICES[members.index]
        t, z = tensors(xp, labels[:, part] if soft else labels, logits[:, part])
        return losses.softmax_statistics(t, z, class_shards=members, **options)

    for found in Exchange(len(SIZES), SIZES).together(member):
        for actual, expected in zip(found, whole, strict=True):
            assert xp.dtype(actual) == xp.dtype(expected)
            close(actual, expected)


DIVERGENCES = ["forward_kl", "reverse_kl", "jensen_shannon", "skewed_forward_kl", "skewed_reverse_kl"]
DIVERGENCES += ["total_variation", "alpha", "mse_logits", "cosine"]
TEACHER = np.where(np.isfinite(LOGITS), RNG.normal(0.0, 2.0, LOGITS.shape) - 1e3, -np.inf)
STUDENT = np.where(np.isfinite(LOGITS), RNG.normal(0.0, 2.0, LOGITS.shape), -np.inf)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("student", [STUDENT, np.nan_to_num(STUDENT, neginf=0.5)], ids=["masked", "every class"])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 2.0, "labels": IDS, "ignore_index": -100},
        {"temperature": TEMPERATURES, "reduction": "none", "logit_softcap": 9.0, "num_classes": 13},
    ],
    ids=["T", "T of rows"],
)
def test_slices_of_teacher_and_student_give_their_divergence(xp, divergence, student, options):
    options = {**options, "divergence": divergence, "stop_teacher_gradient": False}
    teacher = TEACHER if np.isinf(student).any() else np.nan_to_num(TEACHER, neginf=-1e3)
    t, s = tensors(xp, teacher, student, wanted=[0, 1])
    whole = distillation_loss(t, s, **options)
    expected = gradients(xp, whole, t, s)

    def member(members):
        part = SLICES[members.index]
        t, s = tensors(xp, teacher[:, part], student[:, part], wanted=[0, 1])
        loss = distillation_loss(t, s, class_shards=members, **options)
        return loss, gradients(xp, loss, t, s)

    exchange = Exchange(len(SIZES), SIZES)
    found = exchange.together(member)
    for loss, _ in found:
        close(loss, whole)
    for i in range(len(expected)):
        close(np.concatenate([g[i] for _, g in found], -1), expected[i])
    # The gradient of a divergence that mixes both softmaxes needs exchanges too.
    staged = divergence in ("jensen_shannon", "skewed_forward_kl", "skewed_reverse_kl", "total_variation")
    assert staged or len(exchange.calls) <= 2


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon", "mse_logits"])
def test_slices_of_two_linear_heads_give_both_parts_of_their_loss(xp, divergence):
    options = {"labels": IDS, "ignore_index": -100, "alpha": 0.6, "temperature": 2.0, "label_smoothing": 0.1}
    options |= {"divergence": divergence}
    weights = [RNG.normal(size=(CLASSES, FEATURES)) for _ in range(2)]
    arrays = tensors(xp, HIDDEN, weights[0], HIDDEN[::-1], weights[1], wanted=[2, 3])
    whole = linear_distillation_loss(*arrays, **options)
    expected = gradients(xp, whole, *arrays[2:])

    def member(members):
        part = SLICES[members.index]
        cut = [x[part] for x in weights]
        arrays = tensors(xp, HIDDEN, cut[0], HIDDEN[::-1], cut[1], wanted=[2, 3])
        loss = linear_distillation_loss(*arrays, class_shards=members, block_size=4, **options)
        return loss, gradients(xp, loss, *arrays[2:])

    found = Exchange(len(SIZES), SIZES).together(member)
    for loss, _ in found:
        close(loss, whole)
    if expected:
        close(found[1][1][0], expected[0])
        close(np.concatenate([g[1] for _, g in found]), expected[1])


@pytest.mark.parametrize("temperature", [2.0, TEMPERATURES], ids=["T", "T of rows"])
def test_a_frozen_teacher_gives_the_same(xp, temperature):
    teacher, student = np.nan_to_num(TEACHER, neginf=-1e3), np.nan_to_num(STUDENT, neginf=0.5)
    options = {"temperature": temperature, "labels": IDS, "ignore_index": -100}
    t, s = tensors(xp, teacher, student, wanted=[1])
    whole = distillation_loss(t, s, **options)
    expected = gradients(xp, whole, s)

    def member(members):
        part = SLICES[members.index]
        t, s = tensors(xp, teacher[:, part], student[:, part], wanted=[1])
        loss = distillation_loss(t, s, class_shards=members, **options)
        return loss, gradients(xp, loss, s)

    found = Exchange(len(SIZES), SIZES).together(member)
    for loss, _ in found:
        close(loss, whole)
    if expected:
        close(np.concatenate([g[0] for _, g in found], -1), expected[0])


def of_one(loss, logits):
    """A call of one member, who has all classes."""
    return Exchange(1, (CLASSES,)).together(lambda members: loss(members, logits))[0]


ALONE = {
    "cross-entropy": lambda members, z: losses.softmax_cross_entropy(
        torch_ids(), z, label_smoothing=0.1, ignore_index=-100, class_shards=members
    ),
    "forward_kl": lambda members, z: distillation_loss(
        z.detach() * 0.5, z, labels=torch_ids(), ignore_index=-100, temperature=2.0, class_shards=members
    ),
}


def torch_ids():
    import torch

    return torch.tensor(IDS)


@pytest.mark.parametrize("name", ALONE)
def test_a_gradient_can_be_taken_twice_and_differentiated(torch_members, name):
    torch = torch_members
    z = torch.tensor(EVERY - 1e4, requires_grad=True)
    loss = of_one(ALONE[name], z)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (again,) = torch.autograd.grad(loss, z, retain_graph=True)
    close(again, kept)
    (differentiable,) = torch.autograd.grad(loss, z, create_graph=True)
    close(differentiable, kept)
    whole = ALONE[name](None, z)
    (expected,) = torch.autograd.grad(whole, z, create_graph=True)
    weights = torch.linspace(-1.0, 1.0, z.numel(), dtype=torch.float64).reshape(z.shape)
    second = [torch.autograd.grad((g * weights).sum(), z)[0] for g in (differentiable, expected)]
    close(*second)


@pytest.mark.parametrize("name", ALONE)
def test_values_of_ignored_rows_do_not_affect_gradients(torch_members, name):
    torch = torch_members
    z = torch.tensor(EVERY - 1e4)
    z[IDS == -100] = torch.nan
    z.requires_grad_()
    loss = of_one(ALONE[name], z)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    assert not z.grad[IDS == -100].any()


def test_frameworks_without_members_raise_an_error():
    with pytest.raises(ValueError, match="class_shards needs arrays of PyTorch, JAX or TensorFlow"):
        losses.softmax_cross_entropy(IDS[:2], LOGITS[:2], class_shards="classes")
    with pytest.raises(ValueError, match="row_shards needs arrays"):
        distillation_loss(TEACHER, STUDENT, row_shards="rows")
