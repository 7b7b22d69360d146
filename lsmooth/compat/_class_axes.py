"""Several class axes and masked classes, as in Optax' functions."""

from __future__ import annotations

from typing import Any, TypeAlias

from lsmooth._validation import is_integer_number
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.rows import MINUS_INFINITY
from lsmooth.compat import _rows

Axes: TypeAlias = int | tuple[int, ...] | None


def counted_axes(axis: Axes, rank: int) -> list[int]:
    """The axes counted from the front, in the order given."""
    axes = list(range(rank)) if axis is None else list(axis) if isinstance(axis, (tuple, list)) else [axis]
    if axes and rank == 0:
        raise ValueError(f"There is no axis {axis}, the classes: the arrays are scalars.")
    if not all(is_integer_number(a) and -rank <= a < rank for a in axes):
        raise ValueError(f"axis must be in [{-rank}, {rank - 1}], got {axis}.")
    return [int(a) % rank for a in axes]


def classes_last(xp: Backend, x: Array, axis: Axes) -> Array:
    """``x`` with the class axes moved to the end and merged into one."""
    order = list(range(len(xp.shape(x))))
    axes = counted_axes(axis, len(order))
    for a in axes:
        x = xp.moveaxis(x, order.index(a), -1)
        order.append(order.pop(order.index(a)))
    if len(axes) == 1:
        return x
    shape = xp.shape(x)
    return xp.reshape(x, (*shape[: len(order) - len(axes)], -1))  # type: ignore[arg-type]


def mask(xp: Backend, where: Any, like: Array, axis: Axes) -> Array | None:
    """``where`` in the shape of ``like``; a mask of another rank applies to rows."""
    if where is None:
        return None
    where = xp.asarray(where, xp.dtype(like), like=like)
    if len(xp.shape(where)) != len(xp.shape(like)):
        for a in sorted(counted_axes(axis, len(xp.shape(like)))):
            where = xp.moveaxis(where[..., None], -1, a)
    return ~xp.equal(where * xp.ones_like(like, xp.dtype(like)), 0)


def any_left(xp: Backend, where: Array) -> Array:
    """Whether a row has an unmasked class."""
    return xp.sum(xp.cast(where, "float32"), axis=-1) > 0


def masked(xp: Backend, logits: Array, where: Array | None) -> Array:
    """Logits of masked classes replaced by -inf; by 0 in rows without other classes, to avoid NaN gradients."""
    if where is None:
        return logits
    zeros = xp.ones_like(logits, xp.dtype(logits)) - 1.0
    return xp.where(where, logits, xp.where(any_left(xp, where)[..., None], MINUS_INFINITY, zeros))


def masked_log_softmax(xp: Backend, logits: Array, where: Array | None) -> Array:
    """Log-probabilities of the unmasked classes, and 0 for the others."""
    log_probs = _rows.log_softmax(xp, masked(xp, logits, where))
    return log_probs if where is None else xp.where(where, log_probs, 0.0)


def masked_sum(xp: Backend, terms: Array, where: Array | None) -> Array:
    """The sum of the unmasked terms over the last axis."""
    return xp.sum(terms if where is None else xp.where(where, terms, 0.0), axis=-1)


def sum_over(xp: Backend, terms: Array, axis: Axes, where: Any) -> Array:
    """The sum of the unmasked terms over the class axes."""
    if where is not None:
        terms = xp.where(mask(xp, where, terms, ()), terms, 0.0)
    return xp.sum(classes_last(xp, terms, axis), axis=-1)
