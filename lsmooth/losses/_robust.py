"""Cross-entropies for noisy labels."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import RowOptions, finish, prepare_logits
from lsmooth.backends import Array
from lsmooth.backends.formulas.rows import entropy, expectation
from lsmooth.backends.formulas.softmax import log_probabilities, smoothed_targets
from lsmooth.backends.ragged import over_ragged_rows


@over_ragged_rows("logits")
def generalized_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    q: float = 0.7,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """A loss between the cross-entropy and the mean absolute error, which is robust to label noise.

    ``sum_k t_k (1 - p_k^q) / q``, with p = softmax(z) and t the smoothed label: -log p in the limit q = 0, and
    1 - p at q = 1. The loss is bounded by 1 / q.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        q: in [0, 1]; 0 is the cross-entropy.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean; integer labels only.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, as in `softmax_cross_entropy`.
        row_shards: the group whose members hold the rows, as in `softmax_cross_entropy`.
        reduction: as in `softmax_cross_entropy`.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 logits, else float32.
        Raises as `softmax_cross_entropy` does.

    Source: Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training Deep Neural Networks
        with Noisy Labels".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import generalized_cross_entropy
        >>> float(generalized_cross_entropy([0, 1], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).round(6))
        0.742709
    """
    q = check.check_range("q", q, 0.0, 1.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, logits = prepare_logits(labels, logits, given)
    targets = smoothed_targets(xp, rows.labels, logits, rows.label_smoothing)
    log_p = log_probabilities(xp, logits).p
    if q == 0:
        return finish(rows, expectation(xp, targets, -log_p))
    # 1 - exp(x) = -2 t / (1 - t) with t = tanh(x / 2): exact where p is next to 1.
    half = xp.tanh(0.5 * q * log_p)
    return finish(rows, expectation(xp, targets, -2.0 * half / (1.0 - half) / q))


@over_ragged_rows("logits")
def symmetric_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Cross-entropy plus the cross-entropy of the labels under the prediction.

    ``sum_k (-alpha q_k log p_k - beta p_k max(log q_k, A))``, with p = softmax(z), q the smoothed label
    and A in place of log 0. For a one-hot label the second term is ``-A beta (1 - p_y)``.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        alpha: the weight of the cross-entropy, at least 0.
        beta: the weight of the reverse one, at least 0.
        log_zero: A, below 0.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean; integer labels only.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, as in `softmax_cross_entropy`.
        row_shards: the group whose members hold the rows, as in `softmax_cross_entropy`.
        reduction: as in `softmax_cross_entropy`.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 logits, else float32.
        Raises as `softmax_cross_entropy` does.

    Source: Wang et al. 2019, "Symmetric Cross Entropy for Robust Learning with Noisy Labels". The
        authors' code clips q at 1e-4, which is ``log_zero=-9.21``; the paper's A is -4.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import symmetric_cross_entropy
        >>> float(symmetric_cross_entropy([0, 1], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).round(6))
        2.502194
    """
    alpha = check.check_at_least("alpha", alpha, 0.0)
    beta = check.check_at_least("beta", beta, 0.0)
    log_zero = check.check_number("log_zero", log_zero)
    if not float("-inf") < log_zero < 0.0:
        raise ValueError(f"log_zero must be a finite number below 0, got {log_zero}.")
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, logits = prepare_logits(labels, logits, given)
    targets = smoothed_targets(xp, rows.labels, logits, rows.label_smoothing)
    log_p = log_probabilities(xp, logits).p
    log_q = xp.log(xp.where(xp.equal(targets, 0), 1.0, targets))
    log_q = xp.where(xp.equal(targets, 0) | (log_q < log_zero), log_zero, log_q)
    forward = expectation(xp, targets, -log_p)
    return finish(rows, alpha * forward - beta * xp.sum(xp.exp(log_p) * log_q, axis=-1))


@over_ragged_rows("logits")
def bootstrap_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    beta: float = 0.95,
    hard: bool = False,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Cross-entropy with a mixture of the label and the model's own prediction.

    ``-sum_k (beta q_k + (1 - beta) r_k) log p_k``, with p = softmax(z), q the smoothed label, and r either p
    (soft) or the one-hot form of the largest p (hard). The gradient flows through r = p, so that the soft form is
    a cross-entropy with an entropy penalty.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        beta: the weight of the label, in [0, 1]; 0.95 (soft) and 0.8 (hard) in the paper.
        hard: whether r is one-hot.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean; integer labels only.
        mask: bool, in the shape of the rows; rows that are False are excluded, with soft labels too.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, as in `softmax_cross_entropy`.
        row_shards: the group whose members hold the rows, as in `softmax_cross_entropy`.
        reduction: as in `softmax_cross_entropy`.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 logits, else float32.
        Raises as `softmax_cross_entropy` does.

    Source: Reed et al. 2014, "Training Deep Neural Networks on Noisy Labels with Bootstrapping".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import bootstrap_cross_entropy
        >>> float(bootstrap_cross_entropy([0, 1], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).round(6))
        1.609676
    """
    beta = check.check_range("beta", beta, 0.0, 1.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, logits = prepare_logits(labels, logits, given)
    log_p = log_probabilities(xp, logits).p
    of_prediction = -xp.max(log_p, axis=-1) if hard else entropy(xp, log_p)
    of_label = expectation(xp, smoothed_targets(xp, rows.labels, logits, rows.label_smoothing), -log_p)
    return finish(rows, beta * of_label + (1.0 - beta) * of_prediction)
