"""Helpers of the Triton kernels, which process one row of logits per program in blocks of columns."""

# For a type checker, functions compiled by Triton never return.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from lsmooth.backends.torch import thresholds

# The dtypes that the kernels support, which accumulate in float32.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def of_rows(shape: torch.Size, scale: float | Tensor | None, counted: Tensor | None) -> dict[str, Any]:
    """The arguments of every kernel; options that are off are None, and not compiled."""
    by_row = scale.detach().expand(shape).reshape(-1) if isinstance(scale, Tensor) else None
    return {
        "row_scale": by_row,
        "scale_stride": 0 if by_row is None else by_row.stride(0),
        "scale": scale if isinstance(scale, float) else 1.0,
        "counted": None if counted is None else counted.reshape(-1).contiguous(),
    }


def number_or_rows(x: float | Tensor, shape: torch.Size) -> tuple[float, Tensor | None]:
    """A number and None; or, for a tensor, None and one number per row."""
    if not isinstance(x, Tensor):
        return x, None
    return 1.0, x.detach().float().expand(shape).reshape(-1).contiguous()


def as_rows(logits: Tensor) -> Tensor:
    """(rows, classes), the classes of a row side by side."""
    logits = logits.reshape(-1, logits.shape[-1])
    return logits if logits.stride(1) == 1 else logits.contiguous()


def sweep(
    kernel: Any, logits: Tensor, with_gradient: bool, overwrite: bool = False, **arguments: Any
) -> tuple[Tensor, Tensor | None]:
    """Losses (rows,) and gradient (rows, classes) of a kernel that writes both.

    With ``overwrite`` the gradient overwrites the logits: a kernel reads the whole row before it writes, and each
    block of columns again immediately before it overwrites the block.
    """
    logits = as_rows(logits.detach())
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    gradient = None
    if with_gradient:
        in_place = overwrite and logits.is_contiguous()
        gradient = logits if in_place else torch.empty_like(logits, memory_format=torch.contiguous_format)
    launch(kernel, logits, logits=logits, stride=logits.stride(0), losses=losses, gradient=gradient, **arguments)
    return losses, gradient


def launch(kernel: Any, rows: Tensor, **arguments: Any) -> None:
    """Run a program for each of the rows (rows, classes)."""
    num_rows, num_classes = rows.shape
    block = min(thresholds.GPU_COLUMNS, triton.next_power_of_2(num_classes))
    warps = max(1, block // thresholds.GPU_COLUMNS_PER_WARP)
    with torch.cuda.device_of(rows):
        kernel[(num_rows,)](**arguments, num_classes=num_classes, block=block, num_warps=warps)


def multiply(gradient: Tensor, upstream: Tensor) -> None:
    """Multiply a gradient (..., classes) by the upstream gradient, one number or one per row.

    A factor of 1, the usual one, costs only a launch: the kernel returns at once.
    """
    gradient = gradient.view(-1, gradient.shape[-1])
    upstream = upstream.reshape(-1).expand(len(gradient))
    launch(multiply_rows, gradient, gradient=gradient, upstream=upstream, upstream_stride=upstream.stride(0))


@triton.jit
def multiply_rows(gradient, upstream, upstream_stride, num_classes, block: tl.constexpr):
    """Multiply a row by its number."""
    row = tl.program_id(0).to(tl.int64)
    factor = tl.load(upstream + row * upstream_stride).to(tl.float32)
    if factor == 1.0:
        return
    gradient += row * num_classes
    for start in range(0, num_classes, block):
        at = start + tl.arange(0, block)
        g = tl.load(gradient + at, mask=at < num_classes).to(tl.float32)
        tl.store(gradient + at, g * factor, mask=at < num_classes)


@triton.jit
def write_zeros(loss, gradient, num_classes, block: tl.constexpr):
    """Write the zeros of an ignored row."""
    tl.store(loss, 0.0)
    if gradient is not None:
        for start in range(0, num_classes, block):
            at = start + tl.arange(0, block)
            tl.store(gradient + at, tl.zeros((block,), tl.float32), mask=at < num_classes)


@triton.jit
def finite(x):
    """``x``, or 0 if it is infinite, to be subtracted from logits before exp."""
    return tl.where(tl.abs(x) == float("inf"), 0.0, x)
