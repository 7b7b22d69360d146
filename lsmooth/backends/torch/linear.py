"""Losses of linear heads on PyTorch: the gradients of a block are formed while its logits are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsmooth.backends.base import Backend
from lsmooth.backends.linear import BlockLoss, Call, Form, Head, block_rows, loss_of_all
from lsmooth.backends.options import DivergenceOptions, Options, SoftmaxOptions
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import PLAIN, is_batched, peek_interpreter_stack


class Plan(NamedTuple):
    """A sweep over rows, but for the tensors."""

    xp: Backend
    loss: BlockLoss
    form: Form
    block: int
    dtype: torch.dtype | None  # of the matrix products under autocast


def linear_rows(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None) -> Tensor:
    """`lsmooth.backends.linear.loss_of_all`, a block of rows at a time."""
    lead, call = flat(call)
    hidden = call.heads[0].hidden
    # A DTensor may be spread over its rows: a slice of one is a copy, not a place to write to.
    tensors = call.arrays()
    if _is_transformed() or any(type(x) not in PLAIN or x.is_meta for x in tensors):
        losses = loss_of_all(xp, loss, call)
        return losses if loss.total else losses.reshape(lead)
    block = block_size or block_rows(len(hidden), call)
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    plan = Plan(xp, loss, call.form, block, dtype)
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            losses = _Blocks.apply(plan, *tensors)
        else:
            losses, _ = sweep(plan, call, call.map(lambda x: False))
    return losses if loss.total else losses.reshape(lead)


def flat(call: Call) -> tuple[torch.Size, Call]:
    """The shape of the rows, and the call with one axis for it."""
    lead = call.heads[0].hidden.shape[:-1]
    return lead, call.map_rows(lambda x: x.reshape(math.prod(lead), *x.shape[len(lead) :]))


def _is_transformed() -> bool:
    """Whether PyTorch is compiling, tracing, in forward mode or under ``torch.func``."""
    return (
        torch.compiler.is_compiling()
        or peek_interpreter_stack() is not None
        or getattr(forward_ad, "_current_level", 0) >= 0
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


class _LogitsLostError(Exception):
    """A kernel overwrote logits before it found values that only the formula can handle."""


class _Overwriting:
    """The backend's kernels, the gradient written over the logits where they know how."""

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
            self.may_overwrite = False  # the next blocks most likely hold such values too
            raise _LogitsLostError
        return losses


class _Blocks(torch.autograd.Function):
    """A sum computes its gradients in the forward pass; rows wait for their upstream gradients."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.wanted = plan, ctx.needs_input_grad[1:]
        ctx.save_for_backward(*tensors)
        total = plan.loss.total
        wanted = plan.form.call([want and total for want in ctx.wanted])
        losses, gradients = sweep(plan, plan.form.call(tensors), wanted)
        ctx.gradients = plan.form.values(gradients) if total else None
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,), tensors, form = grad_outputs, ctx.saved_tensors, ctx.plan.form
        if torch.is_grad_enabled() or is_batched(upstream):  # the gradient will itself be differentiated
            return None, *gradients_of_all(ctx.plan, tensors, ctx.wanted, upstream)
        # Hand the stored gradients out once, because the caller may modify them; recompute them after that.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, swept = sweep(ctx.plan, form.call(tensors), form.call(ctx.wanted), upstream)
            gradients = form.values(swept)
        elif upstream.device.type != "cpu" or upstream.item() != 1.0:
            gradients = [x if x is None else x.mul_(upstream) for x in gradients]
        return None, *gradients


def gradients_of_all(
    plan: Plan, tensors: Sequence[Tensor], wanted: Sequence[bool], upstream: Tensor
) -> list[Tensor | None]:
    """The gradients that are wanted, through the logits of all rows, so that they can be differentiated."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        value = loss_of_all(plan.xp, plan.loss, plan.form.call(tensors))
    given = [x for x, want in zip(tensors, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(value, given, upstream, create_graph=differentiable, materialize_grads=True))
    return [next(found) if want else None for want in wanted]


@torch.no_grad()
def sweep(plan: Plan, call: Call, wanted: Call, upstream: Tensor | None = None) -> tuple[Tensor, Call]:
    """The loss, and the gradients that are wanted, None for the others."""
    counted = call.rows.get("counted")
    if counted is None or bool(counted.all()):
        return _sweep(plan, call, wanted, upstream)
    # Drop ignored rows before the products: they cost no time, and their NaN reaches no gradient.
    kept = counted.nonzero()[:, 0]
    upstream = upstream if upstream is None or plan.loss.total else upstream.expand(len(counted)).index_select(0, kept)
    losses, gradients = _sweep(plan, call.map_rows(lambda x: x.index_select(0, kept)), wanted, upstream)
    gradients = gradients.map_rows(lambda x: _with_ignored(x, kept, len(counted)))
    return losses if plan.loss.total else _with_ignored(losses, kept, len(counted)), gradients


def _with_ignored(x: Tensor, kept: Tensor, num_rows: int) -> Tensor:
    """The rows of ``x`` at the places ``kept``, zeros elsewhere."""
    return x.new_zeros((num_rows, *x.shape[1:])).index_copy_(0, kept, x)


def _sweep(plan: Plan, given: Call, wanted: Call, upstream: Tensor | None) -> tuple[Tensor, Call]:
    """`sweep` without ignored rows; a call without rows is one empty block."""
    heads = tuple(Head(*(x if x is None else x.to(plan.dtype or x.dtype) for x in head)) for head in given.heads)
    call = given._replace(heads=heads)
    gradients = given.map(gradient_like, given.along_rows(), wanted)
    num_rows = len(heads[0].hidden)
    scratch = [head.weight.new_empty((min(plan.block, num_rows), len(head.weight))) for head in heads]
    kernels = _Overwriting(plan.xp)
    values = []
    for start in range(0, max(1, num_rows), plan.block):
        part = slice(start, start + plan.block)
        here, there = (some.map_rows(lambda x, part=part: x[part]) for some in (call, gradients))
        values.append(_block(plan, here, there, scratch, kernels, start == 0, _part_of(upstream, part)))
    losses = torch.stack(values).sum() if plan.loss.total else torch.cat(values)
    return losses, gradients.map(lambda x, leaf: x.to(leaf.dtype), given)


def gradient_like(leaf: Tensor, along_rows: bool, wanted: bool) -> Tensor | None:
    """Memory for a gradient: written once a row, or added to a block at a time in full precision."""
    if not wanted:
        return None
    if along_rows:
        return torch.empty_like(leaf, memory_format=torch.contiguous_format)
    dtype = torch.float64 if leaf.dtype == torch.float64 else torch.float32
    return (
        empty_like(leaf) if leaf.dtype == dtype and leaf.device.type == "cpu" else torch.empty_like(leaf, dtype=dtype)
    )


def _part_of(upstream: Tensor | None, part: slice) -> Tensor | None:
    return upstream[part] if upstream is not None and upstream.ndim else upstream


def _block(
    plan: Plan,
    call: Call,
    gradients: Call,
    scratch: list[Tensor],
    final_kernels: _Overwriting | None,
    first: bool,
    upstream: Tensor | None,
) -> Tensor:
    """The loss of a block; its part of the gradients is written, or added, to where they are wanted."""
    logits = tuple(block_logits(head, z) for head, z in zip(call.heads, scratch, strict=True))
    for z, into in zip(logits, gradients.heads, strict=True):
        z.requires_grad_(any(x is not None for x in into))
    # The options: their gradients, where wanted, are whatever autograd says.
    targets = [*gradients.rows.values(), *gradients.shared.values()]
    options = [*call.rows.values(), *call.shared.values()]
    options = [x.detach().requires_grad_(into is not None) for x, into in zip(options, targets, strict=True)]
    inputs = [x for x in (*logits, *options) if x.requires_grad]
    rows = dict(zip(call.rows, options, strict=False))
    shared = dict(zip(call.shared, options[len(rows) :], strict=True))
    try:
        with torch.set_grad_enabled(bool(inputs)):
            value = plan.loss(logits, rows, shared, final_kernels if logits[-1].requires_grad else None)
    except _LogitsLostError:
        return _block(plan, call, gradients, scratch, None, first, upstream)
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
    """``hidden @ weight.T + bias``, written to ``scratch``, in at least float32."""
    z = torch.mm(head.hidden, head.weight.t(), out=scratch[: len(head.hidden)])
    if head.bias is not None:
        z += head.bias
    return z.detach() if z.dtype in (torch.float32, torch.float64) else z.float()


def head_gradients(head: Head, gradient: Tensor, into: Head, first: bool) -> None:
    """``g @ weight`` for the hidden states; ``g.T @ hidden`` for the weight and ``g.sum(0)`` for the bias, added up."""
    g = gradient.to(head.weight.dtype)
    if into.hidden is not None:
        if into.hidden.dtype == g.dtype:
            torch.mm(g, head.weight, out=into.hidden)
        else:
            into.hidden.copy_(g @ head.weight)
    if into.weight is not None:
        if into.weight.dtype == g.dtype:
            torch.addmm(into.weight, g.t(), head.hidden, beta=0.0 if first else 1.0, out=into.weight)
        else:
            _add(into.weight, g.t() @ head.hidden, first)
    if into.bias is not None:
        _add(into.bias, gradient.sum(0), first)


def _add(into: Tensor, x: Tensor, first: bool) -> None:
    into.copy_(x) if first else into.add_(x)
