"""Softmax cross-entropy on the CPU, with every option, its gradient written while the logits are in cache.

``torch.softmax`` is the one eager kernel that runs at memory speed; ``log_softmax`` and ``logsumexp`` take
several times as long. The logits are therefore processed in blocks that stay in cache, and the softmax is turned into
the gradient in place: one read and one write of the logits, where autograd makes about twelve of each. With x the
logits after soft-cap and temperature, r one class of the row, and q the smoothed label times the class weights,

``lse = x_r - log p_r``, ``loss = Q lse - sum_k q_k x_k + a lse^2``, ``gradient = (Q + 2 a lse) p - q``, Q the sum of q.

A block is (rows, classes), or (groups, classes, rows) where the classes lie along another axis than the last: no
copy of all logits is made. PyTorch has no fast softmax along such an axis; there it is ``2^(log2(e) (x - c))`` over
its sum, c being the largest logit of a row. A first pass assumes finite logits and labels in range. If a loss is not
finite, or a label is out of range, a careful pass follows, which handles masked classes (-inf).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import images, small_cross_entropy
from lsmooth.backends.torch.cpu.cross_entropy_blocks import Blocks, Loss
from lsmooth.backends.torch.cpu.layout import Layout, layout_of
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import is_plain, losses_alone, needs_gradient, run, times_upstream
from lsmooth.backends.torch.sweep import multiply as multiply

# Where the class r is not the label, it is the largest of this many first classes.
SAMPLE = 32

KNOWN = (
    "label_smoothing",
    "prior",
    "class_weight",
    "temperature",
    "z_loss",
    "logit_softcap",
    "counted",
    "scale",
    "total",
    "num_classes",
)


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments: CPU tensors, no transform, a gradient for the logits alone."""
    return is_plain(logits) and not needs_gradient(labels, *options)


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[..., Tensor],
    options: SoftmaxOptions,
    overwrite: bool = False,
    late: bool = False,
) -> Tensor | None:
    """`formulas.softmax_cross_entropy` for arguments that fit; None if the logits cannot be overwritten.

    ``formula`` is that function of the logits, the labels and the options, for derivatives of the gradient.
    With ``overwrite`` the gradient overwrites the logits; if ``late``, in the backward pass.
    """
    if late:
        over = functools.partial(sweep, late=True)
        return run(
            logits, (labels, options), over, formula, logits.shape[:-1], options.total, first=losses_alone(sweep)
        )
    losses = images.rows(logits, labels, options) if logits.ndim > 2 else None
    if losses is None and logits.numel() <= thresholds.SMALL_CROSS_ENTROPY:
        losses = small_cross_entropy.native(without_padding(logits, options), labels, options)
    if losses is not None:
        return losses
    kernel = functools.partial(sweep, overwrite=True) if overwrite else sweep
    return run(logits, (labels, options), kernel, formula, logits.shape[:-1], options.total)


def sweep(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
    statistics: list[RowStatistics] | None = None,
    late: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; None if the logits that a careful pass needs are overwritten.

    Statistics of the rows (rows,) are put into the list, if one is given.
    """
    found = None
    if not (overwrite or late) and statistics is None and options.num_classes is None:
        found = small_cross_entropy.sweep(logits, labels, options, with_gradient, upstream)
    if found is None:
        found = _in_blocks(logits, labels, options, with_gradient, upstream, overwrite, statistics, late)
    return found


@torch.no_grad()
def _in_blocks(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None,
    overwrite: bool,
    statistics: list[RowStatistics] | None,
    late: bool,
) -> tuple[Tensor, Tensor | None] | None:
    padded = logits.detach()
    logits = without_padding(padded, options)
    layout, dtype = layout_of(padded), torch.float64 if logits.dtype == torch.float64 else torch.float32
    whole = layout.matrices(padded)
    num_classes = logits.shape[-1]
    z, layout = whole.narrow(1, 0, num_classes), layout.of_classes(num_classes)
    loss, in_range = _loss(z, labels, options, upstream, layout, dtype)
    target = None if loss.ids is not None else layout.matrices(labels)
    counted = None if options.counted is None else options.counted.reshape(layout.column_shape)
    if counted is not None:
        loss = loss._replace(factor=counted.to(dtype).mul_(loss.factor))
    # The careful pass always finishes. It cannot follow a pass that has overwritten the logits.
    for careful in ([False] if in_range and not late else []) + ([] if overwrite else [True]):
        gradient = None
        if with_gradient:
            over = late and (padded.is_contiguous() or layout.is_image)
            over = over or (overwrite and z.dtype == dtype and not layout.is_image)
            gradient = whole if over else empty_like(whole)
        blocks = Blocks(z, target, loss, layout, dtype, counted, careful, gradient, statistics is not None)
        losses = blocks.run()
        if losses is None:
            continue
        if statistics is not None:
            statistics[:] = [blocks.kept.statistics(blocks)]  # pyright: ignore[reportOptionalMemberAccess]
        # The factor of an ignored row is 0, but 0 times a number that is not finite is NaN.
        if counted is not None and not math.isfinite(losses.sum().item()):
            losses = losses.where(counted, 0.0)
            if gradient is not None:
                gradient.masked_fill_(~counted, 0.0)
        if gradient is None:
            return losses.view(-1), None
        if padded is not logits:
            gradient.narrow(1, num_classes, padded.shape[-1] - num_classes).zero_()
        return losses.view(-1), layout.gradient(gradient)
    return None


def without_padding(logits: Tensor, options: SoftmaxOptions) -> Tensor:
    """A view of the logits of the classes."""
    num_classes = options.num_classes
    return logits if num_classes is None or num_classes == logits.shape[-1] else logits[..., :num_classes]


def _loss(
    z: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    upstream: Tensor | None,
    layout: Layout,
    dtype: torch.dtype,
) -> tuple[Loss, bool]:
    """The options as the blocks take them, and whether all labels are in range."""
    num_classes = z.shape[1]

    def of_rows(x: Any) -> Any:
        return layout.column(x.to(dtype)) if isinstance(x, Tensor) else x

    eps, weight, prior = of_rows(options.label_smoothing), options.class_weight, options.prior
    weight, prior = (None if x is None else x.detach().to(dtype) for x in (weight, prior))
    spread: float | Tensor | None = None
    spread_sum: float | Tensor = 0.0
    if isinstance(eps, Tensor) or eps != 0.0:
        spread, spread_sum = 1.0 / num_classes, 1.0
        if prior is not None:
            spread = prior / prior.sum()
        if weight is not None:
            weighted = weight * spread if prior is not None else weight / num_classes
            spread, spread_sum = weighted, weighted.sum()
    index, in_range, label_weight = None, True, 1.0 - eps
    if labels.ndim == len(layout.rows):
        index = labels.reshape(layout.column_shape).long()
        low, high = torch.aminmax(index)
        in_range = low.item() >= 0 and high.item() < num_classes
        valid = None if in_range else (index >= 0) & (index < num_classes)
        index = index if valid is None else index.where(valid, 0)
        label_weight = (
            label_weight if weight is None else label_weight * weight.index_select(0, index.view(-1)).view(index.shape)
        )
        if valid is not None:
            label_weight = torch.as_tensor(label_weight, dtype=dtype, device=z.device).where(valid, math.nan)
    reference = index
    if layout.is_image:
        reference = None
        weight, prior = (None if x is None else x.unsqueeze(-1) for x in (weight, prior))
        spread = spread.unsqueeze(-1) if isinstance(spread, Tensor) else spread
    elif index is None or options.z_loss:
        reference = z[:, :SAMPLE].argmax(1, keepdim=True)
    loss = Loss(
        index,
        reference,
        eps,
        spread,
        spread_sum,
        label_weight,
        weight,
        prior,
        of_rows(options.temperature),
        options.z_loss,
        options.logit_softcap,
        of_rows(times_upstream(options.scale, upstream, dtype)),
    )
    return loss, in_range
