"""Softmax cross-entropy as one Triton kernel, for PyTorch's tensors on a GPU.

One program per row makes two passes over it in blocks of columns. The first pass finds the largest logit
m, ``Z = sum_k exp(z_k - m)``, and the sums over unmasked classes that smoothing needs, which give
the loss. The second pass writes the gradient in closed form:
``p_k (w_y (1 - eps) + eps mass + 2 a lse) - (1 - eps) w_y [k = y] - eps v_k``.
For distributions t, ``w_y`` is ``sum_k w_k t_k``, and ``w_y [k = y]`` is ``w_k t_k``.

The host never waits for the device: a label out of range makes its row NaN.
The kernel accumulates in float32; float64 takes the general formula.
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

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch.cpu.cross_entropy import without_padding
from lsmooth.backends.torch.gpu.rows import DTYPES, as_rows, finite, multiply, number_or_rows, of_rows, write_zeros
from lsmooth.backends.torch.gpu.rows import sweep as sweep_rows
from lsmooth.backends.torch.sweep import is_plain, losses_alone, needs_gradient, run, times_upstream

KNOWN = (
    "label_smoothing",
    "prior",
    "class_weight",
    "temperature",
    "z_loss",
    "logit_softcap",
    "counted",
    "scale",
    "total",
    "num_classes",
)


def fits(logits: Tensor, labels: Tensor, options: SoftmaxOptions) -> bool:
    """Whether `rows` knows these arguments: no transform, a gradient for the logits alone."""
    return (
        logits.dtype in DTYPES
        and is_plain(logits, device=logits.device.type)
        and labels.device == logits.device
        and not needs_gradient(labels, *options)
    )


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[..., Tensor],
    options: SoftmaxOptions,
    overwrite: bool = False,
    late: bool = False,
) -> Tensor | None:
    """`formulas.softmax_cross_entropy` for arguments that fit.

    ``formula`` is that function of the logits, the labels and the options, for derivatives of the gradient.
    With ``overwrite`` the gradient overwrites the logits; if ``late``, in the backward pass.
    """
    logits, options = without_padding(logits, options), options._replace(num_classes=None)
    kernel = functools.partial(sweep, overwrite=overwrite or late)
    first = losses_alone(sweep) if late else None
    return run(logits, (labels, options), kernel, formula, logits.shape[:-1], options.total, multiply, first)


@torch.no_grad()
def sweep(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
    statistics: list[RowStatistics] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """See `lsmooth.backends.torch.sweep.Sweep`; the statistics of the rows are appended to that list."""
    prior, class_weight = (
        None if x is None else x.detach().contiguous() for x in (options.prior, options.class_weight)
    )
    scale = times_upstream(options.scale, upstream, torch.float32)
    shape, hard = logits.shape[:-1], labels.ndim < logits.ndim
    eps, row_eps = number_or_rows(options.label_smoothing, shape)
    temperature, row_temperature = number_or_rows(options.temperature, shape)
    target = None if hard else as_rows(labels.detach())
    known, predicted = None, None
    if statistics is not None:
        known = torch.empty((3, shape.numel()), dtype=torch.float32, device=logits.device)
        predicted = torch.empty(shape.numel(), dtype=torch.int64, device=logits.device)
        statistics.append(RowStatistics._make([*known.unbind(), predicted]))
    return sweep_rows(
        cross_entropy,
        logits,
        with_gradient,
        labels=labels.reshape(-1).contiguous() if hard else None,
        target=target,
        target_stride=0 if target is None else target.stride(0),
        prior=prior,
        class_weight=class_weight,
        row_eps=row_eps,
        eps=None if row_eps is None and not eps else eps,
        row_temperature=row_temperature,
        inverse_temperature=1.0 / temperature,
        z_loss=options.z_loss or None,
        softcap=options.logit_softcap,
        least=-ROUNDING,
        known=known,
        num_rows=shape.numel(),
        predicted=predicted,
        overwrite=overwrite,
        **of_rows(shape, scale, options.counted),
    )


@triton.jit
def _seen(z, inverse_temperature, softcap):
    """The logits of the softmax, ``c tanh(z / c) / T`` with -inf kept, and the derivative of that."""
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
    """Prior u and ``v = u w`` of the columns, before division by the sum of u; 0 for masked classes."""
    kept = inside & (z != float("-inf"))
    u = tl.where(kept, 1.0, 0.0)
    if prior is not None:
        u *= tl.load(prior + at, mask=inside, other=0.0).to(tl.float32)
    v = u
    if class_weight is not None:
        v = u * tl.load(class_weight + at, mask=inside, other=0.0).to(tl.float32)
    return u, v


@triton.jit
def cross_entropy(
    logits,
    labels,
    target,
    losses,
    known,
    predicted,
    gradient,
    prior,
    class_weight,
    counted,
    row_scale,
    row_eps,
    row_temperature,
    stride,
    target_stride,
    scale_stride,
    num_rows,
    num_classes,
    scale,
    eps,
    inverse_temperature,
    z_loss,
    softcap,
    least,
    block: tl.constexpr,
):
    """The loss of a row, and its gradient and its statistics unless those are None.

    ``known`` receives the log-probability of the label, the entropy and the log-sum-exp, (3, rows).
    """
    row = tl.program_id(0).to(tl.int64)  # rows times classes may exceed int32
    columns = tl.arange(0, block)
    logits += row * stride
    if gradient is not None:
        gradient += row * num_classes

    if counted is not None:  # noqa: SIM102 - Triton does not compile branches on None
        if tl.load(counted + row) == 0:
            write_zeros(losses + row, gradient, num_classes, block)
            if known is not None:
                tl.store(known + row, 0.0)
                tl.store(known + num_rows + row, 0.0)
                tl.store(known + 2 * num_rows + row, 0.0)
                tl.store(predicted + row, -1)
            return

    if row_temperature is not None:
        inverse_temperature = 1.0 / tl.load(row_temperature + row)
    if row_eps is not None:
        eps = tl.load(row_eps + row)
    if target is None:
        label = tl.load(labels + row).to(tl.int64)
        valid = (label >= 0) & (label < num_classes)
        safe = tl.where(valid, label, 0)
    else:
        target += row * target_stride
        label = tl.full((), -1, tl.int64)
        valid = tl.full((), 1, tl.int1)
        safe = tl.full((), 0, tl.int64)
    # Every warp reads this before the barriers of the sums below; after them another warp may overwrite it.
    label_z, _label_slope = _seen(tl.load(logits + safe), inverse_temperature, softcap)
    # Sums over classes use logits relative to this one, so that a common offset loses no digits.
    reference = finite(label_z)

    top, total, left, mass, weighted = float("-inf"), 0.0, 0.0, 0.0, 0.0
    target_mass, target_z, lowest = 0.0, 0.0, 0.0
    expected, largest, winner = 0.0, float("-inf"), tl.full((), 0, tl.int64)
    for start in range(0, num_classes, block):
        at = start + columns
        inside = at < num_classes
        given = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
        z, slope = _seen(given, inverse_temperature, softcap)
        highest = tl.maximum(top, tl.max(z, 0))
        shift = finite(highest)
        kept = tl.exp(top - shift)
        if known is not None:
            # Rescale the sum of exp(z) z to the new shift.
            expected = (expected - total * (shift - finite(top))) * kept
            expected += tl.sum(tl.exp(z - shift) * tl.where(z == float("-inf"), 0.0, z - shift), 0)
            best = tl.max(given, 0)
            first = tl.min(tl.where(given == best, at, num_classes), 0).to(tl.int64)
            winner = tl.where(best > largest, first, winner)
            largest = tl.maximum(largest, best)
        total = total * kept + tl.sum(tl.exp(z - shift), 0)
        top = highest
        if eps is not None:
            u, v = _smoothing_weights(z, at, inside, prior, class_weight)
            left += tl.sum(u, 0)
            mass += tl.sum(v, 0)
            weighted += tl.sum(tl.where(z == float("-inf"), 0.0, v * (z - reference)), 0)
        if target is not None:
            t = tl.load(target + at, mask=inside, other=0.0).to(tl.float32)
            lowest = tl.minimum(lowest, tl.min(t, 0))
            if class_weight is not None:
                t *= tl.load(class_weight + at, mask=inside, other=0.0).to(tl.float32)
            target_mass += tl.sum(t, 0)
            target_z += tl.sum(tl.where(t == 0.0, 0.0, t * (z - reference)), 0)

    shift = finite(top)
    lse = tl.log(total) + shift
    above = tl.log(total) + (shift - reference)  # the log-sum-exp, relative to the reference
    proper = tl.where(lowest >= least, 1.0, float("nan"))
    if target is None:
        of_label = tl.where(valid, 1.0, float("nan"))
        if class_weight is not None:
            of_label *= tl.load(class_weight + safe).to(tl.float32)
        nll = tl.log(total) + (shift - label_z)
        # A masked class of weight 0 contributes nothing.
        cost = of_label * tl.where((of_label == 0.0) & (label_z == float("-inf")), 0.0, nll)
    else:
        of_label = target_mass * proper
        cost = (target_mass * above - target_z) * proper

    if known is not None:
        if target is None:
            log_prob = tl.where(valid, (label_z - shift) - tl.log(total), float("nan"))
        else:
            log_prob = (target_z - target_mass * above) * proper
        tl.store(known + row, log_prob)
        tl.store(known + num_rows + row, tl.log(total) - expected / total)
        tl.store(known + 2 * num_rows + row, lse)
        tl.store(predicted + row, winner)

    loss, of_target = cost, 1.0
    if eps is not None:
        of_target = 1.0 - eps
        loss = of_target * cost
        of_label = of_target * of_label
    of_p = of_label
    if eps is not None:
        loss += eps * (mass * above - weighted) / left
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
            g = of_p * tl.exp(z - shift)
            if target is None:
                g -= tl.where(at == label, of_label, 0.0)
            else:
                t = tl.load(target + at, mask=inside, other=0.0).to(tl.float32)
                if class_weight is not None:
                    t *= tl.load(class_weight + at, mask=inside, other=0.0).to(tl.float32)
                g -= of_target * t
            if eps is not None:
                u, v = _smoothing_weights(z, at, inside, prior, class_weight)
                g -= eps / left * v
            tl.store(gradient + at, g * (slope * scale), mask=inside)
