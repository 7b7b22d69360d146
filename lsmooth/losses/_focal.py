"""Cross-entropies that weight examples by their error: focal loss and PolyLoss."""

from __future__ import annotations

from numbers import Real
from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import RowOptions, binary_loss, finish, per_class, prepare, prepare_logits
from lsmooth._rows.shards import over_all_rows
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.softmax import expected_cost
from lsmooth.backends.options import SoftmaxOptions
from lsmooth.backends.ragged import over_ragged_rows


@over_ragged_rows("logits")
def softmax_focal_loss(
    labels: Array,
    logits: Array,
    *,
    gamma: float = 2.0,
    alpha: float | Array | None = None,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Focal loss: cross-entropy that gives little weight to well-classified examples.

    ``sum_k alpha_k q_k (1 - p_k)^gamma (-log p_k)``, with p = softmax(z) and q the smoothed label.
    Computed from logits, without clipping, and accurate to relative precision for p near 0 and near 1.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        gamma: the focus, at least 0; 0 gives the cross-entropy.
        alpha: the weight of the loss, a number or (classes,). It is not part of a mean's divisor.
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

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; Keras' ``categorical_focal_crossentropy``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import softmax_focal_loss
        >>> float(softmax_focal_loss([0, 2], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).round(6))
        0.005824
    """
    gamma = check.check_at_least("gamma", gamma, 0.0)
    xp = backend_of(
        labels=labels,
        logits=logits,
        alpha=alpha,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        mask=mask,
    )
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    rows = prepare(xp, labels, logits, given)
    factor, class_weight = 1.0, None
    if isinstance(alpha, Real):
        factor = check.check_number("alpha", alpha)
    elif alpha is not None:
        class_weight = per_class(xp, "alpha", alpha, num_classes or xp.shape(rows.logits)[-1], rows.logits, rows.dtype)
    options = SoftmaxOptions(
        label_smoothing=rows.label_smoothing,
        class_weight=class_weight,
        counted=rows.counted,
        scale=rows.scale,
        total=rows.reduction != "none",
        gamma=gamma,
        num_classes=rows.num_classes,
    )
    losses = over_all_rows(rows, xp.softmax_cross_entropy(rows.logits, rows.labels, options))
    return losses if factor == 1.0 else factor * losses


@over_ragged_rows("logits", elementwise=True)
def sigmoid_focal_loss(
    labels: Array,
    logits: Array,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    mask: Array | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Binary focal loss: cross-entropy that gives little weight to well-classified elements.

    With p = sigmoid(z) and l = (1 - eps) t + eps / 2, the loss of an element is

    ``a (l (1 - p) + (1 - l) p)^gamma (-l log p - (1 - l) log(1 - p))``, ``a = alpha l + (1 - alpha) (1 - l)``.

    Computed from logits, without clipping, and accurate to relative precision for p near 0 and near 1.

    Args:
        labels: t in [0, 1], any dtype, in the shape of the logits.
        logits: z, floating point, any shape: independent yes-or-no questions.
        gamma: the focus, at least 0; 0 gives the cross-entropy.
        alpha: the weight of the positives in [0, 1], with 1 - alpha for the negatives; None for no weights.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the logits.
        sample_weight: weights of the elements: a scalar, or of the logits' rank, each dimension equal or 1.
        mask: bool, in the shape of the logits; elements that are False are excluded.
        row_shards: the group whose members hold the rows, as in `softmax_cross_entropy`.
        reduction: as in `softmax_cross_entropy`, each element being a row.

    Returns:
        A scalar; or the elements' losses for ``reduction="none"``. float64 for float64 logits, else float32.
        Raises as `softmax_cross_entropy` does.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection"; soft labels as in ``optax.sigmoid_focal_loss``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import sigmoid_focal_loss
        >>> float(sigmoid_focal_loss([[1, 0]], np.array([[3.0, -1.0]]), alpha=0.25).round(6))
        0.00851
    """
    gamma = check.check_at_least("gamma", gamma, 0.0)
    if alpha is not None:
        alpha = check.check_range("alpha", alpha, 0.0, 1.0)
    xp = backend_of(
        labels=labels, logits=logits, label_smoothing=label_smoothing, sample_weight=sample_weight, mask=mask
    )
    given = RowOptions(label_smoothing, sample_weight, mask=mask, reduction=reduction, row_shards=row_shards)
    return binary_loss(xp, labels, logits, given, gamma=gamma, alpha=alpha)


@over_ragged_rows("logits")
def poly_cross_entropy(
    labels: Array,
    logits: Array,
    *,
    epsilon: float = 1.0,
    label_smoothing: float | Array = 0.0,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Poly-1 loss: cross-entropy with another weight of the first term of its expansion in 1 - p.

    ``sum_k q_k (-log p_k + epsilon (1 - p_k))``, with p = softmax(z) and q the smoothed label.

    Args:
        labels: class ids, or distributions in the shape of the logits.
        logits: floating point, classes along ``axis``; -inf masks a class.
        epsilon: added to the weight of the first term, at least -1, which removes the term.
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

    Source: Leng et al. 2022, "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
        Functions"; ``optax.poly_loss_cross_entropy``, whose default epsilon is 2.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import poly_cross_entropy
        >>> float(poly_cross_entropy([0, 2], np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0]])).round(6))
        0.319019
    """
    epsilon = check.check_at_least("epsilon", epsilon, -1.0)
    given = RowOptions(label_smoothing, sample_weight, ignore_index, mask, axis, num_classes, row_shards, reduction)
    xp, rows, logits = prepare_logits(labels, logits, given)
    options = SoftmaxOptions(label_smoothing=rows.label_smoothing)
    losses = expected_cost(xp, logits, rows.labels, options, lambda log: epsilon * xp.exp(log.rest) - log.p)
    return finish(rows, losses)
