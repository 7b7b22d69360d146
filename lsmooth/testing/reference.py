"""The core losses in float64 NumPy, written like their definitions.

They are slow and simple on purpose: they form every distribution, and share nothing with the formulas of the backends,
which are compared with them. Each returns its value and, in closed form, its gradient with respect to the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Rows = np.ndarray


def softmax_cross_entropy(
    labels: Any,
    logits: Any,
    *,
    label_smoothing: Any = 0.0,
    smoothing_prior: Any = None,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    mask: Any = None,
    axis: int = -1,
    temperature: Any = 1.0,
    z_loss: float = 0.0,
    logit_softcap: float | None = None,
    reduction: str | None = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of `lsmooth.losses.softmax_cross_entropy`, with its arguments.

    ``sum_k w_k q_k (lse - z_k) + a lse^2``, whose gradient is ``p sum_k w_k q_k - w q + 2 a lse p``.

    Returns:
        The loss, and the gradient of its sum with respect to the logits, in their shape; float64.

    Examples:
        >>> value, gradient = softmax_cross_entropy([0], [[0.0, 0.0]])
        >>> float(value), gradient.tolist()
        (0.6931471805599453, [[-0.5, 0.5]])
    """
    z = np.moveaxis(_float64(logits), axis, -1)
    labels = np.asarray(labels)
    rows, classes = z.shape[:-1], z.shape[-1]
    w = np.ones(classes) if class_weight is None else _float64(class_weight)
    counted = np.ones(rows, bool) if mask is None else np.asarray(mask)
    if labels.ndim == z.ndim:
        t = np.where(counted[..., None], np.moveaxis(_float64(labels), axis, -1), 0.0)
    else:
        counted = counted if ignore_index is None else counted & (labels != ignore_index)
        t = one_hot(np.where(counted, labels, 0), classes)
    eps = np.broadcast_to(_float64(label_smoothing), rows)[..., None]
    divisor = np.broadcast_to(_float64(temperature), rows)[..., None]

    # The logits that the softmax sees, and their derivative.
    z = np.where(counted[..., None], z, 0.0)
    masked = z == -np.inf
    seen, slope = z, np.ones_like(z)
    if logit_softcap is not None:
        seen = np.where(masked, z, logit_softcap * np.tanh(z / logit_softcap))
        slope = np.where(masked, 0.0, 1.0 - np.tanh(z / logit_softcap) ** 2)
    seen, slope = seen / divisor, slope / divisor

    u = np.where(masked, 0.0, 1.0 if smoothing_prior is None else _float64(smoothing_prior))
    u = u / u.sum(-1, keepdims=True)
    q = (1.0 - eps) * t + eps * u

    lse = logsumexp(seen)[..., None]
    p = np.exp(seen - lse)
    surprise = w * q * np.where(w * q == 0.0, 0.0, lse - seen)  # 0 log 0 is 0
    losses = surprise.sum(-1) + z_loss * lse[..., 0] ** 2
    gradient = p * (w * q).sum(-1, keepdims=True) - w * q + 2.0 * z_loss * lse * p

    label_weight = np.ones(rows) if class_weight is None else (t * w).sum(-1)
    factor = row_factor(reduction, rows, sample_weight, counted, label_weight)
    value = factor * losses
    gradient = np.moveaxis(factor[..., None] * gradient * slope, -1, axis)
    return (value if reduction in (None, "none") else value.sum()), gradient


def sigmoid_cross_entropy(
    labels: Any,
    logits: Any,
    *,
    label_smoothing: Any = 0.0,
    pos_weight: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
    reduction: str | None = "mean",
) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of `lsmooth.losses.sigmoid_cross_entropy`, with its arguments.

    ``-w l log s(z) - (1 - l) log(1 - s(z))``, s the logistic function and l the smoothed label,
    whose gradient is ``(1 - l) s(z) - w l s(-z)``.

    Returns:
        The loss, and the gradient of its sum with respect to the logits, in their shape; float64.

    Examples:
        >>> value, gradient = sigmoid_cross_entropy([1.0], [0.0])
        >>> float(value), gradient.tolist()
        (0.6931471805599453, [-0.5])
    """
    z, labels, eps = _float64(logits), _float64(labels), _float64(label_smoothing)
    counted = np.ones(z.shape, bool) if mask is None else np.asarray(mask)
    z, labels = np.where(counted, z, 0.0), np.where(counted, labels, 0.0)
    smoothed = (1.0 - eps) * labels + eps / 2.0
    positive = smoothed * (1.0 if pos_weight is None else _float64(pos_weight))
    negative = 1.0 - smoothed
    log_yes, log_no = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
    losses = -positive * np.where(positive == 0.0, 0.0, log_yes) - negative * np.where(negative == 0.0, 0.0, log_no)
    gradient = negative * np.exp(log_yes) - positive * np.exp(log_no)

    factor = row_factor(reduction, z.shape, sample_weight, counted, np.ones(z.shape))
    value = factor * losses
    return (value if reduction in (None, "none") else value.sum()), factor * gradient


def smooth_labels(
    labels: Any,
    label_smoothing: Any,
    *,
    num_classes: int | None = None,
    prior: Any = None,
    padding_idx: int | None = None,
    exclude_target: bool = False,
) -> np.ndarray:
    """The targets of `lsmooth.smoothing.smooth_labels`, with its arguments, from a table of each label's targets.

    Returns:
        (..., classes), float64.

    Examples:
        >>> smooth_labels([0], 0.3, num_classes=3).round(2).tolist()
        [[0.8, 0.1, 0.1]]
    """
    t = _float64(labels) if num_classes is None else one_hot(np.asarray(labels), num_classes)
    eps = _float64(label_smoothing)[..., None]
    classes = t.shape[-1]
    u = np.ones(classes) if prior is None else _float64(prior)
    if padding_idx is None and not exclude_target:
        return (1.0 - eps) * t + eps * u / u.sum()
    spread = np.zeros((classes, classes))
    for label in range(classes):
        if label == padding_idx:
            continue
        others = [k for k in range(classes) if k not in (label, padding_idx)]
        spread[label, others] = u[others] / u[others].sum()
    if padding_idx is not None:
        t = np.where(np.arange(classes) == padding_idx, 0.0, t)
    return (1.0 - eps) * t + eps * (t @ spread)


def row_factor(
    reduction: str | None, rows: tuple[int, ...], sample_weight: Any, counted: Rows, label_weight: Rows
) -> Rows:
    """What each row's loss is multiplied by, so that the reduction is the sum of the products.

    Args:
        reduction: one of `lsmooth._rows.reductions.REDUCTIONS`.
        rows: their shape.
        sample_weight: None, a scalar, or of the rows' rank.
        counted: bool, (rows); False where a row is ignored.
        label_weight: (rows), the class weight of each row's label.

    Returns:
        (rows), float64.
    """
    s = np.broadcast_to(1.0 if sample_weight is None else _float64(sample_weight), rows)
    divisor = {
        "none": 1.0,
        "sum": 1.0,
        "mean": (s * label_weight)[counted].sum(),
        "sum_over_batch_size": counted.sum(),
        "mean_with_sample_weight": s[counted].sum(),
        "sum_by_nonzero_weights": np.count_nonzero(s[counted]),
        "sum_over_nonzero_weights": np.count_nonzero(s[counted]),
    }[reduction or "none"]
    if divisor == 0.0:
        return np.zeros(rows)
    return np.where(counted, s / divisor, 0.0)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(..., classes); a row of NaN for a label outside 0..classes-1."""
    valid = (labels >= 0) & (labels < classes)
    return np.where(valid[..., None], labels[..., None] == np.arange(classes), np.nan)


def logsumexp(z: np.ndarray) -> np.ndarray:
    """Log sum_k exp(z_k) over the last axis; -inf if every z_k is."""
    top = np.max(z, axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(z - top).sum(-1)) + top[..., 0]


def _float64(x: Any) -> np.ndarray:
    return np.asarray(x).astype(np.float64)
