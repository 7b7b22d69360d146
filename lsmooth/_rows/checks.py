"""The arguments of a loss over rows: checks and reduction."""

from __future__ import annotations

from typing import Any, NamedTuple

from lsmooth import _validation as check
from lsmooth._keras_settings import refuse_a_mean
from lsmooth._rows.reductions import check_reduction, reduce_rows, row_scale
from lsmooth._rows.shards import Spread, over_all_rows, over_members, scale_and_divisor, spread_of
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, without_padding
from lsmooth.backends.options import SigmoidOptions


class RowOptions(NamedTuple):
    """The options of every loss over classes, as the user gave them."""

    label_smoothing: Any = 0.0
    sample_weight: Any = None
    ignore_index: int | None = None
    mask: Any = None
    axis: int = -1
    num_classes: int | None = None
    row_shards: Any = None
    reduction: str | None = "mean"
    class_weight: Any = None
    class_shards: Any = None


class Rows(NamedTuple):
    """The checked arguments of a call, with the classes along the last axis."""

    xp: Backend
    labels: Array
    logits: Array
    soft: bool  # labels are distributions (..., classes); else class ids (...)
    shape: tuple[int | None, ...]  # of the rows
    dtype: str  # of the result
    label_smoothing: Any  # a float, or an array that broadcasts to the rows
    class_weight: Array | None
    counted: Array | None  # bool, False for rows that are ignored
    scale: Any  # the factor of each row in the reduction
    reduction: str
    num_classes: int | None = None  # later logits are padding
    spread: Spread = Spread(None, None)
    divisor: Any = None  # of the sum over the rows of all members; the scale does not include it

    @property
    def own_classes(self) -> int | None:
        """The number of classes of this member without padding, which is the length of per-class options."""
        return self.num_classes if self.spread.classes is None else None


def prepare(xp: Backend, labels: Any, logits: Any, options: RowOptions, weight: Array | None = None) -> Rows:
    """Check the arguments of a loss over classes; ignored rows get the label 0.

    With a ``weight`` (classes, features), ``logits`` are the hidden states of a linear head. With ``class_shards``,
    `reduced` does the reduction; with ``row_shards`` alone, `over_all_rows` does the division.
    """
    refuse_a_mean(xp, logits, options.reduction)
    reduction = check_reduction(options.reduction)
    ignore_index, num_classes = check.check_ignore_index(options.ignore_index), options.num_classes
    num_classes = None if num_classes is None else check.check_count("num_classes", num_classes)
    name = "logits" if weight is None else "hidden"
    logits = check.logits_array(xp, name, logits, labels)
    dtype = "float64" if xp.dtype(logits) == "float64" else "float32"
    spread = spread_of(xp, options.class_shards, options.row_shards)
    member_classes = num_classes if spread.classes is None else None
    labels, logits, soft = _labels_and_logits(xp, labels, logits, options.axis, dtype, weight, member_classes)
    count = member_classes or xp.shape(logits if weight is None else rows_of(xp, weight))[-1]
    rows = rows_of(xp, labels) if soft else labels
    shape = xp.shape(rows)
    eps = options.label_smoothing
    eps = check.number_or_rows(xp, "label_smoothing", eps, shape, logits, dtype, low=0.0, high=1.0)
    class_weight = per_class(xp, "class_weight", options.class_weight, count, logits, dtype)
    sample_weight = row_weight(xp, options.sample_weight, rows, logits, dtype)

    counted = row_mask(xp, options.mask, rows)
    if ignore_index is not None:
        if soft:
            raise ValueError("ignore_index needs integer labels; with distributions, pass mask=, False for those rows.")
        ids = xp.host_values(labels)
        if ids is None or (ids == ignore_index).any():
            not_ignored = ~xp.equal(labels, ignore_index)
            counted = not_ignored if counted is None else counted & not_ignored
    if check.is_validating(xp, labels, logits):
        check.check_not_nan(xp, name, logits if weight is not None else logits[..., :count], counted)
        if soft:
            check.check_distributions(xp, labels, counted)
        elif spread.classes is None:
            check.check_class_ids(xp, labels, count, counted)
    if counted is not None:
        labels = xp.where(counted[..., None] if soft else counted, labels, 0)

    label_weight = None
    if class_weight is not None and reduction == "mean" and spread.classes is None:
        label_weight = xp.sum(labels * class_weight, axis=-1) if soft else weight_of_ids(xp, labels, class_weight)
    weights = {"label_weight": label_weight, "sample_weight": sample_weight, "counted": counted}
    scale, divisor = scale_and_divisor(xp, reduction, rows, logits, dtype, spread, **weights)
    call = Rows(xp, labels, logits, soft, shape, dtype, eps, class_weight, counted, scale, reduction, num_classes)
    return call._replace(spread=spread, divisor=divisor)


def binary_loss(
    xp: Backend,
    labels: Any,
    logits: Any,
    given: RowOptions,
    pos_weight: Any = None,
    gamma: float = 0.0,
    alpha: float | None = None,
) -> Array:
    """The reduced sigmoid cross-entropy, or focal loss, of arguments that are yet to be checked."""
    refuse_a_mean(xp, logits, given.reduction)
    loss = None if given.row_shards is not None else xp.quick_binary(labels, logits, given, pos_weight, gamma, alpha)
    if loss is not None:
        return loss
    rows = prepare_binary(xp, labels, logits, given)
    if pos_weight is not None:
        pos_weight = check.to_array(xp, "pos_weight", pos_weight, rows.dtype, like=rows.logits)
        check.check_broadcast("pos_weight", xp.shape(pos_weight), rows.shape)
    options = SigmoidOptions(
        rows.label_smoothing, pos_weight, rows.counted, rows.scale, rows.reduction != "none", gamma, alpha
    )
    return over_all_rows(rows, xp.sigmoid_cross_entropy(rows.logits, rows.labels, options))


def prepare_binary(xp: Backend, labels: Any, logits: Any, options: RowOptions) -> Rows:
    """Check the arguments of a binary loss, each element of which is a row."""
    reduction = check_reduction(options.reduction)
    logits = check.logits_array(xp, "logits", logits, labels, "sigmoid_cross_entropy(labels, logits)")
    dtype = "float64" if xp.dtype(logits) == "float64" else "float32"
    labels = check.to_array(xp, "labels", labels, dtype, like=logits)
    shape = xp.shape(logits)
    if not check.same_shape(xp.shape(labels), shape):
        ids = check.same_shape(xp.shape(labels), shape[:-1])
        hint = " Class ids are labels of softmax_cross_entropy; here each class is a label of its own." if ids else ""
        raise ValueError(f"labels must have the shape of the logits, {shape}; got {xp.shape(labels)}.{hint}")
    eps = options.label_smoothing
    eps = check.number_or_rows(xp, "label_smoothing", eps, shape, logits, dtype, low=0.0, high=1.0)
    sample_weight = row_weight(xp, options.sample_weight, logits, logits, dtype)
    counted = row_mask(xp, options.mask, logits)
    if check.is_validating(xp, labels, logits):
        check.check_not_nan(xp, "logits", logits, counted)
        check.check_binary_labels(xp, labels, counted)
    spread = spread_of(xp, None, options.row_shards)
    scale, divisor = scale_and_divisor(
        xp, reduction, logits, logits, dtype, spread, sample_weight=sample_weight, counted=counted
    )
    return Rows(xp, labels, logits, True, shape, dtype, eps, None, counted, scale, reduction, None, spread, divisor)


def prepare_logits(labels: Any, logits: Any, options: RowOptions) -> tuple[Backend, Rows, Array]:
    """`prepare`, and the logits without padding in the precision of the result; ignored rows hold zeros."""
    eps, weight, mask = options.label_smoothing, options.sample_weight, options.mask
    xp = backend_of(labels=labels, logits=logits, label_smoothing=eps, sample_weight=weight, mask=mask)
    rows = prepare(xp, labels, logits, options)
    logits = accumulate(xp, without_padding(xp, rows.logits, rows.num_classes))
    return xp, rows, logits if rows.counted is None else xp.where(rows.counted[..., None], logits, 0.0)


def finish(rows: Rows, losses: Array) -> Array:
    """The reduction of the losses, which must be finite in ignored rows."""
    return over_all_rows(rows, reduce_rows(rows.xp, losses, rows.scale, rows.reduction))


def weighted_reduction(
    xp: Backend, losses: Array, sample_weight: Any, reduction: str | None, counted: Array | None = None
) -> Array:
    """The reduction of losses with sample weights, which are checked here."""
    reduction, dtype = check_reduction(reduction), xp.dtype(losses)
    weight = row_weight(xp, sample_weight, losses, losses, dtype)
    scale = row_scale(xp, reduction, losses, dtype, sample_weight=weight, counted=counted)
    return reduce_rows(xp, losses, scale, reduction)


def reduced(rows: Rows, losses: Array, label_weight: Array | None) -> Array:
    """The reduction of the rows' losses with ``class_shards``; ``label_weight`` is the class weight of each label."""
    xp = rows.xp
    losses = losses if rows.scale is None else losses * rows.scale
    if rows.reduction == "none":
        return losses
    divisor = rows.divisor
    if rows.reduction == "mean" and label_weight is not None:
        divisor = xp.sum(label_weight if rows.scale is None else label_weight * rows.scale)
    return over_members(xp, rows.spread.rows, xp.sum(losses), divisor)


def row_mask(xp: Backend, mask: Any, rows: Array, logits: tuple[int | None, ...] = ()) -> Array | None:
    """The mask as a bool array in the shape of the rows, or None; ``logits`` is the logits' original shape."""
    if mask is None:
        return None
    mask = check.to_array(xp, "mask", mask, like=rows)
    if xp.dtype(mask) != "bool":
        raise TypeError(f"mask must be bool, False for rows to exclude; got {xp.dtype(mask)}.")
    if not check.same_shape(xp.shape(mask), xp.shape(rows)):
        hint = check.fitting_axis(xp.shape(mask), logits, "mask")
        raise ValueError(f"mask must have the shape of the rows, {xp.shape(rows)}; got {xp.shape(mask)}.{hint}")
    return mask


def rows_of(xp: Backend, x: Array) -> Array:
    """Zeros in the shape of ``x`` without its last axis, whose entries are not read: they may be on other devices."""
    return xp.sum(x[..., :0], axis=-1)


def over_rows(xp: Backend, value: Array, rows: Array) -> Array:
    """``value`` broadcast to the rows' shape, so that it can be cut into blocks."""
    if check.same_shape(xp.shape(value), xp.shape(rows)):
        return value
    return value * xp.ones_like(rows, xp.dtype(value))


def per_class(xp: Backend, name: str, value: Any, count: int | None, like: Array, dtype: str) -> Array | None:
    """One number for each of ``count`` classes, or None."""
    if value is None:
        return None
    array = check.to_array(xp, name, value, dtype, like=like)
    if not check.same_shape(xp.shape(array), (count,)):
        raise ValueError(f"{name} must have shape ({count},), one number per class; got {xp.shape(array)}.")
    return array


def row_weight(xp: Backend, value: Any, rows: Array, logits: Array, dtype: str) -> Array | None:
    """The sample_weight as an array that fits the rows, or None."""
    if value is None:
        return None
    array = check.to_array(xp, "sample_weight", value, dtype, like=logits)
    check.check_weight_shape("sample_weight", xp.shape(array), xp.shape(rows))
    return array


def _labels_and_logits(
    xp: Backend, labels: Any, logits: Array, axis: int, dtype: str, weight: Array | None, num_classes: int | None
) -> tuple[Array, Array, bool]:
    """Labels without padding and logits, with the classes last; and whether the labels are distributions."""
    labels, front, soft = check.check_labels(xp, labels, logits, axis, weight=weight, num_classes=num_classes)
    if front != len(xp.shape(logits)) - 1:
        logits = xp.moveaxis(logits, front, -1)
        labels = xp.moveaxis(labels, front, -1) if soft else labels
    return (xp.cast(without_padding(xp, labels, num_classes), dtype) if soft else labels), logits, soft


def weight_of_ids(xp: Backend, labels: Array, class_weight: Array) -> Array:
    """The class weight of each label; an arbitrary weight for labels that are out of range."""
    last = xp.length(class_weight, 0, xp.dtype(labels)) - 1
    return xp.take(class_weight, xp.clip(labels, 0, last))
