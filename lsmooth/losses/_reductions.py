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
    weight = sample_weight
    if counted is not None:
        weight = (
            xp.cast(counted, dtype) if weight is None else xp.where(counted, weight * xp.ones_like(rows, dtype), 0.0)
        )
    if reduction in ("none", "sum"):
        return weight
    divisor = weight
    if reduction == "mean" and label_weight is not None:
        divisor = label_weight if weight is None else weight * label_weight
    elif reduction == "sum_over_batch_size":
        divisor = None if counted is None else xp.cast(counted, dtype)
    elif weight is not None and reduction in ("sum_by_nonzero_weights", "sum_over_nonzero_weights"):
        divisor = xp.cast(~xp.equal(weight, 0), dtype)
    if divisor is None:
        return _inverse_of_count(xp, xp.size(rows), dtype, weight)
    total = xp.sum(label_weight if divisor is label_weight else divisor * xp.ones_like(rows, dtype))
    number = xp.host_values(total)
    if number is not None:
        inverse = 1.0 / float(number) if number else 0.0
        return inverse if weight is None else weight * inverse
    empty = xp.equal(total, 0)
    inverse = xp.where(empty, 0.0, 1.0 / xp.where(empty, 1.0, total))
    return inverse if weight is None else weight * inverse


def reduce_rows(xp: Backend, losses: Array, scale: Any, reduction: str) -> Array:
    """The reduction of rows whose factors `row_scale` gave; what is ignored must be finite there."""
    if scale is not None:
        losses = losses * scale
    return losses if reduction == "none" else xp.sum(losses)


def _inverse_of_count(xp: Backend, count: Any, dtype: str, weight: Array | None) -> Any:
    if xp.is_array(count):
        count = xp.cast(count, dtype)
        inverse = 1.0 / xp.where(xp.equal(count, 0), 1.0, count)
    else:  # an int, or what stands for one in torch.export
        inverse = 1.0 / count if count else 0.0
    return inverse if weight is None else weight * inverse
