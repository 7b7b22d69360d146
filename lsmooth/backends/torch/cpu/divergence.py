"""Divergences between two softmaxes on the CPU, their gradient written while the logits are in cache.

A block of rows becomes x = log2(e) (z - c) / T in scratch, c a number near the largest of the row, which is
subtracted first so that a common offset of the logits takes no digits. It becomes 2^x as well, of which
PyTorch is several times faster than of e^x and as exact. With Z its sum, log2 Z is the log-sum-exp of
(z - c) / T in units of ln 2. Two or three more passes make the loss and the gradient: each of the logits
is read once, the gradient written once. Every pass gives a row to the same thread, so that it stays in
the cache of one core.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import block_rows, is_plain, needs_gradient, run, times_upstream

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

    x_t: Tensor
    x_s: Tensor
    t: Tensor  # 2^x_t, Z times the softmax
    s: Tensor
    sums: Tensor  # (2, rows, 1), Z of both
    factor: Tensor  # what the gradient is multiplied by: a column, or one for all
    loss: Tensor  # (rows, 1), to be written
    gradient: Tensor | None  # to be written


KNOWN = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")


def fits(teacher: Tensor, student: Tensor, options: DivergenceOptions) -> bool:
    """Whether `rows` knows these arguments: CPU tensors, no transform, a gradient for the student alone."""
    return (
        options.divergence in _BLOCKS
        and type(options.temperature) is float
        and teacher.shape == student.shape
        and is_plain(teacher, student)
        and not needs_gradient(teacher, options.scale)
    )


def rows(
    teacher: Tensor,
    student: Tensor,
    formula: Callable[..., Tensor],
    options: DivergenceOptions,
    overwrite: bool = False,
) -> Tensor | None:
    """`formulas.softmax_divergence` for arguments that fit; None where a value does not.

    ``formula`` is that function of the student, the teacher and the options, for derivatives of the gradient.
    With ``overwrite`` the student's logits may be lost: the gradient is written over them.
    """
    divergence, scale, total = options.divergence, options.scale, options.total
    axis = _class_axis(student)
    if (
        divergence in _SMALL
        and total
        and isinstance(scale, float)
        and options.counted is None
        and (student.numel() <= thresholds.SMALL_DIVERGENCE or axis >= 0)
    ):
        dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
        images = (z.movedim(-1, axis) for z in (teacher, student))
        log_t, log_s = (_log_softmax(z, axis, dtype, options.temperature) for z in images)
        loss = _SMALL[divergence](log_t, log_s, axis, scale)
        if math.isfinite(loss.item()):
            return loss
    run_sweep = functools.partial(sweep, overwrite=overwrite)
    return run(student, (teacher, options), run_sweep, formula, student.shape[:-1], total)


def sweep(
    student: Tensor,
    teacher: Tensor,
    options: DivergenceOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
    accumulate_into: Tensor | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; with ``accumulate_into``, the gradient is added to that one."""
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    scale, counted = times_upstream(options.scale, upstream, dtype), options.counted
    if isinstance(scale, Tensor):
        scale = scale.detach().expand(student.shape[:-1]).reshape(-1, 1)
    flat = Options(
        options.divergence,
        options.parameter,
        options.temperature,
        scale,
        None if counted is None else counted.reshape(-1, 1),
    )
    return _sweep(student, teacher, flat, with_gradient, overwrite, accumulate_into)


def _class_axis(z: Tensor) -> int:
    """Where the classes lie in memory, -1 if they are last: the channels of images were moved, and are not copied."""
    if z.ndim > 2 and not z.is_contiguous():
        for axis in range(z.ndim - 1):
            if z.movedim(-1, axis).is_contiguous():
                return axis
    return -1


def _log_softmax(z: Tensor, axis: int, dtype: torch.dtype, temperature: float) -> Tensor:
    """The log-softmax of z / T along an axis, contiguous."""
    z = z if z.dtype == dtype else z.to(dtype)
    if temperature != 1.0:
        z = (z - z.detach().amax(axis, keepdim=True)) * (1.0 / temperature)
    return torch.log_softmax(z, axis).contiguous()


def _small_forward_kl(log_t: Tensor, log_s: Tensor, _: int, scale: float) -> Tensor:
    return torch.dot(log_t.exp().mul_(-scale).view(-1), (log_s - log_t).view(-1))


def _small_reverse_kl(log_t: Tensor, log_s: Tensor, axis: int, scale: float) -> Tensor:
    s, lead = log_s.exp(), log_s - log_t
    # It is 0, and its gradient takes the mean off the lead: see `_through_softmax`.
    mean = (s.detach() * lead.detach()).sum(axis, keepdim=True) + 1.0
    nothing = torch.sum((s - s.detach()) * mean)
    return (torch.dot(s.view(-1), lead.view(-1)) - nothing) * scale


@torch.no_grad()
def _sweep(
    student: Tensor,
    teacher: Tensor,
    options: Options,
    with_gradient: bool,
    overwrite: bool = False,
    accumulate_into: Tensor | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """Losses (rows, 1) and gradient; None where the formula must say what is right, or logits are gone.

    With ``accumulate_into`` the gradient is added to that one, which is of no use after None.
    """
    teacher, student = (z.detach().reshape(-1, z.shape[-1]) for z in (teacher, student))
    counted = options.counted
    for careful in (False,) if overwrite or accumulate_into is not None else (False, True):
        gradient = accumulate_into
        if with_gradient and accumulate_into is None:
            gradient = student if overwrite else empty_like(student)
        losses = _losses(student, teacher, options, gradient, careful, add=accumulate_into is not None)
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
    student: Tensor, teacher: Tensor, options: Options, gradient: Tensor | None, careful: bool, add: bool
) -> Tensor | None:
    """The losses, the gradient written or added; None if a row that counts is not finite, or c was too small."""
    num_rows, num_classes = student.shape
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    block, inverse = block_rows(num_rows, num_classes, thresholds.DIVERGENCE_BLOCK_ELEMENTS), 1.0 / options.temperature
    of_block, finish = _BLOCKS[options.divergence], _FINISH.get(options.divergence)
    losses, sums = student.new_empty((num_rows, 1), dtype=dtype), student.new_empty((2, num_rows, 1), dtype=dtype)
    arrays = scratch((4, block, num_classes), dtype)
    sample, in_bits = slice(None if careful else SAMPLE), inverse / math.log(2.0)
    shifts = [z[:, sample].amax(1, keepdim=True).to(dtype) for z in (teacher, student)]
    # Logits near 0 are shifted and scaled in one pass; of others, the difference comes first.
    near = all(c.abs().max().item() * in_bits <= 32.0 for c in shifts)
    shifts = [c.mul_(-in_bits) for c in shifts] if near else shifts
    factor = torch.as_tensor(options.scale * inverse, dtype=dtype, device=student.device)
    factors = factor.split(block) if factor.ndim else itertools.repeat(factor)
    gradients = itertools.repeat(None) if gradient is None else gradient.split(block)
    direct = gradient is None or (gradient.dtype == dtype and not add)
    parts = zip(*(x.split(block, -2) for x in (teacher, student, *shifts, sums, losses)), strict=True)

    for (z_t, z_s, c_t, c_s, z_sums, loss), column, out in zip(parts, factors, gradients, strict=False):
        x_t, x_s, t, s = arrays if len(loss) == block else arrays[:, : len(loss)]
        for z, c, x, power, z_sum in ((z_t, c_t, x_t, t, z_sums[0]), (z_s, c_s, x_s, s, z_sums[1])):
            if near:
                torch.add(c, z, alpha=in_bits, out=x)
            else:
                torch.sub(z, c, out=x).mul_(in_bits)
            torch.sum(torch.exp2(x, out=power), 1, keepdim=True, out=z_sum)
        if careful:  # 0 times -inf - -inf, or times -inf
            missing = (s if options.divergence == "reverse_kl" else t) == 0
            if options.divergence == "total_variation":
                missing &= s == 0
            x_t.masked_fill_(missing, 0.0)
            x_s.masked_fill_(missing, 0.0)
        of_block(Block(x_t, x_s, t, s, z_sums, column, loss, out if direct else x_s), options.parameter)
        if out is not None and not direct:
            out.add_(x_s) if add else out.copy_(x_s)
        first = z_t.data_ptr() == teacher.data_ptr()
        if first and block < num_rows and not _are_right(loss, z_sums, options.counted):
            return None  # the others will be like it
    if finish is not None:
        finish(losses, sums)
    return losses.mul_(options.scale) if _are_right(losses, sums, options.counted) else None


def _are_right(losses: Tensor, sums: Tensor, counted: Tensor | None) -> bool:
    # A sum that overflows can still lead to a finite loss.
    if counted is None:
        return math.isfinite((losses.sum() + sums.sum()).item())
    right = losses.isfinite() & sums.isfinite().all(0)
    return bool((right | ~counted[: len(losses)]).all().item())


def _forward_kl(block: Block, _: float) -> None:
    """``2 sum_k t_k (x_t - x_s)_k``, to be finished; the gradient is s - t."""
    x_t, x_s, t, s, sums, factor, loss, gradient = block
    torch.sum(_twice_times(t, x_t, x_s, out=x_t), 1, keepdim=True, out=loss)
    if gradient is not None:
        of_t, of_s = factor / sums
        torch.addcmul(s.mul_(of_s), t, of_t, value=-1, out=gradient)


def _finish_forward_kl(losses: Tensor, sums: Tensor) -> None:
    log_t, log_s = sums.log2()
    losses.mul_(0.5).div_(sums[0]).add_(log_s).sub_(log_t).mul_(math.log(2.0))


def _reverse_kl(block: Block, _: float) -> None:
    """``sum_k s_k (x_s - x_t)_k``, to be finished."""
    s = block.s.div_(block.sums[1])
    in_nats = block.factor * math.log(2.0)
    _through_softmax(torch.sub(block.x_s, block.x_t, out=block.x_t), s, block._replace(factor=in_nats))


def _finish_reverse_kl(losses: Tensor, sums: Tensor) -> None:
    log_t, log_s = sums.log2()
    losses.add_(log_t).sub_(log_s).mul_(math.log(2.0))


def _jensen_shannon(block: Block, beta: float) -> None:
    """``sum_k beta t_k log(t_k / m_k) + (1 - beta) s_k log(s_k / m_k)``, m = beta t + (1 - beta) s."""
    t, s = block.t.div_(block.sums[0]), block.s.div_(block.sums[1])
    tiny = torch.finfo(t.dtype).tiny
    m = torch.mul(t, beta, out=block.x_t).add_(s, alpha=1.0 - beta).clamp_min_(tiny)
    of_t = torch.div(t, m, out=block.x_s).clamp_min_(tiny).log_().mul_(t).sum(1, keepdim=True)
    _through_softmax(torch.div(s, m, out=m).clamp_min_(tiny).log_().mul_(1.0 - beta), s, block)
    block.loss.add_(of_t, alpha=beta)


def _total_variation(block: Block, _: float) -> None:
    """``1/2 sum_k |t_k - s_k|``.

    The signs are those of log s - log t: where the temperature is high, many t and s differ by little more than
    their rounding.
    """
    exact = torch.stack([x.sum(1, keepdim=True, dtype=torch.float64) for x in (block.t, block.s)])
    log_t, log_s = exact.log2()
    signs = torch.sub(block.x_s, block.x_t, out=block.x_s).sub_((log_s - log_t).to(block.s.dtype)).sign_()
    t, s = block.t.div_(block.sums[0]), block.s.div_(block.sums[1])
    loss = torch.sub(s, t, out=block.x_t).mul_(signs).sum(1, keepdim=True).mul_(0.5)
    _through_softmax(torch.mul(signs, 0.5, out=block.x_t), s, block)
    block.loss.copy_(loss)


def _through_softmax(d: Tensor, s: Tensor, block: Block) -> None:
    """``sum_k s_k d_k``, and ``s_k (d_k - that)``, the gradient of a loss whose derivative in s is d.

    The mean of d is subtracted twice. Where s is almost one-hot, d and its mean are almost the same at that
    class; the first difference of the two is mostly rounding, which the second one takes off.
    """
    torch.sum(torch.mul(s, d, out=block.t), 1, keepdim=True, out=block.loss)
    if block.gradient is not None:
        products = torch.mul(s, d.sub_(block.loss), out=block.t)
        mean = products.sum(1, keepdim=True)
        _twice_times(0.5 * block.factor, products, s.mul_(mean), out=block.gradient)


def _twice_times(c: Tensor, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """``2 c (a - b)`` in one pass: what the derivative of a squared error is made of."""
    return torch.ops.aten.mse_loss_backward.grad_input(c, a, b, _SUM, grad_input=out)


_SUM = 2  # how PyTorch calls that reduction
_BLOCKS: dict[str, Callable[[Block, float], None]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jensen_shannon": _jensen_shannon,
    "total_variation": _total_variation,
}
# Where the number of calls is what counts, or classes that are not last; autograd has the gradient.
_SMALL: dict[str, Callable[[Tensor, Tensor, int, float], Tensor]] = {
    "forward_kl": _small_forward_kl,
    "reverse_kl": _small_reverse_kl,
}
# What is done to the losses of all rows at once, since calls on a few numbers add up.
_FINISH: dict[str, Callable[[Tensor, Tensor], None]] = {
    "forward_kl": _finish_forward_kl,
    "reverse_kl": _finish_reverse_kl,
}
