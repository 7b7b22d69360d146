"""Softmax cross-entropy under ``torch.compile`` on the CPU: the eager kernel, as operators that the compiler calls.

Inductor compiles fused operations to several scalar loops over the rows; the eager kernel keeps a block
in cache. The forward pass computes the losses and keeps nothing, and the backward pass computes the gradient from the
logits, times the upstream gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import cross_entropy
from lsmooth.backends.torch.sweep import PLAIN, is_transformed, needs_gradient

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

# Called while tracing, when the compiler is inside the same transforms.
_is_transformed = torch.compiler.assume_constant_result(is_transformed)


def may_call() -> bool:
    """Whether the graph may contain operators of lsmooth; called while tracing. Exported graphs must run without."""
    return not torch.compiler.is_exporting() and not _is_transformed()


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments; called while tracing."""
    return (
        type(logits) in PLAIN
        and not needs_gradient(labels, *(x for x in options if x is not options.scale))
        and pays(logits, logits.shape[-1], logits.numel() // logits.shape[-1])
    )


def pays(array: Tensor, num_classes: int, num_rows: int) -> bool:
    """Whether an operator may replace the formula and is faster; called while tracing."""
    # Imported here, because it imports SymPy, which the compiler needs anyway.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return (
        array.device.type == "cpu"
        and may_call()
        and (
            statically_known_true(num_classes >= thresholds.COMPILED_CLASSES)
            or statically_known_true(num_rows * num_classes >= thresholds.COMPILED_LOGITS)
        )
    )


def rows(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor:
    """`formulas.softmax_cross_entropy` for arguments that fit."""
    eps, temperature = options.label_smoothing, options.temperature
    logits = cross_entropy.without_padding(logits, options)
    losses = torch.ops.lsmooth.softmax_cross_entropy(
        logits,
        labels,
        options.counted,
        options.prior,
        options.class_weight,
        eps if isinstance(eps, Tensor) else None,
        temperature if isinstance(temperature, Tensor) else None,
        _numbers(
            0.0 if isinstance(eps, Tensor) else eps,
            1.0 if isinstance(temperature, Tensor) else temperature,
            options.z_loss,
            math.inf if options.logit_softcap is None else options.logit_softcap,
        ),
    )
    losses = losses if options.scale is None else losses * options.scale
    return losses.sum() if options.total else losses


def _numbers(*numbers: float) -> Tensor:
    """Numbers as a tensor: with Python numbers, torch.compile would recompile for each value."""
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return torch.stack([one * x for x in numbers])


@torch.library.custom_op("lsmooth::softmax_cross_entropy", mutates_args=())
def _losses(
    logits: Tensor,
    labels: Tensor,
    counted: Tensor | None,
    prior: Tensor | None,
    class_weight: Tensor | None,
    row_smoothing: Tensor | None,
    row_temperature: Tensor | None,
    numbers: Tensor,
) -> Tensor:
    """Losses (...) of logits (..., classes). ``numbers`` are eps, T, a and the soft-cap, infinity for none."""
    tensors = (logits, labels, counted, prior, class_weight, row_smoothing, row_temperature)
    return _run(None, tensors, numbers)


@torch.library.custom_op("lsmooth::softmax_cross_entropy_backward", mutates_args=())
def _gradient(
    upstream: Tensor,
    logits: Tensor,
    labels: Tensor,
    counted: Tensor | None,
    prior: Tensor | None,
    class_weight: Tensor | None,
    row_smoothing: Tensor | None,
    row_temperature: Tensor | None,
    numbers: Tensor,
) -> Tensor:
    """The gradient (..., classes), each row times ``upstream`` (...)."""
    tensors = (logits, labels, counted, prior, class_weight, row_smoothing, row_temperature)
    return _run(upstream, tensors, numbers)


def _run(upstream: Tensor | None, tensors: tuple[Any, ...], numbers: Tensor) -> Tensor:
    """The losses; or the gradient, if there is an upstream gradient."""
    logits, labels, counted, prior, class_weight, row_smoothing, row_temperature = tensors
    label_smoothing, temperature, z_loss, logit_softcap = numbers.tolist()
    options = SoftmaxOptions(
        label_smoothing=label_smoothing if row_smoothing is None else row_smoothing,
        prior=prior,
        class_weight=class_weight,
        temperature=temperature if row_temperature is None else row_temperature,
        z_loss=z_loss,
        logit_softcap=None if logit_softcap == math.inf else logit_softcap,
        counted=counted,
    )
    swept = cross_entropy.sweep(logits, labels, options, upstream is not None, upstream) if logits.numel() else None
    if upstream is None:
        losses = _empty_losses(logits)
        return losses if swept is None else losses.copy_(swept[0].view(losses.shape))
    gradient = torch.empty_like(logits)
    if swept is None or swept[1] is None:
        return gradient
    swept_gradient = swept[1].view(logits.shape)
    return swept_gradient if swept_gradient.stride() == gradient.stride() else gradient.copy_(swept_gradient)


def _empty_losses(logits: Tensor) -> Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty(logits.shape[:-1], dtype=dtype)


@_losses.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return _empty_losses(logits)


@_gradient.register_fake
def _(upstream: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    gradient = torch.ops.lsmooth.softmax_cross_entropy_backward(upstream, *ctx.saved_tensors)
    return gradient, *[None] * 7


_losses.register_autograd(_backward, setup_context=_setup)
