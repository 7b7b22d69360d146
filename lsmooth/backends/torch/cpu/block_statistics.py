"""Statistics of the rows from the blocks of a sweep."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.torch.thresholds import ARGMAX_CLASSES


class Kept:
    """The numbers of each row that its statistics need."""

    def __init__(self, z: Tensor, column: tuple[int, ...], dtype: torch.dtype, deferred: bool):
        self.z = z
        self.reference: Tensor | None = None  # subtracted from x first
        self.expected, self.mass = z.new_empty((2, *column), dtype=dtype).unbind()
        classes = z.shape[1]
        self.parts = -(-classes // ARGMAX_CLASSES) if z.ndim == 2 and classes > 2 * ARGMAX_CLASSES else 0
        self.deferred = deferred and self.parts > 0
        self.maxima = z.new_empty((len(z) if self.deferred else 0, self.parts))
        self.predicted = torch.empty(column, dtype=torch.int64, device=z.device)

    def find_largest(self, z: Tensor, part: Any) -> None:
        """Store the positions of the largest logits of a block."""
        if self.deferred:
            _maxima(z, self.parts, self.maxima[part])
        elif self.parts:
            self.predicted[part] = _first_maximum(z, _maxima(z, self.parts, z.new_empty((len(z), self.parts))))
        else:
            self.predicted[part] = z.argmax(1, keepdim=True)

    def add_up(self, x: Tensor, p: Tensor, scratch: Tensor, part: Any) -> None:
        """Store ``sum_k p_k x_k``, and the sum of p, which PyTorch's softmax of many classes does not round to 1."""
        torch.sum(p, 1, keepdim=True, out=self.mass[part])
        if self.reference is None:
            product = torch.mul(p, x, out=scratch)
        else:
            product = torch.sub(x, self.reference[part], out=scratch).mul_(p)
        expected = torch.sum(product, 1, keepdim=True, out=self.expected[part])
        if not math.isfinite(expected.sum().item()):  # a masked class has p = 0 and x = -inf
            torch.sum(product.masked_fill_(x == -math.inf, 0.0), 1, keepdim=True, out=expected)

    def statistics(self, blocks: Any) -> RowStatistics:
        """The statistics of the rows, from these numbers and from the columns of the blocks."""
        loss, lse, expected = blocks.loss, blocks.lse + self.mass.log(), self.expected / self.mass
        if not blocks.shift and self.reference is None:
            expected = expected - blocks.reference
        if loss.ids is None:
            log_prob = blocks.target_x - blocks.mass * lse
        else:
            log_prob = -lse if loss.reference is loss.ids and not blocks.careful else blocks.label_x - lse
            # NaN where the label is no class.
            log_prob = log_prob + 0.0 * torch.as_tensor(loss.label_weight, device=lse.device)
        predicted = _first_maximum(self.z, self.maxima) if self.deferred else self.predicted
        found = RowStatistics(log_prob, lse - expected, lse + blocks.origin(...), predicted)
        if blocks.counted is None:
            return found
        predicted = predicted.where(blocks.counted, -1)
        return RowStatistics._make([*(x.where(blocks.counted, 0.0) for x in found[:3]), predicted])


def _maxima(z: Tensor, parts: int, out: Tensor) -> Tensor:
    """The largest logit of each part of a row."""
    full = z.shape[1] // ARGMAX_CLASSES
    torch.amax(z[:, : full * ARGMAX_CLASSES].unflatten(1, (full, ARGMAX_CLASSES)), 2, out=out[:, :full])
    if full < parts:
        torch.amax(z[:, full * ARGMAX_CLASSES :], 1, out=out[:, full])
    return out


def _first_maximum(z: Tensor, maxima: Tensor) -> Tensor:
    start = maxima.argmax(1, keepdim=True) * ARGMAX_CLASSES
    within = torch.arange(ARGMAX_CLASSES, device=z.device)
    index = (start + within).clamp_(max=z.shape[1] - 1)
    return start + z.gather(1, index).argmax(1, keepdim=True)
