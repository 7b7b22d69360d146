"""Memory for a large tensor that is about to be written whole, once."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import weakref

import numpy as np
import torch
from torch import Tensor

# Below this, glibc keeps freed memory and hands it out again; above, every page is a fault.
LARGE = 2**25
# The last gradient's memory, for the next one. At most one; taken and put with atomic operations.
_spare: list[mmap.mmap] = []


def empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like``, contiguous, in memory that the last such tensor has left where there is any.

    Fresh memory of this size costs more time in page faults than the loss does in arithmetic,
    at every training step. So one block outlives its tensor, marked as free: the kernel takes
    its pages when it needs them, and as long as it does not, writing to them costs no fault.
    """
    size = x.numel() * x.element_size()
    if size < LARGE or sys.platform != "linux":
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    block = _take(size)
    view = np.frombuffer(block, np.uint8, size)
    weakref.finalize(view, _give_back, block).atexit = False  # the tensor keeps the view alive
    return torch.from_numpy(view).view(x.dtype).view(x.shape)


def _take(size: int) -> mmap.mmap:
    """A block of at least ``size`` bytes and not of twice as many."""
    try:
        block = _spare.pop()
    except IndexError:
        pass
    else:
        if size <= len(block) < 2 * size:
            return block
    pages = math.ceil(size / mmap.PAGESIZE) * mmap.PAGESIZE
    block = mmap.mmap(-1, pages, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _advise(block, "MADV_HUGEPAGE")
    return block


def _give_back(block: mmap.mmap) -> None:
    _advise(block, "MADV_FREE")
    _spare[:] = [block]


def _advise(block: mmap.mmap, advice: str) -> None:
    """Tell the kernel; its refusal changes nothing but speed."""
    with contextlib.suppress(AttributeError, OSError):
        block.madvise(getattr(mmap, advice))
