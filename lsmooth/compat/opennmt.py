"""The label smoothing of OpenNMT-py, on any backend's tensors.

Repeats OpenNMT-py 2; version 3 uses torch's cross-entropy, which is `lsmooth.compat.torch`.
"""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


class LabelSmoothingLoss:
    """``onmt.utils.loss.LabelSmoothingLoss``: the KL divergence of log-probabilities x from smoothed targets q, summed.

    ``sum q log q - q x``. The label keeps 1 - eps, each other class gets
    eps / (tgt_vocab_size - 2), the ignored class nothing, and rows labelled with it cost nothing.

    Args:
        label_smoothing: eps, above 0 and up to 1.
        tgt_vocab_size: the number of classes, the ignored one among them.
        ignore_index: the class that stands for padding. The default is the original's, which
            names no class; the original indexes its vocabulary from the end with it, here the
            call is refused.

    Raises:
        TypeError: if an option is of another type.
        ValueError: if ``label_smoothing`` is out of range, or ``tgt_vocab_size`` is below 3.

    Source: OpenNMT-py 2.3, ``LabelSmoothingLoss``.

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
        """The loss.

        Args:
            output: log-probabilities, (rows, tgt_vocab_size).
            target: class ids, integers (rows).

        Returns:
            A scalar, in the dtype of the output.

        Raises:
            TypeError: if tensors of two frameworks meet, or a dtype is wrong.
            ValueError: if shapes do not fit, or ``ignore_index`` is no class.
        """
        xp = backend_of(output=output, target=target)
        loss, _ = _rows.padded_kl_divergence(
            xp, ("output", output), ("target", target), self.tgt_vocab_size, self.ignore_index, self.label_smoothing
        )
        return loss

    forward = __call__
