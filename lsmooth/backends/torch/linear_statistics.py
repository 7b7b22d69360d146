"""Statistics of the rows of a linear head on PyTorch, from the logits of the blocks of the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.base import Backend
from lsmooth.backends.formulas.linear import BlockLoss, Call
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import linear, statistics


class _Collecting(linear.OverwritingKernels):
    """Kernels that keep the statistics of each block."""

    def __init__(self, xp: Backend):
        super().__init__(xp)
        self.found: list[Tensor] = []  # (rows of a block, 4)

    def softmax_cross_entropy(self, logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor:
        from lsmooth.backends.torch import kernel_for, knows  # which imports this module

        kernel = kernel_for("cross_entropy", logits.device)
        over = self.may_overwrite and logits.requires_grad and logits.is_cpu and kernel is not None
        if over and knows(kernel, options, logits, labels) and statistics.fits(logits, labels, options):
            both = statistics.rows(kernel, logits, labels, None, None, options, overwrite=True)
            if both is None:
                self.may_overwrite = False
                raise linear.LogitsLostError
        else:
            both = self.xp.softmax_cross_entropy_with_statistics(logits, labels, options)
        losses, found = both
        self.found.append(torch.stack([x.detach().to(found.entropy.dtype) for x in found], -1))
        return losses


class _Known(torch.autograd.Function):
    """Known statistics; their gradient takes a sweep of its own in the backward pass."""

    @staticmethod
    def forward(ctx: Any, plan: linear.Plan, known: Tensor, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.wanted, ctx.gradients = plan, ctx.needs_input_grad[2:], None
        ctx.save_for_backward(*tensors)
        return known.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *linear.gradients_of_rows(ctx, *grad_outputs)


def rows(
    xp: Backend, loss: BlockLoss, call: Call, own_loss: BlockLoss, own: Call, block_size: int | None
) -> tuple[Tensor, Tensor]:
    """`Backend.linear_rows_with_statistics` of plain tensors, eager."""
    kernels = _Collecting(xp)
    losses = linear.linear_rows(xp, loss, call, block_size, kernels)
    lead, own = linear.flat(own)
    known = torch.cat(kernels.found)
    counted = own.rows.get("counted")
    if counted is not None and len(known) < len(counted):
        known = linear.with_ignored(known, counted.nonzero()[:, 0], len(counted))
    tensors = own.arrays()
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        known = _Known.apply(linear.plan_of(xp, own_loss, own, block_size), known, *tensors)
    return losses, known.reshape((*lead, 4))
