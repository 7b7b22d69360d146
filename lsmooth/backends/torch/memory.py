"""Memory for a tensor that is about to be written whole, once."""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch
from torch import Tensor

# Below this, glibc keeps freed memory and hands it out again; above, every page is a fault.
_LARGE = 2**25
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)
_madvise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None


def empty_like(x: Tensor) -> Tensor:
    """``torch.empty_like``, contiguous, asking Linux for huge pages where that saves page faults.

    Fresh memory of this size costs more time in 4 KiB page faults than the loss does in
    arithmetic; PyTorch asks the same of the kernel under ``THP_MEM_ALLOC_ENABLE=1``.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    size = y.numel() * y.element_size()
    if _madvise is not None and _ADVICE is not None and size >= _LARGE:
        start = -(-y.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = y.data_ptr() + size - start
        _madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _ADVICE)  # advice: its refusal changes nothing
    return y
