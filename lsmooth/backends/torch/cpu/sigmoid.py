"""Sigmoid cross-entropy on the CPU, its gradient written while the logits are in cache.

With s = sigmoid(-|z|), an element of label l, positive weight w and weight f costs

``d z - c log(1 - s)``, ``c = f (1 - l + w l)``, ``d = h c - f w l``, h = 1 where z > 0 and 0 elsewhere,

and has the gradient ``d - sign(z) c s``: no difference of nearly equal numbers in either tail.
A block takes a dozen steps in scratch memory; autograd takes as many of the logits' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.options import SigmoidOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import FLOATS, INTEGERS, is_plain, needs_gradient, run

# With labels smoothed by this much no answer is right enough for its loss, or its gradient, to be a small
# difference of large numbers: PyTorch's own kernel is exact then.
SMOOTH = 0.05
_HALF, _ONE, _MINUS_ONE = (
    {dtype: torch.full((), value, dtype=dtype, device="cpu") for dtype in (torch.float32, torch.float64)}
    for value in (0.5, 1.0, -1.0)
)
# 1 + exp(-|z|) is at most 2, and float32 holds the product of 2**6 such factors.
FOLDS = 6
LEAST_FOLDED = 2**12  # fewer logarithms take less time than the calls of a fold
_NONE, _MEAN = 0, 1  # reductions, as PyTorch's C functions name them
_NEAR = 1e-12
_LABELS = FLOATS | INTEGERS | {torch.bool}
_DIVIDED = ("mean", "sum_over_batch_size")
soft_margin_loss = torch._C._nn.soft_margin_loss  # pyright: ignore[reportAttributeAccessIssue]
# leaky_relu_backward(y, x, -1, False) is y where x > 0 and -y elsewhere, in one pass.
_signed = torch.ops.aten.leaky_relu_backward.grad_input

KNOWN = ("label_smoothing", "pos_weight", "counted", "scale", "total", "gamma", "alpha")


def quick(
    labels: Any, logits: Any, given: Any, pos_weight: Any, gamma: float, alpha: float | None, formula: Any
) -> Tensor | None:
    """`Backend.quick_binary`: the loss with the fewest checks; None for arguments that need others."""
    eps, weight, mask, reduction = given.label_smoothing, given.sample_weight, given.mask, given.reduction
    if not (
        is_plain(logits, labels)
        and type(eps) is float
        and 0.0 <= eps <= 1.0
        and logits.dtype in FLOATS
        and labels.dtype in _LABELS
        and (pos_weight is None or _broadcasts(pos_weight, logits.shape))
        and (weight is None or (_broadcasts(weight, logits.shape) and weight.ndim in (0, logits.ndim)))
        and (mask is None or (is_plain(mask) and mask.dtype is torch.bool and mask.shape == logits.shape))
    ):
        return None
    dtype = _result(logits)
    scale = None
    if reduction in _DIVIDED:
        count: Any = logits.numel() if mask is None else torch.count_nonzero(mask).item()
        if weight is not None and reduction == "mean":
            count = None if mask is not None else weight.sum(dtype=dtype).item() * count / weight.numel()
        if not count:
            return None
        scale = 1.0 / count
    elif reduction not in ("none", "sum", None):
        return None
    if weight is not None:
        scale = weight.to(dtype) if scale is None else weight.to(dtype) * scale
    pos_weight = None if pos_weight is None else pos_weight.to(dtype)
    options = SigmoidOptions(eps, pos_weight, mask, scale, reduction not in ("none", None), gamma, alpha)
    return rows(logits, labels, formula, options) if fits(logits, labels, options) else None


def _broadcasts(x: Any, shape: torch.Size) -> bool:
    """Whether ``x`` is a tensor of weights, which get no gradient, and broadcasts to the shape."""
    return (
        is_plain(x)
        and x.dtype in FLOATS
        and not x.requires_grad
        and (
            x.shape == shape
            or (x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(x.shape[::-1], shape[::-1], strict=False)))
        )
    )


def _result(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def fits(logits: Tensor, labels: Tensor, options: SigmoidOptions) -> bool:
    """Whether `rows` knows these arguments; autograd differentiates by the labels and the options."""
    return (
        is_plain(logits)
        and labels.shape == logits.shape
        and type(options.label_smoothing) is float
        and not needs_gradient(labels, options.pos_weight, options.scale)
        and (options.gamma >= 1.0 or (options.gamma == 0.0 and options.alpha is None))
    )


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[..., Tensor],
    options: SigmoidOptions,
) -> Tensor | None:
    """`formulas.sigmoid_cross_entropy` for arguments that fit; None for infinite logits and labels outside [0, 1]."""
    total, counted = options.total, options.counted
    # Smoothed labels are PyTorch's at any size, but for sums, which take fewer logarithms here.
    few = logits.numel() <= thresholds.SMALL_SIGMOID or (options.label_smoothing >= SMOOTH and not total)
    if few and not options.gamma:
        losses = small(logits, labels, options)
        if losses is not None:
            return losses
    losses = run(logits, (labels, options), sweep, formula, logits.shape, total)
    if losses is None and counted is not None:
        # Zeros for elements that do not count only where those hold NaN or infinities.
        logits, labels = torch.where(counted, logits, 0.0), torch.where(counted, labels, 0)
        losses = run(logits, (labels, options), sweep, formula, logits.shape, total)
    return losses


def sweep(
    logits: Tensor, labels: Tensor, options: SigmoidOptions, with_gradient: bool, upstream: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; with an upstream gradient, the losses are not computed."""
    shape, scale = logits.shape, 1.0 if options.scale is None else options.scale
    if upstream is not None:
        scale = (upstream.to(_result(logits)) if any(upstream.stride()) else upstream.reshape(-1)[0].item()) * scale
    axes = max(_constant_axes(options.pos_weight, shape), _constant_axes(scale, shape))
    tail = shape[len(shape) - axes :].numel() if axes else 1

    def in_rows(x: Any) -> Any:
        return x.detach().reshape((-1, tail) if axes else (-1,))

    counted = options.counted
    return _sweep(
        in_rows(logits),
        in_rows(labels),
        None if counted is None else in_rows(counted),
        _in_rows(options.pos_weight, shape, axes),
        _in_rows(scale, shape, axes),
        options,
        with_gradient,
        upstream is None,
    )


def _constant_axes(x: Any, shape: torch.Size) -> int:
    """How many of the last axes a row of a block needs, 0 where ``x`` is a number or has one for each element.

    A weight of the classes of an image is the same along the axes behind the classes.
    """
    if not isinstance(x, Tensor) or x.numel() in (1, shape.numel()):
        return 0
    axes = 0
    while x.shape[-1 - axes] == 1:
        axes += 1
    return max(axes, 1)


def _in_rows(x: Any, shape: torch.Size, axes: int) -> Any:
    """``x`` as a number, or as a tensor (rows, 1 or columns), or (elements,) without such axes."""
    if not isinstance(x, Tensor):
        return x
    x = x.detach()
    if x.numel() == 1:
        return x.item()
    if not axes:
        return x.expand(shape).reshape(-1)
    if x.shape[-axes:].numel() == 1:
        return x.expand(*shape[:-axes], *(1,) * axes).reshape(-1, 1)
    return x.expand(shape).reshape(-1, shape[-axes:].numel())


def small(logits: Tensor, labels: Tensor, options: SigmoidOptions) -> Tensor | None:
    """The losses by PyTorch's functions, for sizes where the number of calls counts; None where they are not exact.

    They are for labels 0 and 1, of which ``log(1 + exp(-z))`` and ``log(1 + exp(z))`` are exact in both tails, and
    for labels that are smoothed enough.
    """
    eps, pos_weight, counted, scale, total = options[:5]
    dtype = _result(logits)
    z, labels = logits.to(dtype), labels.detach().to(dtype)
    if counted is not None:
        kept = counted.to(dtype)
        labels, scale = labels * kept, kept if scale is None else kept * scale
    factors = scale if isinstance(scale, Tensor) else None
    if eps >= SMOOTH:
        if not _are_proper(*torch.aminmax(labels)):
            return None
        labels = torch.lerp(labels, _HALF[dtype], eps)
        mean = total and factors is None
        loss = torch.binary_cross_entropy_with_logits(z, labels, factors, pos_weight, _MEAN if mean else _NONE)
    elif eps or not torch.equal(labels.square(), labels):
        return None
    else:
        if pos_weight is not None:
            weight = torch.lerp(_ONE[dtype], pos_weight, labels)
            factors = weight if factors is None else weight * factors
        mean = total and factors is None
        loss = soft_margin_loss(z, torch.add(_MINUS_ONE[dtype], labels, alpha=2.0), _MEAN if mean else _NONE)
        if factors is not None:
            loss = loss * factors
    if total and not mean:
        loss = loss.sum()
    factor = (1.0 if isinstance(scale, Tensor) or scale is None else scale) * (z.numel() if mean else 1)
    if abs(factor - 1.0) > _NEAR:
        loss = loss * factor
    return loss if math.isfinite((loss.detach().sum() if loss.ndim else loss).item()) else None


def _are_proper(low: Tensor, high: Tensor) -> bool:
    """Whether the lowest and the highest label are in [0, 1]."""
    return low.item() >= -ROUNDING and high.item() <= 1.0 + ROUNDING


class _Block(NamedTuple):
    """A block of logits and labels, in the dtype of the result, and memory for what is made of it."""

    x: Tensor
    y: Tensor
    pos_weight: float | Tensor | None
    weight: Tensor | None  # multiplies the elements
    only_counted: bool  # the weight is 0 or 1
    gradient: Tensor  # memory for it; that of other results where no gradient is wanted
    losses: Tensor | None  # memory for those of the elements
    spare: list[Tensor]


@torch.no_grad()
def _sweep(
    logits: Tensor,
    labels: Tensor,
    counted: Tensor | None,
    pos_weight: float | Tensor | None,
    scale: float | Tensor,
    options: SigmoidOptions,
    with_gradient: bool,
    with_losses: bool,
) -> tuple[Tensor | None, Tensor | None] | None:
    """Losses, of elements or of blocks, and the gradient; None if a loss is not finite or a label not in [0, 1]."""
    size, dtype, factors = len(logits), _result(logits), scale if isinstance(scale, Tensor) else None
    copied = labels.dtype != dtype
    arrays = 8 if options.gamma else 3 if pos_weight is None else 5
    arrays += (logits.dtype != dtype) + copied + (counted is not None)
    block = max(1, thresholds.SCRATCH_BYTES // (arrays * logits[0].numel() * dtype.itemsize))
    memory = scratch((arrays, min(size, block), *logits.shape[1:]), dtype).unbind()
    gradient = empty_like(logits) if with_gradient else None
    losses = logits.new_empty(logits.shape, dtype=dtype) if with_losses and not options.total else None
    step = _focal if options.gamma else _cross_entropy
    sums, bounds = [], []

    for start in range(0, size, block):
        part = slice(start, start + block) if block < size else None
        spare = list(memory) if start + block <= size or part is None else [x[: size - start] for x in memory]
        x, y, weight = _at(logits, part), _at(labels, part), _at(factors, part)
        if x.dtype != dtype:
            x = spare.pop().copy_(x)
        if copied:
            y = spare.pop().copy_(_as_bytes(y))
        if counted is not None:
            kept = spare.pop().copy_(_as_bytes(_at(counted, part)))
            weight = kept if weight is None else kept.mul_(weight)
        if with_losses and labels.dtype != torch.bool:
            bounds += torch.aminmax(y)
        # The block of the gradient is memory that is written anyway: scratch memory costs page faults.
        into = spare.pop() if gradient is None or gradient.dtype != dtype else _at(gradient, part)
        of_part = _at(pos_weight, part)
        found = _Block(x, y, of_part, weight, factors is None, into, _at(losses, part), spare)
        sums += step(found, options, with_gradient, with_losses)
        if gradient is not None:
            if factors is None and scale != 1.0:
                into.mul_(scale)
            if gradient.dtype != dtype:
                _at(gradient, part).copy_(into)

    if not with_losses:
        return None, gradient
    proper = not bounds or _are_proper(*(bounds if len(bounds) == 2 else torch.aminmax(torch.stack(bounds))))
    if not proper and counted is not None:  # labels of elements that do not count may be anything
        proper = _are_proper(*torch.aminmax(torch.where(counted, labels, 0)))
    if not proper:
        return None
    found = torch.stack(sums) if losses is None else losses
    if not math.isfinite(found.sum().item()):
        return None
    return found if factors is not None or scale == 1.0 else found.mul_(scale), gradient


def _at(x: Any, part: slice | None) -> Any:
    """The part of a tensor, all of it for None; a number as it is."""
    return x[part] if part is not None and isinstance(x, Tensor) else x


def _as_bytes(x: Tensor) -> Tensor:
    """``x``, bytes instead of bools, of which PyTorch makes floats ten times as fast."""
    return x.view(torch.uint8) if x.dtype == torch.bool else x


def _cross_entropy(block: _Block, options: SigmoidOptions, with_gradient: bool, with_losses: bool) -> list[Tensor]:
    """Write the gradient and losses of a block; return terms of their sum where they are not wanted each."""
    x, spare, weight = block.x, block.spare, block.weight
    s = torch.abs(x, out=spare.pop()).neg_().sigmoid_()  # PyTorch's takes half of the time of its exponential
    d = torch.gt(x, 0.0, out=block.gradient)
    c = _subtract_labels(d, block, options.label_smoothing)
    if weight is not None:
        d.mul_(weight)
        if c is None and block.only_counted:
            s.mul_(weight)
        else:
            c = weight if c is None else c.mul_(weight)
    sums = []
    if with_losses:
        rest = spare.pop() if block.losses is None else block.losses
        if c is None and block.losses is None:
            sums = [torch.dot(d.view(-1), x.reshape(-1)), _sum_of_softplus(s, rest)]
        else:
            rest = torch.neg(s, out=rest).log1p_()
            rest = rest if c is None else rest.mul_(c)
            rest.addcmul_(d, x, value=-1.0).neg_()
            if block.losses is None:
                sums = [rest.sum()]
    if with_gradient:
        s = s if c is None else s.mul_(c)
        d.sub_(_signed(s, x, -1.0, False, grad_input=s))
    return sums


def _subtract_labels(d: Tensor, block: _Block, label_smoothing: float) -> Tensor | None:
    """Make ``h c - w l`` of ``d = h``, exactly 0 where a certain label is right; return c, or None where it is 1."""
    labels, pos_weight = block.y, block.pos_weight
    if pos_weight is None:
        d.sub_(labels, alpha=1.0 - label_smoothing)
        if label_smoothing:
            d.sub_(0.5 * label_smoothing)
        return None
    of_one, c = block.spare.pop(), block.spare.pop()
    if label_smoothing:
        labels = torch.mul(labels, 1.0 - label_smoothing, out=of_one).add_(0.5 * label_smoothing)
    torch.sub(_ONE[c.dtype], labels, out=c)
    torch.mul(labels, pos_weight, out=of_one)
    d.mul_(c.add_(of_one)).sub_(of_one)
    return c


def _sum_of_softplus(s: Tensor, into: Tensor) -> Tensor:
    """The sum of ``-log(1 - s)``, s in [0, 1/2], of few logarithms: a logarithm takes as long as ten products.

    With the odds ``o = s / (1 - s)`` it is the sum of ``log(1 + o)``, and of two terms the logarithm of
    ``(1 + a)(1 + b) = 1 + (a + b + a b)``, which loses no digits of small odds. ``into`` is overwritten.
    """
    odds = torch.div(s, torch.sub(_ONE[s.dtype], s, out=into), out=into).view(-1)
    for _ in range(FOLDS):
        size = len(odds) // 2
        if size < LEAST_FOLDED:
            break
        first, second = odds[:size], odds[size : 2 * size]
        rest = odds[2 * size :]
        odds = first.addcmul_(first, second).add_(second)
        if len(rest):
            odds[:1].addcmul_(odds[:1], rest).add_(rest)
    return odds.log1p_().sum()


def _focal(block: _Block, options: SigmoidOptions, with_gradient: bool, with_losses: bool) -> list[Tensor]:
    """`_cross_entropy` of the focal loss.

    With the label's mass m on the less likely answer, e = exp(-|z|), r = 1 / (1 + e), s = e r and the error
    ``f = (m + (1 - m) e) r``, the loss is ``a f^gamma c``, c = log(1 + e) + m |z|, and its gradient
    ``sign(z) a f^(gamma - 1) (f (m - s) + gamma c s r (2 m - 1))``.
    """
    x, gamma, alpha, eps = block.x, options.gamma, options.alpha, options.label_smoothing
    d, n, e, sign, m, f, power = block.spare[-7:]
    one = _ONE[x.dtype]
    torch.abs(x, out=e).neg_().exp_()
    torch.log1p(e, out=n)
    torch.sub(_HALF[x.dtype] - 0.5 * eps, block.y, alpha=1.0 - eps, out=d)  # 1/2 - l
    torch.copysign(one, x, out=sign)
    torch.mul(d, sign, out=m).add_(0.5)
    r = torch.add(e, 1.0, out=block.gradient).reciprocal_()
    torch.sub(one, e, out=f)
    torch.addcmul(e, m, f, out=f).mul_(r)
    c = n.addcmul_(m, torch.mul(x, sign, out=power))
    power = f if gamma == 2.0 else torch.pow(f, gamma - 1.0, out=power)
    weight = sign if alpha is None else sign.mul_(d.mul_(1.0 - 2.0 * alpha).add_(0.5))
    weight = weight if block.weight is None else weight.mul_(block.weight)
    s = e.mul_(r)
    slope = r.mul_(s).mul_(c).mul_(torch.mul(m, 2.0 * gamma, out=d).sub_(gamma)).addcmul_(f, m.sub_(s))
    slope.mul_(power).mul_(weight)
    loss = c.mul_(f).mul_(power)
    loss = loss if weight is sign and alpha is block.weight is None else loss.mul_(weight.abs_())
    if block.losses is None:
        return [loss.sum()]
    block.losses.copy_(loss)
    return []
