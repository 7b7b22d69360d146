"""Softmax cross-entropy of few logits on the CPU: the number of calls counts, and PyTorch's own are the fewest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.sweep import FLOATS, INTEGERS, is_plain

# Up to this many logits, a few native calls beat the sweep.
SMALL = 2**16
_EXACT = (torch.float32, torch.float64)
_MEAN = 1  # PyTorch's name of that reduction
_NO_LABEL = -(2**62)  # to ignore no label


def small_mean(labels: Any, logits: Any, label_smoothing: Any, ignore_index: Any, axis: Any) -> Tensor | None:
    """`Backend.small_mean` of the softmax cross-entropy."""
    if not (
        type(label_smoothing) is float
        and 0.0 <= label_smoothing <= 1.0
        and is_plain(logits, labels)
        and logits.numel() <= SMALL
        and logits.dtype in FLOATS
        and labels.dtype in INTEGERS
        and labels.shape == logits.shape[:-1]
        and type(axis) is int
        and axis in (-1, logits.ndim - 1)
        and (ignore_index is None or type(ignore_index) is int)
    ):
        return None
    if label_smoothing == 0.0 and logits.ndim == 2 and labels.dtype == torch.int64 and logits.dtype in _EXACT:
        try:
            ignored = _NO_LABEL if ignore_index is None else ignore_index
            mean = torch._C._nn.cross_entropy_loss(logits, labels, None, _MEAN, ignored, 0.0)  # pyright: ignore
        except (IndexError, RuntimeError):  # a label out of range
            return None
        if not math.isfinite(mean.item()):  # perhaps no label counts
            return None
        # PyTorch's gradient of an ignored row that holds NaN is NaN.
        return mean if ignore_index is None or math.isfinite(logits.detach().sum().item()) else None
    if ignore_index is not None and torch.any(labels == ignore_index).item():
        return None
    return loss(logits, labels, label_smoothing, 1.0 / labels.numel())


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether the logits are few, the labels class ids, their losses added up, and smoothing the only option."""
    return (
        logits.numel() <= SMALL
        and options.total
        and labels.ndim < logits.ndim
        and options.prior is options.class_weight is options.counted is options.logit_softcap is None
        and type(options.label_smoothing) is type(options.temperature) is float
        and options.temperature == 1.0
        and not options.z_loss
    )


def loss(logits: Tensor, labels: Tensor, label_smoothing: float, scale: float) -> Tensor | None:
    """``-sum_ik scale q_ik log p_ik`` as it stands: up to some size the number of calls is what counts."""
    rest = -scale * label_smoothing / logits.shape[-1]
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    weights = logits.new_full(logits.shape, rest, dtype=dtype)
    try:
        weights.scatter_(-1, labels.long().unsqueeze(-1), rest - scale * (1.0 - label_smoothing))
    except RuntimeError:  # a label out of range
        return None
    log_p = torch.log_softmax(logits, -1, dtype=dtype)
    total = torch.dot(weights.view(-1), log_p.reshape(-1))
    return total if math.isfinite(total.item()) else None
