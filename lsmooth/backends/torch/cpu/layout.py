"""How logits lie in memory: what a kernel goes through, without a copy of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Layout(NamedTuple):
    """Where the classes lie: blocks are (rows, classes) for ``dim`` 1, (classes, rows) for ``dim`` 0."""

    dim: int
    axis: int  # of the classes in memory
    shape: tuple[int, int, int]  # (groups, classes, rows) for dim 0, (1, rows, classes) for dim 1

    def of_classes(self, num_classes: int) -> Layout:
        """The layout of the first so many classes."""
        groups, rows = self.shape[0], self.shape[2 - self.dim]
        return self._replace(shape=(groups, num_classes, rows) if self.dim == 0 else (groups, rows, num_classes))

    def matrices(self, x: Tensor) -> Tensor:
        """A tensor in the logits' shape as ``shape``, without a copy where it lies as the logits do."""
        return (x.movedim(-1, self.axis) if self.dim == 0 else x).reshape(self.shape)

    def gradient(self, x: Tensor, shape: torch.Size) -> Tensor:
        """A gradient in ``shape`` as (rows, classes), or as the logits lie."""
        if self.dim == 1:
            return x[0]
        rows = shape[:-1]
        return x.view(*rows[: self.axis], shape[-1], *rows[self.axis :]).movedim(self.axis, -1)


def layout_of(logits: Tensor) -> Layout:
    """The layout in which logits (..., classes) lie in memory; rows of classes if in none."""
    num_classes = logits.shape[-1]
    if logits.ndim > 1 and not logits.is_contiguous():
        for axis in range(logits.ndim - 1):
            if logits.movedim(-1, axis).is_contiguous():
                groups = math.prod(logits.shape[:axis])
                return Layout(0, axis, (groups, num_classes, math.prod(logits.shape[axis:-1])))
    return Layout(1, -1, (1, logits.numel() // num_classes, num_classes))
