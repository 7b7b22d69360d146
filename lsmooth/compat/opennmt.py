"""The label smoothing of OpenNMT-py, for the tensors of any backend.

Reproduces OpenNMT-py 2.3. Version 3 uses torch's cross-entropy; see `lsmooth.compat.torch`.
"""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


class LabelSmoothingLoss:
    """``onmt.utils.loss.LabelSmoothingLoss``: the KL divergence of log-probabilities x from smoothed targets q, summed.

    ``sum q log q - q x``. In q, the label has 1 - eps, the ignored class 0, and each other class
    eps / (tgt_vocab_size - 2); rows labelled with the ignored class have a loss of 0.

    Args:
        label_smoothing: eps, above 0 and up to 1.
        tgt_vocab_size: the number of classes including the ignored one, at least 3.
        ignore_index: the padding class. The original's default, -100, is not a class: the original counts it from
            the end of the vocabulary; here the call raises a ValueError.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.opennmt import LabelSmoothingLoss
        >>> criterion = LabelSmoothingLoss(0.5, tgt_vocab_size=5, ignore_index=0)
        >>> predict = np.array([[0.05, 0.2, 0.6, 0.1, 0.05]] * 3)
        >>> float(criterion(np.log(predict), np.array([2, 1, 0])).round(6))
        0.694708
    """

    def __init__(self, label_smoothing: float, tgt_vocab_size: int, ignore_index: int = -100) -> None:
        label_smoothing = _rows.number("label_smoothing", label_smoothing)
        if not 0.0 < label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in (0, 1], got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.tgt_vocab_size = check.check_count("tgt_vocab_size", tgt_vocab_size, low=3)
        self.ignore_index = _rows.class_id("ignore_index", ignore_index)
        self.confidence = 1.0 - label_smoothing

    def __call__(self, output: Array, target: Array) -> Array:
        """The loss of log-probabilities (rows, tgt_vocab_size) against class ids (rows), in the output's dtype."""
        xp = backend_of(output=output, target=target)
        loss, _ = _rows.padded_kl_divergence(
            xp, ("output", output), ("target", target), self.tgt_vocab_size, self.ignore_index, self.label_smoothing
        )
        return loss

    forward = __call__
