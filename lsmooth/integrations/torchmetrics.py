"""The streaming metrics of `lsmooth.metrics` as ``torchmetrics.Metric``, for collections and Lightning.

As in torchmetrics, predictions come first and the class axis is 1. Options are those of the metric of the same name
in `lsmooth.metrics`, and those of ``torchmetrics.Metric``.

Examples:
    >>> import torch
    >>> from lsmooth.integrations.torchmetrics import BrierScore, NegativeLogLikelihood, TopKAccuracy
    >>> from torchmetrics import MetricCollection
    >>> metrics = MetricCollection([BrierScore(), NegativeLogLikelihood(), TopKAccuracy(k=1)])
    >>> metrics.update(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([0, 1]))
    >>> {name: round(value.item(), 4) for name, value in sorted(metrics.compute().items())}
    {'BrierScore': 0.3125, 'NegativeLogLikelihood': 0.4904, 'TopKAccuracy': 0.5}
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth.integrations._extras import needs

with needs("torchmetrics", "torchmetrics", "torch"):
    import torch
    import torchmetrics
    from torch import Tensor

from lsmooth import metrics
from lsmooth.backends import load_backend
from lsmooth.integrations._sums import KeptSums

__all__ = ["BrierScore", "CalibrationError", "NegativeLogLikelihood", "TopKAccuracy"]


class _Metric(KeptSums, torchmetrics.Metric):
    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self, *, num_classes: int = 2, **options: Any):
        metric_options = {"axis": 1, **self._options_of_kind(options)}
        super().__init__(**{name: value for name, value in options.items() if name not in metric_options})
        self._own = self._kind(**metric_options)
        empty = self._own._empty(num_classes)
        self._names = [f"sums_{i}" for i in range(len(empty))]
        for name, zeros in zip(self._names, empty, strict=True):
            self.add_state(name, torch.from_numpy(zeros), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: probabilities, or logits with ``from_logits=True``; (rows, classes, ...).
            target: (rows, ...), class ids.
            sample_weight: weights of the rows.
        """
        for name, new in zip(self._names, self._batch(target, preds, sample_weight), strict=True):
            state = getattr(self, name)
            if tuple(new.shape) != tuple(state.shape):
                raise ValueError(
                    f"preds must have num_classes classes: a batch has sums of shape {tuple(new.shape)}, the metric "
                    f"{tuple(state.shape)}; give num_classes={preds.shape[self._own._options[0]]}."
                )
            setattr(self, name, state + torch.as_tensor(new, dtype=state.dtype, device=state.device).detach())

    def compute(self) -> Tensor:
        """The metric of all rows so far; 0 before the first."""
        sums = tuple(getattr(self, name) for name in self._names)
        return self._own._value(load_backend("torch"), sums).to(torch.get_default_dtype())

    def _read(self) -> list[np.ndarray]:
        return [getattr(self, name).cpu().numpy() for name in self._names]

    def _write(self, sums: list[np.ndarray]) -> None:
        for name, new in zip(self._names, sums, strict=True):
            setattr(self, name, torch.as_tensor(new, device=getattr(self, name).device))


class CalibrationError(_Metric):
    """`lsmooth.metrics.CalibrationError`.

    Args:
        num_classes: the number of classes, needed with ``classwise=True``.
        **options: those of `lsmooth.metrics.CalibrationError` and of ``torchmetrics.Metric``.

    Examples:
        >>> import torch
        >>> from lsmooth.integrations.torchmetrics import CalibrationError
        >>> metric = CalibrationError(n_bins=2)
        >>> metric.update(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 0]))
        >>> metric.compute().item()
        0.25
    """

    _kind = metrics.CalibrationError


class NegativeLogLikelihood(_Metric):
    """`lsmooth.metrics.NegativeLogLikelihood`, with its options and those of ``torchmetrics.Metric``."""

    _kind = metrics.NegativeLogLikelihood


class BrierScore(_Metric):
    """`lsmooth.metrics.BrierScore`, with its options and those of ``torchmetrics.Metric``."""

    _kind = metrics.BrierScore


class TopKAccuracy(_Metric):
    """`lsmooth.metrics.TopKAccuracy`, with its options and those of ``torchmetrics.Metric``."""

    _kind = metrics.TopKAccuracy
    higher_is_better = True
