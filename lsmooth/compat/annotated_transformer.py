"""The label smoothing of The Annotated Transformer, for the tensors of any backend.

Reproduces the notebook of 2022 with the ``KLDivLoss`` of PyTorch 2.13.
"""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


class LabelSmoothing:
    """``LabelSmoothing``: the KL divergence of log-probabilities x from smoothed targets q, summed.

    ``sum q log q - q x``. In q, the label has 1 - eps, the padding class 0, and each other class
    eps / (size - 2); rows whose target is padding are 0.

    Args:
        size: the number of classes including padding, at least 3.
        padding_idx: the padding class.
        smoothing: eps in [0, 1].

    Attributes:
        true_dist: q of the last call, (rows, size), in the dtype of x.

    Source: Harvard NLP, The Annotated Transformer, ``LabelSmoothing``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.annotated_transformer import LabelSmoothing
        >>> criterion = LabelSmoothing(size=5, padding_idx=0, smoothing=0.5)
        >>> predict = np.array([[0.05, 0.2, 0.6, 0.1, 0.05]] * 3)
        >>> float(criterion(np.log(predict), np.array([2, 1, 0])).round(6))
        0.694708
        >>> criterion.true_dist.round(4)
        array([[0.    , 0.1667, 0.5   , 0.1667, 0.1667],
               [0.    , 0.5   , 0.1667, 0.1667, 0.1667],
               [0.    , 0.    , 0.    , 0.    , 0.    ]])
    """

    def __init__(self, size: int, padding_idx: int, smoothing: float = 0.0) -> None:
        self.size = check.check_count("size", size, low=3)
        self.padding_idx = _rows.class_id("padding_idx", padding_idx)
        self.smoothing = check.check_range("smoothing", _rows.number("smoothing", smoothing), 0.0, 1.0)
        self.confidence = 1.0 - self.smoothing
        self.true_dist: Array | None = None

    def __call__(self, x: Array, target: Array) -> Array:
        """The loss of log-probabilities (rows, size) against class ids (rows), a scalar in the dtype of x."""
        xp = backend_of(x=x, target=target)
        loss, self.true_dist = _rows.padded_kl_divergence(
            xp, ("x", x), ("target", target), self.size, self.padding_idx, self.smoothing
        )
        return loss

    forward = __call__
