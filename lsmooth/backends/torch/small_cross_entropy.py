"""Softmax cross-entropy of few logits on the CPU: the number of calls counts, and PyTorch's own are the fewest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas import ROUNDING
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.sweep import EXACT, FLOATS, INTEGERS, is_plain, times_upstream

# Up to this many logits of a group are one block: fewer calls.
ONE_BLOCK = 2**18
# Beyond this size, x_r is subtracted from a row first: else the sum over its classes rounds digits of the loss away.
# Up to it the rounding is that of float32. The subtraction takes a seventh of the plain loss's time.
OFFSET = 16.0
# Below this, the logarithm of a probability has lost digits to its underflow.
LEAST_LOG = -70.0
# Up to this many logits, a few native calls beat the sweep.
SMALL = 2**16
_NONE, _MEAN, _SUM = 0, 1, 2  # PyTorch's names of the reductions
_NO_LABEL = -(2**62)  # to ignore no label


def small_mean(labels: Any, logits: Any, label_smoothing: Any, ignore_index: Any, axis: Any) -> Tensor | None:
    """`Backend.small_mean` of the softmax cross-entropy."""
    if not (
        type(label_smoothing) is float
        and 0.0 <= label_smoothing <= 1.0
        and is_plain(logits, labels)
        and logits.numel() <= SMALL
        and logits.dtype in FLOATS
        and labels.dtype in INTEGERS
        and labels.shape == logits.shape[:-1]
        and type(axis) is int
        and axis in (-1, logits.ndim - 1)
        and (ignore_index is None or type(ignore_index) is int)
    ):
        return None
    if label_smoothing == 0.0 and logits.ndim == 2 and labels.dtype == torch.int64 and logits.dtype in EXACT:
        try:
            ignored = _NO_LABEL if ignore_index is None else ignore_index
            mean = torch._C._nn.cross_entropy_loss(logits, labels, None, _MEAN, ignored, 0.0)  # pyright: ignore
        except (IndexError, RuntimeError):  # a label out of range
            return None
        if not math.isfinite(mean.item()):  # perhaps no label counts
            return None
        # PyTorch's gradient of an ignored row that holds NaN is NaN.
        return mean if ignore_index is None or math.isfinite(logits.detach().sum().item()) else None
    if ignore_index is not None and torch.any(labels == ignore_index).item():
        return None
    return native(logits, labels, SoftmaxOptions(label_smoothing, scale=1.0 / labels.numel(), total=True))


def native(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor | None:
    """The losses, or their sum, by PyTorch's differentiable functions; None if they are not finite.

    With q the smoothed label times the class weights, ``-sum_k q_k log p_k + a lse^2``.
    """
    eps, prior, weight, temperature, z_loss, softcap, counted, scale, total, *_ = options
    if logits.numel() > SMALL or (counted is not None and not math.isfinite(logits.detach().sum().item())):
        return None
    num_classes, dtype = logits.shape[-1], torch.float64 if logits.dtype == torch.float64 else torch.float32
    x = logits if logits.dtype == dtype else logits.to(dtype)
    if softcap is not None:
        x = torch.where(x == -math.inf, x, torch.tanh(x / softcap) * softcap)
    if temperature.__class__ is not float or temperature != 1.0:
        if z_loss:  # the rarest pair; the log-sum-exp needs the offset
            return None
        # First the largest, which a quotient would round to few digits.
        x = (x - x.detach().amax(-1, keepdim=True)) / _columns(temperature)
    if counted is not None:
        scale = counted.to(dtype) if scale is None else counted.to(dtype) * scale
    plain = eps.__class__ is float and eps == 0.0
    one_factor = scale is None or scale.__class__ is float or not any(scale.stride())  # pyright: ignore
    try:
        if plain and labels.ndim < logits.ndim:
            reduction = _SUM if total and one_factor and not z_loss else _NONE
            losses = torch._C._nn.cross_entropy_loss(  # pyright: ignore
                x.reshape(-1, num_classes), labels.reshape(-1).long(), weight, reduction, _NO_LABEL, 0.0
            )
            losses = losses.reshape(logits.shape[:-1]) if reduction == _NONE else losses
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
    """``factor`` times q, in the shape of the logits; None for labels that are no distributions."""
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
    x = x.detach().to(logits.dtype)
    return x.item() if x.numel() == 1 else x.expand(logits.shape[:-1]).reshape(-1, 1)


def _columns(x: Any) -> Any:
    return x if x.__class__ is float or not x.ndim else x.unsqueeze(-1)


def _over_unmasked_classes(x: Tensor, prior: Tensor | None, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The weights u w of each row, u summing to 1 over the classes whose logit is not -inf; their sum, and u w x."""
    spread = torch.ne(x, -math.inf, out=torch.empty_like(x))  # into floats: several times as fast as into bools
    spread = spread if prior is None else spread.mul_(prior)
    spread.div_(spread.sum(1, keepdim=True))
    spread = spread if weight is None else spread.mul_(weight)
    finite = torch.nan_to_num(x, nan=math.nan, posinf=math.inf, neginf=0.0)
    return spread, spread.sum(1, keepdim=True), finite.mul_(spread).sum(1, keepdim=True)


def sweep(
    logits: Tensor, labels: Tensor, options: SoftmaxOptions, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """`cross_entropy.sweep` of one block of rows, in as few calls as there are; None where that one is needed.

    That is where an intermediate result is not finite or has lost digits, and for the rarer options.
    """
    eps, prior, weight, temperature, z_loss, softcap, counted, scale, *_ = options
    if softcap is not None or logits.dtype not in EXACT or logits.numel() > ONE_BLOCK or not logits.is_contiguous():
        return None
    num_classes, dtype = logits.shape[-1], logits.dtype
    scale = times_upstream(scale, upstream, dtype)
    scale = scale if counted is None else counted.to(dtype) * scale
    eps, temperature, scale = (_of_rows(x, logits) for x in (eps, temperature, scale))
    x = rows = logits.detach().view(-1, num_classes)
    if temperature.__class__ is not float or temperature != 1.0:
        x = rows / temperature
    p = torch.empty_like(x)
    smoothed = eps.__class__ is not float or eps != 0.0
    hard = labels.ndim < logits.ndim
    index: Any = labels
    mass: Any = 1.0
    target_x: Any = 0.0
    target = spread = None
    spread_sum, spread_x = 1.0, 0.0
    if smoothed:  # u w, u summing to 1
        if prior is None and weight is None:
            spread, spread_x = 1.0 / num_classes, x.mean(1, keepdim=True)
        else:
            spread = x.new_full((num_classes,), 1.0 / num_classes) if prior is None else prior / prior.sum()
            spread = (spread if weight is None else spread * weight).to(dtype)
            spread_sum, spread_x = spread.sum(), torch.mv(x, spread).unsqueeze(1)
        if hard and not math.isfinite(spread_x.sum().item()):  # perhaps some classes are masked
            spread, spread_sum, spread_x = _over_unmasked_classes(x, prior, weight)
    if hard:
        index = labels.reshape(-1, 1).long()
    else:
        target = labels.detach().view(-1, num_classes) if labels.is_contiguous() else labels.detach().reshape(x.shape)
        if not target.amin().item() >= -ROUNDING:
            return None
        target = target if weight is None else target * weight
        mass, target_x = target.sum(1, keepdim=True), torch.mul(target, x, out=p).sum(1, keepdim=True)
    torch.softmax(x, 1, out=p)
    try:
        picked = p[:, :1] if not hard else p.gather(1, index)
    except RuntimeError:  # a label out of range
        return None
    log_p = picked.log()
    if not log_p.amin().item() >= LEAST_LOG:
        return None
    lse: Any = None  # of the logits as they are
    if smoothed or z_loss or not hard or x is not rows:
        reference = rows[:, :1] if not hard else rows.gather(1, index)
        if not reference.abs().amax().item() <= OFFSET:
            return None
        reference = reference if x is rows else reference / temperature
        lse = reference - log_p
    if hard:
        total = 1.0 - eps if weight is None else (1.0 - eps) * weight[index]
        losses, of_label = log_p * -total, total
    else:
        total = (1.0 - eps) * mass
        losses, of_label = total * lse - (1.0 - eps) * target_x, 1.0 - eps
    if smoothed:
        losses = losses + eps * (spread_sum * lse - spread_x)
        total = 1.0 if hard and weight is None else total + eps * spread_sum
    if z_loss:
        losses = losses + z_loss * lse.square()
        total = total + 2.0 * z_loss * lse
    if scale.__class__ is not float or scale != 1.0:
        losses = losses * scale
    if (smoothed or z_loss or not hard) and not math.isfinite(losses.sum().item()):
        return None
    losses = losses.view(-1)
    if not with_gradient:
        return losses, None
    factor = scale / temperature
    of_p = factor * total
    of_spread = factor * eps
    if spread is None:
        if of_p.__class__ is not float or of_p != 1.0:
            p.mul_(of_p)
    elif of_p.__class__ is float and spread.__class__ is float and of_spread.__class__ is float:
        torch.add(p.new_full((), -of_spread * spread), p, alpha=of_p, out=p)  # in one pass
    else:
        p.mul_(of_p).sub_(of_spread * spread)
    of_label = factor * of_label
    if target is not None:
        p.sub_(target, alpha=of_label) if of_label.__class__ is float else p.addcmul_(target, of_label, value=-1.0)
    elif of_label.__class__ is float:
        p.scatter_add_(1, index, torch.full_like(log_p, -of_label))
    else:
        p.scatter_add_(1, index, of_label.neg().expand(log_p.shape))
    return losses, p
