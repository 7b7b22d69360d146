"""Softmax cross-entropy of few logits on the CPU, where the number of operations decides the time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.sweep import EXACT, times_upstream

# If |x_r| is larger, x_r is subtracted from the row first, because the sum over its classes would round digits of the
# loss away. The subtraction takes a seventh of the plain loss's time.
OFFSET = 16.0
# A smaller logarithm of a probability has lost digits to underflow.
LEAST_LOG = -70.0
_NONE, MEAN, _SUM = 0, 1, 2  # PyTorch's names of the reductions
NO_LABEL = -(2**62)  # to ignore no label


def native(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor | None:
    """The losses, or their sum, by PyTorch's differentiable functions; None if they are not finite.

    With q the smoothed label times the class weights, ``-sum_k q_k log p_k + a lse^2``.
    """
    eps, prior, weight, temperature, z_loss, softcap, counted, scale, total, _, _ = options
    if counted is not None and not math.isfinite(logits.detach().sum().item()):
        return None
    num_classes, dtype = logits.shape[-1], torch.float64 if logits.dtype == torch.float64 else torch.float32
    x = logits if logits.dtype == dtype else logits.to(dtype)
    if softcap is not None:
        x = torch.where(x == -math.inf, x, torch.tanh(x / softcap) * softcap)
    if temperature.__class__ is not float or temperature != 1.0:
        if z_loss:  # the log-sum-exp needs the maximum that is subtracted below
            return None
        # Subtract the maximum first: the quotient of large logits has few digits.
        x = (x - x.detach().amax(-1, keepdim=True)) / _columns(temperature)
    if counted is not None:
        scale = counted.to(dtype) if scale is None else counted.to(dtype) * scale
    plain = eps.__class__ is float and eps == 0.0
    one_factor = scale is None or scale.__class__ is float or not any(scale.stride())  # pyright: ignore
    try:
        if plain and labels.ndim < logits.ndim:
            reduction = _SUM if total and one_factor and not z_loss else _NONE
            if reduction == _SUM and weight is None and scale.__class__ is float and scale == 1.0 / labels.numel():
                reduction, scale = MEAN, None
            flat = logits.ndim == 2  # a reshape would add a step to the backward pass
            losses = torch._C._nn.cross_entropy_loss(  # pyright: ignore
                x if flat else x.reshape(-1, num_classes),
                (labels if flat else labels.reshape(-1)).long(),
                weight,
                reduction,
                NO_LABEL,
                0.0,
            )
            losses = losses if flat or reduction != _NONE else losses.reshape(logits.shape[:-1])
        else:
            at_once = total and not z_loss and (scale is None or scale.__class__ is float)
            q = _targets(labels, x.detach(), eps, prior, weight, -scale if at_once and scale is not None else -1.0)
            if q is None:
                return None
            log_p = torch.log_softmax(x, -1)
            if at_once:
                losses, scale = torch.dot(q.view(-1), log_p.reshape(-1)), None
            else:
                losses = (q * log_p).sum(-1)
    except (IndexError, RuntimeError):  # a label out of range
        return None
    if z_loss:
        top = x.detach().amax(-1)
        losses = losses + z_loss * (torch.logsumexp(x - top.unsqueeze(-1), -1) + top).square()
    if scale is not None:
        losses = losses * (scale if losses.ndim or scale.__class__ is float else scale.reshape(-1)[0])  # pyright: ignore
    losses = losses.sum() if total and losses.ndim else losses
    return losses if math.isfinite((losses.detach().sum() if losses.ndim else losses).item()) else None


def _targets(
    labels: Tensor, x: Tensor, eps: Any, prior: Tensor | None, weight: Tensor | None, factor: float
) -> Tensor | None:
    """``factor`` times q, in the shape of the logits; None if a label is negative."""
    spread: Any = factor / x.shape[-1] if prior is None else factor * prior / prior.sum()
    kept = factor * (1.0 - eps)
    spread, kept = (y if y.__class__ is float else y.to(x.dtype) for y in (spread * _columns(eps), kept))
    if labels.ndim == x.ndim:
        if not labels.amin().item() >= -ROUNDING:
            return None
        q = labels * _columns(kept) + spread
    else:
        q = torch.full_like(x, spread) if spread.__class__ is float else spread.expand(x.shape).contiguous()
        index = labels.long().unsqueeze(-1)
        if kept.__class__ is float:
            q.scatter_(-1, index, kept, reduce="add") if prior is not None else q.scatter_(-1, index, spread + kept)
        else:
            q.scatter_add_(-1, index, kept.expand(labels.shape).unsqueeze(-1))
    return q if weight is None else q.mul_(weight)


def _of_rows(x: Any, logits: Tensor) -> Any:
    """One number, or (rows, 1)."""
    if x.__class__ is float:
        return x
    x = x.detach() if x.dtype == logits.dtype else x.detach().to(logits.dtype)
    shape = logits.shape[:-1]
    if x.shape != shape:
        return x.item() if x.numel() == 1 else x.expand(shape).reshape(-1, 1)
    return x.reshape(-1, 1)


def _columns(x: Any) -> Any:
    return x if x.__class__ is float or not x.ndim else x.unsqueeze(-1)


def _is(x: Any, number: float) -> bool:
    return x.__class__ is float and x == number


def _times(x: Tensor, factor: float | Tensor) -> Tensor:
    return x if _is(factor, 1.0) else x * factor


def _are_ones(mass: Tensor) -> bool:
    """Whether the labels of every row sum to one, up to rounding."""
    low, high = torch.aminmax(mass)
    return high.item() - 1.0 <= 4 * torch.finfo(mass.dtype).eps >= 1.0 - low.item()


def _difference(p: Tensor, target: Tensor, factor: float | Tensor) -> Tensor:
    """``factor (p - target)``, in one pass over the memory of p: half the gradient of a squared error."""
    half = p.new_full((), 0.5 * factor) if factor.__class__ is float else 0.5 * factor  # pyright: ignore
    return torch.ops.aten.mse_loss_backward.grad_input(half, p, target, _SUM, grad_input=p)


def _log_p(p: Tensor, index: Tensor) -> Tensor | None:
    """The logarithm of each row's probability of its label, (rows, 1); None for a label out of range."""
    try:
        return p.gather(1, index).log_()
    except RuntimeError:
        return None


def _of_class_ids(
    rows: Tensor,
    x: Tensor,
    index: Tensor,
    weight: Tensor | None,
    temperature: Any,
    scale: Any,
    total: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None] | None:
    """`sweep` of class ids (rows, 1) without smoothing: the loss is ``-w_y log p_y``."""
    p = torch.softmax(x, 1)
    log_p = _log_p(p, index)
    if log_p is None or not log_p.amin().item() >= LEAST_LOG:
        return None
    if x is not rows and not rows.gather(1, index).abs().amax().item() <= OFFSET:  # the quotient loses digits
        return None
    factor: Any = scale if weight is None else weight.take(index).to(x.dtype).mul_(scale)
    losses = log_p.mul_(-factor) if factor.__class__ is float else (log_p * factor).neg_()
    losses = losses.sum() if total else losses.view(-1)
    if not with_gradient:
        return losses, None
    factor = factor if _is(temperature, 1.0) else factor / temperature
    if factor.__class__ is float:
        p.mul_(factor).scatter_(1, index, -factor, reduce="add")
    else:
        p.mul_(factor).scatter_add_(1, index, factor.neg().expand(len(p), 1))
    return losses, p


def _over_unmasked_classes(
    x: Tensor, prior: Tensor | None, weight: Tensor | None, into: Tensor
) -> tuple[Tensor, Tensor, Any, Tensor]:
    """The weights of the classes whose logit is not -inf, and the factor of each row that makes them u w.

    Also their sum, and that of u w x. u sums to 1. ``into`` is scratch memory.
    """
    kept = torch.ne(x, -math.inf, out=torch.empty_like(x))  # several times as fast as a bool result
    finite = torch.nan_to_num(x, nan=math.nan, posinf=math.inf, neginf=0.0, out=into)
    kept = kept if prior is None else kept.mul_(prior)
    factor = kept.sum(1, keepdim=True).reciprocal_()
    if weight is not None:
        kept.mul_(weight)
    elif prior is None:
        return kept, factor, 1.0, finite.sum(1, keepdim=True).mul_(factor)
    spread_x = finite.mul_(kept).sum(1, keepdim=True).mul_(factor)
    return kept, factor, 1.0 if weight is None else kept.sum(1, keepdim=True).mul_(factor), spread_x


def sweep(
    logits: Tensor, labels: Tensor, options: SoftmaxOptions, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """`cross_entropy.sweep` of a single block, with few operations; None if the blocks are needed.

    They are needed if an intermediate result is not finite or has lost digits, and for rare options.
    """
    eps, prior, weight, temperature, z_loss, softcap, counted, scale, _, _, _ = options
    if (
        softcap is not None
        or logits.dtype not in EXACT
        or logits.numel() > thresholds.ONE_BLOCK
        or not logits.is_contiguous()
    ):
        return None
    num_classes, dtype = logits.shape[-1], logits.dtype
    scale = times_upstream(scale, upstream, dtype)
    scale = scale if counted is None else counted.to(dtype) * scale
    if not eps.__class__ is temperature.__class__ is scale.__class__ is float:
        eps, temperature, scale = (_of_rows(x, logits) for x in (eps, temperature, scale))
    x = rows = logits.detach().view(-1, num_classes)
    if not _is(temperature, 1.0):
        x = rows / temperature
    smoothed, hard = not _is(eps, 0.0), labels.ndim < logits.ndim
    if hard and not smoothed and not z_loss:
        return _of_class_ids(
            rows, x, labels.reshape(-1, 1).long(), weight, temperature, scale, options.total, with_gradient
        )
    p = torch.empty_like(x)
    of_label: Any = 1.0 - eps
    index: Any = labels
    mass: Any = 1.0
    target_x: Any = 0.0
    target = spread = None
    spread_sum, spread_x, of_kept = 1.0, 0.0, None
    if smoothed:  # u w, u summing to 1
        if prior is None and weight is None:
            spread, spread_x = 1.0 / num_classes, x.mean(1, keepdim=True)
        else:
            spread = x.new_full((num_classes,), 1.0 / num_classes) if prior is None else prior / prior.sum()
            spread = (spread if weight is None else spread * weight).to(dtype)
            spread_sum, spread_x = spread.sum(), torch.mv(x, spread).unsqueeze(1)
        if hard and not math.isfinite(spread_x.sum().item()):  # some classes may be masked
            spread, of_kept, spread_sum, spread_x = _over_unmasked_classes(x, prior, weight, p)
    if hard:
        index = labels.reshape(-1, 1).long()
    else:
        target = labels.detach().contiguous().view(-1, num_classes)
        if not target.amin().item() >= -ROUNDING:
            return None
        target = target if weight is None else target * weight
        mass = target.sum(1, keepdim=True)
        if options.total and scale.__class__ is of_label.__class__ is float:  # only the sum of the losses is needed
            target_x = torch.dot(target.view(-1), x.view(-1)) / len(x)
        else:
            target_x = torch.mul(target, x, out=p).sum(1, keepdim=True)
    torch.softmax(x, 1, out=p)
    log_p = _log_p(p, index) if hard else p[:, :1].log()
    if log_p is None or not log_p.amin().item() >= LEAST_LOG:
        return None
    reference = rows[:, :1] if not hard else rows.gather(1, index)
    if not reference.abs().amax().item() <= OFFSET:
        return None
    lse = (reference if x is rows else reference / temperature) - log_p  # of the logits as they are
    if hard:
        of_label = of_label if weight is None else of_label * weight[index]
        losses, total = log_p * -of_label, of_label
    else:
        losses, total = _times(mass * lse - target_x, of_label), _times(mass, of_label)
    if smoothed:
        losses = losses + eps * (spread_sum * lse - spread_x)
        total = 1.0 if hard and weight is None else total + eps * spread_sum
    if z_loss:
        losses = losses + z_loss * lse.square()
        total = total + 2.0 * z_loss * lse
    losses = _times(losses, scale)
    loss = losses.sum()
    if not math.isfinite(loss.item()):
        return None
    losses = loss if options.total else losses.view(-1)
    if not with_gradient:
        return losses, None
    factor = scale if _is(temperature, 1.0) else scale / temperature
    if target is not None and not smoothed and not z_loss and _are_ones(mass):
        return losses, _difference(p, target, factor)
    of_p, of_label, of_spread = factor * total, factor * of_label, factor * eps
    if spread is None:
        p = p if _is(of_p, 1.0) else p.mul_(of_p)
    elif of_p.__class__ is float and spread.__class__ is float and of_spread.__class__ is float:
        torch.add(p.new_full((), -of_spread * spread), p, alpha=of_p, out=p)  # pyright: ignore[reportArgumentType]
    elif of_kept is None:
        p.mul_(of_p).sub_(of_spread * spread)
    else:
        p.mul_(of_p).addcmul_(spread, of_spread * of_kept, value=-1.0)  # pyright: ignore[reportArgumentType]
    if target is not None:
        p.sub_(target, alpha=of_label) if of_label.__class__ is float else p.addcmul_(target, of_label, value=-1.0)
    elif of_label.__class__ is float:
        p.scatter_(1, index, -of_label, reduce="add")
    else:
        p.scatter_add_(1, index, of_label.neg().expand(log_p.shape))
    return losses, p
