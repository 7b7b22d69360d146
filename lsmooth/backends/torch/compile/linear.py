"""Losses of linear heads under ``torch.compile``: the sweep over blocks of rows, as operators.

The gradients of a sum are computed in the forward pass, block by block, and kept for the backward pass;
for the losses of rows, the backward pass computes the logits again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from lsmooth.backends.base import Backend
from lsmooth.backends.formulas.linear import BlockLoss, Call, Form, block_rows
from lsmooth.backends.options import with_numbers, without_numbers
from lsmooth.backends.torch import linear, thresholds
from lsmooth.backends.torch.compile import cross_entropy as compiled
from lsmooth.backends.torch.sweep import PLAIN, needs_gradient

# Plans by name, because operators take strings; the name describes the plan, since other processes load programs.
_PLANS: dict[str, linear.Plan] = {}


def fits(loss: BlockLoss, call: Call) -> bool:
    """Whether `linear_rows` knows this loss; called while tracing. Small logits are left to the compiler."""
    hidden, weight, _ = call.heads[-1]
    classes, rows = weight.shape[0], math.prod(hidden.shape[:-1])
    few = statically_known_true(classes < thresholds.COMPILED_CLASSES) and statically_known_true(
        rows * classes < thresholds.COMPILED_LOGITS
    )
    plain = all(type(x) in PLAIN for x in call.arrays())
    return plain and not few and isinstance(loss, tuple) and compiled.may_call()


def linear_rows(loss: Any, call: Call, block_size: int | None) -> Tensor:
    """`formulas.linear.loss_of_all` for a loss that is a named tuple, a block of rows at a time."""
    lead, call = linear.flat(call)
    tensors = call.arrays()
    device = tensors[0].device.type
    numbers: list[float] = []
    key = _key(
        loss.xp,
        type(loss),
        # Some are unknown while tracing, such as 1 / rows, even if they would be left out.
        without_numbers(tuple(loss._replace(xp=None)), numbers, {}),
        *call.form,
        torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
    )
    wanted = [needs_gradient(x) for x in tensors]
    losses = torch.ops.lsmooth.linear_rows(tensors, numbers, wanted, key, block_size)[0]
    return losses if loss.total else losses.reshape((*lead, *losses.shape[1:]))


@torch.compiler.assume_constant_result
def _key(
    xp: Backend,
    kind: type,
    fields: tuple[Any, ...],
    parts: tuple[int, ...],
    rows: tuple[str, ...],
    shared: tuple[str, ...],
    dtype: torch.dtype | None,
) -> str:
    """Store a plan and return its name; its loss has no numbers.

    The form is passed in parts, because torch.compile does not accept named tuples as constants.
    """
    form = Form(parts, rows, shared)
    key = repr((xp.name, kind.__qualname__, fields, form, dtype))
    _PLANS[key] = linear.Plan(xp, kind(*fields), form, 0, dtype)
    return key


def _plan(tensors: Sequence[Tensor], numbers: Sequence[float], key: str, block_size: int | None) -> linear.Plan:
    plan = _PLANS[key]
    loss = with_numbers(plan.loss, map(float, numbers))._replace(xp=plan.xp)
    block = block_size or block_rows(len(tensors[0]), plan.form.call(tensors))
    return plan._replace(loss=loss, block=block)


def _sweep(
    upstream: Tensor | None,
    tensors: Sequence[Tensor],
    numbers: Sequence[float],
    wanted: Sequence[bool],
    key: str,
    block_size: int | None,
) -> list[Tensor]:
    """The losses and the wanted gradients."""
    plan = _plan(tensors, numbers, key, block_size)
    # Blocks need autograd for the gradients of options; the body of an operator runs without it, and under autocast.
    autograd = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with autograd, torch.autocast(tensors[0].device.type, enabled=False):
        losses, gradients = linear.sweep(plan, plan.form.call(tensors), plan.form.call(wanted), upstream)
    return [losses, *(x.contiguous() for x in plan.form.values(gradients) if x is not None)]


# CUDA graphs cannot record these operators, because every call allocates memory.
_TAGS = (torch.Tag.cudagraph_unsafe,)


@torch.library.custom_op("lsmooth::linear_rows", mutates_args=(), tags=_TAGS)
def _forward(
    tensors: Sequence[Tensor],
    numbers: Sequence[int | float | bool],  # with float alone, numbers that depend on sizes would be constants
    wanted: Sequence[bool],
    key: str,
    block_size: int | None,
) -> list[Tensor]:
    """The sum of the losses and the wanted gradients; or the losses of the rows without gradients."""
    total = _PLANS[key].loss.total
    return _sweep(None, tensors, numbers, [want and total for want in wanted], key, block_size)


@torch.library.custom_op("lsmooth::linear_rows_backward", mutates_args=(), tags=_TAGS)
def _of_rows(
    upstream: Tensor,
    tensors: Sequence[Tensor],
    numbers: Sequence[int | float | bool],
    wanted: Sequence[bool],
    key: str,
    block_size: int | None,
) -> list[Tensor]:
    """The gradients, of rows times ``upstream`` (rows,)."""
    return _sweep(upstream, tensors, numbers, wanted, key, block_size)[1:]


@_forward.register_fake
def _(tensors, numbers, wanted, key, block_size):  # pyright: ignore
    hidden = _PLANS[key].form.call(tensors).heads[-1].hidden
    loss: Any = _PLANS[key].loss
    total, columns = loss.total, getattr(loss, "COLUMNS", ())
    dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    losses = hidden.new_empty(() if total else (*hidden.shape[:1], *columns), dtype=dtype)
    return [losses, *(_gradients_like(tensors, wanted) if total else ())]


@_of_rows.register_fake
def _(upstream, tensors, numbers, wanted, key, block_size):  # pyright: ignore
    return _gradients_like(tensors, wanted)


def _gradients_like(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    """Empty gradients, for the compiler."""
    return [x.new_empty(x.shape) for x, want in zip(tensors, wanted, strict=True) if want]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, *ctx.told = inputs
    _, *gradients = output
    ctx.mark_non_differentiable(*gradients)
    ctx.save_for_backward(*tensors, *gradients)


def _backward(ctx: Any, upstreams: list[Tensor]) -> tuple[Any, ...]:
    numbers, wanted, key, block_size = ctx.told
    upstream, tensors, found = upstreams[0], ctx.saved_tensors[: len(wanted)], ctx.saved_tensors[len(wanted) :]
    if torch.is_grad_enabled():  # the gradient may be differentiated again
        return linear.gradients_of_all(_plan(tensors, numbers, key, block_size), tensors, wanted, upstream), *[None] * 4
    if _PLANS[key].loss.total:
        found = [x * upstream for x in found]
    else:
        found = torch.ops.lsmooth.linear_rows_backward(upstream, tensors, numbers, wanted, key, block_size)
    each = iter(found)
    return [next(each) if want else None for want in wanted], None, None, None, None


_forward.register_autograd(_backward, setup_context=_setup)
