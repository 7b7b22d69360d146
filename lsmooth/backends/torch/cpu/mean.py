"""The mean loss of a batch, with few checks.

PyTorch's own function takes 35 us for the loss and gradient of 32 x 10 logits; the checks of all options would take
as long again. These functions support class ids, distributions, class weights, an ignored class and a mask. For other
arguments they return None, and the caller checks the arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from lsmooth._validation import VALIDATING
from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import cross_entropy, images
from lsmooth.backends.torch.cpu.small_cross_entropy import MEAN, NO_LABEL
from lsmooth.backends.torch.sweep import EXACT, FLOATS, INTEGERS, PLAIN, is_transformed

_cross_entropy = torch._C._nn.cross_entropy_loss  # pyright: ignore[reportAttributeAccessIssue]
_is_tracing = torch._C._is_tracing  # pyright: ignore[reportAttributeAccessIssue]
# The number of further calls that expect ignored rows, after one that had some: raising an exception takes longer.
_expected = [0]
_EXPECTING = 100


def of_few_ids(labels: Any, logits: Any, ignore_index: int | None) -> Tensor | None:
    """The mean of class ids without other options, for so few logits that each check counts; None if not possible.

    It first assumes that no row is ignored. PyTorch raises an IndexError if one is; then later calls expect some.
    """
    if (
        is_compiling()
        or type(logits) not in PLAIN
        or type(labels) not in PLAIN
        or labels.dtype is not torch.int64
        or logits.dtype not in EXACT
        or not logits.is_cpu
        or logits.numel() > thresholds.TINY_CROSS_ENTROPY
        or VALIDATING.get()
        or _is_tracing()
    ):
        return None
    try:
        if not _expected[0]:
            loss = _cross_entropy(logits, labels, None, MEAN, NO_LABEL, 0.0)
        elif ignore_index is None or not math.isfinite(logits.detach().sum().item()):
            return None  # PyTorch's gradient of an ignored row that holds NaN is NaN
        else:
            _expected[0] -= 1
            if not _expected[0] and (labels == ignore_index).any().item():
                _expected[0] = _EXPECTING
            loss = _cross_entropy(logits, labels, None, MEAN, ignore_index, 0.0)
    except IndexError:
        _expected[0] = 0 if ignore_index is None else _EXPECTING
        return None
    except (RuntimeError, ValueError, TypeError):  # arguments of another kind, or a transform
        return None
    return loss if math.isfinite(loss.item()) else None


def softmax_cross_entropy(
    labels: Any,
    logits: Any,
    label_smoothing: Any,
    ignore_index: Any,
    axis: Any,
    class_weight: Any,
    mask: Any,
    formula: Callable[..., Tensor],
) -> Tensor | None:
    """`Backend.quick_mean` of the softmax cross-entropy; ``formula`` is for derivatives of the gradient."""
    if not (
        type(logits) in PLAIN
        and type(labels) in PLAIN
        and logits.is_cpu
        and labels.is_cpu
        and type(label_smoothing) is float
        and type(axis) is int
        and (ignore_index is None or type(ignore_index) is int)
        and (class_weight is None or (type(class_weight) in PLAIN and not class_weight.requires_grad))
        and not _is_tracing()
    ):
        return None
    if (
        mask is None
        and (axis == 1 or (axis == -1 and logits.ndim == 2))
        and logits.dtype in EXACT
        and _is_native(logits, label_smoothing)
    ):
        loss = None
        if class_weight is None and label_smoothing == 0.0 and (ignore_index is None or ignore_index < 0):
            loss = of_few_ids(labels, logits, ignore_index)
            if loss is not None:
                return loss
        try:  # PyTorch checks the arguments again
            if labels.dtype is torch.int64:
                loss = _of_ids(labels, logits, label_smoothing, class_weight, ignore_index)
            elif class_weight is ignore_index is None and labels.shape == logits.shape and not labels.requires_grad:
                loss = _of_distributions(labels, logits, label_smoothing)
        except (IndexError, RuntimeError, ValueError, TypeError):
            pass  # a label out of range, arguments of another kind, or a transform
        if loss is not None:
            return loss
    shape = logits.shape
    if is_transformed() or not logits.numel() or logits.dtype not in FLOATS or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    rows = shape[:axis] + shape[axis + 1 :]
    hard = labels.shape == rows and labels.dtype in INTEGERS
    if not (
        (hard or (labels.shape == shape and labels.dtype in EXACT and not labels.requires_grad))
        and 0.0 <= label_smoothing <= 1.0
        and (hard or ignore_index is None)
        and (class_weight is None or _is_option(class_weight, shape[axis : axis + 1], EXACT))
        and (mask is None or _is_option(mask, rows, (torch.bool,)))
    ):
        return None
    if axis != len(shape) - 1:
        logits = logits.movedim(axis, -1)
        labels = labels if hard else labels.movedim(axis, -1)
    return _by_kernel(labels, logits, hard, label_smoothing, ignore_index, class_weight, mask, formula)


def _is_native(logits: Tensor, label_smoothing: float) -> bool:
    """Whether PyTorch's own function is the fastest."""
    small = label_smoothing == 0.0 and logits.numel() <= thresholds.SMALL_CROSS_ENTROPY
    return small or images.has_few_classes(logits, 1)


def _is_option(x: Any, shape: torch.Size, dtypes: Any) -> bool:
    return type(x) in PLAIN and x.is_cpu and x.shape == shape and x.dtype in dtypes


def _of_distributions(labels: Tensor, logits: Tensor, label_smoothing: float) -> Tensor | None:
    """The mean by PyTorch's function, and what that raises; None if it is not finite."""
    if not labels.amin().item() >= -ROUNDING:
        return None
    loss = _cross_entropy(logits, labels, None, MEAN, -1, label_smoothing)
    return loss if math.isfinite(loss.item()) else None


def _of_ids(
    labels: Tensor, logits: Tensor, label_smoothing: float, class_weight: Tensor | None, ignore_index: int | None
) -> Tensor | None:
    """The same for class ids; not finite where no label counts."""
    if ignore_index is None:
        loss = _cross_entropy(logits, labels, class_weight, MEAN, NO_LABEL, label_smoothing)
        return loss if math.isfinite(loss.item()) else None
    # PyTorch's gradient of an ignored row that holds NaN is NaN.
    if not math.isfinite(logits.detach().sum().item()):
        return None
    loss = _cross_entropy(logits, labels, class_weight, MEAN, ignore_index, label_smoothing)
    return loss if math.isfinite(loss.item()) else None


def _by_kernel(
    labels: Tensor,
    logits: Tensor,
    hard: bool,
    label_smoothing: float,
    ignore_index: int | None,
    class_weight: Tensor | None,
    mask: Tensor | None,
    formula: Callable[..., Tensor],
) -> Tensor | None:
    """The mean by the kernel; None if nothing counts."""
    counted, dtype, weight = mask, torch.float64 if logits.dtype == torch.float64 else torch.float32, None
    total: float = labels.numel() if hard else math.prod(labels.shape[:-1])
    if ignore_index is not None:
        kept = labels != ignore_index
        kept = kept if counted is None else kept.logical_and_(counted)
        total = kept.sum().item()
        counted = kept if total != labels.numel() else None
    elif mask is not None:
        total = mask.sum().item()
    if counted is not None:
        labels = labels.where(counted if hard else counted.unsqueeze(-1), 0)
    if class_weight is not None:
        class_weight = class_weight.to(dtype)
        try:
            weight = class_weight.take(labels.long()) if hard else labels.to(dtype) @ class_weight
        except (IndexError, RuntimeError):  # a label out of range
            return None
        weight = weight if counted is None else weight.where(counted, 0.0)
        total = weight.sum().item()
    if not total or not math.isfinite(total):
        return None
    scale: Any = 1.0 / total
    if weight is not None and hard and label_smoothing == 0.0:  # the weight of a label is that of its row
        class_weight, scale = None, weight.mul_(scale)
    options = SoftmaxOptions(label_smoothing, None, class_weight, counted=counted, scale=scale, total=True)
    return cross_entropy.rows(logits, labels if hard else labels.to(dtype), formula, options)
