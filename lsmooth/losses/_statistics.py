"""Statistics of each row beside its loss: the label's log-probability, the entropy, the prediction."""

from __future__ import annotations

from typing import Any, NamedTuple

from lsmooth._rows.checks import RowOptions, Rows, prepare, reduced
from lsmooth._rows.shards import cross_entropy_call, over_all_rows
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.linear import Call, Head, StatisticsOfBlock, linear_rows, unstacked
from lsmooth.backends.formulas.questions import CrossEntropyAnswer
from lsmooth.backends.formulas.statistics import RowStatistics
from lsmooth.backends.options import SOFTMAX
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.losses._cross_entropy import kernel_options
from lsmooth.losses._linear import LinearCall, block_loss, check_linear_call, loss_of, sharded_call


class SoftmaxStatistics(NamedTuple):
    """Statistics of each row, with p the softmax of the logits after soft-cap and temperature."""

    log_prob: Array
    """log p of the label; of a distribution t, ``sum_k t_k log p_k``. Differentiable."""
    entropy: Array
    """``-sum_k p_k log p_k``, in nats. Differentiable."""
    log_sum_exp: Array
    """``log(sum_k exp(z_k))`` of the logits after soft-cap and temperature. Differentiable."""
    predicted: Array
    """An integer, the class with the largest logit; the first one in a tie."""
    correct: Array
    """A bool, whether ``predicted`` is the label or the most probable class of a distribution."""


@over_ragged_rows("logits")
def softmax_statistics(
    labels: Array,
    logits: Array,
    *,
    temperature: float | Array = 1.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    axis: int = -1,
) -> SoftmaxStatistics:
    """The label's log-probability, the entropy, the log-sum-exp and the prediction of each row.

    All are computed for ``p = softmax(c tanh(z / c) / T)``, the softmax of the loss. If the label is outside
    0..classes-1, such as -100, log_prob is NaN and correct False; the other statistics do not depend on the label.

    Args:
        labels: class ids, in the shape of the logits without ``axis``; or distributions, in that of the logits.
        logits: floating point, any shape, classes along ``axis``.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later logits are padding, as in `softmax_cross_entropy`.
        class_shards: as in `softmax_cross_entropy`; the logits are this member's slice of the classes.
        axis: the class axis.

    Returns:
        `SoftmaxStatistics`, each in the shape of the logits without ``axis``: float64 for float64
        logits, else float32; int64, int32 on JAX without float64; and bool. Raises as `softmax_cross_entropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import softmax_statistics
        >>> statistics = softmax_statistics([0, 1], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
        >>> statistics.log_prob.round(4).tolist(), statistics.correct.tolist()
        ([-0.2395, -3.0949], [True, False])
    """
    return softmax_cross_entropy_with_statistics(
        labels,
        logits,
        temperature=temperature,
        logit_softcap=logit_softcap,
        num_classes=num_classes,
        class_shards=class_shards,
        axis=axis,
        reduction="none",
    )[1]


@over_ragged_rows("logits")
def softmax_cross_entropy_with_statistics(
    labels: Array,
    logits: Array,
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
) -> tuple[Array, SoftmaxStatistics]:
    """`softmax_cross_entropy`, and `softmax_statistics` of the same rows.

    Smoothing, weights and reduction do not affect the statistics: log_prob is that of the unsmoothed label.

    Args:
        labels: class ids or distributions, as in `softmax_cross_entropy`, which describes all options.
        logits: floating point, any shape, classes along ``axis``.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        smoothing_prior: (classes,), non-negative.
        class_weight: (classes,).
        sample_weight: weights of the rows of the loss.
        ignore_index: rows with this label are excluded; their statistics are 0, predicted is -1 and correct False.
        mask: bool, in the shape of the rows; rows that are False are excluded in the same way.
        axis: the class axis.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        z_loss: the weight of lse^2, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later logits are padding.
        class_shards: as in `softmax_cross_entropy`.
        row_shards: as in `softmax_cross_entropy`; the statistics are those of the member's rows.
        reduction: of the loss.

    Returns:
        The loss, equal to that of `softmax_cross_entropy`, and the statistics. Raises as `softmax_cross_entropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import softmax_cross_entropy_with_statistics
        >>> logits = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        >>> loss, statistics = softmax_cross_entropy_with_statistics([0, 2], logits, label_smoothing=0.1)
        >>> float(loss.round(6)), float(statistics.correct.mean())
        (0.333901, 1.0)
    """
    xp = backend_of(
        labels=labels,
        logits=logits,
        label_smoothing=label_smoothing,
        smoothing_prior=smoothing_prior,
        class_weight=class_weight,
        sample_weight=sample_weight,
        mask=mask,
        temperature=temperature,
    )
    xp.refuse_spread(logits)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    given = given._replace(class_weight=class_weight, class_shards=class_shards)
    rows = prepare(xp, labels, logits, given)
    options = kernel_options(rows, rows.logits, smoothing_prior, temperature, z_loss, logit_softcap)
    if rows.spread.classes is not None:
        head = Head(rows.logits, None)
        answer, predicted = cross_entropy_call(xp, rows.spread.classes, head, rows.labels, options, rows.soft, True)
        return reduced(rows, answer.losses, answer.label_weight), _of_answer(rows, answer, predicted)
    losses, statistics = xp.softmax_cross_entropy_with_statistics(rows.logits, rows.labels, options)
    return over_all_rows(rows, losses), with_correct(xp, rows, statistics)


@over_ragged_rows("hidden")
def linear_softmax_statistics(
    labels: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    temperature: float | Array = 1.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    axis: int = -1,
    block_size: int | None = None,
) -> SoftmaxStatistics:
    """`softmax_statistics` of ``hidden @ weight.T + bias``, computed block by block.

    The backward pass computes the logits of each block again.

    Args:
        labels: class ids, integers in the shape of ``hidden`` without ``axis``; or distributions.
        hidden: floating point, any shape, features along ``axis``.
        weight: (classes, features), as in ``torch.nn.Linear``.
        bias: (classes,), or None.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later rows of the weight are padding.
        class_shards: as in `linear_softmax_cross_entropy`; the weight is this member's slice of the classes.
        axis: the feature axis of ``hidden``.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        `SoftmaxStatistics`, each in the shape of ``hidden`` without ``axis``; differentiable with
        respect to the hidden states, the weight and the bias. Raises as `softmax_cross_entropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import linear_softmax_statistics
        >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> linear_softmax_statistics([0, 2], hidden, weight).log_prob.round(4).tolist()
        [-0.2395, -0.0949]
    """
    given = RowOptions(axis=axis, num_classes=num_classes, class_shards=class_shards, reduction="none")
    checked = check_linear_call(labels, (hidden, weight, bias), given, temperature, logit_softcap, block_size)
    if checked.rows.spread.classes is not None:
        return _of_answer(checked.rows, *sharded_call(checked, statistics=True))
    return _unstacked(checked, linear_rows(checked.rows.xp, *_statistics_call(checked), checked.block_size))


@over_ragged_rows("hidden")
def linear_softmax_cross_entropy_with_statistics(
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
) -> tuple[Array, SoftmaxStatistics]:
    """`linear_softmax_cross_entropy`, and `linear_softmax_statistics` of the same rows.

    Args:
        labels: class ids or distributions, as in `linear_softmax_cross_entropy`, which describes all options.
        hidden: floating point, any shape, features along ``axis``.
        weight: (classes, features).
        bias: (classes,), or None.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        smoothing_prior: (classes,), non-negative.
        class_weight: (classes,).
        sample_weight: weights of the rows of the loss.
        ignore_index: rows with this label are excluded; their statistics are 0, predicted is -1 and correct False.
        mask: bool, in the shape of the rows; rows that are False are excluded in the same way.
        axis: the feature axis of ``hidden``.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        z_loss: the weight of lse^2, at least 0.
        logit_softcap: c > 0; the logits become c tanh(z / c), before the temperature.
        num_classes: the number of classes; later rows of the weight are padding.
        class_shards: as in `linear_softmax_cross_entropy`.
        row_shards: as in `softmax_cross_entropy`; the statistics are those of the member's rows.
        reduction: of the loss.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        The loss, and the statistics. Raises as `softmax_cross_entropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import linear_softmax_cross_entropy_with_statistics
        >>> hidden, weight = np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> loss, statistics = linear_softmax_cross_entropy_with_statistics([0, 2], hidden, weight)
        >>> float(loss.round(6)), statistics.predicted.tolist()
        (0.167234, [0, 2])
    """
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    given = given._replace(class_weight=class_weight, class_shards=class_shards)
    head = (hidden, weight, bias)
    checked = check_linear_call(
        labels, head, given, temperature, logit_softcap, block_size, prior=smoothing_prior, z_loss=z_loss
    )
    if checked.rows.spread.classes is not None:
        answer, predicted = sharded_call(checked, statistics=True)
        loss = reduced(checked.rows, answer.losses, answer.label_weight)
        return loss, _of_answer(checked.rows, answer, predicted)
    xp, statistics, call = checked.rows.xp, *_statistics_call(checked)
    if xp.dtype(checked.call.heads[0].weight) == "float16":  # `loss_of` scales after the products, lest they overflow
        stacked = linear_rows(xp, statistics, call, checked.block_size)
        return loss_of(checked), _unstacked(checked, stacked)
    losses, stacked = xp.linear_rows_with_statistics(
        block_loss(checked), checked.call, statistics, call, checked.block_size
    )
    return over_all_rows(checked.rows, losses), _unstacked(checked, stacked)


def _unstacked(checked: LinearCall, stacked: Array) -> SoftmaxStatistics:
    rows = checked.rows
    return with_correct(rows.xp, rows, unstacked(rows.xp, stacked, rows.counted))


def _statistics_call(checked: LinearCall) -> tuple[StatisticsOfBlock, Call]:
    """The statistics of a block, and the call with only the arrays that they depend on."""
    options, call, of_loss = checked.options, checked.call, checked.options.OF_LOSS
    along_rows, shared = ({name: x for name, x in arrays.items() if name not in of_loss} for arrays in call[1:])
    options = options._replace(**{name: getattr(SOFTMAX, name) for name in of_loss})
    return StatisticsOfBlock(checked.rows.xp, options), call._replace(rows=along_rows, shared=shared)


def with_correct(xp: Backend, rows: Rows, statistics: RowStatistics) -> SoftmaxStatistics:
    """The statistics of a backend, and whether the predictions equal the labels."""
    labels = xp.argmax(rows.labels, axis=-1) if rows.soft else rows.labels
    return SoftmaxStatistics(*statistics, xp.equal(statistics.predicted, xp.cast(labels, "int64")))


def _of_answer(rows: Rows, answer: CrossEntropyAnswer, predicted: list[Array]) -> SoftmaxStatistics:
    """The statistics of a call with ``class_shards``."""
    xp = rows.xp
    own = RowStatistics(answer.log_prob, answer.entropy, answer.log_sum_exp, predicted[0])
    labels = predicted[1] if rows.soft else xp.cast(rows.labels, "int64")
    correct = xp.equal(predicted[0], labels)
    return SoftmaxStatistics(*own, correct if rows.counted is None else correct & rows.counted)
