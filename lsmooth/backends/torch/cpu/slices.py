"""What a member computes of its slice of the classes on the CPU, a block of rows at a time in cache.

With x = log2(e) (z - m) / T, m the largest logit of a row, the slice becomes 2^x. It is kept, and the backward pass
makes the gradient of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lsmooth.backends.formulas.linear import Call
from lsmooth.backends.formulas.questions import Columns, CrossEntropyQuestion, DivergenceQuestion, Question, Slices
from lsmooth.backends.formulas.sharded import PartsOfBlock
from lsmooth.backends.options import are_known, with_arrays
from lsmooth.backends.torch.memory import empty_like
from lsmooth.backends.torch.sweep import block_rows, is_batched, is_plain, needs_gradient

WIDE = (torch.float32, torch.float64)
LN2 = math.log(2.0)
KNOWN = ("label_smoothing", "prior", "class_weight", "temperature", "z_loss", "counted")  # of the cross-entropy


def whole(loss: PartsOfBlock, call: Call) -> Tensor | None:
    """The columns of logits that are there; None where not every question is known."""
    logits = tuple([head.hidden for head in call.heads])
    if loss.forms:
        logits = tuple([form.applied(loss.xp, z) for form, z in zip(loss.forms, logits, strict=True)])
    slices = Slices(loss.xp, logits, call.rows, call.shared)
    found = [x for x in (columns(question, slices) for question in loss.questions) if x is not None]
    return loss.stacked(found) if len(found) == len(loss.questions) else None


def columns(question: Question, slices: Slices) -> Columns | None:
    """`Question.local` of two-dimensional logits, differentiable; None where only the formula will do."""
    logits = slices.logits
    if "limit" in slices.rows or not (is_plain(*logits) and all(z.ndim == 2 and z.dtype in WIDE for z in logits)):
        return None
    if isinstance(question, CrossEntropyQuestion) and not (question.soft or question.statistics):
        return _cross_entropy(question, slices)
    if isinstance(question, DivergenceQuestion) and question.options.divergence == "forward_kl":
        return _forward_kl(question, slices)
    return None


def _cross_entropy(question: CrossEntropyQuestion, slices: Slices) -> Columns | None:
    options = with_arrays(with_arrays(question.options, slices.shared), slices.rows, prefix=question.prefix)
    temperature, prior, weight = options.temperature, options.prior, options.class_weight
    if not are_known(options, KNOWN) or needs_gradient(temperature, prior, weight):
        return None
    logits, labels = slices.logits[-1], slices.rows["labels"].long()
    here = (labels >= 0) & (labels < logits.shape[-1])
    ids = torch.where(here, labels, 0)
    of_class = _product(prior, weight) if question.smoothed else None

    def forward() -> tuple[Tensor, list[Tensor]]:
        powers, (top, total, smooth) = _powers(logits, temperature, options.counted, question.smoothed, of_class)
        picked = logits.gather(1, ids[:, None])[:, 0]
        return powers, [top, total, torch.where(here, picked, -torch.inf), smooth]

    def backward(powers: Tensor, total: Tensor, picked: Tensor, smooth: Tensor) -> Tensor:
        for part in _blocks(powers):
            block = powers[part].mul_(_over(total[part], temperature, part))
            if question.smoothed:
                slope = _over(smooth[part], temperature, part)
                block.add_(slope if of_class is None else slope * of_class)
        return powers.scatter_add_(1, ids[:, None], torch.where(here, picked, 0.0)[:, None])

    def formula(z: Tensor) -> list[Tensor]:
        found = question.local(slices._replace(logits=(*slices.logits[:-1], z)))
        return [found["total"], found["picked"], found.get("smooth_sum", found["total"].detach())]

    with torch.no_grad():
        powers, (top, *sums) = forward()
        if question.smoothed and not bool(torch.isfinite(sums[-1]).all()):  # a masked class takes no smoothing mass
            return None
    total, picked, smooth = _Columns.apply(logits, powers, lambda: forward()[0], backward, formula, *sums)
    found = {"top": top, "total": total, "picked": picked}
    if question.smoothed:
        left = logits.new_full((), logits.shape[-1]) if prior is None else prior.sum()
        found |= {"smooth_sum": smooth, "smooth_left": left.expand(len(logits))}
    if weight is not None:
        found["label_weight"] = torch.where(here, weight[ids], -torch.inf)
        if question.smoothed:
            found["smooth_mass"] = _product(prior, weight).sum().expand(len(logits))  # type: ignore[union-attr]
    return found


def _forward_kl(question: DivergenceQuestion, slices: Slices) -> Columns | None:
    options = with_arrays(question.options, slices.rows, prefix=question.prefix)
    (teacher, logits), temperature = slices.logits, options.temperature
    if needs_gradient(teacher, temperature) or teacher.dtype != logits.dtype:
        return None

    def forward() -> tuple[Tensor, list[Tensor]]:
        powers, (top, total, _) = _powers(logits, temperature, options.counted, False, None)
        tops, totals, cross = (torch.empty_like(total) for _ in range(3))
        for part in _blocks(logits):
            x, tops[part] = _exponents(teacher[part], temperature, part)
            difference = x - _exponents(logits[part], temperature, part)[0]
            x = x.exp2_()
            totals[part] = x.sum(1)
            cross[part] = torch.linalg.vecdot(x, difference).mul_(LN2)
        if options.counted is not None:
            for column, value in ((tops, 0.0), (totals, 1.0), (cross, 0.0)):
                column.masked_fill_(~options.counted, value)
        return powers, [top, tops, total, totals, cross]

    def backward(powers: Tensor, total: Tensor, totals: Tensor, cross: Tensor) -> Tensor:
        for part in _blocks(powers):
            block = powers[part].mul_(_over(total[part], temperature, part))
            x = _exponents(teacher[part], temperature, part)[0].exp2_()
            if options.counted is not None:
                x.masked_fill_(~options.counted[part, None], 0.0)
            block.addcmul_(x, _over(cross[part], temperature, part), value=-1.0)
        return powers

    def formula(z: Tensor) -> list[Tensor]:
        found = question.local(slices._replace(logits=(teacher, z)))
        return [found["student"], found["teacher"], found["cross"]]

    with torch.no_grad():
        powers, (top, tops, *sums) = forward()
        if not bool(torch.isfinite(sums[-1]).all()):
            return None
    total, totals, cross = _Columns.apply(logits, powers, lambda: forward()[0], backward, formula, *sums)
    return {"teacher_top": tops, "student_top": top, "teacher": totals, "student": total, "cross": cross}


def _powers(
    logits: Tensor, temperature: Any, counted: Tensor | None, smoothed: bool, of_class: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """2^x; and of each row the largest logit, the sum of 2^x, and the (weighted) sum of (z - m) / T.

    Rows that do not count hold zeros, and 0, 1 and 0. Where no gradient is needed, 2^x is not kept.
    """
    kept = logits.requires_grad
    powers = empty_like(logits if kept else logits[:0])
    top, total, smooth = (logits.new_empty(len(logits)) for _ in range(3))
    for part in _blocks(logits):
        x, top[part] = _exponents(logits[part], temperature, part, out=powers[part] if kept else None)
        if smoothed:
            smooth[part] = (x.sum(1) if of_class is None else x.mv(of_class)).mul_(LN2)
        total[part] = x.exp2_().sum(1)
    if counted is not None:
        ignored = (~counted).nonzero()[:, 0]
        if kept:
            powers.index_fill_(0, ignored, 0.0)
        for column, value in ((top, 0.0), (total, 1.0), (smooth, 0.0)):
            column.index_fill_(0, ignored, value)
    return powers, [top, total, smooth]


def _exponents(z: Tensor, temperature: Any, part: slice, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """X of a block, and its largest logits."""
    top = z.amax(1)
    x = torch.sub(z, top.masked_fill(top.abs() == torch.inf, 0.0)[:, None], out=out)
    factor = math.log2(math.e) / temperature
    return x.mul_(factor if isinstance(factor, float) else factor[part, None]), top


def _over(slope: Tensor, temperature: Any, part: slice) -> Tensor:
    """A column of slopes over T."""
    return (slope / (temperature if isinstance(temperature, float) else temperature[part]))[:, None]


def _blocks(logits: Tensor) -> Iterator[slice]:
    rows = block_rows(*logits.shape)
    return (slice(start, start + rows) for start in range(0, len(logits), rows))


def _product(prior: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return prior if weight is None else weight if prior is None else prior * weight


class _Columns(torch.autograd.Function):
    """Sums that are known, and the gradient that is made of the powers of 2 of the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        powers: Tensor,
        again: Callable[[], Tensor],
        backward: Any,
        formula: Any,
        *sums: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits)
        ctx.powers, ctx.again, ctx.gradient, ctx.formula = powers, again, backward, formula
        return tuple([x.clone() for x in sums])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled() or any(is_batched(x) for x in slopes):  # the gradient may be differentiated again
            with torch.enable_grad():
                found = ctx.formula(logits)
            sums, slopes = zip(*[x for x in zip(found, slopes, strict=True) if x[0].requires_grad], strict=True)
            (gradient,) = torch.autograd.grad(sums, logits, slopes, create_graph=True)
        else:
            powers, ctx.powers = ctx.powers, None
            gradient = ctx.gradient(ctx.again() if powers is None else powers, *slopes)
        return gradient, *(None,) * (len(ctx.needs_input_grad) - 1)
