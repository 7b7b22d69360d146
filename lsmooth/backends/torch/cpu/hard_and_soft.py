"""A cross-entropy and a divergence of the same logits on the CPU: the second adds to the gradient of the first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, are_known
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import cross_entropy, divergence
from lsmooth.backends.torch.cpu.layout import layout_of
from lsmooth.backends.torch.sweep import run


def rows(
    labels: Tensor,
    teacher: Tensor,
    student: Tensor,
    formula: Callable[..., Tensor],
    hard: SoftmaxOptions,
    soft: DivergenceOptions,
) -> Tensor | None:
    """`Backend.hard_and_soft` of two losses whose kernels know the arguments; None where they are better alone."""
    if (
        student.numel() <= thresholds.SMALL_DIVERGENCE
        or layout_of(student).is_image
        or not (are_known(hard, cross_entropy.KNOWN) and cross_entropy.fits(student, labels, hard))
        or not (are_known(soft, divergence.KNOWN) and divergence.fits(teacher, student, soft))
    ):
        return None
    return run(student, (labels, teacher, hard, soft), _sweep, formula, student.shape[:-1], soft.total)


def _sweep(
    student: Tensor,
    labels: Tensor,
    teacher: Tensor,
    hard: SoftmaxOptions,
    soft: DivergenceOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    first = cross_entropy.sweep(student, labels, hard._replace(total=False), with_gradient, upstream)
    if first is None:
        return None
    losses, gradient = first
    second = divergence.sweep(student, teacher, soft, with_gradient, upstream, accumulate_into=gradient)
    return None if second is None else (losses.add_(second[0].view(-1)), gradient)
