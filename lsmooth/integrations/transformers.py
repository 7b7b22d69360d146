"""Losses for Hugging Face's ``Trainer`` and TRL's trainers, correct under gradient accumulation."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth._validation import is_integer_number
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.losses import (
    SoftmaxStatistics,
    linear_softmax_cross_entropy,
    linear_softmax_cross_entropy_with_statistics,
    softmax_cross_entropy,
)

# Hugging Face's Trainer does not count this label.
TRAINER_IGNORE_INDEX = -100


def compute_loss_func(
    outputs: Any,
    labels: Array,
    num_items_in_batch: Array | int | None = None,
    *,
    shift_labels: bool = False,
    ignore_index: int = TRAINER_IGNORE_INDEX,
    **options: Any,
) -> Array:
    """The ``compute_loss_func`` of a ``Trainer``: `softmax_cross_entropy` of the model's logits.

    Pass ``Trainer(..., compute_loss_func=functools.partial(compute_loss_func, label_smoothing=0.1))``; for a
    causal language model, add ``shift_labels=True``.

    The sum over the labels that are not ignored is divided by ``num_items_in_batch``, the Trainer's count over all
    accumulated batches. The accumulated gradient therefore equals that of one large batch, also with smoothing.

    Args:
        outputs: logits (..., classes), a mapping with the key ``"logits"``, or a tuple that starts with the logits.
        labels: class ids, (...).
        num_items_in_batch: the number of labels in the accumulated batches; None for the mean of this batch. With 0
            the loss and its gradient are 0.
        shift_labels: whether position t predicts label t + 1, as in causal language models. The labels are shifted
            and padded; the logits are not copied.
        ignore_index: labels with this id are excluded. With ``num_items_in_batch`` it must be -100, because the
            Trainer counts all other labels.
        **options: further options of `softmax_cross_entropy`.

    Returns:
        A scalar.

    Source: ``transformers.Trainer.compute_loss`` of transformers 5.24.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.integrations.transformers import compute_loss_func
        >>> outputs = {"logits": np.array([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]])}
        >>> round(float(compute_loss_func(outputs, np.array([[0, -100]]), 4, label_smoothing=0.1)), 4)
        0.0932
    """
    _check(labels, num_items_in_batch, ignore_index)
    logits = _logits(outputs)
    xp = backend_of(labels=labels, logits=logits, num_items_in_batch=num_items_in_batch)
    logits = xp.asarray(logits, like=labels if xp.is_array(labels) else None)
    if shift_labels:
        labels = _next_labels(xp, xp.asarray(labels, like=logits), int(ignore_index))
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = softmax_cross_entropy(labels, logits, ignore_index=int(ignore_index), reduction=reduction, **options)
    return _over_items(xp, loss, num_items_in_batch)


def compute_linear_loss(
    labels: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    num_items_in_batch: Array | int | None = None,
    *,
    shift_labels: bool = False,
    ignore_index: int = TRAINER_IGNORE_INDEX,
    **options: Any,
) -> Array:
    """`compute_loss_func` of hidden states, by `linear_softmax_cross_entropy`, which does not materialise the logits.

    Call it in the ``forward`` of a model for ``Trainer`` or TRL's ``SFTTrainer``, and return the loss. The Trainer
    does not divide it again.

    Args:
        labels: class ids, (...).
        hidden: the input of the output layer, (..., features).
        weight: the weight of the output layer, (classes, features).
        bias: (classes,), or None.
        num_items_in_batch: as in `compute_loss_func`.
        shift_labels: as in `compute_loss_func`; the hidden states are not copied.
        ignore_index: as in `compute_loss_func`.
        **options: further options of `linear_softmax_cross_entropy`.

    Returns:
        A scalar.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.integrations.transformers import compute_linear_loss
        >>> hidden, weight = np.array([[[1.0, 0.0], [0.0, 3.0]]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> round(float(compute_linear_loss(np.array([[0, -100]]), hidden, weight, None, 4, label_smoothing=0.1)), 4)
        0.0932
    """
    xp, labels, options = _linear_options(labels, hidden, num_items_in_batch, shift_labels, ignore_index, options)
    return _over_items(xp, linear_softmax_cross_entropy(labels, hidden, weight, bias, **options), num_items_in_batch)


def compute_linear_loss_with_statistics(
    labels: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    num_items_in_batch: Array | int | None = None,
    *,
    shift_labels: bool = False,
    ignore_index: int = TRAINER_IGNORE_INDEX,
    **options: Any,
) -> tuple[Array, SoftmaxStatistics]:
    """`compute_linear_loss`, and the statistics of each label's prediction, for logging.

    Args:
        labels: class ids, (...).
        hidden: the input of the output layer, (..., features).
        weight: the weight of the output layer, (classes, features).
        bias: (classes,), or None.
        num_items_in_batch: as in `compute_loss_func`.
        shift_labels: as in `compute_loss_func`.
        ignore_index: labels with this id are excluded; their statistics are 0, predicted is -1 and correct False.
        **options: further options of `linear_softmax_cross_entropy`.

    Returns:
        The loss, and `lsmooth.losses.SoftmaxStatistics` in the shape of the labels.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.integrations.transformers import compute_linear_loss_with_statistics
        >>> hidden, weight = np.array([[[1.0, 0.0], [0.0, 3.0]]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> loss, statistics = compute_linear_loss_with_statistics(np.array([[0, -100]]), hidden, weight)
        >>> statistics.correct.tolist(), statistics.predicted.tolist()
        ([[True, False]], [[0, -1]])
    """
    xp, labels, options = _linear_options(labels, hidden, num_items_in_batch, shift_labels, ignore_index, options)
    loss, statistics = linear_softmax_cross_entropy_with_statistics(labels, hidden, weight, bias, **options)
    return _over_items(xp, loss, num_items_in_batch), statistics


def _linear_options(
    labels: Any, hidden: Any, num_items_in_batch: Any, shift_labels: bool, ignore_index: int, options: dict[str, Any]
) -> tuple[Backend, Array, dict[str, Any]]:
    """The backend, the shifted labels, and the options of the linear loss."""
    _check(labels, num_items_in_batch, ignore_index)
    xp = backend_of(labels=labels, hidden=hidden, num_items_in_batch=num_items_in_batch)
    if shift_labels:
        labels = _next_labels(xp, xp.asarray(labels, like=hidden if xp.is_array(hidden) else None), int(ignore_index))
    reduction = "mean" if num_items_in_batch is None else "sum"
    return xp, labels, {**options, "ignore_index": int(ignore_index), "reduction": reduction}


def _check(labels: Any, num_items_in_batch: Any, ignore_index: int) -> None:
    if labels is None:
        raise ValueError(
            "labels must be class ids, got None. The Trainer passes the batch's 'labels', but this batch has none: "
            "check the data set's columns and the data collator."
        )
    if not is_integer_number(ignore_index):
        raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}.")
    if num_items_in_batch is not None and ignore_index != TRAINER_IGNORE_INDEX:
        raise ValueError(
            f"ignore_index must be {TRAINER_IGNORE_INDEX} with num_items_in_batch, because the Trainer counts every "
            f"label that is not {TRAINER_IGNORE_INDEX}; got {ignore_index}. Set the labels to ignore to "
            f"{TRAINER_IGNORE_INDEX} in the data collator."
        )


def _over_items(xp: Backend, loss: Array, num_items_in_batch: Any) -> Array:
    """The sum divided by the number of labels in the accumulated batches, 0 if there are none; a mean unchanged."""
    if num_items_in_batch is None:
        return loss
    count = xp.asarray(num_items_in_batch, xp.dtype(loss), like=loss)
    empty = count == 0
    return xp.where(empty, 0.0, loss) / xp.where(empty, 1.0, count)


def _logits(outputs: Any) -> Array:
    if isinstance(outputs, dict):
        if "logits" not in outputs:
            raise ValueError(
                f"outputs must hold 'logits', got a mapping with {', '.join(map(str, outputs)) or 'no keys'}."
            )
        return outputs["logits"]
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def _next_labels(xp: Backend, labels: Array, ignore_index: int) -> Array:
    """The labels shifted by one along the last axis, with ``ignore_index`` at the end."""
    length = xp.shape(labels)[-1]
    if not length:
        return labels
    position = np.arange(length)
    successor = xp.asarray(np.minimum(position + 1, length - 1), like=labels)
    shifted = xp.moveaxis(xp.take(xp.moveaxis(labels, -1, 0), successor), 0, -1)
    return xp.where(xp.asarray(position == length - 1, like=labels), ignore_index, shifted)
