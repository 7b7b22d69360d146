"""Statistics of the softmax of each row: log-probability, entropy, log-sum-exp and prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lsmooth.backends.formulas.rows import MINUS_INFINITY, logits_over_temperature, over_temperature, row_maximum
from lsmooth.backends.formulas.softmax import ShiftedRows, capped_logits, label_nll, seen_logits
from lsmooth.backends.options import SOFTMAX, SoftmaxOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend


class RowStatistics(NamedTuple):
    """Of each row (...), of the softmax p of the logits after soft-cap and temperature."""

    log_prob: Array
    """``sum_k t_k log p_k``: of the given label, without smoothing and class weights."""
    entropy: Array
    """``-sum_k p_k log p_k``."""
    log_sum_exp: Array
    predicted: Array
    """int64, the first class with the largest logit; -1 in ignored rows, whose other statistics are 0."""


def row_statistics(xp: Backend, logits: Array, labels: Array, options: SoftmaxOptions = SOFTMAX) -> RowStatistics:
    """The statistics of the softmax of `softmax_cross_entropy`, for the same arguments."""
    counted, temperature = options.counted, options.temperature
    logits = seen_logits(xp, logits, options)
    predicted = xp.cast(xp.argmax(xp.stop_gradient(logits), axis=-1), "int64")
    logits = capped_logits(xp, logits, options.logit_softcap)
    rows = ShiftedRows(xp, logits, row_maximum(xp, logits), temperature)
    log_sum = rows.log_sum_exp()
    log_prob = -label_nll(rows, log_sum, labels)
    z = logits_over_temperature(xp, logits - rows.shift[..., None], temperature)
    masked = xp.equal(z, MINUS_INFINITY)
    # Do not form log p of each class: a compiler would store it, which takes another pass.
    entropy = log_sum - xp.sum(xp.exp(z) * xp.where(masked, 0.0, z), axis=-1) / xp.exp(log_sum)
    log_sum_exp = log_sum + over_temperature(rows.shift, temperature)
    if counted is None:
        return RowStatistics(log_prob, entropy, log_sum_exp, predicted)
    log_prob, entropy, log_sum_exp = (xp.where(counted, x, 0.0) for x in (log_prob, entropy, log_sum_exp))
    return RowStatistics(log_prob, entropy, log_sum_exp, xp.where(counted, predicted, -1))
