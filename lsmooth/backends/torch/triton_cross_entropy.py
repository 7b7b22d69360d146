"""Softmax cross-entropy as one Triton kernel, for PyTorch's tensors on a GPU.

One program a row, in blocks of columns, over the row twice. The first time finds the largest logit
m, ``Z = sum_k exp(z_k - m)`` on the way to it, and what smoothing wants to know of the classes that
are not masked; that is the loss. The second writes the gradient, which is closed form:
``p_k (w_y (1 - eps) + eps mass + 2 a lse) - (1 - eps) w_y [k = y] - eps v_k``.

Nothing is asked of the device on the way: a label out of range makes its row NaN there.
The kernel accumulates in float32; float64 takes the general formula.
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

# Columns of a block, and how many of them a warp takes: with every option on, twice as many of either
# no longer fit the registers of compute capability 9.0, says ptxas -v.
MAX_BLOCK = 8192
COLUMNS_PER_WARP = 512
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fits(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: Any = 0.0,
    prior: Tensor | None = None,
    class_weight: Tensor | None = None,
    temperature: Any = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    counted: Tensor | None = None,
    scale: Any = None,
    total: bool = False,
) -> bool:
    """Whether `rows` knows these options: class ids, no transform, no option that needs a gradient."""
    return (
        logits.dtype in DTYPES
        and is_plain(logits, device=logits.device.type)
        and labels.ndim == logits.ndim - 1
        and labels.device == logits.device
        and type(label_smoothing) is float
        and type(temperature) is float
        and not needs_gradient(prior, class_weight, scale)
    )


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[[Tensor], Tensor],
    *,
    label_smoothing: float = 0.0,
    prior: Tensor | None = None,
    class_weight: Tensor | None = None,
    temperature: float = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    counted: Tensor | None = None,
    scale: float | Tensor | None = None,
    total: bool = False,
) -> Tensor | None:
    """`formulas.softmax_cross_entropy` for arguments that fit.

    ``formula`` is that function of the logits alone, for derivatives of the gradient.
    """
    of_rows = None
    if isinstance(scale, Tensor):
        of_rows, scale = scale.detach().expand(labels.shape).reshape(-1), None
    sweep = functools.partial(
        _sweep,
        labels=labels.reshape(-1).contiguous(),
        prior=None if prior is None else prior.detach().contiguous(),
        class_weight=None if class_weight is None else class_weight.detach().contiguous(),
        counted=None if counted is None else counted.reshape(-1).contiguous(),
        row_scale=of_rows,
        scale_stride=0 if of_rows is None else of_rows.stride(0),
        scale=1.0 if scale is None else scale,
        # An option that is off is None, and no part of the program.
        eps=label_smoothing or None,
        inverse_temperature=1.0 / temperature,
        z_loss=z_loss or None,
        softcap=logit_softcap,
    )
    return run(logits, sweep, formula, labels.shape, total, multiply)


@torch.no_grad()
def _sweep(logits: Tensor, with_gradient: bool, **options: Any) -> tuple[Tensor, Tensor | None]:
    """Losses (rows,) and gradient (rows, classes)."""
    logits = logits.reshape(-1, logits.shape[-1])
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    num_rows, num_classes = logits.shape
    losses = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format) if with_gradient else None
    _launch(
        _cross_entropy,
        num_rows,
        num_classes,
        logits=logits,
        stride=logits.stride(0),
        losses=losses,
        gradient=gradient,
        **options,
    )
    return losses, gradient


def multiply(gradient: Tensor, upstream: Tensor) -> None:
    """Multiply a gradient (rows, classes) by what comes from above, one number or one a row.

    A factor of 1, the usual one, costs a launch: the device sees for itself that nothing is to be done.
    """
    num_rows, num_classes = gradient.shape
    upstream = upstream.reshape(-1).expand(num_rows)
    _launch(_multiply, num_rows, num_classes, gradient=gradient, upstream=upstream, upstream_stride=upstream.stride(0))


def _launch(kernel: Any, num_rows: int, num_classes: int, **arguments: Any) -> None:
    block = min(MAX_BLOCK, triton.next_power_of_2(num_classes))
    warps = max(1, block // COLUMNS_PER_WARP)
    with torch.cuda.device_of(arguments["gradient"] if arguments["gradient"] is not None else arguments["losses"]):
        kernel[(num_rows,)](**arguments, num_classes=num_classes, block=block, num_warps=warps)


@triton.jit
def _seen(z, inverse_temperature, softcap):
    """The logits that the softmax sees, ``c tanh(z / c) / T``, -inf staying -inf; and the derivative of that."""
    z = z.to(tl.float32)
    slope = inverse_temperature
    if softcap is not None:
        e = tl.exp(-2.0 * tl.abs(z / softcap))
        t = (1.0 - e) / (1.0 + e)
        slope = 4.0 * e / ((1.0 + e) * (1.0 + e)) * inverse_temperature
        z = tl.where(z == float("-inf"), z, softcap * tl.where(z < 0.0, -t, t))
    return z * inverse_temperature, slope


@triton.jit
def _smoothing_weights(z, at, inside, prior, class_weight):
    """Prior u and ``v = u w`` of the columns, both up to what u sums to; 0 where a class is masked."""
    kept = inside & (z != float("-inf"))
    u = tl.where(kept, 1.0, 0.0)
    if prior is not None:
        u *= tl.load(prior + at, mask=inside, other=0.0).to(tl.float32)
    v = u
    if class_weight is not None:
        v = u * tl.load(class_weight + at, mask=inside, other=0.0).to(tl.float32)
    return u, v


@triton.jit
def _cross_entropy(
    logits,
    labels,
    losses,
    gradient,
    prior,
    class_weight,
    counted,
    row_scale,
    stride,
    scale_stride,
    num_classes,
    scale,
    eps,
    inverse_temperature,
    z_loss,
    softcap,
    block: tl.constexpr,
):
    """The loss of a row, and its gradient unless that is None."""
    row = tl.program_id(0).to(tl.int64)  # rows times classes may be beyond int32
    columns = tl.arange(0, block)
    logits += row * stride
    if gradient is not None:
        gradient += row * num_classes

    if counted is not None:  # noqa: SIM102 - what is None is not even compiled
        if tl.load(counted + row) == 0:  # whatever the row holds
            tl.store(losses + row, 0.0)
            if gradient is not None:
                for start in range(0, num_classes, block):
                    at = start + columns
                    tl.store(gradient + at, tl.zeros((block,), tl.float32), mask=at < num_classes)
            return

    top, total, left, mass, weighted = float("-inf"), 0.0, 0.0, 0.0, 0.0
    for start in range(0, num_classes, block):
        at = start + columns
        inside = at < num_classes
        z, slope = _seen(tl.load(logits + at, mask=inside, other=float("-inf")), inverse_temperature, softcap)
        highest = tl.maximum(top, tl.max(z, 0))
        shift = tl.where(tl.abs(highest) == float("inf"), 0.0, highest)
        total = total * tl.exp(top - shift) + tl.sum(tl.exp(z - shift), 0)
        top = highest
        if eps is not None:
            u, v = _smoothing_weights(z, at, inside, prior, class_weight)
            left += tl.sum(u, 0)
            mass += tl.sum(v, 0)
            weighted += tl.sum(tl.where(z == float("-inf"), 0.0, v * z), 0)

    shift = tl.where(tl.abs(top) == float("inf"), 0.0, top)
    lse = tl.log(total) + shift
    label = tl.load(labels + row).to(tl.int64)
    valid = (label >= 0) & (label < num_classes)
    safe = tl.where(valid, label, 0)
    label_weight = tl.where(valid, 1.0, float("nan"))
    if class_weight is not None:
        label_weight *= tl.load(class_weight + safe).to(tl.float32)
    label_z, _label_slope = _seen(tl.load(logits + safe), inverse_temperature, softcap)
    nll = tl.log(total) + (shift - label_z)
    # A masked class costs nothing where it has no weight.
    nll = tl.where((label_weight == 0.0) & (label_z == float("-inf")), 0.0, nll)

    of_label = label_weight
    if eps is not None:
        of_label = (1.0 - eps) * label_weight
    loss = of_label * nll
    of_p = of_label
    if eps is not None:
        loss += eps * (mass * lse - weighted) / left
        of_p += eps * mass / left
    if z_loss is not None:
        loss += z_loss * lse * lse
        of_p += 2.0 * z_loss * lse
    if row_scale is not None:
        scale = tl.load(row_scale + row * scale_stride).to(tl.float32)
    tl.store(losses + row, loss * scale)

    if gradient is not None:
        of_p = of_p / total
        for start in range(0, num_classes, block):
            at = start + columns
            inside = at < num_classes
            z, slope = _seen(tl.load(logits + at, mask=inside, other=float("-inf")), inverse_temperature, softcap)
            g = of_p * tl.exp(z - shift) - tl.where(at == label, of_label, 0.0)
            if eps is not None:
                u, v = _smoothing_weights(z, at, inside, prior, class_weight)
                g -= eps / left * v
            tl.store(gradient + at, g * (slope * scale), mask=inside)


@triton.jit
def _multiply(gradient, upstream, upstream_stride, num_classes, block: tl.constexpr):
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
