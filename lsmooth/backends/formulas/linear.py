"""A loss over the logits of linear heads, for backends that take the rows in blocks.

``logits = hidden @ weight.T + bias`` may be far larger than its inputs. A loss is a sum over rows or
one number per row, so a backend computes the logits of one block of rows at a time, accumulates the loss
and the gradients of the block, and reuses the memory for the next block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lsmooth.backends.formulas.rows import accumulate, match_rank
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, with_arrays

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

# Logits of a block. Larger blocks are used only if they are small compared with the weight.
BLOCK_ELEMENTS = 3 * 2**22
BLOCK_ROWS = 512


class Head(NamedTuple):
    """A linear layer and its input, in one dtype; without a weight, ``hidden`` are the logits."""

    hidden: Array  # (..., features)
    weight: Any  # (classes, features)
    bias: Array | None = None  # (classes,)


class Kernels(Protocol):
    """The kernels that a loss calls: those of a `Backend`, or replacements."""

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array: ...

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions) -> Array: ...


class BlockLoss(Protocol):
    """The loss of a block of rows, as a function of its logits: a named tuple.

    Two losses that are equal and have the same hash are compiled once.
    """

    @property
    def xp(self) -> Backend:
        """The backend, whose kernels compute the loss."""
        ...

    @property
    def scale(self) -> float | None:
        """The factor of every row, unless ``rows["scale"]`` has one per row."""
        ...

    @property
    def total(self) -> bool:
        """Whether the loss is the sum of the rows; else it is one number per row, or ``COLUMNS`` of them."""
        ...

    @property
    def frozen_heads(self) -> tuple[int, ...]:
        """The indices of the heads that get no gradient."""
        ...

    def _replace(self, **fields: Any) -> Any: ...

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        final_kernels: Kernels | None = None,
    ) -> Array:
        """The loss of rows with these logits, one array (..., classes) per head.

        ``final_kernels``, if given, compute the last term that reads the logits, and may overwrite those of the
        last head.
        """
        ...

    def __hash__(self) -> int: ...


class Form(NamedTuple):
    """Which arrays a `Call` has; hashable, as compiled functions need it."""

    parts: tuple[int, ...]  # for each head, how many of weight and bias it has
    rows: tuple[str, ...]
    shared: tuple[str, ...]

    def call(self, values: Iterable[Any]) -> Call:
        """The call of this form with these values, in the order of `values`."""
        each = iter(values)
        heads = [Head(*[next(each) if i <= given else None for i in range(3)]) for given in self.parts]
        rows = {name: next(each) for name in self.rows}
        return Call(tuple(heads), rows, {name: next(each) for name in self.shared})

    def values(self, call: Call) -> list[Any]:
        """The values of a call, heads first, then ``rows`` and ``shared`` in the order of their names."""
        heads = [x for head, given in zip(call.heads, self.parts, strict=True) for x in head[: 1 + given]]
        return heads + [call.rows[name] for name in self.rows] + [call.shared[name] for name in self.shared]


class Call(NamedTuple):
    """The arrays that a `BlockLoss` depends on; or one value for each, such as its gradient, or None."""

    heads: tuple[Head, ...]
    rows: Mapping[str, Array]  # each (...) or (..., n), the leading axes being those of the hidden states
    shared: Mapping[str, Array]

    @property
    def num_classes(self) -> int:
        """Of all heads together."""
        return sum((head.hidden.shape[-1] if head.weight is None else head.weight.shape[0]) for head in self.heads)

    @property
    def form(self) -> Form:
        """The form; names are sorted, because JAX does not keep the order of a dictionary."""
        parts = tuple([(head.weight is not None) + (head.bias is not None) for head in self.heads])
        return Form(parts, tuple(sorted(self.rows)), tuple(sorted(self.shared)))

    def arrays(self) -> list[Array]:
        """The arrays in the order of `Form.values`."""
        return self.form.values(self)

    def map(self, function: Callable[..., Any], *others: Call) -> Call:
        """Apply ``function`` to each value that is not None, with the values of other calls in the same place."""

        def value(x: Any, *more: Any) -> Any:
            return None if x is None else function(x, *more)

        heads = zip(self.heads, *[call.heads for call in others], strict=True)
        return Call(
            tuple([Head(*[value(*each) for each in zip(*some, strict=True)]) for some in heads]),
            {name: value(x, *[call.rows[name] for call in others]) for name, x in self.rows.items()},
            {name: value(x, *[call.shared[name] for call in others]) for name, x in self.shared.items()},
        )

    def map_rows(self, function: Callable[[Array], Array]) -> Call:
        """Apply a function to the arrays along the rows."""
        return self.map(lambda x, along_rows: function(x) if along_rows else x, self.along_rows())

    def along_rows(self) -> Call:
        """For each array, whether its leading axes are the rows."""
        heads = (Head(True, False, False),) * len(self.heads)
        return Call(heads, dict.fromkeys(self.rows, True), dict.fromkeys(self.shared, False))

    def row_part(self) -> Call:
        """Only the arrays along the rows."""
        return Call(tuple([Head(head.hidden, None) for head in self.heads]), self.rows, {})

    def shared_part(self) -> Call:
        """Only the arrays that all rows share."""
        return Call(tuple([head._replace(hidden=None) for head in self.heads]), {}, self.shared)


def joined(row_part: Call, shared_part: Call) -> Call:
    """The call of these two parts."""
    heads = zip(row_part.heads, shared_part.heads, strict=True)
    return Call(
        tuple([ours._replace(hidden=of_rows.hidden) for of_rows, ours in heads]), row_part.rows, shared_part.shared
    )


class CrossEntropyOfBlock(NamedTuple):
    """The softmax cross-entropy of one head and labels."""

    xp: Backend
    options: SoftmaxOptions  # without arrays: `rows` and `shared` hold these
    scale: float | None
    total: bool
    frozen_heads: tuple[int, ...] = ()

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        final_kernels: Kernels | None = None,
    ) -> Array:
        """The kernel's losses."""
        kernels = self.xp if final_kernels is None else final_kernels
        options = with_arrays(self.options._replace(scale=self.scale, total=self.total), rows, shared)
        return kernels.softmax_cross_entropy(logits[0], rows["labels"], options)


class StatisticsOfBlock(NamedTuple):
    """The `RowStatistics` of one head and labels, (rows, 4): in floats, which hold every class below 2^24."""

    xp: Backend
    options: SoftmaxOptions  # without arrays: `rows` and `shared` hold these
    scale: float | None = None
    total: bool = False
    frozen_heads: tuple[int, ...] = ()

    COLUMNS = (4,)

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        final_kernels: Kernels | None = None,
    ) -> Array:
        """The kernel's statistics."""
        xp, options = self.xp, with_arrays(self.options, rows, shared)
        _, statistics = xp.softmax_cross_entropy_with_statistics(logits[0], rows["labels"], options)
        return _stacked(xp, statistics)


def _stacked(xp: Backend, statistics: RowStatistics) -> Array:
    return stacked_columns(xp, [*statistics[:3], xp.cast(statistics.predicted, xp.dtype(statistics.entropy))])


def stacked_columns(xp: Backend, columns: Sequence[Array]) -> Array:
    """Stack columns (...) to (..., columns)."""
    stacked = columns[0][..., None]
    if len(columns) == 1:
        return stacked
    places = match_rank(xp, xp.asarray(np.arange(len(columns)), like=stacked), stacked)
    for i, x in enumerate(columns):
        stacked = xp.where(xp.equal(places, i), x[..., None], stacked)
    return stacked


def unstacked(xp: Backend, statistics: Array, counted: Array | None) -> RowStatistics:
    """The statistics that `StatisticsOfBlock` returned for all rows; predicted is -1 in rows that do not count."""
    log_prob, entropy, log_sum_exp, predicted = (statistics[..., i] for i in range(4))
    predicted = xp.cast(predicted, "int64")
    return RowStatistics(
        log_prob, entropy, log_sum_exp, predicted if counted is None else xp.where(counted, predicted, -1)
    )


def linear_rows(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None = None) -> Array:
    """`Backend.linear_rows`, which scales the rows of float16 products at the end.

    The range of float16 is too small for gradients that are divided by the number of rows.
    """
    if "float16" in [xp.dtype(x) for x in call.heads[-1][:2] if x is not None]:
        return with_deferred_scale(xp, loss, call, block_size)
    return xp.linear_rows(loss, call, block_size)


def with_deferred_scale(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None) -> Array:
    """`Backend.linear_rows`, with the scale and the sum applied to the losses of the rows afterwards."""
    rows = dict(call.rows)
    scale = rows.pop("scale", loss.scale)
    if scale is None:
        return xp.linear_rows(loss, call, block_size)
    losses = scale * xp.linear_rows(loss._replace(scale=None, total=False), call._replace(rows=rows), block_size)
    return xp.sum(losses) if loss.total else losses


def loss_of_all(
    xp: Backend, loss: BlockLoss, call: Call, logits_of: Callable[[Backend, Head], Array] | None = None
) -> Array:
    """The loss of all rows at once; ``logits_of`` replaces `head_logits`."""
    call = without_ignored(xp, call)
    logits_of = logits_of or head_logits
    return loss(tuple([logits_of(xp, head) for head in call.heads]), call.rows, call.shared)


def without_ignored(xp: Backend, call: Call) -> Call:
    """Set the hidden states of ignored rows to zero, whose NaN would reach the gradient of the weight."""
    counted = call.rows.get("counted")
    if counted is None:
        return call
    heads = [head._replace(hidden=xp.where(counted[..., None], head.hidden, 0.0)) for head in call.heads]
    return call._replace(heads=tuple(heads))


def head_logits(xp: Backend, head: Head) -> Array:
    """``hidden @ weight.T + bias`` in at least float32: the product is not rounded to half precision."""
    if head.weight is None:
        return accumulate(xp, head.hidden)
    logits = accumulate(xp, head.hidden) @ xp.moveaxis(accumulate(xp, head.weight), 0, 1)
    return logits if head.bias is None else logits + match_rank(xp, accumulate(xp, head.bias), logits)


def block_rows(num_rows: int, call: Call, elements: int = BLOCK_ELEMENTS) -> int:
    """The number of rows in a block: enough for fast matrix products, in blocks of about equal size."""
    features = max(head.hidden.shape[-1] for head in call.heads)
    wanted = max(1, elements // call.num_classes, min(BLOCK_ROWS, features // 2))
    return max(1, math.ceil(num_rows / max(1, math.ceil(num_rows / wanted))))
