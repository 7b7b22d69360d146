"""Losses of linear heads on PyTorch: the gradients of a block are computed together with its logits."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsmooth.backends.base import Backend
from lsmooth.backends.formulas.linear import BlockLoss, Call, Form, Head, block_rows, loss_of_all
from lsmooth.backends.options import DivergenceOptions, Options, SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import PLAIN, is_batched, peek_interpreter_stack


class Plan(NamedTuple):
    """A sweep over rows, without its tensors."""

    xp: Backend
    loss: BlockLoss
    form: Form
    block: int
    dtype: torch.dtype | None  # of the matrix products under autocast
    kernels: OverwritingKernels | None = None  # those of the first sweep


def linear_rows(
    xp: Backend, loss: BlockLoss, call: Call, block_size: int | None, kernels: OverwritingKernels | None = None
) -> Tensor:
    """`lsmooth.backends.formulas.linear.loss_of_all`, a block of rows at a time."""
    lead, call = flat(call)
    hidden = call.heads[0].hidden
    # Rows of a DTensor may be spread over devices: a slice is a copy and cannot be written to.
    tensors = call.arrays()
    if not is_eager(call):
        losses = loss_of_all(xp, loss, call)
        return losses if loss.total else losses.reshape((*lead, *losses.shape[1:]))
    plan = plan_of(xp, loss, call, block_size)._replace(kernels=kernels)
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            losses = _Blocks.apply(plan, *tensors)
        else:
            losses, _ = sweep(plan, call, call.map(lambda x: False))
    return losses if loss.total else losses.reshape((*lead, *losses.shape[1:]))


def plan_of(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None) -> Plan:
    """The sweep of a flat call."""
    hidden = call.heads[0].hidden
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return Plan(xp, loss, call.form, block_size or _default_block(loss, call), dtype)


def _default_block(loss: BlockLoss, call: Call) -> int:
    """The default number of rows in a block."""
    if call.heads[0].weight is None:
        return max(1, thresholds.LOGIT_ELEMENTS // max(1, call.num_classes))
    return max(1, block_rows(len(call.heads[0].hidden), call) // getattr(loss, "COPIES", 1))


def flat(call: Call) -> tuple[torch.Size, Call]:
    """The shape of the rows, and the call with one axis for them."""
    lead = call.heads[0].hidden.shape[:-1]
    return lead, call.map_rows(lambda x: x.reshape(math.prod(lead), *x.shape[len(lead) :]))


def is_eager(call: Call) -> bool:
    """Whether the call is of plain tensors with values, and nothing traces or transforms it."""
    return not _is_transformed() and not any(type(x) not in PLAIN or x.is_meta for x in call.arrays())


def _is_transformed() -> bool:
    """Whether PyTorch is compiling, tracing, in forward mode or under ``torch.func``."""
    return (
        torch.compiler.is_compiling()
        or peek_interpreter_stack() is not None
        or getattr(forward_ad, "_current_level", 0) >= 0
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


class LogitsLostError(Exception):
    """A kernel overwrote logits before it found values that only the formula can handle."""


class OverwritingKernels:
    """The kernels of the backend, which overwrite the logits with the gradient if they can."""

    def __init__(self, xp: Backend):
        self.xp, self.may_overwrite = xp, True

    def softmax_cross_entropy(self, logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor:
        losses = self._over("cross_entropy", logits, labels, options)
        return self.xp.softmax_cross_entropy(logits, labels, options) if losses is None else losses

    def softmax_divergence(self, teacher: Tensor, student: Tensor, options: DivergenceOptions) -> Tensor:
        losses = self._over("divergence", teacher, student, options)
        return self.xp.softmax_divergence(teacher, student, options) if losses is None else losses

    def _over(self, loss: str, first: Tensor, second: Tensor, options: Options) -> Tensor | None:
        from lsmooth.backends.torch import kernel_for, knows  # which imports this module

        kernel = kernel_for(loss, first.device) if self.may_overwrite else None
        if kernel is None or not knows(kernel, options, first, second):
            return None
        losses = kernel.rows(first, second, None, options, overwrite=True)
        if losses is None:
            self.may_overwrite = False  # the next blocks probably hold such values too
            raise LogitsLostError
        return losses


class _Blocks(torch.autograd.Function):
    """Computes the gradients of a sum in the forward pass, and those of rows in the backward pass."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.wanted = plan._replace(kernels=None), ctx.needs_input_grad[1:]
        ctx.save_for_backward(*tensors)
        total = plan.loss.total
        wanted = plan.form.call([want and total for want in ctx.wanted])
        losses, gradients = sweep(plan, plan.form.call(tensors), wanted)
        ctx.gradients = plan.form.values(gradients) if total else None
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients_of_rows(ctx, *grad_outputs)


def gradients_of_rows(ctx: Any, upstream: Tensor) -> Sequence[Tensor | None]:
    """The gradients of the tensors of a plan."""
    tensors, form = ctx.saved_tensors, ctx.plan.form
    if torch.is_grad_enabled() or is_batched(upstream):  # the gradient may be differentiated again
        return gradients_of_all(ctx.plan, tensors, ctx.wanted, upstream)
    # Hand the stored gradients out once, because the caller may modify them; recompute them after that.
    gradients, ctx.gradients = ctx.gradients, None
    if gradients is None:
        _, swept = sweep(ctx.plan, form.call(tensors), form.call(ctx.wanted), upstream)
        gradients = form.values(swept)
    elif upstream.device.type != "cpu" or upstream.item() != 1.0:
        gradients = [x if x is None else x.mul_(upstream) for x in gradients]
    return gradients


def gradients_of_all(
    plan: Plan, tensors: Sequence[Tensor], wanted: Sequence[bool], upstream: Tensor
) -> list[Tensor | None]:
    """The wanted gradients, by the logits of all rows, so that they can be differentiated again."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        value = loss_of_all(plan.xp, plan.loss, plan.form.call(tensors))
    given = [x for x, want in zip(tensors, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(value, given, upstream, create_graph=differentiable, materialize_grads=True))
    return [next(found) if want else None for want in wanted]


@torch.no_grad()
def sweep(plan: Plan, call: Call, wanted: Call, upstream: Tensor | None = None) -> tuple[Tensor, Call]:
    """The loss, and the wanted gradients; None for the others."""
    counted = call.rows.get("counted")
    if counted is None or bool(counted.all()):
        return _sweep(plan, call, wanted, upstream)
    # Drop ignored rows before the products, which saves time and keeps their NaN out of the gradients.
    kept = counted.nonzero()[:, 0]
    if upstream is not None and not plan.loss.total:
        upstream = upstream.expand(len(counted), *upstream.shape[1:]).index_select(0, kept)
    losses, gradients = _sweep(plan, call.map_rows(lambda x: x.index_select(0, kept)), wanted, upstream)
    gradients = gradients.map_rows(lambda x: with_ignored(x, kept, len(counted)))
    return losses if plan.loss.total else with_ignored(losses, kept, len(counted)), gradients


def with_ignored(x: Tensor, kept: Tensor, num_rows: int) -> Tensor:
    """The rows of ``x`` at the positions ``kept``, and zeros elsewhere."""
    return x.new_zeros((num_rows, *x.shape[1:])).index_copy_(0, kept, x)


def _sweep(plan: Plan, given: Call, wanted: Call, upstream: Tensor | None) -> tuple[Tensor, Call]:
    """`sweep` without ignored rows; an empty call is one empty block."""
    heads = tuple(_in_dtype(head, plan.dtype) for head in given.heads)
    call = given._replace(heads=heads)
    num_rows = len(heads[0].hidden)
    written_once = given.along_rows() if num_rows > plan.block else given.map(lambda x: True)
    gradients = given.map(gradient_like, written_once, wanted)
    scratch = [_scratch(head, min(plan.block, num_rows)) for head in heads]
    kernels = plan.kernels or OverwritingKernels(plan.xp)
    values = []
    for start in range(0, max(1, num_rows), plan.block):
        part = slice(start, start + plan.block)
        here, there = (some.map_rows(lambda x, part=part: x[part]) for some in (call, gradients))
        values.append(_block(plan, here, there, scratch, kernels, start == 0, _part_of(upstream, part)))
    losses = torch.stack(values).sum() if plan.loss.total else torch.cat(values)
    return losses, gradients.map(lambda x, leaf: x.to(leaf.dtype), given)


def _in_dtype(head: Head, dtype: torch.dtype | None) -> Head:
    """The head in the dtype of its product; given logits are unchanged."""
    return head if head.weight is None else Head(*(x if x is None else x.to(dtype or x.dtype) for x in head))


def _scratch(head: Head, rows: int) -> Tensor:
    """Memory for the logits of a block."""
    like = head.hidden if head.weight is None else head.weight
    return like.new_empty((rows, like.shape[-1] if head.weight is None else len(like)), dtype=_accumulator(like))


def gradient_like(leaf: Tensor, written_once: bool, wanted: bool) -> Tensor | None:
    """Memory for a gradient, written once or accumulated over blocks in full precision."""
    if not wanted:
        return None
    if leaf.device.type == "cpu" and (written_once or leaf.dtype == _accumulator(leaf)):
        return empty_like(leaf)
    dtype = leaf.dtype if written_once else _accumulator(leaf)
    return torch.empty_like(leaf, dtype=dtype, memory_format=torch.contiguous_format)


def _part_of(upstream: Tensor | None, part: slice) -> Tensor | None:
    return upstream[part] if upstream is not None and upstream.ndim else upstream


def _block(
    plan: Plan,
    call: Call,
    gradients: Call,
    scratch: list[Tensor],
    final_kernels: OverwritingKernels | None,
    first: bool,
    upstream: Tensor | None,
) -> Tensor:
    """The loss of a block; its gradients are written or added to the wanted ones."""
    logits = tuple(block_logits(head, z) for head, z in zip(call.heads, scratch, strict=True))
    for z, into in zip(logits, gradients.heads, strict=True):
        z.requires_grad_(any(x is not None for x in into))
    # Autograd computes the wanted gradients of the options.
    targets = [*gradients.rows.values(), *gradients.shared.values()]
    options = [*call.rows.values(), *call.shared.values()]
    options = [x.detach().requires_grad_(into is not None) for x, into in zip(options, targets, strict=True)]
    inputs = [x for x in (*logits, *options) if x.requires_grad]
    rows = dict(zip(call.rows, options, strict=False))
    shared = dict(zip(call.shared, options[len(rows) :], strict=True))
    try:
        with torch.set_grad_enabled(bool(inputs)):
            asked = logits[-1].requires_grad or plan.kernels is not None
            value = plan.loss(logits, rows, shared, final_kernels if asked else None)
    except LogitsLostError:
        return _block(plan, call, gradients, scratch, final_kernels, first, upstream)
    if not inputs:
        return value
    found = iter(torch.autograd.grad(value, inputs, upstream, materialize_grads=True))
    for head, z, into in zip(call.heads, logits, gradients.heads, strict=True):
        if z.requires_grad:
            head_gradients(head, next(found), into, first)
    for i, into in enumerate(targets):
        if into is not None:
            _add(into, next(found), first or i < len(rows))
    return value.detach()


def block_logits(head: Head, scratch: Tensor) -> Tensor:
    """``hidden @ weight.T + bias``, written to ``scratch``, which is float32 or float64.

    A product in half precision would round logits of about 30 by up to 0.1.
    """
    z, hidden = scratch[: len(head.hidden)], head.hidden
    if head.weight is None:
        return z.copy_(hidden).detach()
    if z.dtype != hidden.dtype and z.is_cuda:
        torch.mm(hidden, head.weight.t(), out_dtype=z.dtype, out=z)
    else:
        hidden = hidden.to(z.dtype)
        for part, weight in _wide_parts(head.weight, z.dtype):
            torch.mm(hidden, weight.t(), out=z[:, part])
    if head.bias is not None:
        z += head.bias
    return z.detach()


def head_gradients(head: Head, gradient: Tensor, into: Head, first: bool) -> None:
    """``g @ weight`` for the hidden states; ``g.T @ hidden`` for the weight and ``g.sum(0)`` for the bias."""
    if head.weight is None:
        into.hidden.copy_(gradient)
        return
    g = gradient.to(_product_dtype(head.weight))
    if into.hidden is not None:
        _multiply_hidden(g, head.weight, into.hidden)
    if into.weight is not None:
        _add_product(into.weight, g, head.hidden.to(g.dtype), first)
    if into.bias is not None:
        _add(into.bias, gradient.sum(0), first)


def _add_product(into: Tensor, g: Tensor, hidden: Tensor, first: bool) -> None:
    """Add ``g.T @ hidden``, a part of the classes at a time if the product has another dtype."""
    if into.dtype == g.dtype:
        torch.addmm(into, g.t(), hidden, beta=0.0 if first else 1.0, out=into)
        return
    if g.is_cuda and into.dtype == torch.float32:
        torch.addmm(into, g.t(), hidden, out_dtype=into.dtype, beta=0.0 if first else 1.0, out=into)
        return
    for some, part in zip(g.split(_part(hidden.shape[1]), 1), into.split(_part(hidden.shape[1])), strict=True):
        _add(part, some.t() @ hidden, first)


def _part(features: int) -> int:
    """The number of rows of a weight that are copied or multiplied at a time."""
    return max(1, thresholds.HALF_WEIGHT_ELEMENTS // max(1, features))


def _multiply_hidden(g: Tensor, weight: Tensor, into: Tensor) -> None:
    """Write ``g @ weight``."""
    if g.dtype == weight.dtype == into.dtype:
        torch.mm(g, weight, out=into)
    elif g.dtype == weight.dtype:
        into.copy_(g @ weight)
    else:
        total = g.new_zeros(into.shape)
        for part, wide in _wide_parts(weight, g.dtype):
            total.addmm_(g[:, part], wide)
        into.copy_(total)


def _wide_parts(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a weight in ``dtype``, copied a part at a time unless that is its own dtype."""
    rows = max(1, len(weight)) if weight.dtype == dtype else _part(weight.shape[1])
    for start in range(0, len(weight), rows):
        yield slice(start, start + rows), weight[start : start + rows].to(dtype)


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of the products of gradients: the weight's, or float32 if the CPU multiplies that slowly."""
    fast = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    if weight.dtype in fast and weight.is_cpu:
        return weight.dtype if _is_supported(fast[weight.dtype]) else torch.float32
    return weight.dtype


@functools.cache
def _is_supported(question: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, question)())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def _add(into: Tensor, x: Tensor, first: bool) -> None:
    into.copy_(x) if first else into.add_(x)
