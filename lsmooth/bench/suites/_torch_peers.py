"""Losses of PyTorch's other than the cross-entropy, each beside its formula in PyTorch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lsmooth import distillation, losses

Step = Callable[[Any, Any, Any], Any]
"""``step(logits, labels, extra)``."""

KEPT = 64  # classes of a top-k teacher
TEMPERATURE = 2.0


def answers(shape: tuple[int, ...]) -> np.ndarray:
    """Binary labels, three in ten of them 1."""
    return (np.random.default_rng(3).random(shape) < 0.3).astype(np.float32)


def normal(shape: tuple[int, ...]) -> np.ndarray:
    """Another tensor of the logits' shape: a teacher's logits."""
    return np.random.default_rng(4).standard_normal(shape, np.float32)


def head(shape: tuple[int, ...]) -> np.ndarray:
    """The weight of a linear layer of 32000 classes, or of fewer where there are few features."""
    return np.random.default_rng(4).standard_normal((min(32000, 64 * shape[1]), shape[1]), np.float32) / shape[1] ** 0.5


def focal() -> tuple[Step, Step]:
    """``torchvision.ops.sigmoid_focal_loss``, written out."""
    from torch import sigmoid
    from torch.nn.functional import binary_cross_entropy_with_logits

    def peer(z: Any, _: Any, t: Any) -> Any:
        p, cost = sigmoid(z), binary_cross_entropy_with_logits(z, t, reduction="none")
        error = 1 - (p * t + (1 - p) * (1 - t))
        return ((0.25 * t + 0.75 * (1 - t)) * cost * error**2).mean()

    return lambda z, _, t: losses.sigmoid_focal_loss(t, z, alpha=0.25), peer


def pos_weight() -> tuple[Step, Step]:
    """One weight a class, where the classes are followed by the axes of an image."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    def weight(z: Any) -> Any:
        return z.new_full((z.shape[1], 1, 1), 2.0)

    return (
        lambda z, _, t: losses.sigmoid_cross_entropy(t, z, pos_weight=weight(z)),
        lambda z, _, t: binary_cross_entropy_with_logits(z, t, pos_weight=weight(z)),
    )


def mask() -> tuple[Step, Step]:
    """Of binary labels the elements that count: here where the extra tensor is above 0."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    def peer(z: Any, _: Any, x: Any) -> Any:
        counted = (x > 0).to(z.dtype)
        return binary_cross_entropy_with_logits(z, counted, counted, reduction="sum") / counted.sum()

    return lambda z, _, x: losses.sigmoid_cross_entropy((x > 0).to(z.dtype), z, mask=x > 0), peer


def distilled_images() -> tuple[Step, Step]:
    """The forward KL of teacher and student over axis 1."""
    from torch.nn.functional import kl_div, log_softmax

    def peer(z: Any, _: Any, teacher: Any) -> Any:
        student, target = (log_softmax(x / TEMPERATURE, 1) for x in (z, teacher))
        return kl_div(student, target, reduction="sum", log_target=True) * (TEMPERATURE**2 * z.shape[1] / z.numel())

    return lambda z, _, t: distillation.distillation_loss(t, z, temperature=TEMPERATURE, axis=1), peer


def bucket() -> tuple[Step, Step]:
    """A top-k teacher, the rest of whose mass is one more class: the formula over all log-probabilities."""
    import torch

    def kept(teacher: Any) -> tuple[Any, Any]:
        values, indices = torch.log_softmax(teacher, -1)[:, : KEPT + 1].topk(min(KEPT, teacher.shape[1] // 2))
        return indices, values

    def peer(z: Any, _: Any, teacher: Any) -> Any:
        indices, values = kept(teacher)
        found = torch.log_softmax(z, -1).gather(-1, indices)
        rest, log_rest = (torch.log1p(-x.exp().sum(-1)) for x in (values, found))
        return ((values.exp() * (values - found)).sum(-1) + rest.exp() * (rest - log_rest)).mean()

    return lambda z, _, t: distillation.sparse_distillation_loss(*kept(t), z, tail="bucket"), peer


def bucket_and_drop() -> tuple[Step, Step]:
    """A top-k teacher whose tail is one more class, beside the one whose tail is dropped."""
    import torch

    def step(tail: str) -> Step:
        kept: list[Any] = []

        def call(z: Any, _: Any, teacher: Any) -> Any:
            if not kept:
                values, indices = torch.log_softmax(teacher, -1).topk(min(KEPT, teacher.shape[1] // 2))
                kept.extend((indices, values))
            return distillation.sparse_distillation_loss(kept[0], kept[1], z, tail=tail)

        return call

    return step("bucket"), step("drop")


def mostly_ignored() -> tuple[Step, Step]:
    """A linear head of whose rows one in twenty counts, beside those rows alone."""
    from torch.nn.functional import cross_entropy

    def ours(hidden: Any, labels: Any, weight: Any) -> Any:
        labels = labels.clone()
        labels[labels.new_ones(len(labels)).cumsum(0) % 20 != 0] = -100
        return losses.linear_softmax_cross_entropy(labels, hidden, weight, ignore_index=-100)

    return ours, lambda hidden, labels, weight: cross_entropy(hidden[19::20] @ weight.T, labels[19::20])


# The work, the functions that make its two steps, the tensor beside the logits, and their shape, large and small.
PEERS: tuple[tuple[str, Callable[[], tuple[Step, Step]], Any, tuple[int, ...], tuple[int, ...]], ...] = (
    ("sigmoid focal loss", focal, answers, (8, 1, 512, 512), (2, 1, 16, 16)),
    ("sigmoid cross-entropy, pos_weight", pos_weight, answers, (8, 20, 128, 128), (2, 3, 8, 8)),
    ("sigmoid cross-entropy, mask", mask, normal, (8, 20, 128, 128), (2, 3, 8, 8)),
    ("KL of images, T = 2", distilled_images, normal, (4, 21, 128, 128), (2, 5, 8, 8)),
    ("top-k teacher, bucket", bucket, normal, (512, 32000), (8, 100)),
    ("top-k teacher, bucket beside drop", bucket_and_drop, normal, (512, 32000), (8, 100)),
    ("linear head, 95% of the rows ignored", mostly_ignored, head, (2048, 512), (40, 16)),
)
