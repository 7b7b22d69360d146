"""The label smoother of Hugging Face's Trainer, for the tensors of any backend.

Reproduces transformers 5.24, except that float64 logits are summed in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


@dataclass
class LabelSmoother:
    """``transformers.trainer_pt_utils.LabelSmoother``: ``-(1 - eps) log p_y - (eps / classes) sum_k log p_k``.

    The sum is divided by ``num_items_in_batch`` or by the number of rows that are not ignored; the loss is NaN if
    there are none. Other negative labels count as class 0, as in the original.

    Args:
        epsilon: eps.
        ignore_index: rows with this label are ignored.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.transformers import LabelSmoother
        >>> outputs = {"logits": np.log([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]])}
        >>> float(LabelSmoother(0.1)(outputs, np.array([[0, -100]])).round(6))
        0.463297
    """

    epsilon: float = 0.1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        self.epsilon = _rows.number("epsilon", self.epsilon)
        self.ignore_index = _rows.class_id("ignore_index", self.ignore_index)

    def __call__(
        self, model_output: Any, labels: Array, shift_labels: bool = False, num_items_in_batch: Any = None
    ) -> Array:
        """The loss of a model's output.

        Args:
            model_output: a mapping with logits (..., classes) under ``"logits"``, or a sequence that starts with them.
            labels: class ids, integers (...).
            shift_labels: whether position t predicts label t + 1.
            num_items_in_batch: the divisor of the sum; by default the number of rows that are not ignored.

        Returns:
            A scalar: float64 for float64 logits, else float32.
        """
        logits = model_output["logits"] if isinstance(model_output, Mapping) else model_output[0]
        xp = backend_of(logits=logits, labels=labels, num_items_in_batch=num_items_in_batch)
        logits, _ = _rows.scores(xp, "logits", logits, like=labels)
        labels = _rows.integers(xp, "labels", labels, logits)
        if shift_labels:
            logits, labels = logits[..., :-1, :], labels[..., 1:]
        if len(xp.shape(labels)) == len(xp.shape(logits)):
            labels = labels[..., 0]
        log_probs = _rows.log_softmax(xp, logits)
        labels = xp.where((labels < 0) & ~xp.equal(labels, self.ignore_index), 0, labels)
        labels = _rows.class_ids(xp, "labels", labels, log_probs, self.ignore_index)
        nll, spread = _rows.nll_and_spread(xp, log_probs, labels, ignore_index=self.ignore_index)
        divisor = num_items_in_batch
        if divisor is None:
            divisor = xp.sum(xp.cast(~xp.equal(labels, self.ignore_index), xp.dtype(nll)))
        nll, spread = _rows.divide(xp, xp.sum(nll), divisor), _rows.divide(xp, xp.sum(spread), divisor)
        return (1.0 - self.epsilon) * nll + _rows.per_class(xp, self.epsilon, log_probs) * spread
