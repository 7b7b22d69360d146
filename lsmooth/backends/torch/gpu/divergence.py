"""The forward and the reverse KL between two softmaxes as one Triton kernel, for PyTorch's tensors on a GPU.

KL(p || q), with p the teacher and q the student, or vice versa. One program per row makes two passes over both
rows in blocks of columns. With m the largest logit so far and ``Z = sum_k exp(z_k - m)`` of both rows, the
first pass accumulates the lead of p, ``sum_k exp(z_p - m_p) ((z_p - m_p) - (z_q - m_q))``, and rescales it
whenever an m rises; the lead and both log Z give the loss. The second pass writes the gradient:
``q - p`` if q is the student, ``p (log p - log q - KL)`` if p is.
"""

# For a type checker, functions compiled by Triton never return.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.torch.gpu.rows import (
    DTYPES,
    as_rows,
    finite,
    multiply,
    number_or_rows,
    of_rows,
    sweep,
    write_zeros,
)
from lsmooth.backends.torch.sweep import is_plain, needs_gradient, run, times_upstream

KNOWN = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")


def fits(teacher: Tensor, student: Tensor, options: DivergenceOptions) -> bool:
    """Whether `rows` knows these arguments: no transform, a gradient for the student alone."""
    return (
        options.divergence in ("forward_kl", "reverse_kl")
        and teacher.dtype in DTYPES
        and student.dtype in DTYPES
        and teacher.shape == student.shape
        and teacher.device == student.device
        and is_plain(teacher, student, device=student.device.type)
        and not needs_gradient(teacher, options.scale, options.temperature)
    )


def rows(
    teacher: Tensor,
    student: Tensor,
    formula: Callable[..., Tensor],
    options: DivergenceOptions,
    overwrite: bool = False,
) -> Tensor | None:
    """`formulas.softmax_divergence` for arguments that fit.

    ``formula`` is that function of the student, the teacher and the options, for derivatives of the gradient.
    With ``overwrite`` the gradient overwrites the logits of the student.
    """
    kernel = functools.partial(_sweep, overwrite=overwrite)
    return run(student, (teacher, options), kernel, formula, student.shape[:-1], options.total, multiply)


@torch.no_grad()
def _sweep(
    student: Tensor,
    teacher: Tensor,
    options: DivergenceOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor | None]:
    teacher = as_rows(teacher.detach())
    scale = times_upstream(options.scale, upstream, torch.float32)
    temperature, row_temperature = number_or_rows(options.temperature, student.shape[:-1])
    return sweep(
        kl,
        student,
        with_gradient,
        teacher=teacher,
        teacher_stride=teacher.stride(0),
        row_temperature=row_temperature,
        inverse_temperature=1.0 / temperature,
        reverse=options.divergence == "reverse_kl",
        overwrite=overwrite,
        **of_rows(student.shape[:-1], scale, options.counted),
    )


@triton.jit
def _scaled(pointer, inside, inverse_temperature):
    """``z / T`` of some columns."""
    return tl.load(pointer, mask=inside, other=float("-inf")).to(tl.float32) * inverse_temperature


@triton.jit
def kl(
    teacher,
    logits,
    losses,
    gradient,
    counted,
    row_scale,
    row_temperature,
    teacher_stride,
    stride,
    scale_stride,
    num_classes,
    scale,
    inverse_temperature,
    reverse: tl.constexpr,
    block: tl.constexpr,
):
    """The loss of a row, and the gradient of the student's logits unless that is None."""
    row = tl.program_id(0).to(tl.int64)  # rows times classes may exceed int32
    columns = tl.arange(0, block)
    if reverse:
        of_p, of_q = logits + row * stride, teacher + row * teacher_stride
    else:
        of_p, of_q = teacher + row * teacher_stride, logits + row * stride
    if gradient is not None:
        gradient += row * num_classes
    if counted is not None:  # noqa: SIM102 - Triton does not compile branches on None
        if tl.load(counted + row) == 0:
            write_zeros(losses + row, gradient, num_classes, block)
            return

    if row_temperature is not None:
        inverse_temperature = 1.0 / tl.load(row_temperature + row)
    top_p, top_q, missed = float("-inf"), float("-inf"), float("-inf")
    total_p, total_q, lead = 0.0, 0.0, 0.0
    for start in range(0, num_classes, block):
        at = start + columns
        inside = at < num_classes
        p = _scaled(of_p + at, inside, inverse_temperature)
        q = _scaled(of_q + at, inside, inverse_temperature)
        highest_p, highest_q = tl.maximum(top_p, tl.max(p, 0)), tl.maximum(top_q, tl.max(q, 0))
        shift_p, shift_q = finite(highest_p), finite(highest_q)
        p, q = p - shift_p, q - shift_q
        exp_p = tl.exp(p)
        kept = tl.exp(top_p - shift_p)
        # Rescale the lead to the new shifts.
        risen = (shift_q - finite(top_q)) - (shift_p - finite(top_p))
        lead = (lead + total_p * risen) * kept
        total_p = total_p * kept + tl.sum(exp_p, 0)
        total_q = total_q * tl.exp(top_q - shift_q) + tl.sum(tl.exp(q), 0)
        # A class that q masks has infinite loss unless the mass of p on it is rounded to 0, which is known from
        # the largest such logit of p.
        masked = q == float("-inf")
        missed = tl.maximum(missed, tl.max(tl.where(masked, p + shift_p, float("-inf")), 0))
        lead += tl.sum(tl.where(masked | (exp_p == 0.0), 0.0, exp_p * (p - q)), 0)
        top_p, top_q = highest_p, highest_q

    shift_p, shift_q = finite(top_p), finite(top_q)
    lead = lead / total_p
    loss = lead + (tl.log(total_q) - tl.log(total_p))
    loss += tl.where(tl.exp(missed - shift_p) > 0.0, float("inf"), 0.0)
    if row_scale is not None:
        scale = tl.load(row_scale + row * scale_stride).to(tl.float32)
    tl.store(losses + row, loss * scale)

    if gradient is not None:
        factor = scale * inverse_temperature
        for start in range(0, num_classes, block):
            at = start + columns
            inside = at < num_classes
            p = _scaled(of_p + at, inside, inverse_temperature) - shift_p
            q = _scaled(of_q + at, inside, inverse_temperature) - shift_q
            exp_p = tl.exp(p)
            if reverse:
                # The logarithms of both Z cancel between the lead and its mean.
                g = tl.where(exp_p == 0.0, 0.0, factor / total_p * exp_p * ((p - q) - lead))
            else:
                g = factor / total_q * tl.exp(q) - factor / total_p * exp_p
            tl.store(gradient + at, g, mask=inside)
