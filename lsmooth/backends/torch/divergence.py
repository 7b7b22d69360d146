"""Divergences between two softmaxes on the CPU, their gradient written while the logits are in cache.

In blocks of rows x = z / T - c, c a number near the largest of the row, becomes exp(x) in scratch,
for both logits at once. With Z its sum, log-sum-exp is log Z + c; a = x_t - x_s gives the loss and
all that the gradient wants to know: one read of each of the logits and one write of the gradient.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import block_rows, is_plain, needs_gradient, run

# Columns that are looked at for c.
SAMPLE = 1024


class Options(NamedTuple):
    """What the blocks know of the loss: numbers, and columns over the rows."""

    divergence: str
    parameter: float
    temperature: float
    scale: float | Tensor
    counted: Tensor | None


class Block(NamedTuple):
    """Some rows on the way, in memory that may be written over."""

    a: Tensor  # x_t - x_s
    t: Tensor  # exp(x_t), Z times the softmax
    s: Tensor
    sums: Tensor  # (2, rows, 1), Z of both
    factor: float | Tensor  # what the gradient is multiplied by
    loss: Tensor  # (rows, 1), to be written
    gradient: Tensor | None  # to be written


def fits(
    teacher: Tensor,
    student: Tensor,
    *,
    divergence: str = "forward_kl",
    parameter: float = 0.5,
    temperature: Any = 1.0,
    counted: Tensor | None = None,
    scale: Any = None,
    total: bool = False,
    constant_teacher: bool = False,
) -> bool:
    """Whether `rows` knows these options: CPU tensors, no transform, a gradient for the student alone."""
    return (
        divergence in _BLOCKS
        and type(temperature) is float
        and teacher.shape == student.shape
        and is_plain(teacher, student)
        and not needs_gradient(teacher, scale)
    )


def rows(
    teacher: Tensor,
    student: Tensor,
    formula: Callable[[Tensor], Tensor],
    *,
    divergence: str = "forward_kl",
    parameter: float = 0.5,
    temperature: float = 1.0,
    counted: Tensor | None = None,
    scale: float | Tensor | None = None,
    total: bool = False,
    constant_teacher: bool = False,
    overwrite: bool = False,
) -> Tensor | None:
    """`divergences.softmax_divergence` for arguments that fit; None where a value does not.

    ``formula`` is that function of the student's logits alone, for derivatives of the gradient.
    With ``overwrite`` these logits may be lost: the gradient is written over them.
    """
    shape = student.shape[:-1]
    if isinstance(scale, Tensor):
        scale = scale.detach().expand(shape).reshape(-1, 1)
    options = Options(
        divergence,
        parameter,
        temperature,
        1.0 if scale is None else scale,
        None if counted is None else counted.reshape(-1, 1),
    )
    sweep = functools.partial(_sweep, teacher=teacher, options=options, overwrite=overwrite)
    return run(student, sweep, formula, shape, total)


@torch.no_grad()
def _sweep(student: Tensor, teacher: Tensor, options: Options, with_gradient: bool, overwrite: bool = False) -> Any:
    """Losses (rows, 1) and gradient; None where the formula must say what is right, or logits are gone."""
    teacher, student = (z.detach().reshape(-1, z.shape[-1]) for z in (teacher, student))
    counted = options.counted
    for careful in (False,) if overwrite else (False, True):
        gradient = None if not with_gradient else student if overwrite else empty_like(student)
        losses = _losses(student, teacher, options, gradient, careful)
        if losses is not None:
            break
    else:
        return None
    if counted is not None:
        losses = losses.where(counted, 0.0)
        if gradient is not None:
            gradient.index_fill_(0, (~counted[:, 0]).nonzero()[:, 0], 0.0)
    return losses, gradient


def _losses(
    student: Tensor, teacher: Tensor, options: Options, gradient: Tensor | None, careful: bool
) -> Tensor | None:
    """The losses, the gradient written; None if a row that counts is not finite, or c was too small."""
    num_rows, num_classes = student.shape
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    block, inverse = block_rows(num_rows, num_classes), 1.0 / options.temperature
    of_block, finish = _BLOCKS[options.divergence], _FINISH.get(options.divergence)
    losses, sums = torch.empty((num_rows, 1), dtype=dtype), torch.empty((2, num_rows, 1), dtype=dtype)
    both = torch.empty((2, block, num_classes), dtype=dtype)
    difference = torch.empty((block, num_classes), dtype=dtype)
    sample = slice(None if careful else SAMPLE)
    shifts = [z[:, sample].amax(1, keepdim=True).to(dtype).mul_(-inverse) for z in (teacher, student)]
    factor = options.scale * inverse
    factors = factor.split(block) if isinstance(factor, Tensor) else itertools.repeat(factor)
    gradients = itertools.repeat(None) if gradient is None else gradient.split(block)
    parts = zip(*(x.split(block, -2) for x in (teacher, student, *shifts, sums, losses)), strict=True)

    for (z_t, z_s, shift_t, shift_s, z_sums, loss), column, out in zip(parts, factors, gradients, strict=False):
        x, a = (both, difference) if len(loss) == block else (both[:, : len(loss)], difference[: len(loss)])
        t, s = x
        torch.add(shift_t, z_t, alpha=inverse, out=t)
        torch.add(shift_s, z_s, alpha=inverse, out=s)
        torch.sub(t, s, out=a)
        torch.sum(x.exp_(), 2, keepdim=True, out=z_sums)
        if careful:  # -inf - -inf, or -inf
            a.masked_fill_((s if options.divergence == "reverse_kl" else t) == 0, 0.0)
        direct = out is None or out.dtype == dtype
        of_block(Block(a, t, s, z_sums, column, loss, out if direct else s), options.parameter)
        if out is not None and not direct:
            out.copy_(s)
        if z_t.data_ptr() == teacher.data_ptr() and not _are_right(loss, z_sums, options.counted):
            return None  # the others will be like it
    if finish is not None:
        finish(losses, sums)
    return losses.mul_(options.scale) if _are_right(losses, sums, options.counted) else None


def _are_right(losses: Tensor, sums: Tensor, counted: Tensor | None) -> bool:
    # A sum that overflows can still lead to a finite loss.
    right = losses.isfinite() & sums.isfinite().all(0)
    return bool((right if counted is None else right | ~counted[: len(losses)]).all().item())


def _forward_kl(block: Block, _: float) -> None:
    """``sum_k t_k a_k``, to be finished; the gradient is s - t."""
    a, t, s, sums, factor, loss, gradient = block
    torch.sum(a.mul_(t), 1, keepdim=True, out=loss)
    if gradient is not None:
        of_t, of_s = factor / sums
        torch.addcmul(s.mul_(of_s), t, of_t, value=-1, out=gradient)


def _finish_forward_kl(losses: Tensor, sums: Tensor) -> None:
    log_t, log_s = sums.log()
    losses.div_(sums[0]).add_(log_s).sub_(log_t)


def _reverse_kl(block: Block, _: float) -> None:
    """``-sum_k s_k a_k``, to be finished."""
    _through_softmax(block.a.neg_(), block.s.div_(block.sums[1]), block)


def _finish_reverse_kl(losses: Tensor, sums: Tensor) -> None:
    log_t, log_s = sums.log()
    losses.add_(log_t).sub_(log_s)


def _jensen_shannon(block: Block, beta: float) -> None:
    """``sum_k beta t_k log(t_k / m_k) + (1 - beta) s_k log(s_k / m_k)``, m = beta t + (1 - beta) s."""
    t, s = block.t.div_(block.sums[0]), block.s.div_(block.sums[1])
    tiny = torch.finfo(t.dtype).tiny
    m = torch.mul(t, beta, out=block.a).add_(s, alpha=1.0 - beta).clamp_min_(tiny)
    of_t = torch.div(t, m).clamp_min_(tiny).log_().mul_(t).sum(1, keepdim=True)
    _through_softmax(torch.div(s, m, out=m).clamp_min_(tiny).log_().mul_(1.0 - beta), s, block)
    block.loss.add_(of_t, alpha=beta)


def _total_variation(block: Block, _: float) -> None:
    """``1/2 sum_k |t_k - s_k|``."""
    t, s = block.t.div_(block.sums[0]), block.s.div_(block.sums[1])
    a = torch.sub(s, t, out=block.a)
    loss = a.abs().sum(1, keepdim=True).mul_(0.5)
    _through_softmax(a.sign_().mul_(0.5), s, block)
    block.loss.copy_(loss)


def _through_softmax(d: Tensor, s: Tensor, block: Block) -> None:
    """The mean of d under s is the loss; with d its derivative in s, s times d less the mean is the gradient."""
    torch.sum(d.mul_(s), 1, keepdim=True, out=block.loss)
    if block.gradient is not None:
        torch.addcmul(d, s, block.loss, value=-1, out=block.gradient).mul_(block.factor)


_BLOCKS: dict[str, Callable[[Block, float], None]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jensen_shannon": _jensen_shannon,
    "total_variation": _total_variation,
}
# What is done to the losses of all rows at once, since calls on a few numbers add up.
_FINISH: dict[str, Callable[[Tensor, Tensor], None]] = {
    "forward_kl": _finish_forward_kl,
    "reverse_kl": _finish_reverse_kl,
}
