"""The cross-entropies of ``torch.nn``, for the tensors of any backend.

Reproduces PyTorch 2.13: its class axis, its two ways of averaging with class weights, and NaN for a mean of no rows.
Unlike in PyTorch, class ids may have any integer dtype, and an id out of range, an IndexError on torch's CPU, makes
its row NaN. `lsmooth.integrations.torch` has losses that are ``nn.Module``s.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import weight_of_ids
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import label_factor
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.compat import _rows


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    size_average: bool | None = None,
    reduce: bool | None = None,
) -> Array:
    """``torch.nn.functional.cross_entropy``.

    With p = softmax(input), K classes and the weights w, the loss of a row is

    - for a class id y: ``-(1 - eps) w_y log p_y - (eps / K) sum_k w_k log p_k``; the mean divides
      by the sum of w_y over the rows that are not ignored;
    - for probabilities t: ``-sum_k w_k ((1 - eps) t_k + eps / K) log p_k``; the mean divides by
      the number of rows.

    Args:
        input: logits, floating point, (classes), (batch, classes) or (batch, classes, ...).
        target: class ids, integers in the shape of the input without its classes; or
            probabilities, floating point, in the shape of the input.
        weight: w, (classes,).
        ignore_index: rows with this class id are excluded; below 0 for probabilities.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: eps in [0, 1].
        size_average: deprecated in torch, whose fourth positional argument it is; False means ``reduction="sum"``.
        reduce: deprecated in torch, whose sixth positional argument it is; False means ``reduction="none"``.

    Returns:
        A scalar, or the rows' losses for ``reduction="none"``, in the dtype of the input. A mean of no rows is NaN.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat import torch as compat_torch
        >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        >>> float(compat_torch.cross_entropy(logits, np.array([0, -100]), label_smoothing=0.1).round(6))
        0.372878
    """
    ignore_index = _ignored_class(ignore_index)
    xp = backend_of(input=input, target=target, weight=weight)
    reduction = _legacy_reduction(size_average, reduce, reduction)
    eps = check.check_range("label_smoothing", _rows.number("label_smoothing", label_smoothing), 0.0, 1.0)
    loss = _quick_mean(xp, input, target, weight, ignore_index, eps) if reduction == "mean" else None
    if loss is not None:
        return loss
    logits, dtype = _rows.scores(xp, "input", input, like=target)
    target = check.to_array(xp, "target", target, like=logits)
    soft = check.same_shape(xp.shape(target), xp.shape(logits))
    if len(xp.shape(logits)) > 1:
        logits = xp.moveaxis(logits, 1, -1)
    if weight is not None:
        weight = check.to_array(xp, "weight", weight, xp.dtype(logits), like=logits)
        if not check.same_shape(xp.shape(weight), xp.shape(logits)[-1:]):
            raise ValueError(
                f"weight must have shape ({xp.shape(logits)[-1]},), one number per class; got {xp.shape(weight)}."
            )
    target = _probabilities(xp, target, logits, ignore_index) if soft else _class_ids(xp, target, logits, ignore_index)
    loss = _by_kernel(xp, logits, target, soft, weight, ignore_index, reduction, eps)
    if loss is None:
        log_probs = _rows.log_softmax(xp, logits)
        function = _of_probabilities if soft else _of_class_ids
        loss = function(xp, log_probs, target, weight, ignore_index, reduction, eps)
    return xp.cast(loss, dtype)


class CrossEntropyLoss:
    """``torch.nn.CrossEntropyLoss``: `cross_entropy` as an object.

    Args:
        weight: (classes,).
        size_average: deprecated in torch; False means ``reduction="sum"``.
        ignore_index: rows with this class id are excluded.
        reduce: deprecated in torch; False means ``reduction="none"``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: eps in [0, 1].

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat import torch as compat_torch
        >>> loss = compat_torch.CrossEntropyLoss(label_smoothing=0.1)
        >>> float(loss(np.array([[2.0, 0.0, 0.0]]), np.array([0])).round(6))
        0.372878
    """

    def __init__(
        self,
        weight: Array | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = _rows.real_numbers("weight", weight, rank=1)
        self.ignore_index = _ignored_class(ignore_index)
        self.reduction = _legacy_reduction(size_average, reduce, reduction)
        self.label_smoothing = check.check_range(
            "label_smoothing", _rows.number("label_smoothing", label_smoothing), 0.0, 1.0
        )

    def __call__(self, input: Array, target: Array) -> Array:
        """The loss; see `cross_entropy`."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    forward = __call__


def _quick_mean(xp: Backend, input: Any, target: Any, weight: Any, ignore_index: int, eps: float) -> Array | None:
    """The backend's quick mean; None if logits are not finite, for which lsmooth's loss differs from PyTorch's."""
    if not (xp.is_array(input) and xp.is_array(target)):
        return None
    soft = "float" in xp.dtype(target)
    if soft and (weight is not None or ignore_index >= 0):
        return None
    ignored = None if soft else ignore_index
    loss = xp.quick_mean("softmax_cross_entropy", target, input, eps, ignored, 1, class_weight=weight)
    if loss is None or xp.dtype(loss) != xp.dtype(input):
        return None
    # The sum of few logits takes less time than a comparison of the labels.
    if ignored is not None and eps == 0.0 and weight is None and xp.size(input) > 2**14:
        ids = xp.host_values(target)
        if ids is not None and not (ids == ignored).any():  # then both treat masked classes alike
            return loss
    logits_sum = xp.host_values(xp.sum(xp.stop_gradient(input)))
    return loss if logits_sum is not None and math.isfinite(logits_sum) else None


def _by_kernel(
    xp: Backend,
    logits: Array,
    target: Array,
    soft: bool,
    weight: Array | None,
    ignore_index: int,
    reduction: str,
    eps: float,
) -> Array | None:
    """The loss by the backend's kernel; None if PyTorch's may be infinite or NaN."""
    values = xp.stop_gradient(logits)
    if 0 in xp.shape(logits) or not xp.is_concrete(values):
        return None
    logits_sum = xp.host_values(xp.cast(xp.sum(values), "float32"))
    if any(x is not None and xp.host_values(x) is None for x in (target, weight)) or logits_sum is None:
        return None
    counted, total = None, xp.size(logits) // xp.shape(logits)[-1]
    if not soft:
        counted = ~xp.equal(target, ignore_index) if (xp.host_values(target) == ignore_index).any() else None
        target = target if counted is None else xp.where(counted, target, 0)
        if reduction == "mean" and (counted is not None or weight is not None):
            factor = 1.0 if counted is None else xp.cast(counted, xp.dtype(logits))
            total = xp.sum(factor if weight is None else weight_of_ids(xp, target, weight) * factor)
            total = float(xp.to_numpy(total))
    # Unlike PyTorch, the kernel gives no smoothing mass to masked classes, and ignores NaN in ignored rows.
    infinite_alike = not soft and eps == 0.0 and counted is None and weight is None
    if total == 0 or not (infinite_alike or math.isfinite(logits_sum)):
        return None
    scale = 1.0 / total if reduction == "mean" else None
    options = SoftmaxOptions(eps, None, weight, counted=counted, scale=scale, total=reduction != "none")
    loss = xp.softmax_cross_entropy(logits, target, options)
    return loss if math.isfinite(float(xp.to_numpy(xp.sum(xp.stop_gradient(loss))))) else None


def _class_ids(xp: Backend, target: Array, logits: Array, ignore_index: int) -> Array:
    return _rows.class_ids(xp, "target", target, logits, ignore_index)


def _of_class_ids(
    xp: Backend, log_probs: Array, labels: Array, weight: Array | None, ignore_index: int, reduction: str, eps: float
) -> Array:
    nll, spread = _rows.nll_and_spread(xp, log_probs, labels, class_weight=weight, ignore_index=ignore_index)
    if reduction == "mean":
        counted = xp.cast(~xp.equal(labels, ignore_index), xp.dtype(nll))
        if weight is not None:
            known, _ = label_factor(xp, labels, xp.length(log_probs, -1, xp.dtype(labels)), xp.dtype(nll))
            counted = counted * (xp.take(weight, known) if xp.shape(weight)[0] != 0 else 1.0)
        total = xp.sum(counted)
        nll, spread = _rows.divide(xp, xp.sum(nll), total), _rows.divide(xp, xp.sum(spread), total)
    elif reduction == "sum":
        nll, spread = xp.sum(nll), xp.sum(spread)
    # Mixed after the reduction, as in torch: a mean with zero weights is NaN, not inf.
    return nll if eps == 0.0 else (1.0 - eps) * nll + _rows.per_class(xp, eps, log_probs) * spread


def _probabilities(xp: Backend, target: Array, logits: Array, ignore_index: int) -> Array:
    target = check.float_array(xp, "target", target)
    if ignore_index >= 0:
        raise ValueError(f"ignore_index must be below 0 where target holds probabilities, got {ignore_index}.")
    if len(xp.shape(target)) > 1:
        target = xp.moveaxis(target, 1, -1)
    return xp.cast(target, xp.dtype(logits))


def _of_probabilities(
    xp: Backend, log_probs: Array, target: Array, weight: Array | None, ignore_index: int, reduction: str, eps: float
) -> Array:
    if eps > 0.0:
        target = (1.0 - eps) * target + _rows.per_class(xp, eps, log_probs)
    if reduction == "mean" and xp.shape(log_probs)[-1] == 0:
        return xp.sum(log_probs) * float("nan")  # torch divides by the number of logits over that of classes
    terms = target * log_probs
    return _rows.reduced(xp, -xp.sum(terms if weight is None else terms * weight, axis=-1), reduction)


def _ignored_class(ignore_index: Any) -> int:
    if not check.is_integer_number(ignore_index):
        raise TypeError(
            f"ignore_index must be an integer, got {ignore_index!r}; pass torch's size_average and reduce by keyword."
        )
    return int(ignore_index)


def _legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    _rows.check_torch_reduction(reduction)
    for name, flag in (("size_average", size_average), ("reduce", reduce)):
        if flag is not None and not isinstance(flag, bool):
            raise TypeError(f"{name} must be True, False or None, got {flag!r}; give reduction by keyword.")
    if size_average is None and reduce is None:
        return reduction
    chosen = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce are deprecated; use reduction={chosen!r}.", UserWarning, stacklevel=3)
    return chosen
