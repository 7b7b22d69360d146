"""Calls whose classes or rows are spread over the members of a group."""

from __future__ import annotations

from typing import Any, NamedTuple

from lsmooth._rows.reductions import row_divisor, row_factor, row_scale
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.linear import Call, Head, stacked_columns
from lsmooth.backends.formulas.questions import CrossEntropyAnswer, CrossEntropyQuestion
from lsmooth.backends.formulas.rows import quotient
from lsmooth.backends.formulas.sharded import Asked, cross_entropy
from lsmooth.backends.members import Members
from lsmooth.backends.options import Options, SoftmaxOptions, without_arrays


class Spread(NamedTuple):
    """The groups that the classes and the rows are spread over; None if each member has all of them."""

    classes: Members | None
    rows: Members | None


def spread_of(xp: Backend, class_shards: Any, row_shards: Any) -> Spread:
    """The members of both groups; a ValueError if they are the same group, or none of this framework."""
    if class_shards is not None and class_shards == row_shards:
        raise ValueError(
            "class_shards and row_shards must be different groups: a member holds a slice of the classes, or of the "
            f"rows; got {class_shards!r} for both."
        )
    return Spread(
        None if class_shards is None else xp.members(class_shards, "class_shards"),
        None if row_shards is None else xp.members(row_shards, "row_shards"),
    )


def over_members(xp: Backend, members: Members | None, total: Array, divisor: Any) -> Array:
    """``total / divisor``, each summed over the members; 0 where the divisor is 0."""
    if divisor is None:
        return total if members is None else members.sum(total)
    divisor = xp.ones_like(total, xp.dtype(total)) * divisor
    if members is not None:
        both = members.sum(stacked_columns(xp, [total, divisor]))
        total, divisor = both[0], both[1]
    return quotient(xp, total, divisor)


def scale_and_divisor(
    xp: Backend,
    reduction: str,
    rows: Array,
    logits: Array,
    dtype: str,
    spread: Spread,
    *,
    label_weight: Array | None = None,
    sample_weight: Array | None = None,
    counted: Array | None = None,
) -> tuple[Any, Any]:
    """The factor of each row, and the divisor of their sum; the divisor is None if the factor includes it."""
    weights = {"sample_weight": sample_weight, "counted": counted}
    counts = any(x is not None for x in (label_weight, sample_weight, counted))
    if spread == (None, None) and not (counts and xp.divides_last(logits)):
        return row_scale(xp, reduction, rows, dtype, label_weight=label_weight, **weights), None
    scale = row_factor(xp, rows, dtype, **weights)
    return scale, row_divisor(xp, reduction, rows, dtype, scale, label_weight=label_weight, **weights)


def over_all_rows(call: Any, losses: Array) -> Array:
    """The loss over the rows of all members, from the loss that a kernel has reduced over the member's rows."""
    if call.reduction == "none" or (call.spread.rows is None and call.divisor is None):
        return losses
    return over_members(call.xp, call.spread.rows, losses, call.divisor)


def signature(xp: Backend, like: Array, numbers: Options, *others: Any) -> str:
    """A text of what must be the same on all members of ``class_shards``: dtype, rows and options."""
    given = [f"{name}={x!r}" for name, x in zip(numbers._fields, numbers, strict=True) if x is not None]
    return f"{xp.dtype(like)}, rows {xp.shape(like)[:-1]}, {', '.join([*given, *map(str, others)])}"


def cross_entropy_call(
    xp: Backend,
    members: Members,
    head: Head,
    labels: Array,
    options: SoftmaxOptions,
    soft: bool,
    statistics: bool = False,
    block_size: int | None = None,
) -> tuple[CrossEntropyAnswer, list[Array]]:
    """`lsmooth.backends.formulas.sharded.cross_entropy` of a head whose classes are spread over the members."""
    from lsmooth._rows.checks import over_rows, rows_of  # which imports this module

    per_row = options._replace(scale=None, total=False, num_classes=None)
    numbers, along_rows, along_classes = without_arrays(xp, per_row)
    smoothed = numbers.label_smoothing != 0.0 or along_rows.pop("label_smoothing", None) is not None
    like = rows_of(xp, labels) if soft else labels
    along_rows = {name: over_rows(xp, x, like) for name, x in along_rows.items()}
    if "temperature" in along_rows:
        along_rows["temperature"] = members.shared(along_rows["temperature"])
    question = CrossEntropyQuestion(numbers, soft, smoothed, "class_weight" in along_classes, statistics)
    call = Call((shared_head(members, head),), {"labels": labels, **along_rows}, along_classes)
    agreed = signature(
        xp, head.hidden, numbers, options.num_classes, sorted([*along_rows, *along_classes]), soft, smoothed
    )
    asked = Asked(xp, members, call, options.num_classes, (), block_size, agreed)
    return cross_entropy(asked, question, options._replace(num_classes=None))


def shared_head(members: Members, head: Head) -> Head:
    """The head with its hidden states marked as shared, so that the members' gradients of them are summed."""
    return head if head.weight is None else head._replace(hidden=members.shared(head.hidden))
