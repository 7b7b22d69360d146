"""The forward KL between two softmaxes as one Triton kernel, for PyTorch's tensors on a GPU.

One program a row, in blocks of columns, over both rows twice. With m the largest logit so far and
``Z = sum_k exp(z_k - m)``, of teacher and of student, the first time adds up by how much the teacher's
logits lead, ``sum_k exp(z_t - m_t) ((z_t - m_t) - (z_s - m_s))``, rescaled whenever an m rises; with both
log Z that is the loss. The second time writes the gradient, ``s - t``.
"""

# To a type checker a function that Triton compiles never returns.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from lsmooth.backends.torch.sweep import is_plain, needs_gradient, run
from lsmooth.backends.torch.triton_rows import DTYPES, as_rows, finite, multiply, of_rows, sweep, write_zeros


def fits(
    teacher: Tensor,
    student: Tensor,
    *,
    divergence: str = "forward_kl",
    parameter: float = 0.5,
    temperature: Any = 1.0,
    counted: Tensor | None = None,
    scale: Any = None,
    total: bool = False,
    constant_teacher: bool = False,
) -> bool:
    """Whether `rows` knows these options: no transform, a gradient for the student alone."""
    return (
        divergence == "forward_kl"
        and type(temperature) is float
        and teacher.dtype in DTYPES
        and student.dtype in DTYPES
        and teacher.shape == student.shape
        and teacher.device == student.device
        and is_plain(teacher, student, device=student.device.type)
        and not needs_gradient(teacher, scale)
    )


def rows(
    teacher: Tensor,
    student: Tensor,
    formula: Callable[[Tensor], Tensor],
    *,
    divergence: str = "forward_kl",
    parameter: float = 0.5,
    temperature: float = 1.0,
    counted: Tensor | None = None,
    scale: float | Tensor | None = None,
    total: bool = False,
    constant_teacher: bool = False,
) -> Tensor | None:
    """`divergences.softmax_divergence` for arguments that fit.

    ``formula`` is that function of the student's logits alone, for derivatives of the gradient.
    """
    shape = student.shape[:-1]
    teacher = as_rows(teacher.detach())
    of_row = functools.partial(
        _sweep,
        teacher=teacher,
        teacher_stride=teacher.stride(0),
        inverse_temperature=1.0 / temperature,
        **of_rows(shape, scale, counted),
    )
    return run(student, of_row, formula, shape, total, multiply)


@torch.no_grad()
def _sweep(student: Tensor, with_gradient: bool, **arguments: Any) -> tuple[Tensor, Tensor | None]:
    return sweep(forward_kl, student, with_gradient, **arguments)


@triton.jit
def _scaled(pointer, inside, inverse_temperature):
    """``z / T`` of some columns."""
    return tl.load(pointer, mask=inside, other=float("-inf")).to(tl.float32) * inverse_temperature


@triton.jit
def forward_kl(
    teacher,
    logits,
    losses,
    gradient,
    counted,
    row_scale,
    teacher_stride,
    stride,
    scale_stride,
    num_classes,
    scale,
    inverse_temperature,
    block: tl.constexpr,
):
    """The loss of a row, and the gradient of the student's logits unless that is None."""
    row = tl.program_id(0).to(tl.int64)  # rows times classes may be beyond int32
    columns = tl.arange(0, block)
    teacher += row * teacher_stride
    logits += row * stride
    if gradient is not None:
        gradient += row * num_classes
    if counted is not None:  # noqa: SIM102 - what is None is not even compiled
        if tl.load(counted + row) == 0:
            write_zeros(losses + row, gradient, num_classes, block)
            return

    top_t, top_s, missed = float("-inf"), float("-inf"), float("-inf")
    total_t, total_s, lead = 0.0, 0.0, 0.0
    for start in range(0, num_classes, block):
        at = start + columns
        inside = at < num_classes
        t = _scaled(teacher + at, inside, inverse_temperature)
        s = _scaled(logits + at, inside, inverse_temperature)
        highest_t, highest_s = tl.maximum(top_t, tl.max(t, 0)), tl.maximum(top_s, tl.max(s, 0))
        shift_t, shift_s = finite(highest_t), finite(highest_s)
        t, s = t - shift_t, s - shift_s
        exp_t = tl.exp(t)
        kept = tl.exp(top_t - shift_t)
        # The lead so far as it would be with these shifts.
        risen = (shift_s - finite(top_s)) - (shift_t - finite(top_t))
        lead = (lead + total_t * risen) * kept
        total_t = total_t * kept + tl.sum(exp_t, 0)
        total_s = total_s * tl.exp(top_s - shift_s) + tl.sum(tl.exp(s), 0)
        # A class that the student masks costs infinity if the teacher's mass on it is not lost to rounding,
        # which its largest such logit will tell.
        masked = s == float("-inf")
        missed = tl.maximum(missed, tl.max(tl.where(masked, t + shift_t, float("-inf")), 0))
        lead += tl.sum(tl.where(masked | (exp_t == 0.0), 0.0, exp_t * (t - s)), 0)
        top_t, top_s = highest_t, highest_s

    shift_t, shift_s = finite(top_t), finite(top_s)
    loss = lead / total_t + (tl.log(total_s) - tl.log(total_t))
    loss += tl.where(tl.exp(missed - shift_t) > 0.0, float("inf"), 0.0)
    if row_scale is not None:
        scale = tl.load(row_scale + row * scale_stride).to(tl.float32)
    tl.store(losses + row, loss * scale)

    if gradient is not None:
        factor = scale * inverse_temperature
        of_t, of_s = factor / total_t, factor / total_s
        for start in range(0, num_classes, block):
            at = start + columns
            inside = at < num_classes
            t = _scaled(teacher + at, inside, inverse_temperature)
            s = _scaled(logits + at, inside, inverse_temperature)
            tl.store(gradient + at, of_s * tl.exp(s - shift_s) - of_t * tl.exp(t - shift_t), mask=inside)
