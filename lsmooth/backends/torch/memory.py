"""Memory for large gradients, and for the blocks that kernels work in: fresh pages cost more than arithmetic."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from lsmooth.backends.torch import thresholds

# The last gradient's memory, for the next one. At most one; taken and put with atomic operations.
_spare: list[mmap.mmap] = []


_of_thread = threading.local()


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A CPU tensor of any content, whose memory the next call in this thread gets again.

    No result may live in it.
    """
    size = math.prod(shape)
    kept: dict[torch.dtype, Tensor] = _of_thread.__dict__.setdefault("kept", {})
    memory = kept.get(dtype)
    if memory is None or memory.numel() < size:
        with torch.inference_mode(False):  # a tensor made in inference mode could not be written outside of it
            memory = torch.empty(size, dtype=dtype, device="cpu")
        if size * memory.element_size() <= thresholds.SCRATCH_BYTES and type(memory) is Tensor:
            kept[dtype] = memory
    return memory[:size].view(shape)


def empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like``, contiguous, in memory that the last such tensor has left where there is any.

    Fresh memory of this size costs more time in page faults than the loss does in arithmetic,
    at every training step. So one block outlives its tensor, marked as free: the kernel takes
    its pages when it needs them, and as long as it does not, writing to them costs no fault.
    """
    size = x.numel() * x.element_size()
    if size < thresholds.MAPPED_BYTES or sys.platform != "linux":
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
