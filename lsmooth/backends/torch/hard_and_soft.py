"""A cross-entropy and a divergence of the same logits on the CPU: the second adds to the gradient of the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lsmooth.backends.torch import cross_entropy, divergence
from lsmooth.backends.torch.sweep import run


def rows(
    labels: Tensor,
    teacher: Tensor,
    student: Tensor,
    formula: Callable[[Tensor], Tensor],
    hard: Mapping[str, Any],
    soft: Mapping[str, Any],
) -> Tensor | None:
    """`Backend.hard_and_soft` of two losses whose kernels know the arguments; None where they are better alone."""
    if (
        student.numel() <= divergence.SMALL
        or not cross_entropy.fits(student, labels, **hard)
        or not divergence.fits(teacher, student, **soft)
    ):
        return None
    of_labels = cross_entropy.sweep_of(student, labels, **hard)
    if of_labels is None:
        return None
    of_teacher = divergence.sweep_of(teacher, student, **soft)

    def sweep(logits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None] | None:
        first = of_labels(logits, with_gradient=with_gradient)
        if first is None:
            return None
        losses, gradient = first
        second = of_teacher(logits, with_gradient=with_gradient, onto=gradient)
        return None if second is None else (losses.add_(second[0]), gradient)

    return run(student, sweep, formula, labels.shape, soft["total"])
