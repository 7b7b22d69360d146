"""Softmax cross-entropy of a linear layer, without materialising its output."""

from __future__ import annotations

from typing import Any, NamedTuple

from lsmooth._rows.checks import RowOptions, Rows, over_rows, prepare, reduced, rows_of
from lsmooth._rows.heads import check_block_size, check_head, head_without_padding
from lsmooth._rows.shards import cross_entropy_call, over_all_rows
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.linear import Call, CrossEntropyOfBlock, linear_rows
from lsmooth.backends.formulas.questions import CrossEntropyAnswer
from lsmooth.backends.options import SoftmaxOptions, without_arrays
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.losses._cross_entropy import kernel_options


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

    Equals `softmax_cross_entropy` of ``hidden @ weight.T + bias``, but the logits of all rows are never in memory
    at once: loss and gradients are computed for one block of rows at a time. Gradients that are not required (a
    frozen head, frozen hidden states, inference) are not computed. A bias of -inf masks a class.

    All logits are computed at once if they are few under ``torch.compile``; under ``torch.func``, in forward mode
    and in exported PyTorch programs; and in JAX if the number of rows is symbolic, as in ``jax.export``.

    Args:
        labels: class ids, integers in the shape of ``hidden`` without ``axis``; or distributions,
            in that shape with the classes along ``axis``.
        hidden: floating point, any shape, features along ``axis``.
        weight: (classes, features), as in ``torch.nn.Linear``; may be shared with an embedding.
        bias: (classes,), or None.
        label_smoothing: as in `softmax_cross_entropy`, and so are the options that follow.
        smoothing_prior: (classes,), non-negative.
        class_weight: (classes,).
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean, even if their hidden states
            are NaN; integer labels only. A sample weight of 0 does not exclude a row: its NaN reaches the gradients.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the feature axis of ``hidden``.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        z_loss: the weight of lse^2, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later rows of the weight are padding and get a zero gradient.
        class_shards: as in `softmax_cross_entropy`. Weight and bias are this member's slice, the hidden states are
            whole and their gradient is summed over the members. The backward pass computes the logits again.
        row_shards: as in `softmax_cross_entropy`; the gradients of weight and bias are those of the member's rows.
        reduction: as in `softmax_cross_entropy`. For ``"none"`` and in float16, logits are computed again in backward.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        A scalar; or the rows' losses, in the shape of ``hidden`` without ``axis``, for
        ``reduction="none"``. float64 for float64 inputs, else float32. Raises as `softmax_cross_entropy` does.

    Source: Hsu et al. 2024, "Liger Kernel", which computes the gradients of a chunk together with its logits.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import linear_softmax_cross_entropy
        >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> float(linear_softmax_cross_entropy([0, 2], hidden, weight, label_smoothing=0.1).round(6))
        0.333901
    """
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    given = given._replace(class_weight=class_weight, class_shards=class_shards)
    head = (hidden, weight, bias)
    checked = check_linear_call(
        labels, head, given, temperature, logit_softcap, block_size, prior=smoothing_prior, z_loss=z_loss
    )
    if checked.rows.spread.classes is not None:
        answer, _ = sharded_call(checked)
        return reduced(checked.rows, answer.losses, answer.label_weight)
    return loss_of(checked)


class LinearCall(NamedTuple):
    """A checked call of the cross-entropy of a linear head."""

    rows: Rows
    options: SoftmaxOptions  # without arrays, which are in `call`
    total: bool
    call: Call
    block_size: int | None
    arrays: SoftmaxOptions  # with arrays


def sharded_call(checked: LinearCall, statistics: bool = False) -> tuple[CrossEntropyAnswer, list[Array]]:
    """The rows' losses and predictions for a head whose classes are spread over members."""
    rows, head = checked.rows, checked.call.heads[0]
    members: Any = rows.spread.classes
    return cross_entropy_call(
        rows.xp, members, head, rows.labels, checked.arrays, rows.soft, statistics, checked.block_size
    )


def block_loss(checked: LinearCall) -> CrossEntropyOfBlock:
    """The loss function of a block."""
    rows, options = checked.rows, checked.options
    return CrossEntropyOfBlock(rows.xp, options, options.scale, checked.total)  # pyright: ignore[reportArgumentType]


def loss_of(checked: LinearCall) -> Array:
    """The loss of a checked call, over the rows of all members."""
    loss = linear_rows(checked.rows.xp, block_loss(checked), checked.call, checked.block_size)
    return over_all_rows(checked.rows, loss)


def check_linear_call(
    labels: Any,
    hidden_weight_bias: tuple[Any, Any, Any],
    given: RowOptions,
    temperature: Any,
    logit_softcap: float | None,
    block_size: int | None,
    *,
    prior: Any = None,
    z_loss: float = 0.0,
) -> LinearCall:
    """Check the arguments of `linear_softmax_cross_entropy`, and remove the padding of the head."""
    hidden, weight, bias = hidden_weight_bias
    xp = backend_of(
        labels=labels,
        hidden=hidden,
        weight=weight,
        bias=bias,
        label_smoothing=given.label_smoothing,
        smoothing_prior=prior,
        class_weight=given.class_weight,
        sample_weight=given.sample_weight,
        mask=given.mask,
        temperature=temperature,
    )
    xp.refuse_spread(hidden, weight)
    block_size = check_block_size(block_size)
    head = check_head(xp, hidden, weight, bias, given.axis, like=labels)
    rows = prepare(xp, labels, head.hidden, given, head.weight)
    options = kernel_options(rows, rows_of(rows.xp, head.weight), prior, temperature, z_loss, logit_softcap)
    head = head_without_padding(xp, head._replace(hidden=rows.logits), rows.own_classes)
    numbers, along_rows, along_classes = without_arrays(xp, options._replace(num_classes=None))
    like = rows_of(xp, rows.labels) if rows.soft else rows.labels
    along_rows = {"labels": rows.labels, **{name: over_rows(xp, x, like) for name, x in along_rows.items()}}
    return LinearCall(rows, numbers, options.total, Call((head,), along_rows, along_classes), block_size, options)
