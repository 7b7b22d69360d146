"""A loss for Hugging Face's ``Trainer``, right under gradient accumulation."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array
from lsmooth.losses import softmax_cross_entropy


def compute_loss_func(
    outputs: Any,
    labels: Array,
    num_items_in_batch: Array | int | None = None,
    *,
    shift_labels: bool = False,
    ignore_index: int = -100,
    **options: Any,
) -> Array:
    """The ``compute_loss_func`` of a ``Trainer``: `softmax_cross_entropy` of the model's logits.

    ``Trainer(..., compute_loss_func=functools.partial(compute_loss_func, label_smoothing=0.1))``; for a
    causal language model with ``shift_labels=True`` besides.

    The sum over the labels that are not ignored is divided by ``num_items_in_batch``, which the
    Trainer counts over all the batches that it accumulates: the gradient is that of one large batch,
    smoothing included.

    Args:
        outputs: what the model returned: with ``logits``, (..., classes), or a tuple that starts with them.
        labels: class ids, (...).
        num_items_in_batch: how many labels the accumulated batches hold; None for the mean of this one.
        shift_labels: whether position t predicts label t + 1, as in causal language models.
        ignore_index: labels with this id cost nothing.
        **options: further options of `softmax_cross_entropy`.

    Returns:
        A scalar.

    Source: ``transformers.Trainer.compute_loss`` of transformers 5.24.

    Example:
        >>> import numpy as np
        >>> from lsmooth.integrations.transformers import compute_loss_func
        >>> outputs = {"logits": np.array([[[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]])}
        >>> round(float(compute_loss_func(outputs, np.array([[0, -100]]), 4, label_smoothing=0.1)), 4)
        0.0932
    """
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    if shift_labels:
        logits, labels = logits[..., :-1, :], labels[..., 1:]
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = softmax_cross_entropy(labels, logits, ignore_index=ignore_index, reduction=reduction, **options)
    return loss if num_items_in_batch is None else loss / num_items_in_batch
