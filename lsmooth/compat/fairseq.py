"""The smoothed loss of fairseq, for the tensors of any backend.

Reproduces fairseq 0.12.3, which distributes eps over the other classes. Before February 2021 fairseq distributed it
over all classes, as `lsmooth.losses.softmax_cross_entropy` does.
"""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.compat import _rows


def label_smoothed_nll_loss(
    lprobs: Array, target: Array, epsilon: float, ignore_index: int | None = None, reduce: bool = True
) -> tuple[Array, Array]:
    """``fairseq.criterions.label_smoothed_cross_entropy.label_smoothed_nll_loss``.

    ``-(1 - eps - e) log p_y - e sum_k log p_k`` with ``e = eps / (classes - 1)``: the label's class has
    the target 1 - eps, each other class e.

    Args:
        lprobs: log-probabilities, (..., classes).
        target: class ids, integers (...) or (..., 1).
        epsilon: eps.
        ignore_index: rows with this class id have a loss of 0.
        reduce: whether both results are summed.

    Returns:
        The smoothed loss and the plain loss ``-log p_y``, in the dtype of ``lprobs``: sums, or the losses of the
        rows, with a last dimension of size 1 if ``ignore_index`` is given, as in fairseq.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.fairseq import label_smoothed_nll_loss
        >>> loss, nll = label_smoothed_nll_loss(np.log([[0.7, 0.2, 0.1]]), np.array([0]), 0.1)
        >>> float(loss.round(6)), float(nll.round(6))
        (0.516609, 0.356675)
    """
    xp = backend_of(lprobs=lprobs, target=target)
    ignore_index = None if ignore_index is None else _rows.class_id("ignore_index", ignore_index)
    log_probs, dtype = _rows.scores(xp, "lprobs", lprobs, like=target)
    if xp.is_array(epsilon):  # may be differentiated
        epsilon = check.to_array(xp, "epsilon", epsilon, xp.dtype(log_probs), like=log_probs)
    else:
        epsilon = _rows.number("epsilon", epsilon)
    target = check.to_array(xp, "target", target, like=log_probs)
    if len(xp.shape(target)) == len(xp.shape(log_probs)):
        target = target[..., 0]
    labels = _rows.class_ids(xp, "target", target, log_probs, ignore_index)
    nll, spread = _rows.nll_and_spread(xp, log_probs, labels, ignore_index=ignore_index)
    if reduce:
        nll, spread = xp.sum(nll), xp.sum(spread)
    loss = _rows.mix_with_others(xp, nll, spread, epsilon, log_probs)
    if ignore_index is not None and not reduce:
        nll, loss = nll[..., None], loss[..., None]
    return xp.cast(loss, dtype), xp.cast(nll, dtype)
