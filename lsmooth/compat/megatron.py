"""The smoothed loss of Megatron-LM, on any backend's tensors, for a vocabulary that is not split.

Repeats Megatron-Core 0.15 on one tensor-parallel rank. On more of them Megatron smooths over
each rank's slice of the vocabulary, so that its loss is wrong and differs by rank
(Megatron-LM 737); that is not repeated.
"""

from __future__ import annotations

from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


def vocab_parallel_cross_entropy(vocab_parallel_logits: Array, target: Array, label_smoothing: float = 0.0) -> Array:
    """``megatron.core.tensor_parallel.vocab_parallel_cross_entropy`` of one rank.

    ``-(1 - e) log p_y - (e / classes) sum_k log p_k`` with ``e = eps classes / (classes - 1)``:
    the label's own class keeps 1 - eps, each of the others gets eps / (classes - 1).

    Args:
        vocab_parallel_logits: the logits of the whole vocabulary, (..., classes).
        target: class ids, integers (...).
        label_smoothing: eps, below 1; no smoothing at 0 and below.

    Returns:
        (...), the loss of each row: float64 for float64 logits, else float32. (Megatron casts
        float64 to float32.)

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, ``label_smoothing`` is 1 or more, or one class alone is smoothed.

    Source: Megatron-Core 0.15, ``vocab_parallel_cross_entropy``.

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
    log_probs = _rows.log_softmax(xp, logits)
    nll, spread = _rows.nll_and_spread(xp, log_probs, _rows.class_ids(xp, "target", target, log_probs))
    if label_smoothing <= 0.0:
        return nll
    return _rows.mix_with_others(xp, nll, spread, label_smoothing, log_probs)
