"""The order of logits in memory, in which a kernel processes them without a copy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.torch.sweep import block_rows


class Layout(NamedTuple):
    """Where the classes lie: (rows, classes), or (groups, classes, rows) along another axis than the last.

    Axis 1 has the classes either way, and a column, one entry a row, has the same shape with 1 there.
    """

    shape: tuple[int, ...]
    axis: int  # of the classes in memory
    rows: torch.Size  # the shape of the rows

    @property
    def is_image(self) -> bool:
        """Whether the classes lie along another axis than the last."""
        return len(self.shape) == 3

    @property
    def column_shape(self) -> tuple[int, ...]:
        """Of one entry a row."""
        return (self.shape[0], 1, *self.shape[2:])

    def of_classes(self, num_classes: int) -> Layout:
        """The layout of the first so many classes."""
        return self._replace(shape=(self.shape[0], num_classes, *self.shape[2:]))

    def matrices(self, x: Tensor) -> Tensor:
        """A tensor in the logits' shape as ``shape``, without a copy where it lies as the logits do."""
        return (x.movedim(-1, self.axis) if self.is_image else x).reshape(self.shape)

    def column(self, x: Tensor) -> Any:
        """A tensor that broadcasts to the rows as a column, or as a number where it is the same for all rows."""
        x = x.detach()
        return x.expand(self.rows).reshape(self.column_shape) if any(x.stride()) else x.reshape(-1)[0].item()

    def gradient(self, x: Tensor) -> Tensor:
        """A gradient in ``shape`` as (rows, classes), or in the shape of the logits and as they lie."""
        if not self.is_image:
            return x
        return x.view(*self.rows[: self.axis], -1, *self.rows[self.axis :]).movedim(self.axis, -1)

    def parts(self, elements: int) -> Iterator[Any]:
        """The index of each block, of so many elements a thread: of tensors in ``shape``, and of columns.

        Blocks are of equal size, the last one perhaps smaller.
        """
        groups, classes, rows = (*self.shape, 1)[:3]
        block = block_rows(groups * rows, classes, elements)
        of_groups, of_rows = _share(groups, max(1, block // rows)), _share(rows, block)
        if groups * rows <= block:
            yield ...
            return
        for i in range(0, groups, of_groups):
            if not self.is_image:
                yield (slice(i, i + of_groups),)
                continue
            for j in range(0, rows, of_rows):
                yield slice(i, i + of_groups), slice(None), slice(j, j + of_rows)


def _share(size: int, most: int) -> int:
    """The size of the largest of equal parts that are no larger than ``most``."""
    return -(-size // -(-size // most))


def layout_of(logits: Tensor) -> Layout:
    """The layout in which logits (..., classes) lie in memory; rows of classes if in none."""
    rows, num_classes = logits.shape[:-1], logits.shape[-1]
    if logits.ndim > 1 and not logits.is_contiguous():
        for axis in range(logits.ndim - 1):
            if logits.movedim(-1, axis).is_contiguous():
                shape = (math.prod(rows[:axis]), num_classes, math.prod(rows[axis:]))
                return Layout(shape, axis, rows)
    return Layout((logits.numel() // num_classes, num_classes), -1, rows)
