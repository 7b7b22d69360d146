"""Reductions of the rows' losses.

Every reduction is linear in the rows, with factors that depend only on weights and labels. The factors are
computed first, so that a kernel can multiply its gradient by them.
"""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array, Backend

REDUCTIONS = (
    "none",
    "sum",
    "mean",
    "sum_over_batch_size",
    "mean_with_sample_weight",
    "sum_by_nonzero_weights",
    "sum_over_nonzero_weights",
)


def check_reduction(reduction: str | None) -> str:
    """The reduction's name, ``"none"`` for None; a ValueError if it is unknown."""
    if reduction is None:
        return "none"
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be None or one of {', '.join(REDUCTIONS)}; got {reduction!r}.")
    return reduction


def row_scale(
    xp: Backend,
    reduction: str,
    rows: Array,
    dtype: str,
    *,
    sample_weight: Array | None = None,
    counted: Array | None = None,
    label_weight: Array | None = None,
) -> Any:
    """The factor of each row, whose scaled losses add up to the reduction: None, a float or an array.

    Ignored rows have the factor 0, and x / 0 is 0. ``rows`` is any array in the rows' shape, ``label_weight``
    the class weight of each row's label.
    """
    weight = row_factor(xp, rows, dtype, sample_weight, counted)
    divisor = row_divisor(xp, reduction, rows, dtype, weight, sample_weight, counted, label_weight)
    if divisor is None:
        return weight
    number = xp.host_values(divisor) if xp.is_array(divisor) else divisor
    if number is not None:  # an int may be what stands for one in torch.export
        number = float(number) if xp.is_array(divisor) else number
        inverse = 1.0 / number if number else 0.0
    else:
        empty = xp.equal(divisor, 0)
        inverse = xp.where(empty, 0.0, 1.0 / xp.where(empty, 1.0, divisor))
    return inverse if weight is None else weight * inverse


def row_factor(
    xp: Backend, rows: Array, dtype: str, sample_weight: Array | None, counted: Array | None
) -> Array | None:
    """The sample weights, 0 in rows that are not counted; None for ones."""
    if counted is None:
        return sample_weight
    if sample_weight is None:
        return xp.cast(counted, dtype)
    return xp.where(counted, sample_weight * xp.ones_like(rows, dtype), 0.0)


def row_divisor(
    xp: Backend,
    reduction: str,
    rows: Array,
    dtype: str,
    weight: Array | None,
    sample_weight: Array | None,
    counted: Array | None,
    label_weight: Array | None,
) -> Any:
    """The divisor of the rows' sum: None, a number of rows or a scalar; ``weight`` is the result of `row_factor`.

    With ``row_shards`` this is the divisor of the member's rows; those of all members are summed.
    """
    if reduction in ("none", "sum"):
        return None
    divisor = weight
    if reduction == "mean" and label_weight is not None:
        divisor = label_weight if weight is None else weight * label_weight
    elif reduction == "sum_over_batch_size":
        divisor = None if counted is None else xp.cast(counted, dtype)
    elif sample_weight is not None and reduction in ("sum_by_nonzero_weights", "sum_over_nonzero_weights"):
        divisor = xp.cast(~xp.equal(weight, 0), dtype)
    if divisor is None:
        count = xp.size(rows)
        return xp.cast(count, dtype) if xp.is_array(count) else count
    return xp.sum(label_weight if divisor is label_weight else divisor * xp.ones_like(rows, dtype))


def reduce_rows(xp: Backend, losses: Array, scale: Any, reduction: str) -> Array:
    """The reduction of losses by the factors of `row_scale`; losses of ignored rows must be finite."""
    if scale is not None:
        losses = losses * scale
    return losses if reduction == "none" else xp.sum(losses)
