"""Softmax cross-entropy under ``torch.compile`` on the CPU: the eager kernel, as operators that the compiler calls.

Inductor makes scalar loops over the rows of what it fuses and goes through them several times; the
eager kernel keeps a block in cache. Forward makes the losses and keeps nothing, backward makes the
gradient from the logits, already multiplied by what comes from above.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import cross_entropy
from lsmooth.backends.torch.sweep import PLAIN, is_transformed

# From so many classes, or logits, on the operators are faster than what the compiler makes of the formula.
# Of a size that it is to leave open it must not be asked more than it knows.
WIDE, LARGE = 2**14, 2**21


# Asked while tracing, when the compiler is inside the same transforms.
_is_transformed = torch.compiler.assume_constant_result(is_transformed)


def may_call() -> bool:
    """Whether an operator of lsmooth may be in the graph; asked while tracing. What is exported must run without."""
    return not torch.compiler.is_exporting() and not _is_transformed()


KNOWN = ("label_smoothing", "counted", "scale", "total")


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments; asked while tracing."""
    return (
        type(logits) in PLAIN
        and labels.ndim == logits.ndim - 1
        and isinstance(options.label_smoothing, float)
        and pays(logits, logits.shape[-1], labels.numel())
    )


def pays(array: Tensor, num_classes: int, num_rows: int) -> bool:
    """Whether an operator may take the place of the formula, and is worth it; asked while tracing."""
    # Brings SymPy, which the compiler needs anyway.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return (
        array.device.type == "cpu"
        and may_call()
        and (statically_known_true(num_classes >= WIDE) or statically_known_true(num_rows * num_classes >= LARGE))
    )


def rows(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor:
    """`formulas.softmax_cross_entropy` for arguments that fit."""
    losses = torch.ops.lsmooth.softmax_cross_entropy(logits, labels, options.counted, options.label_smoothing)
    losses = losses if options.scale is None else losses * options.scale
    return losses.sum() if options.total else losses


@torch.library.custom_op("lsmooth::softmax_cross_entropy", mutates_args=())
def _losses(logits: Tensor, labels: Tensor, counted: Tensor | None, label_smoothing: float) -> Tensor:
    """Losses (...) of logits (..., classes)."""
    return _run(logits, labels, counted, label_smoothing, None)


@torch.library.custom_op("lsmooth::softmax_cross_entropy_backward", mutates_args=())
def _gradient(
    upstream: Tensor, logits: Tensor, labels: Tensor, counted: Tensor | None, label_smoothing: float
) -> Tensor:
    """The gradient (..., classes), each row times ``upstream`` (...)."""
    return _run(logits, labels, counted, label_smoothing, upstream)


def _run(
    logits: Tensor, labels: Tensor, counted: Tensor | None, label_smoothing: float, upstream: Tensor | None
) -> Tensor:
    """Losses; or the gradient, where there is an upstream."""
    flat, y = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1, 1).long()
    column = None if counted is None else counted.reshape(-1, 1)
    scale = 1.0 if upstream is None else upstream.reshape(-1, 1)
    losses, gradient = losses_and_gradient(flat, y, column, label_smoothing, scale, upstream is not None)
    return losses.reshape(labels.shape) if gradient is None else gradient.reshape(logits.shape)


def losses_and_gradient(
    logits: Tensor,
    labels: Tensor,
    counted: Tensor | None,
    label_smoothing: float,
    scale: float | Tensor,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Losses (rows, 1) and gradient (rows, classes), times the scale; no labels are known to be in range."""
    if logits.numel() and labels.min().item() >= 0 and labels.max().item() < logits.shape[-1]:
        options = cross_entropy.Options(label_smoothing, None, 1.0, scale, counted)
        swept = cross_entropy._sweep(logits, labels, options, with_gradient)
        if swept is not None:
            return swept
    losses, gradient = (x * scale for x in _closed_form(logits, labels, label_smoothing))
    if counted is not None:
        losses, gradient = (torch.where(counted, x, 0.0) for x in (losses, gradient))
    return losses, gradient.to(logits.dtype) if with_gradient else None


def _closed_form(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Losses (rows, 1) and gradient (rows, classes) where classes are masked or labels out of range."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    valid = (labels >= 0) & (labels < logits.shape[-1])
    kept = (logits != -torch.inf).to(logits.dtype)
    q = label_smoothing * kept / kept.sum(1, keepdim=True)
    q.scatter_add_(1, torch.where(valid, labels, 0), torch.full_like(q[:, :1], 1.0 - label_smoothing))
    log_p = logits.log_softmax(1)
    losses = -torch.where(q == 0, 0.0, q * log_p).sum(1, keepdim=True)
    return losses.where(valid, torch.nan), (log_p.exp() - q).where(valid, torch.nan)


@_losses.register_fake
def _(logits: Tensor, labels: Tensor, counted: Tensor | None, label_smoothing: float) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(labels.shape, dtype=dtype)


@_gradient.register_fake
def _(upstream: Tensor, logits: Tensor, labels: Tensor, counted: Tensor | None, label_smoothing: float) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, labels, counted, ctx.label_smoothing = inputs
    ctx.save_for_backward(logits, labels, counted)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
    gradient = torch.ops.lsmooth.softmax_cross_entropy_backward(upstream, *ctx.saved_tensors, ctx.label_smoothing)
    return gradient, None, None, None


_losses.register_autograd(_backward, setup_context=_setup)
