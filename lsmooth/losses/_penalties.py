"""Cross-entropy plus a penalty on the logits: regularisers related to label smoothing."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import RowOptions, Rows, finish, prepare_logits
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.rows import MINUS_INFINITY, centered, entropy
from lsmooth.backends.formulas.softmax import log_probabilities
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.ragged import over_ragged_rows


@over_ragged_rows("logits")
def margin_label_smoothing(
    labels: Array,
    logits: Array,
    *,
    alpha: float = 0.1,
    margin: float = 10.0,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """MbLS: cross-entropy plus a penalty on logits that are more than a margin below the largest.

    ``CE + alpha mean_k relu(max(z) - z_k - margin)``. With margin 0 the penalty is that of label smoothing; with
    a margin, logits that are closer to the largest are not penalised.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        alpha: the weight of the penalty, at least 0.
        margin: the distance without a penalty, at least 0.
        label_smoothing: eps in [0, 1] of the cross-entropy, a number; or a tensor that broadcasts to the rows.
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

    Source: Liu et al. 2022, "The Devil is in the Margin: Margin-based Label Smoothing for Network Calibration".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import margin_label_smoothing
        >>> float(margin_label_smoothing([0], np.array([[14.0, 0.0, 8.0]])).round(6))
        0.13581
    """
    alpha = check.check_at_least("alpha", alpha, 0.0)
    margin = check.check_at_least("margin", margin, 0.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, z = prepare_logits(labels, logits, given)
    below = xp.max(z, axis=-1)[..., None] - z - margin
    return _penalized(rows, z, alpha, _mean(xp, z, xp.where(below > 0, below, 0.0)))


@over_ragged_rows("logits")
def max_suppression(
    labels: Array,
    logits: Array,
    *,
    alpha: float = 0.1,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """MaxSup: cross-entropy plus the distance of the largest logit from the mean logit.

    ``CE + alpha (max(z) - mean(z))``. Label smoothing has z_y in place of max(z), and so pushes a wrong
    prediction further from its label; this penalty does not.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        alpha: the weight of the penalty, at least 0; plays the part of eps in label smoothing.
        label_smoothing: eps in [0, 1] of the cross-entropy, a number; or a tensor that broadcasts to the rows.
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

    Source: Zhou et al. 2025, "MaxSup: Overcoming Representation Collapse in Label Smoothing".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import max_suppression
        >>> float(max_suppression([0], np.array([[2.0, 0.0, 1.0]])).round(6))
        0.507606
    """
    alpha = check.check_at_least("alpha", alpha, 0.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, z = prepare_logits(labels, logits, given)
    z = centered(xp, z)
    return _penalized(rows, z, alpha, xp.max(z, axis=-1) - _mean(xp, z, z))


@over_ragged_rows("logits")
def adaptive_conditional_label_smoothing(
    labels: Array,
    logits: Array,
    *,
    alpha: float = 0.1,
    margin: float = 10.0,
    positive_weight: float = 1.0,
    negative_weight: float = 0.1,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """ACLS: cross-entropy plus squared penalties that grow with the logits' confidence.

    ``CE + alpha (l1 relu(m - margin)^2 + l2 / (K - 1) sum_k relu(sg(m) - z_k - margin)^2)``, with
    m = max(z), sg the stopped gradient, and K the number of classes.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        alpha: the weight of the penalty, at least 0.
        margin: the largest logit, and distance from it, without a penalty; at least 0.
        positive_weight: l1, at least 0.
        negative_weight: l2, at least 0.
        label_smoothing: eps in [0, 1] of the cross-entropy, a number; or a tensor that broadcasts to the rows.
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

    Source: Park et al. 2023, "ACLS: Adaptive and Conditional Label Smoothing for Network Calibration".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import adaptive_conditional_label_smoothing
        >>> float(adaptive_conditional_label_smoothing([0], np.array([[14.0, 0.0, 8.0]])).round(6))
        1.682477
    """
    alpha = check.check_at_least("alpha", alpha, 0.0)
    margin = check.check_at_least("margin", margin, 0.0)
    positive_weight = check.check_at_least("positive_weight", positive_weight, 0.0)
    negative_weight = check.check_at_least("negative_weight", negative_weight, 0.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, z = prepare_logits(labels, logits, given)
    largest = xp.max(z, axis=-1)
    above = xp.where(largest > margin, largest - margin, 0.0)
    unmasked = ~xp.equal(z, MINUS_INFINITY)
    below = xp.stop_gradient(largest)[..., None] - xp.where(unmasked, z, 0.0) - margin
    below = xp.where(unmasked & (below > 0), below, 0.0)
    others = xp.sum(xp.cast(unmasked, rows.dtype), axis=-1) - 1.0
    negative = xp.sum(below * below, axis=-1) / xp.where(others > 0, others, 1.0)
    return _penalized(rows, z, alpha, positive_weight * above * above + negative_weight * negative)


@over_ragged_rows("logits")
def confidence_penalty(
    labels: Array,
    logits: Array,
    *,
    beta: float = 0.1,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Cross-entropy minus the entropy of the prediction.

    ``CE - beta H(p)``, with p = softmax(z). The penalty is ``KL(p, uniform)`` up to a constant; that of label
    smoothing is ``KL(uniform, p)``.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        beta: the weight of the entropy, at least 0.
        label_smoothing: eps in [0, 1] of the cross-entropy, a number; or a tensor that broadcasts to the rows.
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

    Source: Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output Distributions".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import confidence_penalty
        >>> float(confidence_penalty([0], np.array([[2.0, 0.0, 1.0]])).round(6))
        0.324366
    """
    beta = check.check_at_least("beta", beta, 0.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, z = prepare_logits(labels, logits, given)
    return _penalized(rows, z, -beta, entropy(xp, log_probabilities(xp, z).p))


@over_ragged_rows("logits")
def logit_penalty(
    labels: Array,
    logits: Array,
    *,
    beta: float = 1e-3,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Cross-entropy plus the squared length of the logits.

    ``CE + beta / 2 sum_k z_k^2``.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        beta: the weight of the penalty, at least 0.
        label_smoothing: eps in [0, 1] of the cross-entropy, a number; or a tensor that broadcasts to the rows.
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

    Source: Dauphin and Cubuk 2021, "Deconstructing the Regularization of BatchNorm"; Kornblith et al.
        2021, "Why Do Better Loss Functions Lead to Less Transferable Features?".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import logit_penalty
        >>> float(logit_penalty([0], np.array([[2.0, 0.0, 1.0]]), beta=0.1).round(6))
        0.657606
    """
    beta = check.check_at_least("beta", beta, 0.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, z = prepare_logits(labels, logits, given)
    finite = xp.where(xp.equal(z, MINUS_INFINITY), 0.0, z)
    return _penalized(rows, z, 0.5 * beta, xp.sum(finite * finite, axis=-1))


def _penalized(rows: Rows, logits: Array, weight: float, penalty: Array) -> Array:
    losses = rows.xp.softmax_cross_entropy(logits, rows.labels, SoftmaxOptions(rows.label_smoothing))
    return finish(rows, losses + weight * penalty)


def _mean(xp: Backend, logits: Array, values: Any) -> Array:
    """The mean over the classes that are not masked."""
    unmasked = ~xp.equal(logits, MINUS_INFINITY)
    return xp.sum(xp.where(unmasked, values, 0.0), axis=-1) / xp.sum(xp.cast(unmasked, xp.dtype(logits)), axis=-1)
