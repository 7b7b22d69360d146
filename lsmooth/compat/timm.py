"""The smoothed losses of timm, for the tensors of any backend.

Reproduces timm 1.0.31.
"""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import label_factor
from lsmooth.compat import _rows
from lsmooth.smoothing import binary_smooth_labels, smooth_labels


class LabelSmoothingCrossEntropy:
    """``timm.loss.LabelSmoothingCrossEntropy``: the mean of ``-(1 - eps) log p_y - (eps / classes) sum_k log p_k``.

    Args:
        smoothing: eps, below 1.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.timm import LabelSmoothingCrossEntropy
        >>> float(LabelSmoothingCrossEntropy(0.1)(np.log([[0.7, 0.2, 0.1]]), np.array([0])).round(6))
        0.463297
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        smoothing = _rows.number("smoothing", smoothing)
        if smoothing >= 1.0:
            raise ValueError(f"smoothing must be below 1, got {smoothing}.")
        self.smoothing = smoothing
        self.confidence = 1.0 - smoothing

    def __call__(self, x: Array, target: Array) -> Array:
        """The loss of logits (batch, classes) against class ids (batch), a scalar in the dtype of the logits."""
        xp = backend_of(x=x, target=target)
        logits, dtype = _rows.scores(xp, "x", x, like=target)
        log_probs = _rows.log_softmax(xp, logits)
        nll, spread = _rows.nll_and_spread(xp, log_probs, _rows.class_ids(xp, "target", target, log_probs))
        losses = self.confidence * nll + _rows.per_class(xp, self.smoothing, log_probs) * spread
        return xp.cast(_rows.mean(xp, losses), dtype)

    forward = __call__


class SoftTargetCrossEntropy:
    """``timm.loss.SoftTargetCrossEntropy``: the mean of ``-sum_k t_k log p_k``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.timm import SoftTargetCrossEntropy
        >>> float(SoftTargetCrossEntropy()(np.log([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.5, 0.0]])).round(6))
        0.983056
    """

    def __call__(self, x: Array, target: Array) -> Array:
        """The loss of logits against distributions, both (batch, classes), a scalar in the dtype of the logits."""
        xp = backend_of(x=x, target=target)
        logits, dtype = _rows.scores(xp, "x", x, like=target)
        target = check.to_array(xp, "target", target, xp.dtype(logits), like=logits)
        if not check.same_shape(xp.shape(target), xp.shape(logits)):
            raise ValueError(f"target must have the shape of x, {xp.shape(logits)}; got {xp.shape(target)}.")
        return xp.cast(_rows.mean(xp, -xp.sum(target * _rows.log_softmax(xp, logits), axis=-1)), dtype)

    forward = __call__


class BinaryCrossEntropy:
    """``timm.loss.BinaryCrossEntropy``: a binary cross-entropy for every class, from class ids or soft targets.

    ``(1 - t) z + (1 + (p - 1) t) log(1 + exp(-z))``, times the weight. A class id y becomes
    ``t = (1 - eps) onehot(y) + eps / classes``; targets in the logits' shape are not smoothed by default.

    Args:
        smoothing: eps in [0, 1).
        target_threshold: if given, targets above it become 1, the others 0.
        weight: multiplies the losses: (classes), or broadcasts to the logits.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        sum_classes: whether to sum over the classes and average over the batch instead.
        pos_weight: p, the weight of positive targets: a number, (classes), or broadcasts to the logits.
        smooth_dense: whether targets in the logits' shape become ``(1 - eps) t + eps / 2``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.timm import BinaryCrossEntropy
        >>> float(BinaryCrossEntropy(0.1)(np.array([[2.0, -1.0, 0.0]]), np.array([0])).round(6))
        0.433335
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        target_threshold: float | None = None,
        weight: Array | None = None,
        reduction: str = "mean",
        sum_classes: bool = False,
        pos_weight: Array | float | None = None,
        smooth_dense: bool = False,
    ) -> None:
        smoothing = _rows.number("smoothing", smoothing)
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing must be in [0, 1), got {smoothing}.")
        _rows.check_torch_reduction(reduction)
        self.smoothing = smoothing
        self.target_threshold = None if target_threshold is None else _rows.number("target_threshold", target_threshold)
        self.weight = _rows.real_numbers("weight", weight)
        self.sum_classes = check.check_flag("sum_classes", sum_classes)
        self.smooth_dense = check.check_flag("smooth_dense", smooth_dense)
        self.reduction = "none" if self.sum_classes else reduction
        self.pos_weight = _rows.real_numbers("pos_weight", pos_weight)

    def __call__(self, x: Array, target: Array) -> Array:
        """The loss of logits (batch, classes) against class ids (batch) or targets (batch, classes).

        Returns a scalar, or the logits' shape for ``reduction="none"``, in the dtype of the logits.
        """
        xp = backend_of(x=x, target=target, weight=self.weight, pos_weight=self.pos_weight)
        logits, dtype = _rows.scores(xp, "x", x, like=target)
        target = self._targets(xp, check.to_array(xp, "target", target, like=logits), logits)
        positive = 1.0
        if self.pos_weight is not None:
            positive = 1.0 + (xp.asarray(self.pos_weight, xp.dtype(logits), like=logits) - 1.0) * target
        losses = (1.0 - target) * logits + positive * xp.softplus(-logits)
        if self.weight is not None:
            losses = losses * xp.asarray(self.weight, xp.dtype(logits), like=logits)
        if self.sum_classes:
            return xp.cast(_rows.mean(xp, xp.sum(losses, axis=-1)), dtype)
        return xp.cast(_rows.reduced(xp, losses, self.reduction), dtype)

    forward = __call__

    def _targets(self, xp, target: Array, logits: Array) -> Array:
        dtype = xp.dtype(logits)
        if check.same_shape(xp.shape(target), xp.shape(logits)):
            target = xp.cast(target, dtype)
            if self.smooth_dense:
                target = binary_smooth_labels(target, self.smoothing)
        else:
            if len(xp.shape(target)) == len(xp.shape(logits)):
                target = target[..., 0]
            labels = _rows.class_ids(xp, "target", target, logits)
            classes = xp.length(logits, -1, xp.dtype(labels))
            labels, factor = label_factor(xp, labels, classes, dtype)
            target = smooth_labels(xp.one_hot(labels, classes, dtype) * factor[..., None], self.smoothing)
        return target if self.target_threshold is None else xp.cast(target > self.target_threshold, dtype)
