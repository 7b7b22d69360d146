"""Softmax cross-entropy of a linear layer's output, which is never held whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.linear import Call, CrossEntropyOfBlock, Head, linear_rows
from lsmooth.backends.formulas.questions import CrossEntropyAnswer
from lsmooth.backends.options import SoftmaxOptions, without_arrays
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.losses._cross_entropy import kernel_options
from lsmooth.losses._rows import RowOptions, Rows, over_rows, prepare, reduced, rows_of
from lsmooth.losses._shards import cross_entropy_call, over_all_rows


@over_ragged_rows("hidden")
def linear_softmax_cross_entropy(
    labels: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    label_smoothing: float | Array = 0.0,
    smoothing_prior: Array | None = None,
    class_weight: Array | None = None,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    temperature: float | Array = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    block_size: int | None = None,
) -> Array:
    """Cross-entropy between smoothed labels and the softmax of a linear layer's output.

    `softmax_cross_entropy` of ``hidden @ weight.T + bias``, the same number, but the logits of all
    rows never lie in memory together: they are computed for a block of rows, and with them that
    block's part of the loss and of the gradients. What needs no gradient (a frozen head, frozen
    hidden states, inference) costs none. Masked classes have a bias of -inf.

    So it is under ``torch.compile``, but for logits known to be few, which are left to the compiler. Under
    ``torch.func``, in forward mode and in what is exported, PyTorch is given the loss of the logits as a whole.
    JAX computes all logits together where the number of rows is symbolic, as in ``jax.export``: a block needs a number.

    Args:
        labels: class ids, integers in the shape of ``hidden`` without ``axis``; or distributions,
            in that shape with the classes along ``axis``.
        hidden: floating point, any shape, features along ``axis``.
        weight: (classes, features), as ``torch.nn.Linear`` keeps it. It may be an embedding's too:
            the gradients add up.
        bias: (classes,), or None.
        label_smoothing: as in `softmax_cross_entropy`, and so are the options that follow.
        smoothing_prior: (classes,), non-negative.
        class_weight: (classes,).
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label (integer labels only) cost nothing and count in no mean,
            whatever their hidden states hold. A row with a sample_weight of 0 still counts: its NaN
            makes the gradients NaN.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the feature axis of ``hidden``.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        z_loss: the weight of lse^2, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes, where rows of the weight from there on are padding: they have a zero
            gradient. Per-class options have this length.
        class_shards: as in `softmax_cross_entropy`: the weight and the bias are this member's slice, and the hidden
            states are those of all, whose gradient the members add up. The logits are computed once more, when the
            gradient is.
        row_shards: as in `softmax_cross_entropy`; the gradients of weight and bias are those of the member's rows.
        reduction: as in `softmax_cross_entropy`. For ``"none"``, and in float16, the logits are computed
            a second time in the backward pass, when what multiplies each row is known.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        A scalar; or the rows' losses, in the shape of ``hidden`` without ``axis``, for
        ``reduction="none"``. float64 for float64 inputs, else float32. Raises as `softmax_cross_entropy` does.

    Source: Liger Kernel (Hsu et al. 2024) forms the gradients of a chunk with its logits; here every
        option of the loss takes part.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import linear_softmax_cross_entropy
        >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> float(linear_softmax_cross_entropy([0, 2], hidden, weight, label_smoothing=0.1).round(6))
        0.333901
    """
    checked = check_linear_call(
        labels,
        hidden,
        weight,
        bias,
        label_smoothing=label_smoothing,
        smoothing_prior=smoothing_prior,
        class_weight=class_weight,
        sample_weight=sample_weight,
        ignore_index=ignore_index,
        mask=mask,
        axis=axis,
        temperature=temperature,
        z_loss=z_loss,
        logit_softcap=logit_softcap,
        num_classes=num_classes,
        class_shards=class_shards,
        row_shards=row_shards,
        reduction=reduction,
        block_size=block_size,
    )
    if checked.rows.spread.classes is not None:
        answer, _ = sharded_call(checked)
        return reduced(checked.rows, answer.losses, answer.label_weight)
    return loss_of(checked)


class LinearCall(NamedTuple):
    """A checked call of the cross-entropy of a linear head."""

    rows: Rows
    options: SoftmaxOptions  # without the arrays, which the call has
    total: bool
    call: Call
    block_size: int | None
    arrays: SoftmaxOptions  # the options with their arrays


def sharded_call(checked: LinearCall, statistics: bool = False) -> tuple[CrossEntropyAnswer, list[Array]]:
    """What the members find of a head whose classes are spread over them."""
    rows, head = checked.rows, checked.call.heads[0]
    members: Any = rows.spread.classes
    return cross_entropy_call(
        rows.xp, members, head, rows.labels, checked.arrays, rows.soft, statistics, checked.block_size
    )


def block_loss(checked: LinearCall) -> CrossEntropyOfBlock:
    """What gives the loss of a block."""
    rows, options = checked.rows, checked.options
    return CrossEntropyOfBlock(rows.xp, options, options.scale, checked.total)  # pyright: ignore[reportArgumentType]


def loss_of(checked: LinearCall) -> Array:
    """The loss of a checked call, over the rows of all members."""
    loss = linear_rows(checked.rows.xp, block_loss(checked), checked.call, checked.block_size)
    return over_all_rows(checked.rows, loss)


def check_linear_call(
    labels: Any,
    hidden: Any,
    weight: Any,
    bias: Any,
    *,
    smoothing_prior: Any = None,
    temperature: Any = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    block_size: int | None = None,
    axis: int = -1,
    label_smoothing: Any = 0.0,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    mask: Any = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "none",
) -> LinearCall:
    """The arguments of `linear_softmax_cross_entropy`, checked; the head has no padding left."""
    xp = backend_of(
        labels=labels,
        hidden=hidden,
        weight=weight,
        bias=bias,
        label_smoothing=label_smoothing,
        smoothing_prior=smoothing_prior,
        class_weight=class_weight,
        sample_weight=sample_weight,
        mask=mask,
        temperature=temperature,
    )
    xp.refuse_spread(hidden, weight)
    block_size = check_block_size(block_size)
    head = check_head(xp, hidden, weight, bias, axis, like=labels)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    given = given._replace(class_weight=class_weight, class_shards=class_shards)
    rows = prepare(xp, labels, head.hidden, given, head.weight)
    options = kernel_options(rows, rows_of(rows.xp, head.weight), smoothing_prior, temperature, z_loss, logit_softcap)
    head = head_without_padding(xp, head._replace(hidden=rows.logits), rows.own_classes)
    numbers, along_rows, along_classes = without_arrays(xp, options._replace(num_classes=None))
    like = rows_of(xp, rows.labels) if rows.soft else rows.labels
    along_rows = {"labels": rows.labels, **{name: over_rows(xp, x, like) for name, x in along_rows.items()}}
    return LinearCall(rows, numbers, options.total, Call((head,), along_rows, along_classes), block_size, options)


def head_without_padding(xp: Backend, head: Head, num_classes: int | None, prefix: str = "") -> Head:
    """The head of the first ``num_classes`` classes; of all if None."""
    given = xp.shape(head.weight)[0]
    if num_classes is None or check.check_count("num_classes", num_classes) == given:
        return head
    if given is not None and num_classes > given:
        raise ValueError(
            f"num_classes must be at most {given}, the number of classes of {prefix}weight; got {num_classes}."
        )
    bias = None if head.bias is None else head.bias[:num_classes]
    return head._replace(weight=head.weight[:num_classes, ...], bias=bias)


def check_block_size(block_size: int | None) -> int | None:
    """A positive integer as Python's int, or None."""
    if block_size is not None and not (check.is_integer_number(block_size) and block_size > 0):
        raise ValueError(f"block_size must be a positive number of rows, or None; got {block_size!r}.")
    return int(block_size) if isinstance(block_size, np.integer) else block_size


def check_head(
    xp: Backend, hidden: Any, weight: Any, bias: Any, axis: int = -1, like: Any = None, prefix: str = ""
) -> Head:
    """Hidden states, weight and bias that fit one another, in the widest of their dtypes."""
    if callable(weight):
        raise TypeError(
            f"{prefix}weight must be an array (classes, features), got a layer ({type(weight).__name__}); pass "
            f"{'its kernel, transposed' if hasattr(weight, 'kernel') else 'layer.weight'}, and layer.bias as "
            f"{prefix}bias."
        )
    order = ("labels", like, "linear_softmax_cross_entropy(labels, hidden, weight)") if not prefix else None
    others = [x for x in (weight, like) if xp.is_array(x)]
    first = hidden if xp.is_array(hidden) else others[0] if others else None
    hidden = check.float_array(xp, f"{prefix}hidden", hidden, first, order)
    for other in others:  # a DTensor among them makes one of the hidden states, and these of the weight
        hidden = xp.asarray(hidden, like=other)
    weight = check.float_array(xp, f"{prefix}weight", weight, hidden, order)
    shape = xp.shape(hidden)
    features = shape[check.check_axis(axis, shape)]
    if len(xp.shape(weight)) != 2 or not check.same_shape(xp.shape(weight)[1:], (features,)):
        transposed = len(xp.shape(weight)) == 2 and xp.shape(weight)[0] == features
        hint = " Transpose it: the kernels of Keras and Flax are (features, classes)." if transposed else ""
        raise ValueError(
            f"{prefix}weight must have shape (classes, features), and {prefix}hidden, of shape {shape}, has {features} "
            f"features along axis {axis}; got {xp.shape(weight)}.{hint}"
        )
    if bias is not None:
        bias = check.float_array(xp, f"{prefix}bias", bias, like=hidden)
        if not check.same_shape(xp.shape(bias), xp.shape(weight)[:1]):
            raise ValueError(
                f"{prefix}bias must have shape {xp.shape(weight)[:1]}, one number a class; got {xp.shape(bias)}."
            )
    if check.is_validating(xp, weight):
        check.check_not_nan(xp, f"{prefix}weight", weight)
    dtype = _common_dtype([xp.dtype(x) for x in (hidden, weight) if x is not None])
    cast = [x if x is None or xp.dtype(x) == dtype else xp.cast(x, dtype) for x in (hidden, weight, bias)]
    return Head(*cast)


def _common_dtype(dtypes: list[str]) -> str:
    """The one dtype; of two, the wider, and float32 for the two half precisions."""
    if set(dtypes) == {"bfloat16", "float16"}:
        return "float32"
    return min(dtypes, key=check.FLOATS.index)
