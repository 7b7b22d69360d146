"""Cross-entropy of images of few classes on the CPU: PyTorch's own function is the fastest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SoftmaxOptions, are_known
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu.layout import layout_of
from lsmooth.backends.torch.cpu.small_cross_entropy import NO_LABEL, OFFSET

_cross_entropy = torch._C._nn.cross_entropy_loss  # pyright: ignore[reportAttributeAccessIssue]
_NONE, _SUM = 0, 2  # PyTorch's names of the reductions
_KNOWN = ("label_smoothing", "class_weight", "temperature", "counted", "scale", "total")


def has_few_classes(logits: Tensor, axis: int) -> bool:
    """Whether these are logits (N, classes, ...), and for so few classes PyTorch's function is the fastest."""
    return logits.ndim > 2 and axis == 1 and logits.shape[1] < thresholds.FEW_CLASSES


def rows(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> Tensor | None:
    """The losses of logits (..., classes), or their sum, differentiable; None where the kernel is to be asked."""
    z = logits.movedim(-1, 1) if logits.ndim > 2 else logits
    eps, temperature, scale, counted = options.label_smoothing, options.temperature, options.scale, options.counted
    if not (
        has_few_classes(z, layout_of(logits).axis)
        and are_known(options, _KNOWN)
        and type(eps) is float
        and (counted is None or math.isfinite(z.detach().sum().item()))
    ):
        return None
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    x = z if z.dtype == dtype else z.to(dtype)
    if type(temperature) is not float or temperature != 1.0:
        low, high = torch.aminmax(x.detach())
        if not max(-low.item(), high.item()) <= OFFSET:  # a quotient of large logits loses digits
            return None
        x = x / (temperature.unsqueeze(1) if isinstance(temperature, Tensor) and temperature.ndim else temperature)
    if labels.ndim == z.ndim:
        labels = labels.movedim(-1, 1)
        if not labels.amin().item() >= -ROUNDING:
            return None
        if counted is not None:
            scale = counted.to(dtype) if scale is None else counted.to(dtype) * scale
    elif counted is not None:
        labels = labels.long().masked_fill(~counted, NO_LABEL)
    else:
        labels = labels.long()
    reduction = _SUM if options.total and not isinstance(scale, Tensor) else _NONE
    try:
        losses: Any = _cross_entropy(x, labels, options.class_weight, reduction, NO_LABEL, eps)
    except (IndexError, RuntimeError):  # a label out of range
        return None
    losses = losses if scale is None else losses * scale
    losses = losses.sum() if options.total and reduction == _NONE else losses
    return losses if math.isfinite(losses.detach().sum().item()) else None
