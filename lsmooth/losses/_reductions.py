"""From the losses of rows to the number asked for.

Every reduction is linear in the rows: what it multiplies each row by depends on weights and
labels alone. So the factors come first, and a kernel can fold them into its gradient.
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
    """The reduction's name, ``"none"`` for None.

    Raises:
        ValueError: if there is no such reduction.
    """
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
    """The factor of each row, so that the reduction is the sum of the scaled rows.

    | reduction | the rows' weights s are divided by |
    |---|---|
    | none, sum | 1 |
    | mean | the sum of s times the labels' class weights, or the number of rows if neither is given |
    | sum_over_batch_size | the number of rows |
    | mean_with_sample_weight | the sum of s |
    | sum_by_nonzero_weights | the number of rows with s != 0 |

    Rows that are not counted have no part in any of them; x / 0 is 0.

    Args:
        xp: the backend.
        reduction: one of `REDUCTIONS`.
        rows: any array in the rows' shape.
        dtype: the dtype of the losses.
        sample_weight: s, a scalar or of the rows' rank.
        counted: bool, False for rows that are ignored.
        label_weight: the class weight of each row's label.

    Returns:
        None, a float, or an array that broadcasts to the rows.
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
    """What a reduction divides the sum of the rows by: None, a number of rows, or a scalar; ``weight`` is `row_factor`.

    Over several members, each has that of its own rows, which add up.
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
    """The reduction of rows whose factors `row_scale` gave; what is ignored must be finite there."""
    if scale is not None:
        losses = losses * scale
    return losses if reduction == "none" else xp.sum(losses)
