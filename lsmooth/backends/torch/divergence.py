"""Divergences between two softmaxes on the CPU, their gradient written while the logits are in cache.

In blocks of rows x = z / T - c, c a number near the largest of the row, becomes exp(x) in scratch,
for both logits at once. With Z its sum, log-sum-exp is log Z + c; a = x_t - x_s gives the loss and
all that the gradient wants to know: one read of each of the logits and one write of the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import block_rows, is_plain, needs_gradient, run

# Columns that are looked at for c.
SAMPLE = 1024
# Beyond this sum the sample has missed a class that is much larger, and c was too small.
LARGEST_SUM = 1e30


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
    t: Tensor  # exp(x_t), which times its column of `inverse` is the softmax
    s: Tensor
    inverse: Tensor  # (2, rows, 1), 1 / Z
    factor: float | Tensor  # what the gradient is multiplied by
    gradient: Tensor | None  # where it goes


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
) -> Tensor | None:
    """`divergences.softmax_divergence` for arguments that fit; None where a value does not.

    ``formula`` is that function of the student's logits alone, for derivatives of the gradient.
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
    sweep = functools.partial(_sweep, teacher=teacher, options=options)
    return run(student, sweep, formula, shape, total)


@torch.no_grad()
def _sweep(student: Tensor, teacher: Tensor, options: Options, with_gradient: bool) -> Any:
    """Losses (rows, 1) and gradient; None where the formula must say what is right."""
    teacher, student = (z.reshape(-1, z.shape[-1]) for z in (teacher, student))
    swept = _blocks(student, teacher, options, with_gradient) or _blocks(
        student, teacher, options, with_gradient, careful=True
    )
    if swept is not None and options.counted is not None and swept[1] is not None:
        swept[1].index_fill_(0, (~options.counted[:, 0]).nonzero()[:, 0], 0.0)
    return swept


def _blocks(
    student: Tensor, teacher: Tensor, options: Options, with_gradient: bool, careful: bool = False
) -> tuple[Tensor, Tensor | None] | None:
    """The rows' losses and gradient; None if a row that counts is not finite, or c was too small."""
    num_rows, num_classes = student.shape
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    block = block_rows(num_rows, num_classes)
    inverse = 1.0 / options.temperature
    factor = options.scale * inverse
    of_block = _BLOCKS[options.divergence]
    gradient = empty_like(student) if with_gradient else None
    both = torch.empty((2, block, num_classes), dtype=dtype)
    difference = torch.empty((block, num_classes), dtype=dtype)
    losses = torch.empty((num_rows, 1), dtype=dtype)
    sums = torch.empty((2, num_rows, 1), dtype=dtype)
    sample = slice(None if careful else SAMPLE)
    shifts = [z[:, sample].amax(1, keepdim=True).to(dtype).mul_(-inverse) for z in (teacher, student)]

    for start in range(0, num_rows, block):
        part = slice(start, min(start + block, num_rows))
        x, a = both[:, : part.stop - start], difference[: part.stop - start]
        for z, shift, out in zip((teacher, student), shifts, x, strict=True):
            torch.add(shift[part], z[part], alpha=inverse, out=out)
        torch.sub(x[0], x[1], out=a)
        total = torch.sum(x.exp_(), 2, keepdim=True, out=sums[:, part])
        if careful:  # -inf - -inf, or -inf
            a.masked_fill_(x[1 if options.divergence == "reverse_kl" else 0] == 0, 0.0)
        out = None if gradient is None else gradient[part]
        direct = out is not None and out.dtype == dtype
        column = factor[part] if isinstance(factor, Tensor) else factor
        rows = Block(a, x[0], x[1], total.reciprocal(), column, out if direct else None if out is None else x[1])
        losses[part] = of_block(rows, options.parameter)
        if out is not None and not direct:
            out.copy_(x[1])
        if start == 0 and not _are_right(losses[part], sums[:, part], options.counted, part):
            return None  # the others will be like it
    losses = _FINISH.get(options.divergence, lambda loss, _: loss)(losses, sums)
    if not _are_right(losses, sums, options.counted):
        return None
    losses.mul_(options.scale)
    return (losses if options.counted is None else losses.where(options.counted, 0.0)), gradient


def _are_right(losses: Tensor, sums: Tensor, counted: Tensor | None, part: slice = slice(None)) -> bool:
    right = losses.isfinite() & (sums <= LARGEST_SUM).all(0)
    return bool((right if counted is None else right | ~counted[part]).all().item())


def _forward_kl(block: Block, _: float) -> Tensor:
    """``sum_k t_k a_k``, without the log-sum-exps; the gradient is s - t."""
    a, t, s, inverse, factor, gradient = block
    loss = torch.sum(a.mul_(t), 1, keepdim=True).mul_(inverse[0])
    if gradient is not None:
        of_t, of_s = inverse.mul_(factor)
        torch.addcmul(s.mul_(of_s), t, of_t, value=-1, out=gradient)
    return loss


def _reverse_kl(block: Block, _: float) -> Tensor:
    """``-sum_k s_k a_k``, without the log-sum-exps."""
    s = block.s.mul_(block.inverse[1])
    return _expectation(block.a.neg_(), s, block)


def _jensen_shannon(block: Block, beta: float) -> Tensor:
    """``sum_k beta t_k log(t_k / m_k) + (1 - beta) s_k log(s_k / m_k)``."""
    t, s = block.t.mul_(block.inverse[0]), block.s.mul_(block.inverse[1])
    tiny = torch.finfo(t.dtype).tiny
    m = torch.mul(t, beta, out=block.a).add_(s, alpha=1.0 - beta).clamp_min_(tiny)
    of_t = torch.div(t, m).clamp_min_(tiny).log_().mul_(t).sum(1, keepdim=True)
    of_s = torch.div(s, m, out=m).clamp_min_(tiny).log_().mul_(1.0 - beta)
    return _expectation(of_s, s, block).add_(of_t, alpha=beta)


def _total_variation(block: Block, _: float) -> Tensor:
    """``1/2 sum_k |t_k - s_k|``."""
    t, s = block.t.mul_(block.inverse[0]), block.s.mul_(block.inverse[1])
    a = torch.sub(s, t, out=block.a)
    loss = torch.linalg.vector_norm(a, 1, 1, keepdim=True).mul_(0.5)
    if block.gradient is not None:
        _expectation(a.sign_().mul_(0.5), s, block)
    return loss


def _expectation(d: Tensor, s: Tensor, block: Block) -> Tensor:
    """``sum_k s_k d_k``; the gradient of a loss whose derivative in s_k is d_k is s_k times d_k less that."""
    mean = torch.sum(d.mul_(s), 1, keepdim=True)
    if block.gradient is not None:
        torch.addcmul(d, s, mean, value=-1, out=block.gradient).mul_(block.factor)
    return mean


_BLOCKS: dict[str, Callable[[Block, float], Tensor]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jensen_shannon": _jensen_shannon,
    "total_variation": _total_variation,
}
# The log-sum-exps of all rows at once.
_FINISH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": lambda loss, sums: loss + (sums[1].log() - sums[0].log()),
    "reverse_kl": lambda loss, sums: loss + (sums[0].log() - sums[1].log()),
}
