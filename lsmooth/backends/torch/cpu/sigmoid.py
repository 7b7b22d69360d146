"""Sigmoid cross-entropy on the CPU, its gradient written while the logits are in cache.

With s = sigmoid(-|z|), an element of label l and positive weight w costs

``m |z| + c log(1 + exp(-|z|))``, ``m = 1 - l`` where z > 0 and ``w l`` elsewhere, ``c = 1 - l + w l``,

and has the gradient ``sign(z) (m - c s)``: no difference of nearly equal numbers in either tail.
A block takes a dozen steps in scratch memory; autograd takes as many of the logits' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, soft_margin_loss

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SigmoidOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import block_rows, is_plain, needs_gradient, run, times_upstream

# With labels smoothed by this much no answer is right enough for its loss, or its gradient, to be a small
# difference of large numbers: PyTorch's own kernel is exact then.
SMOOTH = 0.05
_HALF, _ONE, _MINUS_ONE = (
    {dtype: torch.full((), value, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)}
    for value in (0.5, 1.0, -1.0)
)
# 1 + exp(-|z|) is at most 2, and float32 holds the product of 2**6 such factors.
FOLDS = 6
_MEAN = 1  # how torch.binary_cross_entropy_with_logits calls it


KNOWN = ("label_smoothing", "pos_weight", "counted", "scale", "total", "gamma", "alpha")


def fits(logits: Tensor, labels: Tensor, options: SigmoidOptions) -> bool:
    """Whether `rows` knows these arguments; autograd differentiates by the labels and the options."""
    return (
        is_plain(logits)
        and labels.shape == logits.shape
        and type(options.label_smoothing) is float
        and not needs_gradient(labels, options.pos_weight, options.scale)
        and (options.gamma >= 1.0 or (options.gamma == 0.0 and options.alpha is None))
    )


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[..., Tensor],
    options: SigmoidOptions,
) -> Tensor | None:
    """`formulas.sigmoid_cross_entropy` for arguments that fit; None for infinite logits and labels outside [0, 1]."""
    if options.counted is not None:
        # Zeros for what does not count only where that holds NaN, infinities or no label.
        losses = run(logits, (labels, options), sweep, formula, logits.shape, options.total)
        if losses is not None and _are_proper(labels):
            return losses
        logits, labels, options = _counted(logits, labels, options)
    if not _are_proper(labels):
        return None
    scale, total = options.scale, options.total
    if (
        options.pos_weight is None
        and not options.gamma
        and total
        and isinstance(scale, float)
        and logits.numel() <= thresholds.SMALL_SIGMOID
    ):
        return small(logits, labels.detach(), options.label_smoothing, scale)
    return run(logits, (labels, options), sweep, formula, logits.shape, total)


def _counted(logits: Tensor, labels: Tensor, options: SigmoidOptions) -> tuple[Tensor, Tensor, SigmoidOptions]:
    """Zeros for what does not count, whatever it holds, and a scale of 0 there."""
    counted: Any = options.counted
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scale = torch.as_tensor(1.0 if options.scale is None else options.scale, dtype=dtype, device=logits.device)
    scale = torch.where(counted, scale, 0.0)
    return (
        torch.where(counted, logits, 0.0),
        torch.where(counted, labels, 0),
        options._replace(counted=None, scale=scale),
    )


def _are_proper(labels: Tensor) -> bool:
    """Whether all labels are in [0, 1]."""
    if labels.dtype == torch.bool:
        return True
    low, high = torch.aminmax(labels.detach())
    return low.item() >= -ROUNDING and high.item() <= 1.0 + ROUNDING


def sweep(
    logits: Tensor, labels: Tensor, options: SigmoidOptions, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`."""
    columns = _columns(logits.shape, options.pos_weight)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scale = times_upstream(options.scale, upstream, dtype)
    if isinstance(scale, Tensor):
        scale = scale.detach()
        scale = scale.item() if scale.numel() == 1 else scale.expand(logits.shape).reshape(-1, columns)
    pos_weight = options.pos_weight
    return _sweep(
        logits,
        labels=labels.detach().reshape(-1, columns),
        label_smoothing=options.label_smoothing,
        pos_weight=_flat_weight(pos_weight, logits.shape, columns),
        counted=None if options.counted is None else options.counted.reshape(-1, columns),
        scale=scale,
        total=options.total,
        with_gradient=with_gradient,
        gamma=options.gamma,
        alpha=options.alpha,
    )


def _columns(shape: torch.Size, pos_weight: Tensor | None) -> int:
    """The columns of a block: the last axis, and those before it along which an image's class has one weight."""
    trailing = 1
    if pos_weight is not None:
        while (
            trailing < pos_weight.ndim and pos_weight.shape[-trailing:].numel() == 1 == pos_weight.shape[-trailing - 1]
        ):
            trailing += 1
    return shape[-trailing:].numel() if shape else 1


def _flat_weight(pos_weight: Tensor | None, shape: torch.Size, columns: int) -> Tensor | None:
    """The weight as one number, one a column, or (rows, 1 or columns)."""
    if pos_weight is None or pos_weight.ndim <= 1:
        return None if pos_weight is None else pos_weight.detach()
    if pos_weight.shape[-1] != 1:
        return pos_weight.detach().expand(shape).reshape(-1, columns)
    rows = pos_weight.detach().expand(*shape[:-1], 1)
    return rows.reshape(-1, columns // shape[-1])[:, :1]


def small(logits: Tensor, labels: Tensor, label_smoothing: float, scale: float) -> Tensor | None:
    """``-scale sum (l log s(z) + (1 - l) log s(-z))`` by PyTorch's functions: here the number of calls counts."""
    z = logits if logits.dtype == labels.dtype else logits.to(labels.dtype)
    if not label_smoothing and torch.equal(labels.square(), labels):
        loss = soft_margin_loss(z, torch.add(_MINUS_ONE[labels.dtype], labels, alpha=2.0))
    else:
        labels = torch.lerp(labels, _HALF[labels.dtype], label_smoothing)
        if label_smoothing >= SMOOTH:
            loss = torch.binary_cross_entropy_with_logits(z, labels, None, None, _MEAN)
        else:
            z, labels = z.reshape(-1), labels.reshape(-1)
            loss = (torch.dot(labels, logsigmoid(z)) + torch.dot(1.0 - labels, logsigmoid(-z))) / -z.numel()
    if scale != 1.0 / z.numel():
        loss = loss * (scale * z.numel())
    return loss if math.isfinite(loss.item()) else None


@torch.no_grad()
def _sweep(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float,
    pos_weight: Tensor | None,
    counted: Tensor | None,
    scale: float | Tensor,
    total: bool,
    with_gradient: bool,
    gamma: float,
    alpha: float | None,
) -> tuple[Tensor, Tensor | None] | None:
    """Losses, of elements or of blocks, and the gradient (rows, columns); None if a loss is not a number."""
    num_rows, num_columns = labels.shape
    logits = logits.reshape(labels.shape)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    block = block_rows(num_rows, num_columns, thresholds.SIGMOID_BLOCK_ELEMENTS)
    count = 9 if gamma else 5 if pos_weight is None else 7
    if count * num_rows * num_columns * dtype.itemsize <= thresholds.SCRATCH_BYTES:  # no short second block
        block = num_rows
    memory = scratch((count, block, num_columns), dtype).unbind()
    gradient = empty_like(logits) if with_gradient else None
    losses = None if total else logits.new_empty((num_rows, num_columns), dtype=dtype)
    at_once = total and not gamma and not isinstance(scale, Tensor)
    sums = []

    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        d, n, e, sign, x, *more = memory if start + block <= num_rows else [y[: num_rows - start] for y in memory]
        x = logits[part] if logits.dtype == dtype else x.copy_(logits[part])
        into = d
        if gradient is not None and gradient.dtype == dtype:  # in place: scratch memory costs page faults
            into = gradient[part]
            d = d if gamma else into
        factor = scale[part] if isinstance(scale, Tensor) else scale
        kept = (
            None if counted is None else counted[part].to(dtype)
        )  # a product of bool and float takes ten times as long
        if kept is not None and not at_once:
            factor = kept.mul_(factor)
        torch.abs(x, out=e).neg_()
        loss = slope = c = None
        if gamma:
            torch.log1p(e.exp_(), out=n)
            torch.sub(_HALF[dtype] - 0.5 * label_smoothing, labels[part], alpha=1.0 - label_smoothing, out=d)
            loss, slope = _focal(x, d, n, e, sign, more, gamma, alpha)
        else:
            e.sigmoid_()  # PyTorch's takes half of the time of its exponential
            c = _weights(x, labels[part], label_smoothing, pos_weight, part, d, sign, more)
            if at_once:
                if kept is not None:
                    d.mul_(kept)
                    e.mul_(kept)
                sums.append(torch.dot(d.view(-1), x.reshape(-1)))
                sums.append(_sum_of_softplus(e, n) if c is None else -torch.dot(_log_rest(e, n).view(-1), c.view(-1)))
            else:
                n = n if losses is None else losses[part]
                loss = _log_rest(e, n) if c is None else _log_rest(e, n).mul_(c)
                loss = loss.addcmul_(d, x, value=-1.0).neg_()
        if loss is not None:
            loss = loss.mul_(factor) if isinstance(factor, Tensor) else loss
            if losses is None:
                sums.append(loss.sum())
            elif loss.data_ptr() != losses[part].data_ptr():
                losses[part] = loss
        if gradient is None:
            continue
        if slope is not None:
            into.copy_(slope)
        else:
            torch.addcmul(d, e if c is None else e.mul_(c), sign, value=-2.0, out=into)
        if isinstance(factor, Tensor) or factor != 1.0:
            into.mul_(factor)
        if gradient.dtype != dtype:
            gradient[part] = into

    found = torch.stack(sums) if losses is None else losses
    if not math.isfinite(found.sum().item()):
        return None
    as_they_are = isinstance(scale, Tensor) or (counted is not None and not at_once)
    return (found if as_they_are else found.mul_(scale)), gradient


def _weights(
    x: Tensor,
    labels: Tensor,
    label_smoothing: float,
    pos_weight: Tensor | None,
    part: slice,
    d: Tensor,
    sign: Tensor,
    scratch: list[Tensor],
) -> Tensor | None:
    """Fill in ``d = sign(z) m`` and half of the sign; return c, or None where it is 1.

    With h = 1 where z >= 0 and 0 elsewhere, ``d = h c - w l``: exactly 0 where a certain label is right.
    """
    torch.ge(x, 0.0, out=d)
    torch.sub(d, _HALF[d.dtype], out=sign)
    if pos_weight is None:
        d.sub_(labels, alpha=1.0 - label_smoothing)
        if label_smoothing:
            d.sub_(0.5 * label_smoothing)
        return None
    of_one, c = scratch
    if label_smoothing:
        labels = torch.mul(labels, 1.0 - label_smoothing, out=of_one).add_(0.5 * label_smoothing)
    torch.sub(_ONE[c.dtype], labels, out=c)
    torch.mul(labels, pos_weight[part] if pos_weight.ndim == 2 else pos_weight, out=of_one)
    d.mul_(c.add_(of_one)).sub_(of_one)
    return c


def _log_rest(s: Tensor, into: Tensor) -> Tensor:
    """``log(1 - s)``, written to ``into``."""
    return torch.neg(s, out=into).log1p_()


def _sum_of_softplus(s: Tensor, into: Tensor) -> Tensor:
    """The sum of ``-log(1 - s)``, s in [0, 1/2], of few logarithms: a logarithm takes as long as ten products.

    With the odds ``o = s / (1 - s)`` it is the sum of ``log(1 + o)``, and of two terms the logarithm of
    ``(1 + a)(1 + b) = 1 + (a + b + a b)``, which loses no digits of small odds. ``into`` is overwritten.
    """
    odds = torch.div(s, torch.sub(_ONE[s.dtype], s, out=into), out=into).view(-1)
    for _ in range(FOLDS):
        size = len(odds) // 2
        if not size:
            break
        first, second = odds[:size], odds[size : 2 * size]
        rest = odds[2 * size :]
        odds = first.addcmul_(first, second).add_(second)
        if len(rest):
            odds[:1].addcmul_(odds[:1], rest).add_(rest)
    return odds.log1p_().sum()


def _focal(
    x: Tensor,
    d: Tensor,
    n: Tensor,
    e: Tensor,
    sign: Tensor,
    scratch: list[Tensor],
    gamma: float,
    alpha: float | None,
) -> tuple[Tensor, Tensor]:
    """The focal loss of a block, and its gradient, of d = 1/2 - l, n = log(1 + exp(-|z|)) and e = exp(-|z|).

    With m the label's mass on the less likely answer, r = 1 / (1 + e), s = e r and the error ``f = (m + (1 - m) e) r``,
    the loss is ``a f^gamma c``, c = n + m |z|, and its gradient
    ``sign(z) a f^(gamma - 1) (f (m - s) + gamma c s r (2 m - 1))``.
    """
    m, r, f, power = scratch
    torch.copysign(_ONE[x.dtype], x, out=sign)
    torch.mul(d, sign, out=m).add_(0.5)
    torch.add(e, 1.0, out=r).reciprocal_()
    torch.sub(_ONE[x.dtype], e, out=f)
    torch.addcmul(e, m, f, out=f).mul_(r)
    c = n.addcmul_(m, torch.mul(x, sign, out=power))
    power = f if gamma == 2.0 else torch.pow(f, gamma - 1.0, out=power)
    weight = sign if alpha is None else sign.mul_(d.mul_(1.0 - 2.0 * alpha).add_(0.5))
    s = e.mul_(r)
    slope = r.mul_(s).mul_(c).mul_(torch.mul(m, 2.0 * gamma, out=d).sub_(gamma)).addcmul_(f, m.sub_(s))
    slope.mul_(power).mul_(weight)
    loss = c.mul_(f).mul_(power)
    return (loss if alpha is None else loss.mul_(weight.abs_())), slope
