"""Divergences between two softmaxes on the CPU, their gradient written while the logits are in cache.

Classes may lie along another axis than the last, as those of images do: they are worked on where they lie.
A block of rows becomes x = log2(e) (z - c) / T in scratch, c a number near the largest of the row, which is
subtracted first so that a common offset of the logits takes no digits. It becomes 2^x as well, of which
PyTorch is several times faster than of e^x and as exact. With Z its sum, log2 Z is the log-sum-exp of
(z - c) / T in units of ln 2. Two or three more passes make the loss and the gradient: each of the logits
is read once, the gradient written once. Every pass gives a row to the same thread, so that it stays in
the cache of one core.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu.layout import Layout, layout_of
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import is_plain, needs_gradient, run, times_upstream

# Classes that are looked at for c.
SAMPLE = 1024


class Options(NamedTuple):
    """The options as numbers, or as columns: (rows, 1), or (groups, 1, rows) for images."""

    divergence: str
    parameter: float
    inverse: float | Tensor  # 1 / T
    scale: float | Tensor
    counted: Tensor | None


class Block(NamedTuple):
    """Some rows, (rows, classes) or (groups, classes, rows), in memory that may be overwritten."""

    x_t: Tensor
    x_s: Tensor
    t: Tensor  # 2^x_t, Z times the softmax
    s: Tensor
    sums: Tensor  # two columns, Z of both
    spare: Tensor  # two columns
    factor: Tensor  # multiplies the gradient: a column, or one number
    loss: Tensor  # a column, to be written
    gradient: Tensor | None  # to be written


KNOWN = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")


def fits(teacher: Tensor, student: Tensor, options: DivergenceOptions) -> bool:
    """Whether `rows` knows these arguments: CPU tensors, no transform, a gradient for the student alone."""
    return (
        options.divergence in _BLOCKS
        and teacher.shape == student.shape
        and is_plain(teacher, student)
        and not needs_gradient(teacher, options.scale, options.temperature)
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
    With ``overwrite`` the gradient overwrites the logits of the student.
    """
    divergence, scale, temperature = options.divergence, options.scale, options.temperature
    if (
        divergence in _SMALL
        and options.total
        and isinstance(scale, float)
        and isinstance(temperature, float)
        and options.counted is None
        and student.numel() <= thresholds.SMALL_DIVERGENCE
    ):
        dtype, axis = _dtype(student), layout_of(student).axis
        images = (z.movedim(-1, axis) for z in (teacher, student))
        log_t, log_s = (_log_softmax(z, axis, dtype, temperature) for z in images)
        loss = _SMALL[divergence](log_t, log_s, axis, scale)
        if math.isfinite(loss.item()):
            return loss
    run_sweep = functools.partial(sweep, overwrite=overwrite)
    return run(student, (teacher, options), run_sweep, formula, student.shape[:-1], options.total)


@torch.no_grad()
def sweep(
    student: Tensor,
    teacher: Tensor,
    options: DivergenceOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
    accumulate_into: Tensor | None = None,
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; None where the formula must decide, or the logits are lost.

    With ``accumulate_into`` the gradient is added to that tensor, which is of no use after None.
    """
    layout, dtype = layout_of(student), _dtype(student)
    scale, temperature = (
        layout.column(x.to(dtype)) if isinstance(x, Tensor) else x
        for x in (times_upstream(options.scale, upstream, dtype), options.temperature)
    )
    counted = None if options.counted is None else options.counted.reshape(layout.column_shape)
    flat = Options(options.divergence, options.parameter, 1.0 / temperature, scale, counted)
    teacher, z = (layout.matrices(x.detach()) for x in (teacher, student))
    gradient = None if accumulate_into is None else layout.matrices(accumulate_into)
    for careful in (False,) if overwrite or accumulate_into is not None else (False, True):
        if with_gradient and accumulate_into is None:
            gradient = z if overwrite else empty_like(z)
        losses = _losses(z, teacher, flat, layout, gradient, careful, add=accumulate_into is not None)
        if losses is not None:
            return losses.view(-1), None if gradient is None else layout.gradient(gradient)
    return None


def _dtype(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


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


def _losses(
    student: Tensor,
    teacher: Tensor,
    options: Options,
    layout: Layout,
    gradient: Tensor | None,
    careful: bool,
    add: bool,
) -> Tensor | None:
    """The losses, the gradient written or added; None if a row that counts is not finite, or c was too small."""
    dtype, scale, counted = _dtype(student), options.scale, options.counted
    parts = list(layout.parts(thresholds.DIVERGENCE_BLOCK_ELEMENTS))
    losses = torch.empty(layout.column_shape, dtype=dtype, device="cpu")
    size, num_rows = (x[parts[0]].numel() for x in (student, losses))
    memory = scratch((4 * size + 4 * num_rows,), dtype)
    if counted is not None:
        scale = counted.to(dtype).mul_(scale)
    factor = torch.as_tensor(scale * options.inverse, dtype=dtype, device="cpu")
    direct = gradient is None or (gradient.dtype == dtype and not add)
    classes = layout.shape[1] if careful else SAMPLE
    for part in parts:
        z_t, z_s, loss = teacher[part], student[part], losses[part]
        sizes = (4 * z_s.numel(), 4 * loss.numel())
        large, small = memory[: sum(sizes)].split(sizes)
        x_t, x_s, t, s = large.view(4, *z_s.shape).unbind()
        sums, spare = small.view(2, 2, *loss.shape).unbind()
        inverse = options.inverse[part] if isinstance(options.inverse, Tensor) else options.inverse
        for z, x, power, z_sum in zip((z_t, z_s), (x_t, x_s), (t, s), sums.unbind(), strict=True):
            torch.sum(torch.exp2(_in_bits(z, classes, inverse, x, spare[0]), out=power), 1, keepdim=True, out=z_sum)
        if careful:  # 0 times -inf - -inf, or times -inf
            missing = (s if options.divergence == "reverse_kl" else t) == 0
            if options.divergence == "total_variation":
                missing &= s == 0
            x_t.masked_fill_(missing, 0.0)
            x_s.masked_fill_(missing, 0.0)
        out, column = None if gradient is None else gradient[part], factor[part] if factor.ndim else factor
        block = Block(x_t, x_s, t, s, sums, spare, column, loss, out if direct else x_s)
        _BLOCKS[options.divergence](block, options.parameter)
        if out is not None and not direct:
            out.add_(x_s) if add else out.copy_(x_s)
        # The blocks to come are mostly like the first.
        if part is parts[0] and _finite(loss, None if counted is None else counted[part]) is None:
            return None
    found = _finite(losses, counted)
    # The factor of an ignored row is 0, and times 0 only what is not finite stays.
    if gradient is not None and counted is not None and found is not None and found is not losses:
        gradient.masked_fill_(~counted, 0.0)
    return None if found is None else found.mul_(scale)


def _finite(losses: Tensor, counted: Tensor | None) -> Tensor | None:
    """The losses, those of ignored rows 0 where one is not finite; None where one that counts is not."""
    if math.isfinite(losses.sum().item()):
        return losses
    return None if counted is None else _finite(losses.where(counted, 0.0), None)


def _in_bits(z: Tensor, classes: int, inverse: float | Tensor, out: Tensor, spare: Tensor) -> Tensor:
    """``log2(e) (z - c) / T``, c being the largest of the first classes."""
    sample, in_bits = z[:, :classes] if z.shape[1] > classes else z, inverse / math.log(2.0)
    c = torch.amax(sample, 1, True, out=spare) if z.dtype == out.dtype else sample.amax(1, True).to(out.dtype)
    # Logits near 0 are shifted and scaled in one pass; of others, the difference comes first.
    if isinstance(in_bits, float) and max(-c.amin().item(), c.amax().item()) * in_bits <= 32.0:
        return torch.add(c.mul_(-in_bits), z, alpha=in_bits, out=out)
    return torch.sub(z, c, out=out).mul_(in_bits)


def _forward_kl(block: Block, _: float) -> None:
    """``sum_k t_k (log t_k - log s_k)``; the gradient is s - t."""
    x_t, x_s, t, s, sums, spare, factor, loss, gradient = block
    torch.sum(_twice_times(t, x_t, x_s, out=x_t), 1, keepdim=True, out=loss)
    log_ratio = torch.div(sums[1], sums[0], out=spare[0]).log_()
    torch.addcdiv(log_ratio, loss, sums[0], value=0.5 * math.log(2.0), out=loss)
    if gradient is not None:
        of_t, of_s = torch.div(factor, sums, out=spare)
        torch.addcmul(s.mul_(of_s), t, of_t, value=-1, out=gradient)


def _reverse_kl(block: Block, _: float) -> None:
    """``sum_k s_k (log s_k - log t_k)``."""
    s = block.s.div_(block.sums[1])
    in_nats = block.factor * math.log(2.0)
    _through_softmax(torch.sub(block.x_s, block.x_t, out=block.x_t), s, block._replace(factor=in_nats))
    block.loss.mul_(math.log(2.0)).add_(torch.div(block.sums[0], block.sums[1], out=block.spare[0]).log_())


def _jensen_shannon(block: Block, beta: float) -> None:
    """``sum_k beta t_k log(t_k / m_k) + (1 - beta) s_k log(s_k / m_k)``, m = beta t + (1 - beta) s."""
    t, s = block.t.div_(block.sums[0]), block.s.div_(block.sums[1])
    tiny = torch.finfo(t.dtype).tiny
    m = torch.mul(t, beta, out=block.x_t).add_(s, alpha=1.0 - beta).clamp_min_(tiny)
    of_t = torch.div(t, m, out=block.x_s).clamp_min_(tiny).log_().mul_(t).sum(1, keepdim=True)
    _through_softmax(torch.div(s, m, out=m).clamp_min_(tiny).log_().mul_(1.0 - beta), s, block)
    block.loss.add_(of_t, alpha=beta)
    _without_overflow(block)


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
    _without_overflow(block)


def _without_overflow(block: Block) -> None:
    """Make the losses NaN where a sum is not finite, which a quotient by it does not show."""
    block.loss.addcmul_(block.sums[0], block.sums[1] * 0.0).addcmul_(block.sums[1], block.sums[0] * 0.0)


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
# Few logits, of which the number of calls counts; autograd has the gradient.
_SMALL: dict[str, Callable[[Tensor, Tensor, int, float], Tensor]] = {
    "forward_kl": _small_forward_kl,
    "reverse_kl": _small_reverse_kl,
}
