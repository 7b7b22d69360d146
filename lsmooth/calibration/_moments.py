"""Sums over rows that give the likelihood of a temperature, its slope and its curvature.

With d = z - max(z), t = beta d, p = softmax(t), a row of weight w and label y adds

    value      w (log sum exp t - t_y)
    slope      w (E_p[t] - t_y)      the derivative of the value by log beta
    curvature  w Var_p[t]            the second derivative of the value by beta, times beta^2

and for a soft label q, t_y stands for q . t. A binary logit z is the row (0, z). Of rows in
groups, each sum is an array with an entry for each group. Rows are read in blocks that fit the processor's cache, so no
temporary has the size of the logits.
"""

from __future__ import annotations

import copy
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lsmooth._probabilities import ROUNDING, sums_to_one
from lsmooth._sums import long_sum
from lsmooth.backends import Array, Backend, load_backend
from lsmooth.backends.formulas.rows import MINUS_INFINITY, accumulate
from lsmooth.calibration._row_checks import RowChecks

HOST_BLOCK_BYTES = 2**19
"""Two buffers of this size fit a processor's second-level cache."""
DEVICE_BLOCK = 2**26
"""Elements of a block on an accelerator."""
_MOST_MAPPED_BYTES = 2**26
"""The most bytes of a mapped file that stay in memory."""
_LEAST_EXPONENT = -750.0
"""exp(x) and x exp(x) are 0 in float64, where -inf would give NaN."""


@dataclass(frozen=True)
class Sums:
    """Value, slope and curvature, summed over rows, at one beta; arrays where rows are in groups."""

    value: Any = 0.0
    slope: Any = 0.0
    curvature: Any = 0.0

    def __add__(self, other: Sums) -> Sums:
        """The sums over the rows of both."""
        return Sums(self.value + other.value, self.slope + other.slope, self.curvature + other.curvature)


@dataclass(frozen=True)
class Totals:
    """Sums of the rows that do not depend on beta."""

    count: Any = 0.0
    """The sum of the rows' weights."""
    value_at_zero: Any = 0.0
    """The value at beta = 0: that of uniform predictions."""
    slope_at_zero: Any = 0.0
    """The derivative of the value by beta, at beta = 0."""
    gap: Any = 0.0
    """The sum of max(z) - z_y: 0 where every label has its row's largest logit."""

    def __add__(self, other: Totals) -> Totals:
        """The totals over the rows of both."""
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class _Block:
    """The index of a block in the logits, and the arrays of its rows; weight None means 1."""

    index: tuple[Any, ...]
    top: Array
    gap: Array
    weight: Array | None
    group: np.ndarray | None


class Rows:
    """Logits and labels, read block by block; the constructor checks them in a first pass.

    Args:
        xp: the backend of the logits.
        logits: floating point, classes along ``axis``; or probabilities.
        labels: class ids, the logits' shape without ``axis``; or distributions, their shape.
        weight: of the class ids' shape, or None.
        axis: the class axis, counted from the front.
        ignore_index: rows with this label are left out.
        from_logits: False where ``logits`` are probabilities.
        binary: every element is a row, the logit or probability of its label, which is 0, 1 or between.
        groups: the group of each row, 0..n_groups-1, in the rows' shape; one for all if None.
        n_groups: how many there are.
        clip: smaller probabilities are raised to this one.
        any_label: whether labels may have the probability 0; then only `blocks` can be called.
        validate: whether sums of probabilities are checked too.

    Raises:
        ValueError: if a row that counts has a logit that is not a number, or a label that is not a class or has
            the probability 0.
    """

    def __init__(
        self,
        xp: Backend,
        logits: Array,
        labels: Array,
        weight: Array | None = None,
        *,
        axis: int,
        ignore_index: int | None = None,
        from_logits: bool = True,
        binary: bool = False,
        groups: np.ndarray | None = None,
        n_groups: int = 0,
        clip: float | None = None,
        any_label: bool = False,
        validate: bool = False,
    ):
        host = xp.host_values(xp.stop_gradient(logits))
        if host is not None:
            # NumPy reads the framework's memory in place, which is the fastest on the host.
            labels, weight = (None if x is None else xp.to_numpy(x) for x in (labels, weight))
            logits, xp = host, load_backend("numpy")
        self._binary, self._groups, self._n_groups = binary, groups, n_groups
        self._soft = "float" in xp.dtype(labels) if binary else len(xp.shape(labels)) == len(xp.shape(logits))
        if self._soft and not binary and ignore_index is not None:
            raise ValueError(
                "ignore_index needs integer labels; with distributions, give those rows sample_weight 0. If every "
                "element is a label of its own, 0 or 1, give binary=True."
            )
        self._clip, self._any_label, self._validate = clip, any_label, validate
        self._improbable_count, self._first_improbable = 0, ""
        self._xp, self._from_logits, self._ignore_index = xp, from_logits, ignore_index
        self._logits = logits[..., None] if binary else xp.moveaxis(logits, axis, -1)
        self._labels = xp.moveaxis(labels, axis, -1) if self._soft and not binary else labels
        self._weight = weight
        rows, classes = xp.shape(self._logits)[:-1], self.classes
        self._checks = RowChecks(
            xp, rows, self._soft, binary, from_logits, weight is not None, ignore_index is not None
        )
        dtype = "float64" if xp.dtype(logits) == "float64" else "float32"
        elements = DEVICE_BLOCK if host is None else HOST_BLOCK_BYTES // np.dtype(dtype).itemsize
        per_block = max(1, elements // max(1, classes))
        self._buffers = None if host is None else np.empty((2, per_block, classes), dtype)

        self._mapping, self._undropped_bytes = _mapping_of(host), 0
        self.totals = Totals()
        self.passes = 1
        self.known: dict[float, Sums] = {}
        """Sums at the betas so far."""
        with np.errstate(all="ignore"):
            self._blocks = [self._measure(index) for index in _blocks(tuple(rows), per_block)]
        if self._improbable_count:
            clip_hint = "" if from_logits else ", or give clip=1e-6"
            raise ValueError(
                f"labels must be classes of some probability, got {self._first_improbable}. {self._improbable_count} "
                f"of {math.prod(rows)} rows have such a label: leave them out, by "
                f"{'a' if self._soft else 'ignore_index or a'} sample_weight of 0{clip_hint}."
            )

    def sums(self, beta: float | np.ndarray) -> Sums:
        """The sums at ``beta``, by a pass over the rows unless they are known.

        Of rows in groups, ``beta`` may be an array with an entry for each; these sums are not kept.
        """
        if isinstance(beta, np.ndarray):
            self.passes += 1
            return self._sums(beta)
        if beta not in self.known:
            self.passes += 1
            self.known[beta] = self._sums(beta)
        return self.known[beta]

    def part(self, every: int) -> Rows | None:
        """Every ``every``-th block of rows, to start a fit on; None if there are too few blocks."""
        if len(self._blocks) < 2 * every:
            return None
        part = copy.copy(self)
        part._blocks, part.known = self._blocks[::every], {}
        return part

    def blocks(self, as_given: bool = False) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Logits (rows, classes), labels, and weights or None of each block, in NumPy.

        With ``as_given`` probabilities are returned, else their logarithms. Rows of weight 0 have logits of 0 and the
        label 0.
        """
        to_numpy = self._xp.to_numpy
        for block in self._blocks:
            logits = to_numpy(self._block_of(block.index, as_given))
            labels = to_numpy(self._labels_of(block.index))
            weight = None if block.weight is None else to_numpy(block.weight)
            if weight is not None:
                counted = weight != 0
                logits = np.where(counted[:, None], logits, 0.0)
                labels = np.where(counted[:, None] if self._soft else counted, labels, 0)
            yield logits, labels, weight
            self._drop_pages()

    @property
    def count(self) -> int:
        """The number of rows."""
        return math.prod(self._xp.shape(self._logits)[:-1])

    @property
    def dtype(self) -> str:
        """The dtype in which logits are read, float32 or float64."""
        return "float64" if self._xp.dtype(self._logits) == "float64" else "float32"

    @property
    def classes(self) -> int:
        """The number of classes."""
        return 2 if self._binary else self._xp.shape(self._logits)[-1]

    def _sums(self, beta: float | np.ndarray) -> Sums:
        total = Sums()
        with np.errstate(all="ignore"):
            for block in self._blocks:
                factor: Any = beta
                if isinstance(beta, np.ndarray):
                    factor = self._xp.asarray(beta[block.group], self._xp.dtype(block.gap), like=block.gap)
                lse, mean, variance = self._moments(self._block_of(block.index), block.top, factor)
                gap = factor * block.gap
                total += Sums(*(self._total(x, block.weight, block.group) for x in (lse - gap, mean - gap, variance)))
                self._drop_pages()
        return total

    def _drop_pages(self) -> None:
        """Drop the pages of a mapped file that have been read, which count as memory of this process."""
        self._undropped_bytes += self._buffers[0].nbytes if self._buffers is not None else 0
        if self._mapping is not None and self._undropped_bytes > _MOST_MAPPED_BYTES:
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._undropped_bytes = 0

    def _block_of(self, index: tuple[Any, ...], as_given: bool = False) -> Array:
        block = self._xp.reshape(self._logits[(*index, ...)], (-1, self._xp.shape(self._logits)[-1]))
        block = accumulate(self._xp, block)
        if self._binary:
            block = two_columns(self._xp, block[:, 0], self._from_logits)
        if self._from_logits or as_given:
            return block
        return self._xp.log(block if self._clip is None else self._xp.where(block < self._clip, self._clip, block))

    def _labels_of(self, index: tuple[Any, ...]) -> Array:
        labels = self._labels[index]
        if self._binary and self._soft:
            return two_columns(self._xp, self._xp.reshape(labels, (-1,)), False)
        return self._xp.reshape(labels, (-1, self.classes) if self._soft else (-1,))

    def _measure(self, index: tuple[Any, ...]) -> _Block:
        xp, logits = self._xp, self._block_of(index)
        dtype, classes = xp.dtype(logits), xp.shape(logits)[-1]
        labels = self._labels_of(index)
        weight = None if self._weight is None else xp.cast(xp.reshape(self._weight[index], (-1,)), dtype)
        if self._ignore_index is not None:
            counted = xp.cast(~xp.equal(labels[:, 1] if self._soft else labels, self._ignore_index), dtype)
            weight = counted if weight is None else xp.where(counted > 0, weight, 0.0)
        top = xp.max(logits, axis=-1)
        plausible = None if self._from_logits else self._are_probabilities(index, weight)
        shifted = logits - top[:, None]
        if self._soft:
            given, labels = xp.dtype(labels), xp.cast(labels, dtype)
            self._checks.one_hot(index, given, labels, weight)
            fits = xp.max(-labels, axis=-1) <= 0
            mass = xp.sum(labels, axis=-1)
            gap = xp.sum(xp.where(xp.equal(labels, 0), 0.0, labels * shifted), axis=-1) / xp.where(
                xp.equal(mass, 0), 1.0, mass
            )
            weight = mass if weight is None else xp.where(xp.equal(weight, 0), 0.0, weight * mass)
        else:
            fits = (labels >= 0) & (labels < classes)
            gap = xp.pick(shifted, xp.where(fits, labels, 0))
        improbable = fits & (top > MINUS_INFINITY) & (gap <= MINUS_INFINITY)
        gap = xp.where(improbable, 0.0, gap)
        valid = fits & (top < math.inf) & (gap > MINUS_INFINITY)
        valid = valid if plausible is None else valid & plausible
        if weight is not None:
            valid = (valid & (weight >= 0) & (weight < math.inf)) | xp.equal(weight, 0)
            top, gap = xp.where(xp.equal(weight, 0), 0.0, top), xp.where(xp.equal(weight, 0), 0.0, gap)
        if self._number(xp.sum(xp.cast(~valid, "float32"))):
            given = None if plausible is None else (plausible, self._block_of(index, as_given=True))
            self._checks.raise_first(index, valid, logits, labels, weight, given)
        self._count_improbable_labels(index, improbable if weight is None else improbable & (weight > 0), labels)
        return self._measured(index, shifted, top, gap, weight)

    def _measured(self, index: tuple[Any, ...], shifted: Array, top: Array, gap: Array, weight: Array | None) -> _Block:
        """A checked block; adds its totals."""
        xp, dtype, classes = self._xp, self._xp.dtype(shifted), self._xp.shape(shifted)[-1]
        group = None if self._groups is None else self._groups[index].reshape(-1)
        ones = xp.ones_like(gap, dtype)
        if self._any_label:
            self.totals += Totals(self._total(ones, weight, group))
            self._drop_pages()
            return _Block(index, top, gap, weight, group)
        kept, spread = classes, xp.sum(shifted, axis=-1)
        if self._number(xp.sum(xp.cast(xp.equal(spread, MINUS_INFINITY), dtype))):
            kept = xp.sum(xp.cast(shifted > MINUS_INFINITY, dtype), axis=-1)
            spread = xp.sum(xp.where(shifted > MINUS_INFINITY, shifted, 0.0), axis=-1)
        rows = (ones, xp.log(ones * kept), spread / kept - gap, -gap)
        self.totals += Totals(*(self._total(row, weight, group) for row in rows))
        self._drop_pages()
        return _Block(index, top, gap, weight, group)

    def _count_improbable_labels(self, index: tuple[Any, ...], improbable: Array, labels: Array) -> None:
        """Count rows whose label has the probability 0, which no map of the logits can change."""
        count = 0 if self._any_label else int(self._number(self._xp.sum(self._xp.cast(improbable, "float32"))))
        if count and not self._improbable_count:
            self._first_improbable = self._checks.improbable_label(index, improbable, labels)
        self._improbable_count += count

    def _moments(self, logits: Array, top: Array, beta: Any) -> tuple[Array, Array, Array]:
        """Log sum exp, mean and variance of t in each row."""
        if self._buffers is not None:
            return _moments_in_place(logits, top, beta, *self._buffers[:, : len(logits)])
        xp = self._xp
        t = (logits - top[:, None]) * (beta if isinstance(beta, float) else beta[:, None])
        t = xp.where(t > _LEAST_EXPONENT, t, _LEAST_EXPONENT)
        e = xp.exp(t)
        total, first, second = xp.sum(e, axis=-1), xp.sum(e * t, axis=-1), xp.sum(e * t * t, axis=-1)
        return xp.log(total), first / total, second / total - (first / total) ** 2

    def _total(self, row: Array, weight: Array | None, group: np.ndarray | None) -> Any:
        xp = self._xp
        if weight is not None:
            row = xp.where(xp.equal(weight, 0), 0.0, row * weight)
        if group is not None:
            return np.bincount(group, xp.to_numpy(row), self._n_groups)
        return self._number(long_sum(xp, row))

    def _number(self, scalar: Array) -> float:
        return float(self._xp.to_numpy(scalar))

    def _are_probabilities(self, index: tuple[Any, ...], weight: Array | None) -> Array:
        """Whether each row of a block is in [0, 1]; under `validate` also whether it sums to one."""
        xp, p = self._xp, self._block_of(index, as_given=True)
        inside = ~((xp.max(-p, axis=-1) > ROUNDING) | (xp.max(p, axis=-1) > 1.0 + ROUNDING))
        if self._validate:
            inside = inside & xp.asarray(sums_to_one(xp.to_numpy(p)), like=p)
        return inside if weight is None else inside | xp.equal(weight, 0)


def two_columns(xp: Backend, x: Array, from_logits: bool) -> Array:
    """The binary logit z as the logits (0, z) of two classes; or the probability p as (1 - p, p)."""
    scale, shift = ([0.0, 1.0], [0.0, 0.0]) if from_logits else ([-1.0, 1.0], [1.0, 0.0])
    scale, shift = (xp.asarray(np.array(pair), xp.dtype(x), like=x) for pair in (scale, shift))
    return x[..., None] * scale + shift


def _moments_in_place(z: Array, top: Array, beta: Any, t: Array, e: Array) -> tuple[Array, Array, Array]:
    """`Rows._moments` in two buffers; sums are products with ones, which are BLAS calls."""
    ones = np.ones(z.shape[-1], t.dtype)
    np.subtract(z, top[:, None], out=t)
    t *= t.dtype.type(beta) if isinstance(beta, float) else beta[:, None]

    def sums() -> tuple[np.ndarray, ...]:
        total = np.exp(t, out=e) @ ones
        first = np.multiply(e, t, out=e) @ ones
        return total, first, np.einsum("ij,ij->i", e, t)

    total, first, second = sums()
    if not np.isfinite(second).all():  # -inf times 0; checked afterwards, since most logits have no -inf
        np.fmax(t, t.dtype.type(_LEAST_EXPONENT), out=t)
        total, first, second = sums()
    first /= total
    return np.log(total), first, second / total - first * first


def _mapping_of(array: np.ndarray | None) -> mmap.mmap | None:
    """The file mapping of an array that was opened read-only, whose pages can be dropped and read again."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            mapping = getattr(array, "_mmap", None)
            return mapping if isinstance(mapping, mmap.mmap) else None
        array = array.base  # type: ignore[assignment]
    return None


def _blocks(shape: tuple[int, ...], rows: int) -> Iterator[tuple[Any, ...]]:
    """Indices of blocks of at most about ``rows`` rows."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    if inner > rows:
        for i in range(shape[0]):
            yield from ((i, *rest) for rest in _blocks(shape[1:], rows))
    elif inner:
        step = max(1, rows // inner)
        yield from ((slice(i, min(i + step, shape[0])),) for i in range(0, shape[0], step))
