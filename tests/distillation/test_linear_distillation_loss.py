"""Distillation of linear heads equals that of their logits: the number, and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend
from pair_parity import WEIGHTS, in_dtype

from lsmooth.distillation import DistillationLoss, distillation_loss, linear_distillation_loss

ROWS, CLASSES = 5, 4
LABELS = np.array([0, 3, 1, 1, 2])
# Options of the loss, and those of `DistillationLoss` that mean the same.
OPTIONS = {
    "hard and soft": {"labels": LABELS, "alpha": 0.7, "temperature": 2.0, "label_smoothing": 0.1},
    "half and half": {"labels": LABELS},
    "soft alone": {"alpha": 1.0, "temperature": 3.0},
    "hard alone": {"labels": LABELS, "alpha": 0.0, "label_smoothing": 0.2},
    "ignore_index": {"labels": LABELS, "ignore_index": 1, "label_smoothing": 0.1, "temperature": 2.0},
    "reverse_kl, T^2 off": {"divergence": "reverse_kl", "temperature": 2.0, "scale_by_temperature_squared": False},
    "caps and scales": {
        "labels": LABELS,
        "logit_softcap": 3.0,
        "teacher_logit_softcap": 2.0,
        "logit_scale": 0.5,
        "teacher_logit_scale": 1.5,
    },
    "skewed, capped": {"divergence": "skewed_reverse_kl", "teacher_logit_softcap": 2.0, "temperature": 2.0},
    "jensen_shannon": {"labels": LABELS, "divergence": "jensen_shannon", "beta": 0.3, "alpha": 0.9},
}


def heads(seed=0, teacher_features=3, student_features=2):
    rng = np.random.default_rng(seed)
    shapes = [(ROWS, teacher_features), (CLASSES, teacher_features), (ROWS, student_features)]
    shapes += [(CLASSES, student_features), (CLASSES,), (CLASSES,)]
    return [rng.normal(size=shape).astype(np.float32).astype(np.float64) for shape in shapes]


def unfused(arrays, backend, reduction="mean", sample_weight=None, **options):
    """The loss of the logits, which other tests hold to its formula."""
    th, tw, sh, sw, tb, sb = arrays
    labels = options.pop("labels", None)
    alpha = options.pop("alpha", 0.5 if labels is not None else 1.0)
    cap, teacher_cap = (options.pop(f"{name}logit_softcap", None) for name in ("", "teacher_"))
    scale, teacher_scale = (options.pop(f"{name}logit_scale", 1.0) for name in ("", "teacher_"))
    loss = DistillationLoss(alpha, options.pop("temperature", 1.0), reduction=reduction, **options)
    teacher, student = (h @ backend.moveaxis(w, 0, 1) + b for h, w, b in ((th, tw, tb), (sh, sw, sb)))
    teacher, student = teacher * teacher_scale, student * scale
    teacher = teacher if teacher_cap is None else teacher_cap * backend.tanh(teacher / teacher_cap)
    student = student if cap is None else cap * backend.tanh(student / cap)
    labels = np.zeros(ROWS, int) if labels is None else labels
    return loss(labels, teacher, student, sample_weight=sample_weight)


def fused(arrays, backend, **options):
    *given, teacher_bias, student_bias = arrays
    return linear_distillation_loss(
        *given, teacher_bias=teacher_bias, student_bias=student_bias, block_size=2, **options
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_values_and_gradients(backend, options, reduction):
    options = options | {"reduction": reduction, "sample_weight": WEIGHTS}
    arrays = [backend.asarray(x) for x in heads()]
    expected = backend.to_numpy(unfused(arrays, backend, **options))
    assert_close(backend, fused(arrays, backend, **options), expected, "float64", 8.0)
    if backend.name == "numpy":
        return
    for i in (2, 3, 5):  # the student's

        def at(x, i=i):
            return [*arrays[:i], x, *arrays[i + 1 :]]

        slopes = [
            backend.value_and_grad(lambda x, f=f: backend.sum(f(at(x), backend, **options)), arrays[i])[1]
            for f in (fused, unfused)
        ]
        assert_close(backend, slopes[0], backend.to_numpy(slopes[1]), "float64", 8.0)


def test_the_teacher_gets_a_gradient_where_it_is_asked_for(differentiable_backend):
    backend = differentiable_backend
    arrays = [backend.asarray(x) for x in heads(1)]

    def loss(teacher, student, stop):
        given = [arrays[0], teacher, arrays[2], student, *arrays[4:]]
        return fused(given, backend, divergence="reverse_kl", stop_teacher_gradient=stop)

    def swapped(teacher, student):
        given = [arrays[2], student, arrays[0], teacher, arrays[5], arrays[4]]
        return fused(given, backend, divergence="forward_kl")

    teacher, student = arrays[1], arrays[3]
    _, slope = backend.value_and_grad(lambda w: loss(w, student, False), teacher)
    _, expected = backend.value_and_grad(lambda w: swapped(w, student), teacher)
    assert_close(backend, slope, backend.to_numpy(expected), "float64", 8.0)
    if backend.name == "jax":
        _, still = backend.value_and_grad(lambda w: loss(w, student, True), teacher)
        assert not np.any(backend.to_numpy(still))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes(backend, dtype):
    arrays = [in_dtype(backend, x, dtype) for x in heads(2)]
    exact = [backend.asarray(backend.to_numpy(x).astype(np.float64)) for x in arrays]
    value = fused(arrays, backend, labels=LABELS, temperature=2.0)
    assert backend.dtype(value) == "float32"
    assert_close(backend, value, backend.to_numpy(unfused(exact, backend, labels=LABELS, temperature=2.0)), dtype, 16.0)


def test_temperature_and_smoothing_per_row_and_a_mask(backend):
    arrays = [backend.asarray(x) for x in heads(3)]
    temperature, eps, mask = np.linspace(0.5, 2.0, ROWS), np.linspace(0.0, 1.0, ROWS), LABELS != 3
    options = {"labels": LABELS, "temperature": temperature, "label_smoothing": eps}
    value = backend.to_numpy(fused(arrays, backend, **options, mask=mask, reduction="none"))
    for i in range(ROWS):
        row = [x[i : i + 1] if j in (0, 2) else x for j, x in enumerate(arrays)]
        alone = fused(row, backend, labels=LABELS[i : i + 1], temperature=temperature[i], label_smoothing=eps[i])
        np.testing.assert_allclose(value[i], backend.to_numpy(alone) * mask[i], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "alpha must be 1 without labels"),
        ({"student_weight": np.zeros((3, 2))}, "teacher_weight must have as many classes"),
        ({"teacher_hidden": np.zeros((2, 3))}, "teacher_hidden must fit student_hidden"),
        ({"student_bias": np.zeros(2)}, r"student_bias must have shape \(4,\)"),
    ],
)
def test_arguments_of_the_wrong_shape_are_named(backend, options, message):
    names = ("teacher_hidden", "teacher_weight", "student_hidden", "student_weight")
    given = dict(zip(names, heads(), strict=False)) | options
    given = {name: backend.asarray(x) if isinstance(x, np.ndarray) else x for name, x in given.items()}
    with pytest.raises(ValueError, match=message):
        linear_distillation_loss(**given)


def test_torch_computes_no_gradient_for_a_constant_teacher():
    require_backend("torch")
    import torch

    arrays = [torch.from_numpy(x).requires_grad_() for x in heads()]
    fused(arrays, None, labels=torch.from_numpy(LABELS)).backward()
    assert [x.grad is None for x in arrays] == [True, True, False, False, True, False]


# PyTorch: the gradient written over the student's logits.

MANY = (70, 3000)


def wide_heads(dtype):
    import torch

    # Total variation's gradient jumps where teacher and student agree: here no two of them are closer than 5e-5.
    rng = np.random.default_rng(32)
    shapes = [(MANY[0], 6), (MANY[1], 6), (MANY[0], 4), (MANY[1], 4), (MANY[1],), (MANY[1],)]
    return [torch.from_numpy(rng.normal(size=shape)).to(dtype).requires_grad_() for shape in shapes]


def whole(arrays, options):
    th, tw, sh, sw, tb, sb = (x.double() for x in arrays)
    teacher, student = (h @ w.T + b for h, w, b in ((th.detach(), tw.detach(), tb.detach()), (sh, sw, sb)))
    return distillation_loss(teacher, student, **options)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon", "total_variation"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-5)])
def test_torch_writes_the_gradient_over_the_student_logits(monkeypatch, divergence, reduction, dtype, tolerance):
    require_backend("torch")
    import torch

    def never(*args):
        raise AssertionError("a gradient of its own")

    arrays = wide_heads(getattr(torch, dtype))
    students = [arrays[i] for i in (2, 3, 5)]
    options = {"divergence": divergence, "temperature": 2.0, "reduction": reduction}
    theirs = whole(arrays, options)
    upstream = torch.linspace(-1.0, 2.0, MANY[0]).to(theirs) if theirs.ndim else torch.tensor(1.0).to(theirs)
    expected = torch.autograd.grad(theirs, students, upstream)
    monkeypatch.setattr("lsmooth.backends.torch.cpu.divergence.empty_like", never)
    *given, tb, sb = arrays
    ours = linear_distillation_loss(*given, teacher_bias=tb, student_bias=sb, block_size=30, **options)
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
    for a, b in zip(torch.autograd.grad(ours, students, upstream.to(ours)), expected, strict=True):
        assert (a.double() - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("who", ["a class both mask", "a class out of all proportion"])
def test_torch_recomputes_logits_that_it_overwrote(who):
    require_backend("torch")
    import torch

    arrays = wide_heads(torch.float64)
    with torch.no_grad():
        if who == "a class both mask":
            arrays[4][7] = arrays[5][7] = -torch.inf
        else:
            arrays[4][2000] += 2000.0
            arrays[5][2500] += 1500.0
    students = [arrays[i] for i in (2, 3, 5)]
    options = {"temperature": 2.0, "reduction": "sum"}
    theirs = whole(arrays, options)
    *given, tb, sb = arrays
    ours = linear_distillation_loss(*given, teacher_bias=tb, student_bias=sb, block_size=30, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    found, expected = (torch.autograd.grad(x, students) for x in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
