"""Softmax cross-entropy of a linear layer's output under ``torch.compile`` on the CPU, in operators that it calls.

Of a sum the gradients are formed while a block's logits are there, and kept for the backward pass;
for the losses of rows, the logits are computed once more in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.linear import BlockLoss, Call, CrossEntropyOfBlock, Head, block_rows
from lsmooth.backends.torch import compiled, linear
from lsmooth.backends.torch.sweep import PLAIN, needs_gradient


def fits(loss: BlockLoss, call: Call) -> bool:
    """Whether `linear_rows` knows this loss and its options; asked while tracing."""
    if not isinstance(loss, CrossEntropyOfBlock) or call.shared:
        return False
    (head,), options, labels = call.heads, dict(loss.options), call.rows["labels"]
    return (
        type(head.hidden) in PLAIN
        and type(head.weight) in PLAIN
        and labels.ndim == head.hidden.ndim - 1
        and isinstance(options.get("label_smoothing", 0.0), float)
        and options.get("temperature", 1.0) == 1.0
        and options.get("logit_softcap") is None
        and not options.get("z_loss")
        and not set(call.rows) - {"labels", "counted", "scale"}
        and not needs_gradient(call.rows.get("scale"))
        and compiled.pays(head.hidden, head.weight.shape[0], labels.numel())
        and not torch.is_autocast_enabled("cpu")
    )


def linear_rows(loss: Any, call: Call, block_size: int | None) -> Tensor:
    """`lsmooth.backends.linear.whole` for what fits."""
    (head,), rows, options = call.heads, call.rows, dict(loss.options)
    lead = head.hidden.shape[:-1]
    wanted = [needs_gradient(x) for x in head]
    losses, *_ = torch.ops.lsmooth.linear_softmax_cross_entropy(
        head.hidden.reshape(-1, head.hidden.shape[-1]),
        head.weight,
        head.bias,
        *(None if x is None else x.reshape(-1, 1) for x in (rows["labels"], rows.get("counted"), rows.get("scale"))),
        options.get("label_smoothing", 0.0),
        loss.total,
        wanted,
        block_size,
    )
    scale = options.get("scale")
    losses = losses if scale is None else losses * scale
    return losses if loss.total else losses.reshape(lead)


Parts = tuple[Tensor, Tensor, Tensor, Tensor]
"""Losses, and the gradients of hidden states, weight and bias, empty where they are not wanted."""


@torch.library.custom_op("lsmooth::linear_softmax_cross_entropy", mutates_args=())
def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    counted: Tensor | None,
    scale: Tensor | None,
    label_smoothing: float,
    total: bool,
    wanted: Sequence[bool],
    block_size: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss with its gradients; or the rows' losses, and no gradient."""
    now = [want and total for want in wanted]
    head = Head(hidden, weight, bias)
    losses, gradients = _sweep(head, labels, counted, scale, label_smoothing, now, block_size)
    return (losses.sum() if total else losses[:, 0]), *gradients


@torch.library.custom_op("lsmooth::linear_softmax_cross_entropy_backward", mutates_args=())
def _of_rows(
    upstream: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    counted: Tensor | None,
    scale: Tensor | None,
    label_smoothing: float,
    wanted: Sequence[bool],
    block_size: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients, of rows times ``upstream`` (rows,)."""
    upstream = upstream[:, None]
    scale = upstream if scale is None else scale * upstream
    head = Head(hidden, weight, bias)
    return _sweep(head, labels, counted, scale, label_smoothing, wanted, block_size)[1]


def _sweep(
    head: Head,
    labels: Tensor,
    counted: Tensor | None,
    scale: Tensor | None,
    label_smoothing: float,
    wanted: Sequence[bool],
    block_size: int | None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Losses (rows, 1), and the gradients of the head."""
    num_rows, labels = len(labels), labels.long()
    along_rows = (True, False, False)
    gradients = Head(*map(linear.gradient_like, head, along_rows, wanted))  # pyright: ignore[reportArgumentType]
    block = block_size or block_rows(num_rows, Call((head,), {}, {}))
    scratch = head.weight.new_empty((min(block, num_rows), len(head.weight)))
    values = [torch.empty((0, 1), dtype=_result_dtype(head.hidden))]
    for start in range(0, num_rows, block):
        part = slice(start, start + block)
        here, into = head._replace(hidden=head.hidden[part]), gradients
        if into.hidden is not None:
            into = into._replace(hidden=into.hidden[part])
        losses, gradient = compiled.losses_and_gradient(
            linear.block_logits(here, scratch),
            labels[part],
            None if counted is None else counted[part],
            label_smoothing,
            1.0 if scale is None else scale[part],
            any(wanted),
        )
        values.append(losses)
        if gradient is not None:
            linear.head_gradients(here, gradient, into, start == 0)
    found = (head.hidden.new_empty(0) if x is None else x.to(head.hidden.dtype).contiguous() for x in gradients)
    of_hidden, of_weight, of_bias = (x if num_rows else x.zero_() for x in found)
    return torch.cat(values), (of_hidden, of_weight, of_bias)


def _result_dtype(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _gradients_like(head: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor]:
    """What the compiler is to expect."""
    hidden = head[0]
    assert hidden is not None
    return [hidden.new_empty(x.shape if x is not None and want else (0,)) for x, want in zip(head, wanted, strict=True)]


@_forward.register_fake
def _(hidden, weight, bias, labels, counted, scale, label_smoothing, total, wanted, block_size):  # pyright: ignore
    losses = hidden.new_empty(() if total else labels.shape[:1], dtype=_result_dtype(hidden))
    return losses, *_gradients_like((hidden, weight, bias), [want and total for want in wanted])


@_of_rows.register_fake
def _(upstream, hidden, weight, bias, labels, counted, scale, label_smoothing, wanted, block_size):  # pyright: ignore
    return tuple(_gradients_like((hidden, weight, bias), wanted))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Parts) -> None:
    *arrays, ctx.label_smoothing, ctx.total, ctx.wanted, ctx.block_size = inputs
    _, *gradients = output
    ctx.mark_non_differentiable(*gradients)
    ctx.save_for_backward(*(gradients if ctx.total else arrays))


def _backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.total:
        found = [x * upstream.to(x.dtype) for x in ctx.saved_tensors]
    else:
        found = torch.ops.lsmooth.linear_softmax_cross_entropy_backward(
            upstream, *ctx.saved_tensors, ctx.label_smoothing, ctx.wanted, ctx.block_size
        )
    return *(x if want else None for x, want in zip(found, ctx.wanted, strict=True)), *[None] * 7


_forward.register_autograd(_backward, setup_context=_setup)
