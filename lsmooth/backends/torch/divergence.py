"""Divergences between two softmaxes on the CPU, their gradient written while the logits are in cache.

In blocks of rows x = z / T - c becomes softmax(x) in scratch, for both logits at once: the one
kernel for exp that runs at memory speed. c is z / T at a class j that has some probability under
both, so that log t - log s = a + log(t_j / s_j) with a = x_t - x_s: one read of each of the logits
and one write of the gradient.
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

# Columns among which j is looked for.
SAMPLE = 1024
# Below this a probability has lost digits to underflow, and its logarithm with it.
_SMALLEST = {dtype: torch.finfo(dtype).tiny * 1e6 for dtype in (torch.float32, torch.float64)}


class Options(NamedTuple):
    """What the blocks know of the loss: numbers, and columns over the rows."""

    divergence: str
    parameter: float
    temperature: float
    scale: float | Tensor
    counted: Tensor | None


class Block(NamedTuple):
    """Some rows on the way, in memory that may be written over."""

    a: Tensor  # x_t - x_s for the two KL, else scratch
    t: Tensor  # the softmax
    s: Tensor
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
    """Losses (rows, 1) and gradient; None where the formula must say what is right, and see the logits."""
    teacher, student = (z.detach().reshape(-1, z.shape[-1]) for z in (teacher, student))
    overwrite = overwrite and with_gradient
    counted = options.counted
    for careful in (False,) if overwrite else (False, True):
        gradient = student if overwrite else empty_like(student) if with_gradient else None
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
    """The losses, the gradient written; None if a row that counts is not finite."""
    num_rows, num_classes = student.shape
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    block, inverse = block_rows(num_rows, num_classes), 1.0 / options.temperature
    of_block, sign = _BLOCKS[options.divergence], _SIGNS.get(options.divergence)
    losses, p_j = torch.empty((num_rows, 1), dtype=dtype), torch.empty((2, num_rows, 1), dtype=dtype)
    both = torch.empty((2, block, num_classes), dtype=dtype)
    difference = torch.empty((block, num_classes), dtype=dtype)
    sample = slice(None if careful else SAMPLE)
    j = (teacher[:, sample] + student[:, sample]).argmax(1, keepdim=True)
    shifts = [z.gather(1, j).to(dtype).mul_(-inverse) for z in (teacher, student)]
    factor = options.scale * inverse
    factors = factor.split(block) if isinstance(factor, Tensor) else itertools.repeat(factor)
    gradients = itertools.repeat(None) if gradient is None else gradient.split(block)
    parts = zip(
        *(x.split(block, -2) for x in (teacher, student, *shifts, j.expand(2, -1, 1), p_j, losses)), strict=True
    )

    for (z_t, z_s, shift_t, shift_s, z_j, z_p_j, loss), column, out in zip(parts, factors, gradients, strict=False):
        x, a = (both, difference) if len(loss) == block else (both[:, : len(loss)], difference[: len(loss)])
        t, s = x
        torch.add(shift_t, z_t, alpha=inverse, out=t)
        torch.add(shift_s, z_s, alpha=inverse, out=s)
        if sign:
            torch.sub(t, s, out=a)
        torch.softmax(x, 2, out=x)
        torch.gather(x, 2, z_j, out=z_p_j)
        if sign and careful:  # -inf - -inf, or -inf
            a.masked_fill_((t if sign > 0 else s) == 0, 0.0)
        direct = out is None or out.dtype == dtype
        of_block(Block(a, t, s, column, loss, out if direct else s), options.parameter)
        if out is not None and not direct:
            out.copy_(s)
        if z_t.data_ptr() == teacher.data_ptr() and not _are_right(loss, options.counted):
            return None  # the others will be like it
    if sign:
        ratio = p_j[0].log() - p_j[1].log()
        lost = (p_j < _SMALLEST[dtype]).any(0)[:, 0]
        if lost.any().item():
            if gradient is student:
                return None
            lse_t, lse_s = (
                torch.logsumexp(torch.add(shift[lost], z[lost], alpha=inverse), 1, keepdim=True)
                for z, shift in zip((teacher, student), shifts, strict=True)
            )
            ratio[lost] = lse_s - lse_t
        losses.add_(ratio, alpha=sign)
    return losses.mul_(options.scale) if _are_right(losses, options.counted) else None


def _are_right(losses: Tensor, counted: Tensor | None) -> bool:
    right = losses.isfinite()
    return bool((right if counted is None else right | ~counted[: len(losses)]).all().item())


def _forward_kl(block: Block, _: float) -> None:
    """``sum_k t_k a_k``, short of log(t_j / s_j); the gradient is s - t."""
    a, t, s, factor, loss, gradient = block
    torch.sum(a.mul_(t), 1, keepdim=True, out=loss)
    if gradient is not None:
        torch.mul(s.sub_(t), factor, out=gradient)


def _reverse_kl(block: Block, _: float) -> None:
    """``-sum_k s_k a_k``, short of log(s_j / t_j)."""
    _through_softmax(block.a.neg_(), block.s, block)


def _jensen_shannon(block: Block, beta: float) -> None:
    """``sum_k beta t_k log(t_k / m_k) + (1 - beta) s_k log(s_k / m_k)``, m = beta t + (1 - beta) s."""
    t, s = block.t, block.s
    tiny = torch.finfo(t.dtype).tiny
    m = torch.mul(t, beta, out=block.a).add_(s, alpha=1.0 - beta).clamp_min_(tiny)
    of_t = torch.div(t, m).clamp_min_(tiny).log_().mul_(t).sum(1, keepdim=True)
    _through_softmax(torch.div(s, m, out=m).clamp_min_(tiny).log_().mul_(1.0 - beta), s, block)
    block.loss.add_(of_t, alpha=beta)


def _total_variation(block: Block, _: float) -> None:
    """``1/2 sum_k |t_k - s_k|``."""
    s = block.s
    a = torch.sub(s, block.t, out=block.a)
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
# The sign of log(t_j / s_j) in a loss.
_SIGNS = {"forward_kl": 1, "reverse_kl": -1}
