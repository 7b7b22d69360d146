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
from lsmooth.backends.torch.sweep import FLOATS, block_rows, is_plain, needs_gradient, run, times_upstream

# With labels smoothed by this much no answer is right enough for its loss, or its gradient, to be a small
# difference of large numbers: PyTorch's own kernel is exact then.
SMOOTH = 0.05
_HALF, _ONE, _MINUS_ONE = (
    {dtype: torch.full((), value, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)}
    for value in (0.5, 1.0, -1.0)
)
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
        return _small(logits, labels.detach(), options.label_smoothing, scale)
    return run(logits, (labels, options), sweep, formula, logits.shape, total)


def _counted(logits: Tensor, labels: Tensor, options: SigmoidOptions) -> tuple[Tensor, Tensor, SigmoidOptions]:
    """Zeros for what does not count, whatever it holds, and a scale of 0 there."""
    counted: Any = options.counted
    scale = torch.as_tensor(1.0 if options.scale is None else options.scale, device=logits.device)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scale = torch.where(counted, scale.to(dtype), 0.0)
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
    columns = logits.shape[-1] if logits.ndim else 1
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
        pos_weight=_flat_weight(pos_weight, logits.shape),
        counted=None if options.counted is None else options.counted.reshape(-1, columns),
        scale=scale,
        total=options.total,
        with_gradient=with_gradient,
        gamma=options.gamma,
        alpha=options.alpha,
    )


def _flat_weight(pos_weight: Tensor | None, shape: torch.Size) -> Tensor | None:
    """The weight as one number, one a column, or (rows, 1 or columns)."""
    if pos_weight is None or pos_weight.ndim <= 1:
        return None if pos_weight is None else pos_weight.detach()
    columns = pos_weight.shape[-1]
    return pos_weight.detach().expand(*shape[:-1], columns).reshape(-1, columns)


def small_mean(labels: Any, logits: Any, label_smoothing: Any) -> Tensor | None:
    """`Backend.small_mean` of the sigmoid cross-entropy."""
    if (
        type(label_smoothing) is float
        and 0.0 <= label_smoothing <= 1.0
        and is_plain(logits, labels)
        and logits.numel() <= thresholds.SMALL_SIGMOID
        and logits.dtype in FLOATS
        and labels.shape == logits.shape
        and not labels.requires_grad
        and not labels.is_complex()
        and _are_proper(labels)
    ):
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        return _small(logits, labels.to(dtype), label_smoothing, 1.0 / labels.numel())
    return None


def _small(logits: Tensor, labels: Tensor, label_smoothing: float, scale: float) -> Tensor | None:
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
    block = block_rows(num_rows, num_columns)
    half = logits.new_full((), 0.5 - 0.5 * label_smoothing, dtype=dtype)
    arrays = scratch((9 if gamma else 5 if pos_weight is None else 7, block, num_columns), dtype)
    gradient = empty_like(logits) if with_gradient else None
    losses = None if total else logits.new_empty((num_rows, num_columns), dtype=dtype)
    sums = []

    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        d, n, e, sign, x, *more = arrays[:, : min(block, num_rows - start)].unbind()
        x = logits[part] if logits.dtype == dtype else x.copy_(logits[part])
        into = d
        if gradient is not None and gradient.dtype == dtype:  # in place: scratch memory costs page faults
            into = gradient[part]
            d = d if gamma else into
        factor = scale[part] if isinstance(scale, Tensor) else scale
        if counted is not None:  # a product of bool and float takes ten times as long
            factor = counted[part].to(dtype).mul_(factor)
        torch.sign(x, out=sign)
        torch.abs(x, out=e).neg_()
        if gamma:
            torch.log1p(e.exp_(), out=n)
        else:  # n = -log(1 - s): PyTorch's sigmoid takes half of the time of its exponential
            torch.log1p(torch.neg(e.sigmoid_(), out=n), out=n).neg_()
        # d = sign(z) m: (1 + sign) / 2 - l; at z = 0 either side is as good as their mean.
        torch.sub(half, labels[part], alpha=1.0 - label_smoothing, out=d)
        if pos_weight is not None:
            of_one, c = more
            torch.sub(_HALF[dtype], d, out=of_one).mul_(pos_weight[part] if pos_weight.ndim == 2 else pos_weight)
            torch.add(d.add_(0.5), of_one, out=c)
            d.sub_(of_one).addcmul_(sign, c).mul_(0.5)  # 1 - l where z > 0, -w l elsewhere
            n.mul_(c)
        else:
            c = None
            d = d if gamma else d.add_(sign, alpha=0.5)
        if gamma:
            loss, slope = _focal(x, d, n, e, sign, more, gamma, alpha)
        else:
            loss, slope = n.addcmul_(d, x), None
        loss = loss.mul_(factor) if isinstance(factor, Tensor) else loss
        sums.append(loss.sum())
        if losses is not None:
            losses[part] = loss
        if gradient is None:
            continue
        if slope is not None:
            into.copy_(slope)
        else:
            s = e if c is None else e.mul_(c)
            torch.addcmul(d, s, sign, value=-1.0, out=into)
        if isinstance(factor, Tensor) or factor != 1.0:
            into.mul_(factor)
        if gradient.dtype != dtype:
            gradient[part] = into

    found = torch.stack(sums)
    if not found.sum().isfinite().item():
        return None
    found = found if losses is None else losses
    return (found if counted is not None or isinstance(scale, Tensor) else found.mul_(scale)), gradient


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
