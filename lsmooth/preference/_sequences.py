"""Log-probabilities of sequences of tokens."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import row_mask
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy


def sequence_log_prob(
    labels: Array,
    logits: Array,
    *,
    mask: Array | None = None,
    ignore_index: int | None = -100,
    temperature: float | Array = 1.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    length_normalized: bool = False,
) -> Array:
    """The log-probability of each sequence of tokens.

    ``sum_t log softmax(logits_t)[labels_t]`` over the tokens that are not excluded; their mean if
    ``length_normalized``.

    For a causal language model, which predicts the next token, pass ``labels=ids[:, 1:]`` and
    ``logits=logits[:, :-1]``, with the label -100 for the tokens of the prompt.

    Args:
        labels: token ids, integers, (..., tokens).
        logits: floating point, (..., tokens, vocabulary).
        mask: bool, (..., tokens); tokens that are False are excluded.
        ignore_index: tokens with this label are excluded; None if there is no such label.
        temperature: T > 0, a number, or a tensor that broadcasts to the tokens; the softmax is of ``logits / T``.
        logit_softcap: c > 0; the logits become ``c tanh(logits / c)``, before the temperature.
        num_classes: the size of the vocabulary; later logits are padding.
        class_shards: the group that the vocabulary is spread over, as in `lsmooth.losses.softmax_cross_entropy`.
        length_normalized: whether the sum is divided by the number of tokens that are not excluded.

    Returns:
        (...), one number per sequence, 0 for a sequence without tokens. float64 for float64 logits, else float32.

    Source: Rafailov et al. 2023, "Direct Preference Optimization"; the mean: Meng et al. 2024, "SimPO".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.preference import sequence_log_prob
        >>> logits = np.array([[[2.0, 0.0], [0.0, 0.0], [1.0, 5.0]]])
        >>> sequence_log_prob([[0, 1, -100]], logits).round(6)
        array([-0.820075])
        >>> sequence_log_prob([[0, 1, -100]], logits, length_normalized=True).round(6)
        array([-0.410038])
    """
    xp = backend_of(labels=labels, logits=logits, mask=mask, temperature=temperature)
    logits = check.logits_array(xp, "logits", logits, labels, "sequence_log_prob(labels, logits)")
    labels = _token_ids(xp, labels, logits, "logits")
    losses = softmax_cross_entropy(
        labels,
        logits,
        ignore_index=ignore_index,
        mask=mask,
        temperature=temperature,
        logit_softcap=logit_softcap,
        num_classes=num_classes,
        class_shards=class_shards,
        reduction="none",
    )
    return _over_tokens(xp, losses, labels, mask, ignore_index, length_normalized)


def linear_sequence_log_prob(
    labels: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    mask: Array | None = None,
    ignore_index: int | None = -100,
    temperature: float | Array = 1.0,
    logit_softcap: float | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    length_normalized: bool = False,
    block_size: int | None = None,
) -> Array:
    """The log-probability of each sequence of tokens, from the hidden states before the output layer.

    `sequence_log_prob` of ``hidden @ weight.T + bias``, computed block by block.

    Args:
        labels: token ids, integers, (..., tokens).
        hidden: floating point, (..., tokens, features).
        weight: (vocabulary, features), as in ``torch.nn.Linear``.
        bias: (vocabulary,), or None.
        mask: bool, (..., tokens); tokens that are False are excluded.
        ignore_index: tokens with this label are excluded; None if there is no such label.
        temperature: T > 0, a number, or a tensor that broadcasts to the tokens.
        logit_softcap: c > 0; the logits become ``c tanh(logits / c)``, before the temperature.
        num_classes: the size of the vocabulary; later rows of the weight are padding.
        class_shards: the group that the vocabulary is spread over, as in `lsmooth.losses.softmax_cross_entropy`.
        length_normalized: whether the sum is divided by the number of tokens that are not excluded.
        block_size: tokens per block; chosen from the sizes if None.

    Returns:
        (...), one number per sequence, 0 for a sequence without tokens. float64 for float64 inputs, else float32.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.preference import linear_sequence_log_prob
        >>> hidden, weight = np.array([[[1.0, 0.0], [0.0, 3.0]]]), np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> linear_sequence_log_prob([[0, 2]], hidden, weight).round(6)
        array([-0.334468])
    """
    xp = backend_of(labels=labels, hidden=hidden, weight=weight, bias=bias, mask=mask, temperature=temperature)
    call = "linear_sequence_log_prob(labels, hidden, weight)"
    hidden = check.logits_array(xp, "hidden", hidden, labels, call)
    labels = _token_ids(xp, labels, hidden, "hidden")
    losses = linear_softmax_cross_entropy(
        labels,
        hidden,
        weight,
        bias,
        ignore_index=ignore_index,
        mask=mask,
        temperature=temperature,
        logit_softcap=logit_softcap,
        num_classes=num_classes,
        class_shards=class_shards,
        reduction="none",
        block_size=block_size,
    )
    return _over_tokens(xp, losses, labels, mask, ignore_index, length_normalized)


def _token_ids(xp: Backend, labels: Any, rows: Array, name: str) -> Array:
    """Labels as token ids, one for each row of the logits or hidden states."""
    shape = xp.shape(rows)
    if len(shape) < 2:
        raise ValueError(f"{name} must have at least two axes, the tokens and one more; got shape {shape}.")
    labels = check.to_array(xp, "labels", labels, like=rows)
    if not check.same_shape(xp.shape(labels), shape[:-1]):
        raise ValueError(
            f"labels must be token ids of shape {shape[:-1]} for {name} of shape {shape}; got {xp.shape(labels)}."
        )
    return check.class_ids(xp, labels, kind="token")


def _over_tokens(
    xp: Backend, losses: Array, labels: Array, mask: Any, ignore_index: int | None, length_normalized: bool
) -> Array:
    """The sum, or the mean, of the tokens' log-probabilities."""
    total = 0.0 - xp.sum(losses, axis=-1)  # not -sum, which gives -0 for a sequence without tokens
    if not check.check_flag("length_normalized", length_normalized):
        return total
    dtype = xp.dtype(total)
    count = xp.ones_like(labels, dtype)
    if (counted := row_mask(xp, mask, labels)) is not None:
        count = xp.where(counted, count, 0.0)
    if ignore_index is not None:
        count = xp.where(xp.equal(labels, ignore_index), 0.0, count)
    length = xp.sum(count, axis=-1)
    return total / xp.where(xp.equal(length, 0), 1.0, length)
