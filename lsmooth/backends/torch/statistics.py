"""Statistics of rows together with their cross-entropy, from the blocks of the loss.

The sweep stores a few numbers of each row while a block is in cache. The backward pass computes their gradient by the
formula, a block of rows at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import cross_entropy
from lsmooth.backends.torch.sweep import is_batched, run

Formula = Callable[..., RowStatistics]
"""``formula(logits, labels, options)``: `lsmooth.backends.formulas.statistics.row_statistics` on PyTorch."""


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments, which the kernel of the cross-entropy knows."""
    weighted = labels.ndim == logits.ndim and options.class_weight is not None
    return (logits.numel() > thresholds.ONE_BLOCK or not logits.is_cpu) and not weighted


def rows(
    kernel: Any,
    logits: Tensor,
    labels: Tensor,
    loss_formula: Callable[..., Tensor] | None,
    formula: Formula | None,
    options: SoftmaxOptions,
    overwrite: bool = False,
) -> tuple[Tensor, RowStatistics] | None:
    """The losses and the statistics of arguments that fit; None if only the formula can handle overwritten logits.

    ``kernel`` is the module of the cross-entropy for these tensors.
    """
    if kernel is not cross_entropy:
        logits, options = cross_entropy.without_padding(logits, options), options._replace(num_classes=None)
    found: list[RowStatistics] = []
    sweep = functools.partial(kernel.sweep, overwrite=overwrite)
    first = functools.partial(sweep, statistics=found)
    shape, multiply = logits.shape[:-1], kernel.multiply
    losses = run(logits, (labels, options), sweep, loss_formula, shape, options.total, multiply, first)  # type: ignore
    if losses is None:
        return None
    statistics = RowStatistics._make([x.view(logits.shape[:-1]) for x in found[-1]])
    if logits.requires_grad and torch.is_grad_enabled() and not overwrite:
        differentiable = _Statistics.apply(logits, labels, statistics, options, formula)
        statistics = RowStatistics._make([*differentiable, statistics.predicted])
    return losses, statistics


class _Statistics(torch.autograd.Function):
    """Known statistics, made differentiable."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, statistics: RowStatistics, options: SoftmaxOptions, formula: Formula
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, labels)
        ctx.options, ctx.formula = options, formula
        ctx.set_materialize_grads(False)
        return statistics.log_prob, statistics.entropy, statistics.log_sum_exp

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        used = [(i, x) for i, x in enumerate(grad_outputs) if x is not None]
        if not used:
            return None, None, None, None, None
        if torch.is_grad_enabled() or any(is_batched(x) for _, x in used):
            gradient = _gradient(logits, labels, ctx.options, ctx.formula, used, torch.is_grad_enabled())
        else:
            gradient = _gradient_by_blocks(logits, labels, ctx.options, ctx.formula, used)
        return gradient, None, None, None, None


def _gradient(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    formula: Formula,
    used: list[tuple[int, Tensor]],
    differentiable: bool,
) -> Tensor:
    """The gradient of the used statistics, each times its upstream gradient."""
    with torch.enable_grad():
        statistics = formula(logits, labels, options)
        outputs, upstream = [statistics[i] for i, _ in used], [x for _, x in used]
        return torch.autograd.grad(outputs, logits, upstream, create_graph=differentiable)[0]


def _gradient_by_blocks(
    logits: Tensor, labels: Tensor, options: SoftmaxOptions, formula: Formula, used: list[tuple[int, Tensor]]
) -> Tensor:
    lead = logits.shape[:-1]
    z, y = logits.detach().flatten(0, -2), labels.reshape(lead.numel(), *labels.shape[len(lead) :])
    of_rows: dict[str, Any] = {}
    for name in SoftmaxOptions.ALONG_ROWS:
        x = getattr(options, name)
        if isinstance(x, Tensor):
            of_rows[name] = x.expand(lead).reshape(-1)
    upstreams = [(i, x.reshape(-1)) for i, x in used]
    gradient = torch.empty_like(z, memory_format=torch.contiguous_format)
    block = max(1, (thresholds.BLOCK_ELEMENTS if z.is_cpu else thresholds.GPU_STATISTICS_ELEMENTS) // z.shape[1])
    for start in range(0, len(z), block):
        part = slice(start, start + block)
        here = options._replace(**{name: x[part] for name, x in of_rows.items()})
        some = z[part].detach().requires_grad_()
        gradient[part] = _gradient(some, y[part], here, formula, [(i, x[part]) for i, x in upstreams], False)
    return gradient.view(logits.shape)
