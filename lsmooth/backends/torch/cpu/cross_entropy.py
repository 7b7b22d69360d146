"""Softmax cross-entropy on the CPU, with every option, its gradient written while the logits are in cache.

``torch.softmax`` is the one eager kernel that runs at memory speed; ``log_softmax`` and ``logsumexp`` take
several times as long. So the logits are worked through in blocks that stay in cache, and the softmax, in place,
becomes the gradient: one read and one write of the logits, where autograd makes a dozen of each. With x the
logits after soft-cap and temperature, r one class of the row, and q the smoothed label times the class weights,

``lse = x_r - log p_r``, ``loss = Q lse - sum_k q_k x_k + a lse^2``, ``gradient = (Q + 2 a lse) p - q``, Q the sum of q.

A block is (rows, classes), or (classes, rows) where the classes lie along another axis than the last: no copy
of all logits is made. Blocks take a first, quick way. Where a loss comes out that is not finite, or a label is
out of range, the careful way is taken, which knows masked classes (-inf).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu import small_cross_entropy
from lsmooth.backends.torch.cpu.block_statistics import Kept
from lsmooth.backends.torch.cpu.layout import Layout, layout_of
from lsmooth.backends.torch.cpu.small_cross_entropy import OFFSET
from lsmooth.backends.torch.memory import empty_like, scratch
from lsmooth.backends.torch.sweep import block_rows, is_plain, losses_alone, needs_gradient, run, times_upstream
from lsmooth.backends.torch.sweep import multiply as multiply

# The class r is looked for among the first so many, where it is not the label.
SAMPLE = 32
# Below this a probability has lost digits to underflow, and its logarithm with it.
_SMALLEST = {dtype: torch.finfo(dtype).tiny * 1e6 for dtype in (torch.float32, torch.float64)}

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
    """Whether `rows` knows these arguments: CPU tensors, no transform, a gradient for the logits alone."""
    return is_plain(logits) and not needs_gradient(labels, *options)


def rows(
    logits: Tensor,
    labels: Tensor,
    formula: Callable[..., Tensor],
    options: SoftmaxOptions,
    overwrite: bool = False,
    late: bool = False,
) -> Tensor | None:
    """`formulas.softmax_cross_entropy` for arguments that fit; None where logits were to be overwritten in vain.

    ``formula`` is that function of the logits, the labels and the options, for derivatives of the gradient.
    With ``overwrite`` the gradient overwrites the logits; if ``late``, in the backward pass.
    """
    if late:
        over = functools.partial(sweep, late=True)
        return run(
            logits, (labels, options), over, formula, logits.shape[:-1], options.total, first=losses_alone(sweep)
        )
    if logits.numel() <= thresholds.SMALL_CROSS_ENTROPY:
        losses = small_cross_entropy.native(without_padding(logits, options), labels, options)
        if losses is not None:
            return losses
    kernel = functools.partial(sweep, overwrite=True) if overwrite else sweep
    return run(logits, (labels, options), kernel, formula, logits.shape[:-1], options.total)


class Loss(NamedTuple):
    """The options as numbers, as one entry a row (rows,), or as one a class (classes,)."""

    ids: Tensor | None  # (rows,) class ids in range; None for distributions
    reference: Tensor  # (rows,) the class r
    eps: float | Tensor
    spread: float | Tensor | None  # u w, u summing to 1: of each class, or the same of all; None without smoothing
    spread_sum: float | Tensor
    label_weight: float | Tensor  # (1 - eps) w_y; NaN where the label is out of range
    class_weight: Tensor | None
    prior: Tensor | None
    temperature: float | Tensor
    z_loss: float
    softcap: float | None
    factor: float | Tensor  # of the loss


def sweep(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None = None,
    overwrite: bool = False,
    statistics: list[RowStatistics] | None = None,
    late: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """See `lsmooth.backends.torch.sweep.Sweep`; None where logits are lost that the careful way needs.

    Statistics of the rows (rows,), if wanted, are put in the list.
    """
    found = None
    if not (overwrite or late) and statistics is None and options.num_classes is None:
        found = small_cross_entropy.sweep(logits, labels, options, with_gradient, upstream)
    if found is None:
        found = _in_blocks(logits, labels, options, with_gradient, upstream, overwrite, statistics, late)
    return found


@torch.no_grad()
def _in_blocks(
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    with_gradient: bool,
    upstream: Tensor | None,
    overwrite: bool,
    statistics: list[RowStatistics] | None,
    late: bool,
) -> tuple[Tensor, Tensor | None] | None:
    padded = logits.detach()
    logits = without_padding(padded, options)
    layout, dtype = layout_of(padded), torch.float64 if logits.dtype == torch.float64 else torch.float32
    whole = layout.matrices(padded)
    num_classes = logits.shape[-1]
    z, layout = whole.narrow(layout.dim + 1, 0, num_classes), layout.of_classes(num_classes)
    loss, in_range = _loss(z, logits, labels, options, upstream, layout, dtype)
    target = None if loss.ids is not None else layout.matrices(labels)
    counted = None if options.counted is None else options.counted.reshape(-1)
    if counted is not None:
        loss = loss._replace(factor=counted.to(dtype).mul_(loss.factor))
    # The careful way never gives up, which must not happen once logits are lost.
    for careful in ([False] if in_range and not late else []) + ([] if overwrite else [True]):
        gradient = None
        if with_gradient:
            over = late and (padded.is_contiguous() or layout.dim == 0)
            over = over or (overwrite and z.dtype == dtype and layout.dim == 1)
            gradient = whole if over else empty_like(whole)
        blocks = _Blocks(z, target, loss, layout, dtype, counted, careful, gradient, statistics is not None)
        losses = blocks.losses()
        if losses is None:
            continue
        if statistics is not None:
            statistics[:] = [blocks.kept.statistics(blocks)]  # pyright: ignore[reportOptionalMemberAccess]
        if counted is not None:
            found, losses = losses, losses.where(counted, 0.0)
            # The factor of an ignored row is 0, and times 0 only what is not finite stays.
            if gradient is not None and not math.isfinite(found.sum().item()):
                _zero_ignored(gradient, counted, layout)
        if gradient is None:
            return losses, None
        if padded is not logits:
            gradient.narrow(layout.dim + 1, num_classes, padded.shape[-1] - num_classes).zero_()
        return losses, layout.gradient(gradient, padded.shape)
    return None


def without_padding(logits: Tensor, options: SoftmaxOptions) -> Tensor:
    """A view of the logits of the classes."""
    num_classes = options.num_classes
    return logits if num_classes is None or num_classes == logits.shape[-1] else logits[..., :num_classes]


def _zero_ignored(gradient: Tensor, counted: Tensor, layout: Layout) -> None:
    ignored = ~counted
    if ignored.any().item():
        rows = gradient.movedim(1, 2) if layout.dim == 0 else gradient
        rows[ignored.view(rows.shape[:2])] = 0.0


def _loss(
    z: Tensor,
    logits: Tensor,
    labels: Tensor,
    options: SoftmaxOptions,
    upstream: Tensor | None,
    layout: Layout,
    dtype: torch.dtype,
) -> tuple[Loss, bool]:
    """The options in flat form, and whether all labels are in range."""
    num_classes, shape = logits.shape[-1], logits.shape[:-1]

    def of_rows(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        x = x.detach().to(dtype)
        return x.expand(shape).reshape(-1) if any(x.stride()) else x.reshape(-1)[0].item()

    eps, weight, prior = of_rows(options.label_smoothing), options.class_weight, options.prior
    weight, prior = (None if x is None else x.detach().to(dtype) for x in (weight, prior))
    spread: float | Tensor | None = None
    spread_sum: float | Tensor = 0.0
    if isinstance(eps, Tensor) or eps != 0.0:
        spread, spread_sum = 1.0 / num_classes, 1.0
        if prior is not None:
            spread = prior / prior.sum()
        if weight is not None:
            weighted = weight * spread if prior is not None else weight / num_classes
            spread, spread_sum = weighted, weighted.sum()
    index, in_range, label_weight = None, True, 1.0 - eps
    if labels.ndim < logits.ndim:
        index = labels.reshape(-1).long()
        low, high = torch.aminmax(index)
        in_range = low.item() >= 0 and high.item() < num_classes
        valid = None if in_range else (index >= 0) & (index < num_classes)
        index = index if valid is None else index.where(valid, 0)
        label_weight = label_weight if weight is None else label_weight * weight[index]
        if valid is not None:
            label_weight = torch.as_tensor(label_weight, dtype=dtype, device=z.device).where(valid, math.nan)
    if index is not None and not options.z_loss:
        reference = index
    else:
        sample = z.narrow(layout.dim + 1, 0, min(SAMPLE, num_classes))
        reference = sample.argmax(layout.dim + 1).view(-1)
    loss = Loss(
        index,
        reference,
        eps,
        spread,
        spread_sum,
        label_weight,
        weight,
        prior,
        of_rows(options.temperature),
        options.z_loss,
        options.logit_softcap,
        of_rows(times_upstream(options.scale, upstream, dtype)),
    )
    return loss, in_range


class _Blocks:
    """A way through the logits: what is the same for all blocks, and what is kept of each row.

    Sums over classes and the log-sum-exp are relative to the row's reference x_r, and so exact however large it is.
    """

    def __init__(
        self,
        z: Tensor,
        target: Tensor | None,
        loss: Loss,
        layout: Layout,
        dtype: torch.dtype,
        counted: Tensor | None,
        careful: bool,
        gradient: Tensor | None,
        with_statistics: bool = False,
    ):
        self.z, self.target, self.loss, self.dim, self.dtype = z, target, loss, layout.dim, dtype
        self.counted, self.careful = counted, careful
        self.gradient = None if gradient is None else gradient.narrow(layout.dim + 1, 0, z.shape[layout.dim + 1])
        # Of padded rows a softmax would be written to memory of its own and copied.
        self.in_place = self.gradient is not None and gradient.dtype == dtype and gradient.shape == z.shape  # pyright: ignore
        self.num_rows, self.num_classes = z.shape[2 - layout.dim], z.shape[1 + layout.dim]
        rows = len(z) * self.num_rows
        overwritten = gradient is not None and gradient.data_ptr() == z.data_ptr()
        self.kept = Kept(z, layout.dim, rows, dtype, not overwritten) if with_statistics else None
        self.in_place = self.in_place and not (
            with_statistics and overwritten
        )  # which read the logits after the softmax
        self.shift = careful or z.dtype != dtype or loss.softcap is not None or not _is(loss.temperature, 1.0)
        self.reference = None
        referred = self.shift or loss.spread is not None or bool(loss.z_loss) or loss.reference is not loss.ids
        if referred or with_statistics:
            self.reference = self._reference()
            far = not self.reference.abs().max().item() <= OFFSET
            self.shift = self.shift or (referred and far)
            if self.kept is not None and far and not self.shift:  # the softmax stays the loss's own
                self.kept.reference = self.reference
        self.block = self.num_rows if self.num_rows * self.num_classes <= thresholds.ONE_BLOCK else self._block_rows()
        self.scratch = self._scratch()
        self.lse, self.spread_x, self.target_x, self.label_x, self.mass = z.new_empty((5, rows), dtype=dtype).unbind()
        self.spread_sum = self.lse.new_empty(rows) if careful and loss.spread is not None else loss.spread_sum
        # The label's part of the gradient, and the factor of the softmax where it is the same for all rows.
        self.label_part = None
        if loss.ids is not None and gradient is not None:
            taken = loss.factor / loss.temperature * loss.label_weight * -1.0
            self.label_part = torch.as_tensor(taken, dtype=dtype, device=z.device).expand(rows)

    def _block_rows(self) -> int:
        return block_rows(self.num_rows, self.num_classes)

    def _reference(self) -> Tensor:
        """x_r of each row before the temperature; the careful way takes the largest."""
        loss, dim = self.loss, self.dim
        if self.careful:
            picked = self.z.amax(dim + 1).view(-1).to(self.dtype)
            picked = picked.where(picked.isfinite(), 0.0)
        else:
            shape = (len(self.z), 1, self.num_rows) if dim == 0 else (1, self.num_rows, 1)
            picked = self.z.gather(dim + 1, loss.reference.view(shape)).view(-1).to(self.dtype)
        return picked if loss.softcap is None else _capped(picked, loss.softcap)

    def _column(self, x: Any, part: slice | None = None) -> Any:
        """Entries of rows, to be broadcast along the classes of a block; a number stays one."""
        if not isinstance(x, Tensor) or x.ndim == 0:
            return x
        return (x if part is None else x[part]).unsqueeze(self.dim)

    def _scratch(self) -> list[Tensor]:
        """Memory for blocks: x, the softmax, the derivative of the soft-cap, products, and weighted labels.

        What a call does not use is empty.
        """
        loss, of_labels = self.loss, self.target is not None
        used = (
            self.shift,
            not self.in_place,
            loss.softcap is not None,
            of_labels
            or self.kept is not None
            or (loss.spread is not None and (self.careful or not isinstance(loss.spread, float))),
            of_labels and loss.class_weight is not None,
        )
        shape = (self.block, self.num_classes) if self.dim == 1 else (self.num_classes, self.block)
        arrays = iter(scratch((sum(used), *shape), self.dtype))
        return [next(arrays) if each else self.z.new_empty((0, 0), dtype=self.dtype) for each in used]

    def parts(self) -> Iterator[tuple[int, slice, slice]]:
        """Of each block its group, its rows within it, and its rows among all."""
        for group in range(len(self.z)):
            for start in range(0, self.num_rows, self.block):
                stop = min(start + self.block, self.num_rows)
                yield group, slice(start, stop), slice(group * self.num_rows + start, group * self.num_rows + stop)

    def losses(self) -> Tensor | None:
        """The losses (rows,), the gradient written; None if one that counts is not finite and this is the quick way."""
        for i, (group, within, part) in enumerate(self.parts()):
            if not self._block(group, within, part):
                return None
            # The blocks to come are mostly like the first.
            if (
                i == 0
                and not self.careful
                and part.stop < len(self.lse)
                and not self._are_finite(self._rows(part), part)
            ):
                return None
        losses = self._rows(slice(None))
        return losses if self.careful or self._are_finite(losses, slice(None)) else None

    def _are_finite(self, losses: Tensor, part: slice) -> bool:
        losses = losses if self.counted is None else losses.where(self.counted[part], 0.0)
        return math.isfinite(losses.sum().item())

    def _rows(self, part: slice) -> Tensor:
        """The losses of these rows from what their blocks have left."""
        loss = self.loss

        def of(x: Any) -> Any:
            return x[part] if isinstance(x, Tensor) and x.ndim else x

        lse, label_weight = self.lse[part], of(loss.label_weight)
        if loss.ids is None:
            losses = self.mass[part] * lse - self.target_x[part]
            losses = losses if loss.spread is None else losses.mul_(of(1.0 - loss.eps))
        else:
            losses = lse if loss.reference is loss.ids and not self.careful else lse - self.label_x[part]
            if self.careful:  # a masked class costs nothing where it has no weight
                free = (losses == math.inf) & torch.as_tensor(label_weight == 0, device=losses.device)
                losses = losses.masked_fill(free, 0.0)
            losses = losses if _is(label_weight, 1.0) else losses * label_weight
        if loss.spread is not None:
            losses = losses + of(loss.eps) * (of(self.spread_sum) * lse - self.spread_x[part])
        if loss.z_loss:
            losses = losses + loss.z_loss * (lse + self.origin(part)).square()
        return losses * of(loss.factor)

    def origin(self, part: slice) -> Tensor:
        """x_r, which the log-sum-exp is relative to."""
        temperature = self.loss.temperature
        origin = self.reference[part]  # pyright: ignore[reportOptionalSubscript]
        return origin / (temperature[part] if isinstance(temperature, Tensor) else temperature)

    def _block(self, group: int, within: slice, part: slice) -> bool:
        """Sums of a block, and its gradient; False where the quick way has lost a log-sum-exp for good."""
        loss, dim, n = self.loss, self.dim, part.stop - part.start
        region = (group,) if n == self.num_rows else (group, within) if dim == 1 else (group, slice(None), within)
        z = self.z[region]
        target = None if self.target is None else self.target[region]
        scratch = self.scratch
        if n != self.block:
            scratch = [x.narrow(1 - dim, 0, n) if x.numel() else x for x in scratch]
        x, slope = self._transformed(z, scratch, part)
        out = None if self.gradient is None else self.gradient[region]
        p = out if out is not None and self.in_place else scratch[1]
        spread = loss.spread
        if not self.careful:  # before the softmax, which may be written over x
            target = self._sums(x, target, spread, scratch, part)
        if self.kept is not None:
            self.kept.find_largest(z, part)  # before the softmax fills the cache
        torch.softmax(x, dim, out=p)
        if self.kept is not None:
            self.kept.add_up(x, p, scratch[3], part)
        if self.careful:
            torch.log(p.amax(dim), out=self.lse[part]).neg_()
            masked = x == -math.inf
            spread = None if spread is None else self._spread_of_rows(masked, part)
            target = self._sums(x, target, spread, scratch, part, masked)
        elif not self._log_sum_exp(x, p, part):
            return False
        if out is not None:
            self._gradient(p, target, spread, slope, part)
            if p is not out:
                out.copy_(p)
        return True

    def _log_sum_exp(self, x: Tensor, p: Tensor, part: slice) -> bool:
        """Read it off the softmax; False where that is too small at the reference, and x is overwritten."""
        picked = p.gather(self.dim, self._column(self.loss.reference, part)).squeeze(self.dim)
        lse = torch.log(picked, out=self.lse[part]).neg_()
        if picked.amin().item() >= _SMALLEST[self.dtype]:
            return True
        if x.data_ptr() == p.data_ptr():
            return False
        torch.sub(x.amax(self.dim), torch.log(p.amax(self.dim)), out=lse)
        if not self.shift:
            reference = self._reference() if self.reference is None else self.reference
            lse.sub_(reference[part])
        return True

    def _transformed(self, z: Tensor, scratch: list[Tensor], part: slice) -> tuple[Tensor, Tensor | None]:
        """The logits of the softmax, and their derivative in z where a soft-cap gives one."""
        loss, slope = self.loss, None
        if not self.shift:
            return z, None
        x = scratch[0]
        reference: Any = self._column(self.reference, part)
        if loss.softcap is not None:
            masked = z == -math.inf
            torch.tanh(x.copy_(z).div_(loss.softcap), out=x)
            slope = torch.square(x, out=scratch[2]).neg_().add_(1.0).masked_fill_(masked, 1.0)
            x.mul_(loss.softcap).masked_fill_(masked, -math.inf).sub_(reference)
        elif z.dtype == x.dtype:
            torch.sub(z, reference, out=x)
        else:
            x.copy_(z).sub_(reference)
        if not _is(loss.temperature, 1.0):
            x.div_(self._column(loss.temperature, part))
        return x, slope

    def _sums(
        self,
        x: Tensor,
        target: Tensor | None,
        spread: float | Tensor | None,
        scratch: list[Tensor],
        part: slice,
        masked: Tensor | None = None,
    ) -> Tensor | None:
        """Keep the sums over classes that the losses are made of; the labels times the class weights."""
        loss, dim = self.loss, self.dim
        if target is not None:
            improper = target.amin(dim) < -ROUNDING if target.amin().item() < -ROUNDING else None
            if loss.class_weight is not None:
                target = torch.mul(target, loss.class_weight.unsqueeze(1 - dim), out=scratch[4])
            mass = torch.sum(target, dim, out=self.mass[part])
            if improper is not None:  # a distribution with negative mass has no loss
                mass.masked_fill_(improper, math.nan)
            seen = x if masked is None else x.masked_fill(masked & (target == 0), 0.0)
            target_x = torch.sum(torch.mul(target, seen, out=scratch[3]), dim, out=self.target_x[part])
            if not self.shift:
                target_x.addcmul_(self.mass[part], self.reference[part], value=-1.0)  # pyright: ignore
        elif masked is not None or loss.reference is not loss.ids:
            label_x = torch.gather(x, dim, self._column(loss.ids, part), out=self._column(self.label_x, part))
            if not self.shift:
                label_x.sub_(self._column(self.reference, part))
        if spread is not None:
            seen = x if masked is None else x.masked_fill_(masked, 0.0)
            if not isinstance(spread, Tensor):
                torch.sum(seen, dim, out=self.spread_x[part]).mul_(spread)
            elif spread.ndim == 1 and dim == 1:
                torch.mv(seen, spread, out=self.spread_x[part])
            else:
                spread = spread if spread.ndim == 2 else spread.unsqueeze(1 - dim)
                torch.sum(torch.mul(seen, spread, out=scratch[3]), dim, out=self.spread_x[part])
            if not self.shift:
                self.spread_x[part].sub_(self.reference[part] * self.spread_sum)  # pyright: ignore
        return target

    def _spread_of_rows(self, masked: Tensor, part: slice) -> Tensor:
        """The smoothing mass of each row on the classes that are not masked."""
        loss, dim = self.loss, self.dim
        kept = (~masked).to(self.dtype)
        kept = kept if loss.prior is None else kept.mul_(loss.prior.unsqueeze(1 - dim))
        kept = kept.div_(kept.sum(dim, keepdim=True))
        kept = kept if loss.class_weight is None else kept.mul_(loss.class_weight.unsqueeze(1 - dim))
        torch.sum(kept, dim, out=self.spread_sum[part])  # pyright: ignore
        return kept

    def _gradient(
        self, p: Tensor, target: Tensor | None, spread: float | Tensor | None, slope: Tensor | None, part: slice
    ) -> None:
        """Turn the softmax into ``factor ((Q + 2 a lse) p - q) / T``."""
        loss, dim = self.loss, self.dim

        def of(x: Any) -> Any:
            return x[part] if isinstance(x, Tensor) and x.ndim else x

        factor = of(loss.factor) / of(loss.temperature)
        of_target = 1.0 - of(loss.eps)
        total = of_target * self.mass[part] if target is not None else of(loss.label_weight)
        if spread is not None:
            # Alike for all rows of class ids without weights: (1 - eps) + eps.
            alike = target is None and spread is loss.spread and loss.class_weight is None and type(total) is float
            total = 1.0 if alike else total + of(loss.eps) * of(self.spread_sum)
        if loss.z_loss:
            total = total + 2.0 * loss.z_loss * (self.lse[part] + self.origin(part))
        of_p, of_spread = factor * total, factor * of(loss.eps)
        if spread is not None and isinstance(of_p, float) and isinstance(of_spread * spread, float):
            torch.add(p.new_full((), -of_spread * spread), p, alpha=of_p, out=p)  # in one pass
            spread = None
        elif not _is(of_p, 1.0):
            p.mul_(self._column(of_p))
        if spread is not None:
            if not isinstance(spread, Tensor):
                p.sub_(self._column(of_spread * spread))
            else:
                spread = spread if spread.ndim == 2 else spread.unsqueeze(1 - dim)
                self._subtract(p, spread, of_spread)
        if target is not None:
            self._subtract(p, target, factor * of_target)
        else:
            p.scatter_add_(dim, self._column(loss.ids, part), self._column(self.label_part, part))
        if slope is not None:
            p.mul_(slope)

    def _subtract(self, p: Tensor, x: Tensor, factor: float | Tensor) -> None:
        if isinstance(factor, Tensor) and factor.ndim:
            p.addcmul_(x, self._column(factor), value=-1.0)
        else:
            p.sub_(x, alpha=float(factor))


def _capped(x: Tensor, softcap: float) -> Tensor:
    return torch.where(x == -math.inf, x, softcap * torch.tanh(x / softcap))


def _is(x: float | Tensor, number: float) -> bool:
    return isinstance(x, float) and x == number
