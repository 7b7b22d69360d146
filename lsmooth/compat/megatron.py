"""The smoothed loss of Megatron-LM, for the tensors of any backend.

Reproduces Megatron-Core 0.15 on one tensor-parallel rank, with the same result on any number of ranks. Megatron
itself smooths over each rank's slice of the vocabulary, so that its loss is wrong and differs between ranks
(Megatron-LM 737); this is not reproduced.
"""

from __future__ import annotations

from typing import Any

from lsmooth._rows.shards import cross_entropy_call
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.linear import Head
from lsmooth.backends.options import SOFTMAX
from lsmooth.compat import _rows


def vocab_parallel_cross_entropy(
    vocab_parallel_logits: Array, target: Array, label_smoothing: float = 0.0, tp_group: Any = None
) -> Array:
    """``megatron.core.tensor_parallel.vocab_parallel_cross_entropy``.

    ``-(1 - e) log p_y - (e / classes) sum_k log p_k`` with ``e = eps classes / (classes - 1)``: the label's class
    has the target 1 - eps, each other class eps / (classes - 1).

    Args:
        vocab_parallel_logits: logits, (..., classes); with a ``tp_group``, this rank's slice of them.
        target: class ids of the whole vocabulary, integers (...).
        label_smoothing: eps, below 1; no smoothing at 0 and below.
        tp_group: the group that the vocabulary is split over, as ``class_shards`` of
            `lsmooth.losses.softmax_cross_entropy`; None for no split, unlike in Megatron, whose default is
            ``parallel_state.get_tensor_model_parallel_group()``.

    Returns:
        (...), the loss of each row, the same on every rank: float64 for float64 logits, for which Megatron returns
        float32, else float32.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.megatron import vocab_parallel_cross_entropy
        >>> vocab_parallel_cross_entropy(np.log([[0.7, 0.2, 0.1]]), np.array([0]), 0.1).round(6)
        array([0.516609])
    """
    xp = backend_of(vocab_parallel_logits=vocab_parallel_logits, target=target)
    label_smoothing = _rows.number("label_smoothing", label_smoothing)
    if label_smoothing >= 1.0:
        raise ValueError(f"label_smoothing must be below 1, got {label_smoothing}.")
    logits, _ = _rows.scores(xp, "vocab_parallel_logits", vocab_parallel_logits, like=target)
    if tp_group is not None:
        return _of_slice(
            xp, logits, _rows.class_ids(xp, "target", target, logits, are_all=False), label_smoothing, tp_group
        )
    log_probs = _rows.log_softmax(xp, logits)
    nll, spread = _rows.nll_and_spread(xp, log_probs, _rows.class_ids(xp, "target", target, log_probs))
    if label_smoothing <= 0.0:
        return nll
    return _rows.mix_with_others(xp, nll, spread, label_smoothing, log_probs)


def _of_slice(xp: Backend, logits: Array, target: Array, eps: Any, tp_group: Any) -> Array:
    """The losses of the rows, from a rank's slice of the vocabulary."""
    members = xp.members(tp_group, "tp_group")
    smoothed = eps > 0.0
    options = SOFTMAX._replace(label_smoothing=1.0) if smoothed else SOFTMAX
    answer, _ = cross_entropy_call(xp, members, Head(logits, None), target, options, soft=False)
    if not smoothed:
        return answer.losses
    num_classes = members.total(xp.shape(logits)[-1])
    share = eps * num_classes / (num_classes - 1)
    return share * answer.losses - (1.0 - share) * answer.log_prob
