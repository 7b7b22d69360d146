"""Softmax focal loss on the CPU, its gradient written while the logits are in cache.

With p the softmax, q the smoothed label times the class weights, and f(p) = (1 - p)^gamma (-log p), a row costs
``sum_k q_k f(p_k)``, and its gradient is ``h - p sum_k h_k``, with

``h_k = q_k p_k f'(p_k) = q_k (gamma p_k (1 - p_k)^(gamma - 1) log p_k - (1 - p_k)^gamma)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import block_rows, is_plain, needs_gradient, run, times_upstream

KNOWN = ("label_smoothing", "prior", "class_weight", "counted", "scale", "total", "gamma")


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments; without smoothing, class ids have a quicker way: the log-odds."""
    eps = options.label_smoothing
    hard = labels.ndim < logits.ndim and eps.__class__ is float and eps == 0.0
    return not hard and is_plain(logits) and not needs_gradient(labels, *options)


def rows(logits: Tensor, labels: Tensor, formula: Callable[..., Tensor], options: SoftmaxOptions) -> Tensor | None:
    """`formulas.softmax_cross_entropy` with a gamma; None where a class is masked or a label is none."""
    return run(logits, (labels, options), _sweep, formula, logits.shape[:-1], options.total)


@torch.no_grad()
def _sweep(
    logits: Tensor, labels: Tensor, options: SoftmaxOptions, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor, Tensor | None] | None:
    """Losses (rows,) and gradient (rows, classes); None where a loss that counts is not finite."""
    shape, num_classes = logits.shape[:-1], logits.shape[-1]
    num_rows, dtype = math.prod(shape), torch.float64 if logits.dtype == torch.float64 else torch.float32

    def of_rows(x: Any) -> Any:
        return x if x.__class__ is float else x.to(dtype).expand(shape).reshape(-1, 1)

    prior = (
        torch.full((num_classes,), 1.0, dtype=dtype, device="cpu") if options.prior is None else options.prior.to(dtype)
    )
    eps, spread = of_rows(options.label_smoothing), prior / prior.sum()
    scale = of_rows(times_upstream(options.scale, upstream, dtype))
    counted = None if options.counted is None else options.counted.reshape(-1, 1)
    hard = labels.ndim < logits.ndim
    labels = labels.reshape(-1, 1).long() if hard else labels.reshape(-1, num_classes)
    if not (labels.amin().item() >= (0 if hard else -ROUNDING) and (not hard or labels.amax().item() < num_classes)):
        return None
    logits = logits.reshape(-1, num_classes)
    gradient = empty_like(logits) if with_gradient else None
    losses = torch.empty((num_rows, 1), dtype=dtype, device="cpu")
    block = block_rows(num_rows, num_classes)
    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        x = logits[part].to(dtype)
        eps_of_rows, scale_of_rows = (y if y.__class__ is float else y[part] for y in (eps, scale))
        q = _targets(labels[part], spread, x, hard, eps_of_rows, scale_of_rows)
        q = q if options.class_weight is None else q.mul_(options.class_weight)
        if counted is not None:
            x, q = x.masked_fill(~counted[part], 0.0), q.masked_fill_(~counted[part], 0.0)
        loss, slope = _block(x, q, options.gamma, with_gradient)
        if not math.isfinite(loss.sum().item()):
            return None
        losses[part] = loss
        if gradient is not None and slope is not None:
            gradient[part] = slope
    return losses.view(-1), gradient


def _targets(labels: Tensor, spread: Tensor, like: Tensor, hard: bool, eps: Any, scale: Any) -> Tensor:
    """``scale ((1 - eps) t + eps u)``, (rows, classes)."""
    if not hard:
        return torch.add((scale * (1.0 - eps)) * labels, (scale * eps) * spread)
    q = torch.mul(torch.as_tensor(scale * eps, dtype=like.dtype, device="cpu"), spread).expand(like.shape).contiguous()
    kept = torch.as_tensor(scale * (1.0 - eps), dtype=like.dtype, device="cpu").expand(labels.shape)
    return q.scatter_add_(1, labels, kept)


def _block(x: Tensor, q: Tensor, gamma: float, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The losses (rows, 1) of a block, and their gradient."""
    log_p, p = torch.log_softmax(x, 1), torch.softmax(x, 1)
    error = torch.rsub(p, 1.0)
    # Where p is above 1/2, 1 - p has lost its digits: take it from the other classes.
    likely = (p.amax(1) > 0.5).nonzero().squeeze(1)
    top = x[likely].argmax(1, keepdim=True)
    if len(likely):
        rest = p[likely].scatter_(1, top, 0.0).sum(1, keepdim=True)
        error[likely] = error[likely].scatter_(1, top, rest)
        log_p[likely] = log_p[likely].scatter_(1, top, torch.log1p(-rest))
    base = error if gamma == 2.0 else error.pow(gamma - 1.0)
    power = base * error  # (1 - p)^gamma
    losses = (power * log_p).mul_(q).sum(1, keepdim=True).neg_()
    if not with_gradient:
        return losses, None
    h = (base * p).mul_(log_p).mul_(gamma).sub_(power).mul_(q)
    gradient = torch.addcmul(h, p, h.sum(1, keepdim=True), value=-1.0)
    if len(likely):  # h_k (1 - p_k) - p_k sum of the other h, for the same reason
        h, p, error = h[likely], p[likely], error[likely]
        others = h.scatter(1, top, 0.0).sum(1, keepdim=True)
        exact = h.gather(1, top) * error.gather(1, top) - p.gather(1, top) * others
        gradient[likely] = gradient[likely].scatter_(1, top, exact)
    return losses, gradient
