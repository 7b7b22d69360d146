"""Softmax cross-entropy on the CPU, its gradient written while the logits are in cache.

``torch.softmax`` is the one eager kernel that runs at memory speed; ``log_softmax`` and
``logsumexp`` take several times as long. So the rows go through in blocks that stay in cache,
log-sum-exp is read off the softmax, ``lse = z_y - log p_y``, and the softmax in place becomes
the gradient: one read and one write of the logits, where autograd makes a dozen of each.

This path is for what training calls all day. Traced or transformed tensors, options that want
a gradient of their own, masked classes and labels out of range take the general formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import FLOATS, INTEGERS, block_rows, is_plain, needs_gradient, run, times_upstream

# Up to this many logits, a few native calls beat the sweep.
SMALL = 2**16


class Options(NamedTuple):
    """What the blocks know of the loss: numbers, and columns over the rows."""

    label_smoothing: float
    prior: Tensor | None
    temperature: float
    scale: float | Tensor
    counted: Tensor | None


KNOWN = ("label_smoothing", "prior", "temperature", "counted", "scale", "total")


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments: CPU tensors, no transform, no option that needs a gradient."""
    return (
        is_plain(logits)
        and labels.ndim == logits.ndim - 1
        and type(options.label_smoothing) is float
        and type(options.temperature) is float
        and not needs_gradient(options.prior, options.scale)
    )


def rows(
    logits: Tensor, labels: Tensor, formula: Callable[..., Tensor], options: SoftmaxOptions, overwrite: bool = False
) -> Tensor | None:
    """`formulas.softmax_cross_entropy` for arguments that fit; None where a value does not.

    ``formula`` is that function of the logits, the labels and the options, for derivatives of the gradient.
    With ``overwrite`` the logits may be lost: the gradient is written over them.
    """
    eps, scale, total = options.label_smoothing, options.scale, options.total
    plain = options.prior is options.counted is None and options.temperature == 1.0
    if plain and isinstance(scale, float) and total and logits.numel() <= SMALL:
        return _small(logits, labels, eps, scale)
    run_sweep = functools.partial(sweep, overwrite=overwrite)
    return run(logits, (labels, options), run_sweep, formula, labels.shape, total)


def sweep(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; None where a value does not fit."""
    flat_labels = labels.reshape(-1, 1).long()
    low, high = torch.aminmax(flat_labels)
    if low.item() < 0 or high.item() >= logits.shape[-1]:
        return None
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scale = times_upstream(options.scale, upstream, dtype)
    if isinstance(scale, Tensor):
        scale = scale.detach().expand(labels.shape).reshape(-1, 1)
    counted = options.counted
    counted = None if counted is None else counted.reshape(-1, 1)
    of_block = Options(options.label_smoothing, options.prior, options.temperature, scale, counted)
    return _sweep(logits, flat_labels, of_block, with_gradient, overwrite)


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
    if label_smoothing == 0.0 and logits.ndim == 2 and labels.dtype == torch.int64 and logits.dtype in _SMALLEST:
        try:
            ignored = _NO_LABEL if ignore_index is None else ignore_index
            loss = torch._C._nn.cross_entropy_loss(logits, labels, None, _MEAN, ignored, 0.0)
        except (IndexError, RuntimeError):  # a label out of range
            return None
        return loss if math.isfinite(loss.item()) else None  # else perhaps no label counts
    if ignore_index is not None and torch.any(labels == ignore_index).item():
        return None
    return _small(logits, labels, label_smoothing, 1.0 / labels.numel())


_MEAN = 1  # PyTorch's name of that reduction
_NO_LABEL = -(2**62)  # to ignore no label


def _small(logits: Tensor, labels: Tensor, label_smoothing: float, scale: float) -> Tensor | None:
    """``-sum_ik scale q_ik log p_ik`` as it stands: up to some size the number of calls is what counts."""
    rest = -scale * label_smoothing / logits.shape[-1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    weights = logits.new_full(logits.shape, rest, dtype=dtype)
    try:
        weights.scatter_(-1, labels.long().unsqueeze(-1), rest - scale * (1.0 - label_smoothing))
    except RuntimeError:  # a label out of range
        return None
    log_p = torch.log_softmax(logits, -1, dtype=dtype)
    loss = torch.dot(weights.view(-1), log_p.reshape(-1))
    return loss if math.isfinite(loss.item()) else None


@torch.no_grad()
def _sweep(
    logits: Tensor, labels: Tensor, options: Options, with_gradient: bool, overwrite: bool = False
) -> tuple[Tensor, Tensor | None] | None:
    """Losses (rows,) and gradient (rows, classes); None if a class is masked and smoothing is on.

    Written over the logits, it is also None where a loss asks to see them again.
    """
    eps, prior, temperature, scale, counted = options
    logits = logits.reshape(-1, logits.shape[-1])
    num_rows, num_classes = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    # The softmax goes straight from the logits to the gradient's memory, or by way of scratch.
    as_they_are = logits.dtype == dtype and temperature == 1.0
    in_place = with_gradient and logits.dtype == dtype
    block = block_rows(num_rows, num_classes)
    gradient = None if not with_gradient else logits.detach() if overwrite else empty_like(logits)
    label_z = logits.gather(1, labels).to(dtype) / temperature
    scratch = None if in_place else logits.new_empty((block, num_classes), dtype=dtype)
    scaled = None if as_they_are else logits.new_empty((block, num_classes), dtype=dtype)

    if prior is not None:
        prior = prior / prior.sum()
    spread = logits.new_full((), eps / num_classes, dtype=dtype) if prior is None else eps * prior
    factor = scale / temperature
    taken = (eps - 1.0) * factor
    taken = taken if isinstance(taken, Tensor) else logits.new_full((num_rows, 1), taken, dtype=dtype)
    label_p = logits.new_empty((num_rows, 1), dtype=dtype)
    mean = logits.new_empty((num_rows, 1), dtype=dtype) if eps else None

    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        x, y = logits[part], labels[part]
        if scaled is not None:
            x = scaled[: len(x)].copy_(x)
            x = x if temperature == 1.0 else x.div_(temperature)
        p = gradient[part] if gradient is not None and scratch is None else scratch[: len(x)]  # pyright: ignore
        if mean is not None:
            torch.sum(x if prior is None else x * prior, 1, keepdim=True, out=mean[part])
        torch.softmax(x, 1, out=p)
        torch.gather(p, 1, y, out=label_p[part])
        if gradient is None:
            continue
        if isinstance(factor, Tensor):
            (p.sub_(spread) if eps else p).mul_(factor[part])
        elif eps:
            torch.add(spread * -factor, p, alpha=factor, out=p)
        else:
            p.mul_(factor)
        p.scatter_add_(1, y, taken[part])
        if scratch is not None:
            gradient[part] = p

    # Smoothing over a masked class, or a row that is not counted and not a number.
    suspects = mean if eps else label_p if counted is not None else None
    if suspects is not None and not suspects.isfinite().all().item():
        return None
    nll = label_p.log().neg_()
    lost = label_p < _SMALLEST[dtype]
    if lost.any().item():
        if overwrite:
            return None
        at = lost[:, 0]
        nll[at] = torch.logsumexp(logits[at].to(dtype) / temperature, 1, keepdim=True) - label_z[at]
    if mean is not None:
        # lse - mean = nll + z_y - mean
        nll += eps * (label_z - (mean / num_classes if prior is None else mean))
    losses = nll * scale
    return (losses if counted is None else losses.where(counted, 0.0)), gradient


# Below this a probability has lost digits to underflow, and its logarithm with it.
_SMALLEST = {dtype: torch.finfo(dtype).tiny * 1e6 for dtype in (torch.float32, torch.float64)}
