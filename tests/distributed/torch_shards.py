"""Run by test_torch_shards.py, once a process: losses of this member's slice, compared with those of whole arrays.

Prints the error of each case, and the collectives of its call after the first.
"""

import functools
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch_process import Traffic, arguments, error, meet, part

from lsmooth.compat.megatron import vocab_parallel_cross_entropy
from lsmooth.distillation import DistillationLoss, distillation_loss, linear_distillation_loss
from lsmooth.integrations import torch as modules
from lsmooth.losses import (
    linear_softmax_cross_entropy,
    linear_softmax_cross_entropy_with_statistics,
    linear_softmax_statistics,
    softmax_cross_entropy,
    softmax_cross_entropy_with_statistics,
    softmax_statistics,
)

ROWS, CLASSES, FEATURES = 10, 16, 3
SLICES = {1: (16,), 2: (9, 7), 4: (5, 3, 7, 1)}
ROWS_OF = {1: (10,), 2: (7, 3), 4: (4, 1, 3, 2)}

meet()
torch.manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


class Array(NamedTuple):
    """An array, and where its rows and its classes lie."""

    whole: Any
    rows: int | None = None
    classes: int | None = None
    trained: bool = True


masked = normal(ROWS, CLASSES)
masked[:, 3] = masked[1, 5:12] = -torch.inf
ARRAYS = {
    "labels": Array(torch.tensor([0, 15, 7, 3, 8, 5, 3, 12, 0, 14]), 0, trained=False),
    "soft": Array(normal(ROWS, CLASSES).softmax(-1), 0, 1),
    "logits": Array(3.0 * normal(ROWS, CLASSES), 0, 1),
    "large": Array(3.0 * normal(ROWS, CLASSES) + 1e5, 0, 1),
    "masked": Array(masked, 0, 1),
    "front": Array(normal(CLASSES, ROWS), 1, 0),
    "cubes": Array(normal(ROWS, CLASSES, 2), 0, 1),
    "cube_labels": Array(torch.arange(20).view(ROWS, 2) % CLASSES, 0, trained=False),
    "teacher": Array(2.0 * normal(ROWS, CLASSES), 0, 1),
    "prior": Array(torch.rand(CLASSES, dtype=torch.float64) + 0.1, None, 0),
    "weight": Array(torch.rand(CLASSES, dtype=torch.float64) + 0.1, None, 0),
    "of_rows": Array(torch.rand(ROWS, dtype=torch.float64) + 0.5, 0),
    "eps": Array(torch.rand(ROWS, dtype=torch.float64), 0),
    "counted": Array(torch.arange(ROWS) % 3 > 0, 0, trained=False),
    "hidden": Array(normal(ROWS, FEATURES), 0),
    "head": Array(normal(CLASSES, FEATURES), None, 0),
    "bias": Array(normal(CLASSES), None, 0),
    "teacher_hidden": Array(normal(ROWS, FEATURES + 1), 0),
    "teacher_head": Array(normal(CLASSES, FEATURES + 1), None, 0),
}

# Each takes the arrays as attributes, and the options for shards.
ce, kd = softmax_cross_entropy, distillation_loss
linear_ce = linear_softmax_cross_entropy
CASES = {
    "plain": lambda a, **s: ce(a.labels, a.logits, **s),
    "smoothed": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.1, **s),
    "prior": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.2, smoothing_prior=a.prior, **s),
    "weight": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.2, class_weight=a.weight, **s),
    "weighted sum": lambda a, **s: ce(a.labels, a.logits, class_weight=a.weight, reduction="sum", **s),
    "all of classes": lambda a, **s: ce(
        a.labels, a.logits, label_smoothing=0.3, class_weight=a.weight, smoothing_prior=a.prior, z_loss=0.1, **s
    ),
    "temperature": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.1, temperature=2.5, **s),
    "temperatures": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.1, temperature=a.of_rows, **s),
    "smoothings": lambda a, **s: ce(a.labels, a.logits, label_smoothing=a.eps, **s),
    "soft-cap": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.1, logit_softcap=4.0, temperature=0.7, **s),
    "z-loss": lambda a, **s: ce(a.labels, a.logits, z_loss=0.3, temperature=0.7, **s),
    "large": lambda a, **s: ce(a.labels, a.large, label_smoothing=0.1, **s),
    "masked": lambda a, **s: ce(a.labels, a.masked, label_smoothing=0.1, ignore_index=3, mask=a.counted, **s),
    "masked, prior": lambda a, **s: ce(
        a.labels, a.masked, label_smoothing=0.1, ignore_index=3, smoothing_prior=a.prior, class_weight=a.weight, **s
    ),
    "ignored": lambda a, **s: ce(a.labels, a.logits, label_smoothing=0.1, ignore_index=0, **s),
    "mask": lambda a, **s: ce(a.soft, a.logits, label_smoothing=0.1, mask=a.counted, **s),
    "sample weights": lambda a, **s: ce(a.labels, a.logits, sample_weight=a.of_rows, class_weight=a.weight, **s),
    "padding": lambda a, **s: ce(a.labels % 11, a.logits, label_smoothing=0.1, num_classes=11, **s),
    "soft": lambda a, **s: ce(a.soft, a.logits, label_smoothing=0.1, **s),
    "soft, weight": lambda a, **s: ce(a.soft, a.logits, label_smoothing=0.1, class_weight=a.weight, **s),
    "front": lambda a, **s: ce(a.labels, a.front, label_smoothing=0.1, axis=0, **s),
    "cubes": lambda a, **s: ce(a.cube_labels, a.cubes, label_smoothing=0.1, axis=1, **s),
    **{
        f"reduction {name}": functools.partial(
            lambda a, reduction, **s: ce(
                a.labels,
                a.logits,
                label_smoothing=0.1,
                sample_weight=a.of_rows,
                mask=a.counted,
                reduction=reduction,
                **s,
            ),
            reduction=name,
        )
        for name in ("none", "sum", "mean", "sum_over_batch_size", "mean_with_sample_weight", "sum_by_nonzero_weights")
    },
    "Megatron": lambda a, class_shards=None, row_shards=None: vocab_parallel_cross_entropy(
        a.logits, a.labels, 0.1, tp_group=class_shards
    ),
    "Megatron, plain": lambda a, class_shards=None, row_shards=None: vocab_parallel_cross_entropy(
        a.large, a.labels, tp_group=class_shards
    ),
    "Megatron, far": lambda a, class_shards=None, row_shards=None: vocab_parallel_cross_entropy(
        a.logits, a.labels, 0.99, tp_group=class_shards
    ),
    "module": lambda a, **s: modules.CrossEntropyLoss(a.weight, label_smoothing=0.1, ignore_index=0, **s)(
        a.logits, a.labels
    ),
    "statistics": lambda a, class_shards=None, row_shards=None: softmax_statistics(
        a.labels, a.logits, temperature=a.of_rows, class_shards=class_shards
    ),
    "statistics, masked": lambda a, class_shards=None, row_shards=None: softmax_statistics(
        a.labels % 11, a.large, logit_softcap=9.0, num_classes=11, class_shards=class_shards
    ),
    "loss and statistics": lambda a, **s: softmax_cross_entropy_with_statistics(
        a.labels, a.logits, label_smoothing=0.1, ignore_index=0, **s
    ),
    "linear": lambda a, **s: linear_ce(a.labels, a.hidden, a.head, label_smoothing=0.1, block_size=3, **s),
    "linear, options": lambda a, **s: linear_ce(
        a.labels,
        a.hidden,
        a.head,
        a.bias,
        label_smoothing=0.1,
        smoothing_prior=a.prior,
        class_weight=a.weight,
        sample_weight=a.of_rows,
        temperature=a.of_rows,
        logit_softcap=5.0,
        z_loss=0.1,
        ignore_index=0,
        block_size=4,
        **s,
    ),
    "linear, padding": lambda a, **s: linear_ce(a.labels % 11, a.hidden, a.head, a.bias, num_classes=11, **s),
    "linear, soft": lambda a, **s: linear_ce(a.soft, a.hidden, a.head, label_smoothing=0.1, **s),
    "linear rows": lambda a, **s: linear_ce(a.labels, a.hidden, a.head, a.bias, reduction="none", **s),
    "linear statistics": lambda a, class_shards=None, row_shards=None: linear_softmax_statistics(
        a.labels, a.hidden, a.head, a.bias, class_shards=class_shards
    ),
    "linear loss and statistics": lambda a, **s: linear_softmax_cross_entropy_with_statistics(
        a.labels, a.hidden, a.head, a.bias, label_smoothing=0.1, ignore_index=0, **s
    ),
    **{
        f"distillation {name}": functools.partial(
            lambda a, kind, **s: kd(a.teacher, a.logits, temperature=2.0, divergence=kind, mask=a.counted, **s),
            kind=name,
        )
        for name in ("forward_kl", "reverse_kl", "jensen_shannon", "total_variation", "alpha", "mse_logits", "cosine")
    },
    "distillation at temperatures": lambda a, **s: kd(
        a.teacher, a.logits, temperature=a.of_rows, sample_weight=a.of_rows, **s
    ),
    "hard and soft": lambda a, **s: DistillationLoss(temperature=2.0, label_smoothing=0.1, ignore_index=0, **s)(
        a.labels, a.teacher, a.logits
    ),
    "linear distillation": lambda a, **s: linear_distillation_loss(
        a.teacher_hidden, a.teacher_head, a.hidden, a.head, student_bias=a.bias, temperature=2.0, block_size=4, **s
    ),
    "linear distillation, reverse": lambda a, **s: linear_distillation_loss(
        a.teacher_hidden, a.teacher_head, a.hidden, a.head, divergence="reverse_kl", mask=a.counted, **s
    ),
}


class Arrays:
    """The arrays of a member as attributes; which of them were used."""

    def __init__(self, cut):
        self.cut, self.used = cut, {}

    def __getattr__(self, name):
        if name not in self.used:
            array = ARRAYS[name]
            x = self.cut(array.whole, array)
            self.used[name] = x.detach().clone().requires_grad_(array.trained)
        return self.used[name]


def numbers(result):
    return [
        x for x in (result if isinstance(result, tuple) else (result,)) for x in (x if isinstance(x, tuple) else (x,))
    ]


def answers_and_gradients(case, arrays, **shards):
    """The results, the sum over them in some weights differentiated, and the gradient of each array."""
    results = numbers(case(arrays, **shards))
    trained = {name: x for name, x in arrays.used.items() if x.requires_grad}
    return results, trained


def total(results, offset):
    """One number that depends on every result, differently on each row from ``offset`` on."""
    value = 0.0
    for i, x in enumerate(results):
        if x.is_floating_point() and x.requires_grad:
            rows = torch.arange(len(x), dtype=x.dtype) + offset if x.ndim else torch.zeros((), dtype=x.dtype)
            factor = (rows + i + 1.0).cos().view(-1, *[1] * (x.ndim - 1)) if x.ndim else torch.cos(rows + i + 1.0)
            value = value + (factor * x).sum()
    return value


def gradients(results, trained, offset):
    found = torch.autograd.grad(total(results, offset), list(trained.values()), allow_unused=True)
    return {name: x for name, x in zip(trained, found, strict=True) if x is not None}


def compare(name, case, class_group, row_group):
    """The errors of results and gradients of a case, and the communication of its second call."""

    def place(group, sizes):
        index = (
            0
            if group is None
            else dist.get_rank(group)
            if isinstance(group, dist.ProcessGroup)
            else group.get_local_rank()
        )
        count = 1 if group is None else group.size()
        start = sum(sizes[count][:index])
        return slice(start, start + sizes[count][index])

    classes, rows = place(class_group, SLICES), place(row_group, ROWS_OF)

    def cut(x, array):
        for axis, here in ((array.rows, rows), (array.classes, classes)):
            x = x if axis is None else x.movedim(axis, 0)[here].movedim(0, axis)
        return x

    shards = {"class_shards": class_group, "row_shards": row_group}
    shards = {key: value for key, value in shards.items() if value is not None}
    whole, mine = Arrays(lambda x, array: x), Arrays(cut)
    expected, of_whole = answers_and_gradients(case, whole)
    case(mine, **shards)
    with Traffic() as traffic:
        results, of_mine = answers_and_gradients(case, mine, **shards)
    with Traffic() as backward:
        ours = gradients(results, of_mine, rows.start)
    theirs = gradients(expected, of_whole, 0)
    worst = error(results, [x[rows] if x.ndim else x for x in expected])
    if isinstance(worst, str) or ours.keys() != theirs.keys():
        return [name, f"{worst} {ours.keys() ^ theirs.keys()}", [], []]
    for key in sorted(ours):
        array, gradient = ARRAYS[key], ours[key].contiguous()
        # Each member has a part of the gradient of replicated arrays; the parts add up.
        if row_group is not None and array.rows is None:
            dist.all_reduce(
                gradient, group=row_group if isinstance(row_group, dist.ProcessGroup) else row_group.get_group()
            )
        wrong = error([gradient], [cut(theirs[key], array)])
        name = f"{name} ({key})" if wrong > max(worst, 1e-12) else name
        worst = max(worst, wrong)
    return [name, worst, traffic.calls, backward.calls]


world = dist.group.WORLD
if arguments[0] == "classes":
    groups = (world, None)
elif arguments[0] == "rows":
    groups = (None, world)
else:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "classes"))
    groups = (mesh["classes"], mesh["rows"])
found = []
for name, case in CASES.items():
    try:
        found.append(compare(name, case, *groups))
    except (TypeError, ValueError, RuntimeError) as problem:
        found.append([name, repr(problem), [], []])
part(found)
