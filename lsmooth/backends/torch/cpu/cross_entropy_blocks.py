"""The blocks of the softmax cross-entropy on the CPU; the formulas are those of `cross_entropy`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.torch import thresholds
from lsmooth.backends.torch.cpu.block_statistics import Kept
from lsmooth.backends.torch.cpu.layout import Layout
from lsmooth.backends.torch.cpu.small_cross_entropy import OFFSET
from lsmooth.backends.torch.memory import scratch

# The numbers of a row that the blocks store.
_COLUMNS = 6
_LOG2_E = 1.0 / math.log(2.0)
# A smaller probability, and its logarithm, have lost digits to underflow.
_SMALLEST = {dtype: torch.finfo(dtype).tiny * 1e6 for dtype in (torch.float32, torch.float64)}


class Loss(NamedTuple):
    """The options as numbers, as columns (see `Layout`), or as one entry a class, to be broadcast to a block."""

    ids: Tensor | None  # a column of class ids in range; None for distributions
    reference: Tensor | None  # a column, the class r; None for images, whose reference is the largest logit
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


class Blocks:
    """A pass over the logits: what all blocks share, and the sums over the classes of each row.

    The sums and the log-sum-exp are relative to the row's reference x_r, so that a large x_r costs no digits. They are
    columns of the current block. If the classes lie along the last axis, they are columns of all rows, and the losses
    are computed at the end, because calls on a few numbers add up.
    """

    # x_r before the temperature, the log-sum-exp, and sums over the classes.
    reference: Tensor
    lse: Tensor
    spread_x: Tensor
    target_x: Tensor
    label_x: Tensor
    mass: Tensor

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
        self.z, self.target, self.loss, self.dtype, self.is_image = z, target, loss, dtype, layout.is_image
        self.counted, self.careful = counted, careful
        self.gradient = None if gradient is None else gradient.narrow(1, 0, z.shape[1])
        overwritten = gradient is not None and gradient.data_ptr() == z.data_ptr()
        # Statistics read the logits after the softmax; that of padded rows would be written elsewhere and copied.
        self.in_place = gradient is not None and gradient.dtype == dtype and not (with_statistics and overwritten)
        self.in_place = self.in_place and (self.is_image or gradient.shape == z.shape)  # pyright: ignore
        self.kept = Kept(z, layout.column_shape, dtype, not overwritten) if with_statistics else None
        self.shift = careful or z.dtype != dtype or loss.softcap is not None or not _is(loss.temperature, 1.0)
        elements = z.numel() if z.numel() <= thresholds.ONE_BLOCK else thresholds.BLOCK_ELEMENTS
        if self.is_image:
            # As many rows as there is memory for that stays with the thread.
            of_row = self._used().count(True) * z.shape[1] + _COLUMNS
            elements = max(1, min(thresholds.SCRATCH_BYTES // (dtype.itemsize * of_row), z.numel())) * z.shape[1]
            elements = min(elements, thresholds.IMAGE_BLOCK_ELEMENTS)
        self.parts = list(layout.parts(elements))
        self.losses = z.new_empty(layout.column_shape, dtype=dtype)
        self.columns = None  # of all rows
        if with_statistics or not self.is_image:
            self.columns = z.new_empty((_COLUMNS, *layout.column_shape), dtype=dtype)
            self._use(self.columns)
        if not self.is_image:
            self._refer(with_statistics)
        elif self.kept is not None and not self.shift:
            self.kept.reference = self.reference
        self.spread_sum = loss.spread_sum
        if careful and loss.spread is not None:
            self.spread_sum = torch.empty_like(self.losses)
        self.memory = self._memory()

    def _use(self, columns: Tensor) -> None:
        self.reference, self.lse, self.spread_x, self.target_x, self.label_x, self.mass = columns.unbind()

    def _refer(self, with_statistics: bool) -> None:
        """Find the references if they are needed, and decide whether to subtract them from the logits."""
        loss = self.loss
        needed = self.shift or loss.spread is not None or bool(loss.z_loss) or loss.reference is not loss.ids
        if not (needed or with_statistics):
            return
        self._find_reference(self.z)
        far = not self.reference.abs().max().item() <= OFFSET
        self.shift = self.shift or (needed and far)
        if self.kept is not None and far and not self.shift:  # the softmax stays the loss's own
            self.kept.reference = self.reference

    def _find_reference(self, z: Tensor) -> None:
        """x_r of each row before the temperature: of the class r, or the largest."""
        loss = self.loss
        if loss.reference is not None and not self.careful:
            self.reference.copy_(z.gather(1, loss.reference))
        elif z.dtype == self.dtype:
            torch.amax(z, 1, True, out=self.reference)
        else:
            self.reference.copy_(z.amax(1, True))
        if self.careful:
            self.reference.masked_fill_(~self.reference.isfinite(), 0.0)
        if loss.softcap is not None:
            self.reference.copy_(_capped(self.reference, loss.softcap))

    def _used(self) -> tuple[bool, ...]:
        """Which arrays a block needs: x, the softmax, the derivative of the soft-cap, products, weighted labels."""
        loss, of_labels = self.loss, self.target is not None
        return (
            self.shift,
            not self.in_place,
            loss.softcap is not None,
            of_labels
            or self.kept is not None
            or (loss.spread is not None and (self.careful or not isinstance(loss.spread, float))),
            of_labels and loss.class_weight is not None,
        )

    def _memory(self) -> list[Tensor]:
        """Memory for the arrays of a block, empty for those it does not need; the last one holds columns."""
        part = self.parts[0]
        sizes = [each * self.z[part].numel() for each in self._used()]
        sizes.append(0 if self.columns is not None else _COLUMNS * self.losses[part].numel())
        return list(scratch((sum(sizes),), self.dtype).split(sizes))

    def run(self) -> Tensor | None:
        """The losses; the gradient is written. None if the first pass finds a loss that is not finite."""
        for part in self.parts:
            if not self._block(part):
                return None
            first = part is self.parts[0] and part is not ... and not self.careful
            if self.columns is None or first:
                self._form_losses(part)
            # If the first block needs a careful pass, the others mostly do too.
            if first and not self._are_finite(part):
                return None
        if self.columns is not None:
            self._use(self.columns)
            self._form_losses(...)
        return self.losses if self.careful or self._are_finite(...) else None

    def _are_finite(self, part: Any) -> bool:
        losses = self.losses[part]
        if math.isfinite(losses.sum().item()):
            return True
        return self.counted is not None and math.isfinite(losses.where(self.counted[part], 0.0).sum().item())

    def _form_losses(self, part: Any) -> None:
        """Compute the losses of these rows from their columns."""
        loss = self.loss
        lse, label_weight = self.lse, _of(loss.label_weight, part)
        if loss.ids is None:
            losses = self.mass * lse - self.target_x
            losses = losses if loss.spread is None else losses.mul_(_of(1.0 - loss.eps, part))
        else:
            losses = lse
            if loss.reference is not loss.ids or self.careful:
                losses = torch.sub(lse, self.label_x, out=self.losses[part])
            if self.careful:  # a masked class costs nothing where it has no weight
                free = (losses == math.inf) & torch.as_tensor(label_weight == 0, device=losses.device)
                losses = losses.masked_fill(free, 0.0)
            losses = losses if _is(label_weight, 1.0) else losses * label_weight
        if loss.spread is not None:
            losses = losses + _of(loss.eps, part) * (_of(self.spread_sum, part) * lse - self.spread_x)
        if loss.z_loss:
            losses = losses + loss.z_loss * (lse + self.origin(part)).square()
        torch.mul(losses, _of(loss.factor, part), out=self.losses[part])

    def origin(self, part: Any) -> Tensor:
        """x_r, which the log-sum-exp is relative to."""
        return self.reference / _of(self.loss.temperature, part)

    def _block(self, part: Any) -> bool:
        """Compute the sums and the gradient of a block; False if the first pass cannot recover a log-sum-exp."""
        loss, z = self.loss, self.z[part]
        target = None if self.target is None else self.target[part]
        *scratch, columns = self.memory
        scratch = [x[: z.numel()].view(z.shape) if x.numel() else x for x in scratch]
        if self.columns is None:
            column = (len(z), 1, *z.shape[2:])
            self._use(columns[: _COLUMNS * math.prod(column)].view(_COLUMNS, *column))
        elif part is not ...:
            self._use(self.columns[(slice(None), *part)])
        out = None if self.gradient is None else self.gradient[part]
        p = out if out is not None and self.in_place else scratch[1]
        if self.is_image:
            self._find_reference(z)
        x, slope = self._transformed(z, scratch, part)
        # Logits near 0 need no shift: their sums keep their digits without one.
        self.shifted = self.shift
        if self.is_image and not self.shift and not self.reference.abs().amax().item() <= OFFSET:
            x, self.shifted = torch.sub(z, self.reference, out=p), True
        spread = loss.spread
        if not self.careful:  # before the softmax, which may be written over x
            target = self._sums(x, target, spread, scratch, part)
        if self.kept is not None:
            self.kept.find_largest(z, part)  # before the softmax fills the cache
        total: Any = 1.0
        if self.is_image:
            total = self._powers(x, p)
        else:
            torch.softmax(x, 1, out=p)
            if not self._log_sum_exp(x, p, part):
                return False
        if self.kept is not None:
            p, total = p.div_(total), 1.0
            self.kept.add_up(x if self.shift else z, p, scratch[3], part)
        if self.careful:
            masked = x == -math.inf
            spread = None if spread is None else self._spread_of_rows(masked, part)
            target = self._sums(x, target, spread, scratch, part, masked)
        if out is not None:
            self._gradient(p, total, target, spread, slope, part)
            if p is not out:
                out.copy_(p)
        return True

    def _transformed(self, z: Tensor, scratch: list[Tensor], part: Any) -> tuple[Tensor, Tensor | None]:
        """The logits of the softmax, and their derivative in z where a soft-cap gives one."""
        loss, slope = self.loss, None
        if not self.shift:
            return z, None
        x = scratch[0]
        if loss.softcap is not None:
            masked = z == -math.inf
            torch.tanh(x.copy_(z).div_(loss.softcap), out=x)
            slope = torch.square(x, out=scratch[2]).neg_().add_(1.0).masked_fill_(masked, 1.0)
            x.mul_(loss.softcap).masked_fill_(masked, -math.inf).sub_(self.reference)
        elif z.dtype == x.dtype:
            torch.sub(z, self.reference, out=x)
        else:
            x.copy_(z).sub_(self.reference)
        if not _is(loss.temperature, 1.0):
            x.div_(_of(loss.temperature, part))
        return x, slope

    def _powers(self, x: Tensor, p: Tensor) -> Tensor:
        """Write ``2^(log2(e) (x - c))`` to p; its sums over the classes, by which the softmax is less."""
        if self.shifted:
            torch.mul(x, _LOG2_E, out=p)
        else:
            torch.add(self.reference * -_LOG2_E, x, alpha=_LOG2_E, out=p)
        total = torch.exp2(p, out=p).sum(1, keepdim=True)
        torch.log(total, out=self.lse)
        if self.careful:
            self.lse.masked_fill_((total == 0.0) | (total == math.inf), math.nan)
        return total

    def _log_sum_exp(self, x: Tensor, p: Tensor, part: Any) -> bool:
        """Read it off the softmax; False where that is too small at the reference, and x is overwritten."""
        if self.careful:
            torch.log(p.amax(1, keepdim=True), out=self.lse).neg_()
            return True
        index = _of(self.loss.reference, part)
        picked = p.gather(1, index)
        lse = torch.log(picked, out=self.lse).neg_()
        if picked.amin().item() >= _SMALLEST[self.dtype]:
            return True
        if x.data_ptr() == p.data_ptr():
            return False
        torch.sub(x.amax(1, keepdim=True), torch.log(p.amax(1, keepdim=True)), out=lse)
        if not self.shift:
            lse.sub_(x.gather(1, index))
        return True

    def _sums(
        self,
        x: Tensor,
        target: Tensor | None,
        spread: float | Tensor | None,
        scratch: list[Tensor],
        part: Any,
        masked: Tensor | None = None,
    ) -> Tensor | None:
        """Store the sums over classes that the losses need; returns the labels times the class weights."""
        loss = self.loss
        if target is not None:
            improper = target.amin(1, keepdim=True) < -ROUNDING if target.amin().item() < -ROUNDING else None
            if loss.class_weight is not None:
                target = torch.mul(target, loss.class_weight, out=scratch[4])
            mass = torch.sum(target, 1, keepdim=True, out=self.mass)
            if improper is not None:  # a distribution with negative mass has no loss
                mass.masked_fill_(improper, math.nan)
            seen = x if masked is None else x.masked_fill(masked & (target == 0), 0.0)
            torch.sum(torch.mul(target, seen, out=scratch[3]), 1, keepdim=True, out=self.target_x)
            if not self.shifted:
                self.target_x.addcmul_(mass, self.reference, value=-1.0)
        elif masked is not None or loss.reference is not loss.ids:
            torch.gather(x, 1, _of(loss.ids, part), out=self.label_x)
            if not self.shifted:
                self.label_x.sub_(self.reference)
        if spread is not None:
            seen = x if masked is None else x.masked_fill_(masked, 0.0)
            if not isinstance(spread, Tensor):
                torch.sum(seen, 1, keepdim=True, out=self.spread_x).mul_(spread)
            elif spread.ndim == 1:
                torch.mv(seen, spread, out=self.spread_x.view(-1))
            else:
                torch.sum(torch.mul(seen, spread, out=scratch[3]), 1, keepdim=True, out=self.spread_x)
            if not self.shifted:
                self.spread_x.sub_(self.reference * self.spread_sum)
        return target

    def _spread_of_rows(self, masked: Tensor, part: Any) -> Tensor:
        """The smoothing mass of each row on the classes that are not masked."""
        loss = self.loss
        kept = (~masked).to(self.dtype)
        kept = kept if loss.prior is None else kept.mul_(loss.prior)
        kept = kept.div_(kept.sum(1, keepdim=True))
        kept = kept if loss.class_weight is None else kept.mul_(loss.class_weight)
        torch.sum(kept, 1, keepdim=True, out=_of(self.spread_sum, part))
        return kept

    def _gradient(
        self,
        p: Tensor,
        power_sum: float | Tensor,
        target: Tensor | None,
        spread: float | Tensor | None,
        slope: Tensor | None,
        part: Any,
    ) -> None:
        """Turn the softmax times ``power_sum`` into ``factor ((Q + 2 a lse) p - q) / T``."""
        loss, eps = self.loss, _of(self.loss.eps, part)
        factor, temperature = _of(loss.factor, part), _of(loss.temperature, part)
        factor = factor if _is(temperature, 1.0) else factor / temperature
        of_target = 1.0 - eps
        total = of_target * self.mass if loss.ids is None else _of(loss.label_weight, part)
        if spread is not None:
            # For class ids without weights it is (1 - eps) + eps in every row.
            is_one = (
                loss.ids is not None and spread is loss.spread and loss.class_weight is None and type(total) is float
            )
            total = 1.0 if is_one else total + eps * _of(self.spread_sum, part)
        if loss.z_loss:
            total = total + 2.0 * loss.z_loss * (self.lse + self.origin(part))
        of_p, of_spread = _times(factor, total), factor * eps
        if isinstance(power_sum, Tensor):
            of_p = torch.div(torch.as_tensor(of_p, dtype=p.dtype, device=p.device), power_sum, out=power_sum)
        if spread is not None and isinstance(of_spread * spread, float):  # in one pass
            constant = p.new_full((), -of_spread * spread)
            if isinstance(of_p, float):
                torch.add(constant, p, alpha=of_p, out=p)
            else:
                torch.addcmul(constant, p, of_p, out=p)
            spread = None
        elif not _is(of_p, 1.0):
            p.mul_(of_p)
        if isinstance(spread, Tensor):
            _subtract(p, spread, of_spread)
        elif spread is not None:
            p.sub_(of_spread * spread)
        if target is not None:
            _subtract(p, target, factor * of_target)
        else:
            index, of_label = _of(loss.ids, part), -_times(factor, _of(loss.label_weight, part))
            p.scatter_add_(1, index, torch.as_tensor(of_label, dtype=p.dtype, device=p.device).expand(index.shape))
        if slope is not None:
            p.mul_(slope)


def _of(x: Any, part: Any) -> Any:
    """The part of a column; a number stays one."""
    return x[part] if isinstance(x, Tensor) and x.ndim else x


def _times(x: Any, y: Any) -> Any:
    return x if _is(y, 1.0) else x * y


def _subtract(p: Tensor, x: Tensor, factor: float | Tensor) -> None:
    if isinstance(factor, Tensor) and factor.ndim:
        p.addcmul_(x, factor, value=-1.0)
    else:
        p.sub_(x, alpha=float(factor))


def _capped(x: Tensor, softcap: float) -> Tensor:
    return torch.where(x == -math.inf, x, softcap * torch.tanh(x / softcap))


def _is(x: float | Tensor, number: float) -> bool:
    return isinstance(x, float) and x == number
