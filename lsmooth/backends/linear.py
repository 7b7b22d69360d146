"""A loss over the logits of linear heads, for backends that take the rows in blocks.

``logits = hidden @ weight.T + bias`` may be far larger than what it is made of. A loss is a sum
over rows, or one number a row; so a block of rows gives its part of the loss, and of every
gradient, and its logits make room for those of the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lsmooth.backends.formulas import accumulate, match_rank
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, with_arrays

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend

# Logits of a block: beyond this, blocks grow only while they stay small beside the weight.
BLOCK_ELEMENTS = 3 * 2**22
BLOCK_ROWS = 512


class Head(NamedTuple):
    """A linear layer and what goes into it, in one dtype."""

    hidden: Array  # (..., features)
    weight: Array  # (classes, features)
    bias: Array | None = None  # (classes,)


class Kernels(Protocol):
    """What computes a loss, as a `Backend` does."""

    def softmax_cross_entropy(self, logits: Array, labels: Array, options: SoftmaxOptions) -> Array: ...

    def softmax_divergence(self, teacher: Array, student: Array, options: DivergenceOptions) -> Array: ...


class BlockLoss(Protocol):
    """What is computed of the logits of a block, knowing nothing of blocks.

    Two that compare equal, and hash alike, are compiled once.
    """

    @property
    def total(self) -> bool:
        """Whether it gives the sum of the rows, and not each of them."""
        ...

    @property
    def still(self) -> tuple[int, ...]:
        """The heads that get no gradient."""
        ...

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        last: Kernels | None = None,
    ) -> Array:
        """The loss of the rows whose logits, one array (..., classes) a head, these are.

        ``last``, if given, is asked for what needs the logits last: it may write over those of the last head.
        """
        ...

    def __hash__(self) -> int: ...


class Call(NamedTuple):
    """All arrays that a `BlockLoss` depends on."""

    heads: tuple[Head, ...]
    rows: Mapping[str, Array]  # each (...) or (..., n), the leading axes being those of the hidden states
    shared: Mapping[str, Array]

    @property
    def num_classes(self) -> int:
        """Of all heads together."""
        return sum(head.weight.shape[0] for head in self.heads)

    def leaves(self) -> list[Any]:
        """The arrays, with None where there is no bias; named ones in the order of their names.

        That order, unlike the one in which names were given, is kept by frameworks that take dictionaries apart.
        """
        named = [some[name] for some in (self.rows, self.shared) for name in sorted(some)]
        return [x for head in self.heads for x in head] + named

    def along_rows(self) -> list[bool]:
        """Of each leaf, whether its leading axes are the rows."""
        heads = [True, False, False] * len(self.heads)
        return heads + [True] * len(self.rows) + [False] * len(self.shared)

    def rebuild(self, leaves: Sequence[Any]) -> Call:
        """A call of the same form with other leaves."""
        of_heads = 3 * len(self.heads)
        of_rows = of_heads + len(self.rows)
        return Call(
            tuple(Head(*leaves[i : i + 3]) for i in range(0, of_heads, 3)),
            _renamed(self.rows, leaves[of_heads:of_rows]),
            _renamed(self.shared, leaves[of_rows:]),
        )

    def map_rows(self, function: Callable[[Array], Array]) -> Call:
        """The call with a function applied to what has rows."""
        pairs = zip(self.leaves(), self.along_rows(), strict=True)
        return self.rebuild([function(x) if rows else x for x, rows in pairs])


def _renamed(names: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Values in the order of the sorted names, under these names in their own order."""
    by_name = dict(zip(sorted(names), values, strict=True))
    return {name: by_name[name] for name in names}


class CrossEntropyOfBlock(NamedTuple):
    """The softmax cross-entropy of one head and labels."""

    xp: Backend
    total: bool
    options: SoftmaxOptions  # `rows` and `shared` hold those that are arrays
    still: tuple[int, ...] = ()

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        last: Kernels | None = None,
    ) -> Array:
        """The kernel's losses."""
        kernels = self.xp if last is None else last
        options = with_arrays(self.options, {"total": self.total}, rows, shared)
        return kernels.softmax_cross_entropy(logits[0], rows["labels"], options)


def whole(xp: Backend, loss: BlockLoss, call: Call) -> Array:
    """The loss of all rows at once."""
    call = without_ignored(xp, call)
    return loss(tuple(head_logits(xp, head) for head in call.heads), call.rows, call.shared)


def without_ignored(xp: Backend, call: Call) -> Call:
    """The call with zeros for the hidden states of ignored rows, whose NaN would reach the weight's gradient."""
    counted = call.rows.get("counted")
    if counted is None:
        return call
    heads = [head._replace(hidden=xp.where(counted[..., None], head.hidden, 0.0)) for head in call.heads]
    return call._replace(heads=tuple(heads))


def head_logits(xp: Backend, head: Head) -> Array:
    """``hidden @ weight.T + bias``, in the precision that lsmooth reduces in."""
    logits = accumulate(xp, head.hidden @ xp.moveaxis(head.weight, 0, 1))
    return logits if head.bias is None else logits + match_rank(xp, accumulate(xp, head.bias), logits)


def block_rows(num_rows: int, call: Call, elements: int = BLOCK_ELEMENTS) -> int:
    """How many rows a block has: enough for the matrix products to run at speed, blocks of about one size."""
    features = max(head.weight.shape[1] for head in call.heads)
    wanted = max(1, elements // call.num_classes, min(BLOCK_ROWS, features // 2))
    return max(1, math.ceil(num_rows / max(1, math.ceil(num_rows / wanted))))
