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

# The memory of the last gradient, at most one block, for the next one; updated by atomic operations.
_spare: list[mmap.mmap] = []


_of_thread = threading.local()


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised CPU tensor, whose memory is reused by the next call in this thread.

    Results must not use it.
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
    """Contiguous ``torch.empty_like``, in the memory of the last such tensor if that is free.

    In every training step, page faults of new memory of this size take more time than the arithmetic
    of the loss. So one block outlives its tensor, marked as free: the operating system may take its pages,
    and until it does, writing to them causes no page faults.
    """
    size = x.numel() * x.element_size()
    if size < thresholds.MAPPED_BYTES or sys.platform != "linux":
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    block = _take(size)
    view = np.frombuffer(block, np.uint8, size)
    weakref.finalize(view, _give_back, block).atexit = False  # the tensor keeps the view alive
    return torch.from_numpy(view).view(x.dtype).view(x.shape)


def _take(size: int) -> mmap.mmap:
    """A block of at least ``size`` and less than twice as many bytes."""
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
    """Advise the operating system; a failure only costs time."""
    with contextlib.suppress(AttributeError, OSError):
        block.madvise(getattr(mmap, advice))
