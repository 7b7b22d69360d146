"""The smoothed cross-entropies and divergences of Optax, for the tensors of any backend.

Reproduces Optax 0.2.8: functions return the loss of each example, and ``where`` masks classes. Negative class ids
count from the end; ids that are too large give NaN.
"""

from __future__ import annotations

import warnings
from typing import Any

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import MINUS_INFINITY, label_factor
from lsmooth.backends.formulas.sigmoid import focused_cross_entropy
from lsmooth.compat import _rows
from lsmooth.compat._class_axes import (
    Axes,
    any_left,
    classes_last,
    counted_axes,
    mask,
    masked,
    masked_log_softmax,
    masked_sum,
    sum_over,
)

__all__ = [
    "convex_kl_divergence",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]


def smooth_labels(labels: Array, alpha: Any, *, axis: Axes = -1, where: Array | None = None) -> Array:
    """``optax.smooth_labels``: ``(1 - alpha) labels + alpha / classes``.

    Args:
        labels: distributions, floating point.
        alpha: the smoothing, a number or an array that broadcasts to the labels.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to the labels; only classes that are True are counted.

    Returns:
        The labels' shape and dtype.

    Examples:
        >>> import numpy as np
        >>> smooth_labels(np.array([[0.0, 1.0]]), 0.1)
        array([[0.05, 0.95]])
    """
    xp = backend_of(labels=labels, alpha=alpha, where=where)
    (labels,), dtype = _floats(xp, labels=labels)
    alpha = check.to_array(xp, "alpha", alpha, xp.dtype(labels), like=labels)
    counted = (
        xp.ones_like(labels, xp.dtype(labels)) if where is None else xp.asarray(where, xp.dtype(labels), like=labels)
    )
    for axis_ in counted_axes(axis, len(xp.shape(counted))):
        counted = xp.moveaxis(xp.sum(xp.moveaxis(counted, axis_, -1), axis=-1)[..., None], -1, axis_)
    return xp.cast((1.0 - alpha) * labels + alpha / counted, dtype)


def sigmoid_binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """``optax.sigmoid_binary_cross_entropy``: ``l log(1 + exp(-z)) + (1 - l) log(1 + exp(z))`` of each element.

    Args:
        logits: z, floating point.
        labels: l in [0, 1], any dtype, broadcasts with the logits.

    Returns:
        The shape of both, in the dtype of the logits.

    Examples:
        >>> import numpy as np
        >>> sigmoid_binary_cross_entropy(np.array([3.0, -1.0]), np.array([0.95, 0.05])).round(6)
        array([0.198587, 0.363262])
    """
    xp = backend_of(logits=logits, labels=labels)
    logits, dtype = _rows.scores(xp, "logits", logits, like=labels, least_rank=0)
    labels = check.to_array(xp, "labels", labels, xp.dtype(logits), like=logits)
    return xp.cast(labels * xp.softplus(-logits) + (1.0 - labels) * xp.softplus(logits), dtype)


def softmax_cross_entropy(logits: Array, labels: Array, axis: Axes = -1, where: Array | None = None) -> Array:
    """``optax.softmax_cross_entropy``: ``-sum_k t_k log softmax(z)_k`` of each row.

    A logit of -inf gives NaN or inf; `safe_softmax_cross_entropy` avoids the NaN.

    Args:
        logits: z, floating point.
        labels: t, any dtype, broadcasts to the logits.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to the logits, or of the rows' shape; classes that are False are masked.

    Returns:
        The logits' shape without the class axes. The loss of a row without unmasked classes is 0.

    Examples:
        >>> import numpy as np
        >>> softmax_cross_entropy(np.log([[0.7, 0.2, 0.1]]), np.array([[0.9, 0.1, 0.0]])).round(6)
        array([0.481951])
    """
    xp = backend_of(logits=logits, labels=labels, where=where)
    logits, labels, where, dtype = _rows_of_classes(xp, logits, labels, axis, where)
    return xp.cast(-masked_sum(xp, labels * masked_log_softmax(xp, logits, where), where), dtype)


def safe_softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    """``optax.safe_softmax_cross_entropy``: `softmax_cross_entropy` in which 0 times -inf is 0.

    Args:
        logits: z, floating point, (..., classes).
        labels: t, any dtype, broadcasts to the logits.

    Returns:
        (...), the loss of each row; inf where the label has mass on a class whose logit is -inf.

    Examples:
        >>> import numpy as np
        >>> safe_softmax_cross_entropy(np.array([[0.0, 0.0, -np.inf]]), np.array([[0.5, 0.5, 0.0]])).round(6)
        array([0.693147])
    """
    xp = backend_of(logits=logits, labels=labels)
    logits, labels, _, dtype = _rows_of_classes(xp, logits, labels, -1, None)
    log_probs = _rows.log_softmax(xp, logits)
    # Only if both hold: otherwise a label of 0 has a gradient.
    log_probs = xp.where(xp.equal(labels, 0) & xp.equal(log_probs, MINUS_INFINITY), 0.0, log_probs)
    return xp.cast(-xp.sum(labels * log_probs, axis=-1), dtype)


def softmax_cross_entropy_with_integer_labels(
    logits: Array, labels: Array, axis: int | tuple[int, ...] = -1, where: Array | None = None
) -> Array:
    """``optax.softmax_cross_entropy_with_integer_labels``: ``-log softmax(z)_y`` of each row.

    Args:
        logits: z, floating point.
        labels: y, integers, in the shape of the logits without the class axes.
        axis: the class axis; or several, in which case a label is a flat index over them in this order.
        where: bool, broadcasts to the logits, or of the rows' shape; classes that are False are masked.

    Returns:
        The labels' shape, in the dtype of the logits. The loss of a row without unmasked classes is 0.

    Examples:
        >>> import numpy as np
        >>> softmax_cross_entropy_with_integer_labels(np.log([[0.7, 0.2, 0.1]]), np.array([0])).round(6)
        array([0.356675])
    """
    if not (check.is_integer_number(axis) or isinstance(axis, tuple)):
        raise ValueError(f"axis must be an int or a tuple of ints, got {axis!r}.")
    xp = backend_of(logits=logits, labels=labels, where=where)
    logits, dtype = _rows.scores(xp, "logits", logits, like=labels)
    where = mask(xp, where, logits, axis)
    logits, where = classes_last(xp, logits, axis), None if where is None else classes_last(xp, where, axis)
    labels = _rows.integers(xp, "labels", labels, logits)
    classes = xp.length(logits, -1, xp.dtype(labels))
    labels = _rows.class_ids(xp, "labels", xp.where(labels < 0, labels + classes, labels), logits)
    labels, factor = label_factor(xp, labels, classes, xp.dtype(logits))
    masked_logits = masked(xp, logits, where)
    if xp.shape(logits)[-1] == 0:
        losses = xp.sum(masked_logits, axis=-1) + MINUS_INFINITY  # Optax' logarithm of an empty sum
    else:
        # Subtract the largest logit first: a large common offset would round off the difference in float32.
        top = xp.stop_gradient(xp.max(masked_logits, axis=-1))
        top = xp.where(xp.equal(abs(top), -MINUS_INFINITY), 0.0, top)
        losses = factor * (xp.logsumexp(masked_logits - top[..., None], axis=-1) - (xp.pick(logits, labels) - top))
    return xp.cast(losses if where is None else xp.where(any_left(xp, where), losses, 0.0), dtype)


def poly_loss_cross_entropy(
    logits: Array, labels: Array, *, epsilon: Any = 2.0, axis: Axes = -1, where: Array | None = None
) -> Array:
    """``optax.poly_loss_cross_entropy``: ``sum_k t_k (-log p_k + epsilon (1 - p_k))``, p = softmax(z).

    Args:
        logits: z, floating point.
        labels: t, any dtype, broadcasts to the logits.
        epsilon: the weight of the first polynomial term, a number or an array that broadcasts to the rows.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to the logits, or of the rows' shape; classes that are False are masked.

    Returns:
        The logits' shape without the class axes.

    Source: Leng et al. 2022, "PolyLoss".

    Examples:
        >>> import numpy as np
        >>> poly_loss_cross_entropy(np.log([[0.7, 0.2, 0.1]]), np.array([[0.9, 0.1, 0.0]])).round(6)
        array([1.181951])
    """
    xp = backend_of(logits=logits, labels=labels, epsilon=epsilon, where=where)
    logits, labels, where, dtype = _rows_of_classes(xp, logits, labels, axis, where)
    epsilon = _option(xp, "epsilon", epsilon, logits)
    log_probs = masked_log_softmax(xp, logits, where)
    missed = masked_sum(xp, labels * (1.0 - xp.exp(log_probs)), where)
    return xp.cast(epsilon * missed - masked_sum(xp, labels * log_probs, where), dtype)


def kl_divergence(log_predictions: Array, targets: Array, axis: Axes = -1, where: Array | None = None) -> Array:
    """``optax.kl_divergence``: ``sum_k t_k (log t_k - log p_k)`` of each row, 0 log 0 being 0.

    Args:
        log_predictions: log p, floating point.
        targets: t, floating point, broadcasts with the predictions.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to both; classes that are False are masked.

    Returns:
        The shape of both without the class axes.

    Examples:
        >>> import numpy as np
        >>> kl_divergence(np.log([[0.7, 0.2, 0.1]]), np.array([[0.9, 0.1, 0.0]])).round(6)
        array([0.156868])
    """
    xp = backend_of(log_predictions=log_predictions, targets=targets, where=where)
    (log_probs, targets), dtype = _floats(xp, log_predictions=log_predictions, targets=targets)
    log_targets = xp.log(xp.where(xp.equal(targets, 0), 1.0, targets))
    return xp.cast(sum_over(xp, targets * (log_targets - log_probs), axis, where), dtype)


def kl_divergence_with_log_targets(
    log_predictions: Array, log_targets: Array, axis: Axes = -1, where: Array | None = None
) -> Array:
    """``optax.kl_divergence_with_log_targets``: ``sum_k exp(log t_k) (log t_k - log p_k)`` of each row.

    Args:
        log_predictions: log p, floating point.
        log_targets: log t, floating point, broadcasts with the predictions.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to both; classes that are False are masked.

    Returns:
        The shape of both without the class axes.

    Examples:
        >>> import numpy as np
        >>> kl_divergence_with_log_targets(np.log([[0.7, 0.3]]), np.log([[0.9, 0.1]])).round(6)
        array([0.116322])
    """
    xp = backend_of(log_predictions=log_predictions, log_targets=log_targets, where=where)
    (log_probs, log_targets), dtype = _floats(xp, log_predictions=log_predictions, log_targets=log_targets)
    return xp.cast(sum_over(xp, xp.exp(log_targets) * (log_targets - log_probs), axis, where), dtype)


def generalized_kl_divergence(
    log_predictions: Array, targets: Array, axis: Axes = -1, where: Array | None = None
) -> Array:
    """``optax.generalized_kl_divergence``: ``sum_k t_k (log t_k - log p_k) + p_k - t_k`` of each row.

    Args:
        log_predictions: log p, floating point; p need not sum to one.
        targets: t, floating point, broadcasts with the predictions; t need not sum to one.
        axis: the class axis, or axes, or None for all.
        where: bool, broadcasts to both; classes that are False are masked.

    Returns:
        The shape of both without the class axes.

    Examples:
        >>> import numpy as np
        >>> generalized_kl_divergence(np.log([[0.7, 0.2]]), np.array([[0.9, 0.1]])).round(6)
        array([0.056868])
    """
    xp = backend_of(log_predictions=log_predictions, targets=targets, where=where)
    (log_probs, targets), dtype = _floats(xp, log_predictions=log_predictions, targets=targets)
    gap = sum_over(xp, xp.exp(log_probs) - targets, axis, where)
    return xp.cast(kl_divergence(log_probs, targets, axis, where) + gap, dtype)


def convex_kl_divergence(log_predictions: Array, targets: Array, axis: Axes = -1, where: Array | None = None) -> Array:
    """``optax.convex_kl_divergence``, the deprecated name of `generalized_kl_divergence`."""
    warnings.warn(
        "convex_kl_divergence is deprecated, please use generalized_kl_divergence instead.",
        DeprecationWarning,
        stacklevel=2,
    )
    return generalized_kl_divergence(log_predictions, targets, axis, where)


def sigmoid_focal_loss(logits: Array, labels: Array, *, alpha: Any = None, gamma: Any = 2.0) -> Array:
    """``optax.sigmoid_focal_loss``: the binary cross-entropy of each element times its error to the power of gamma.

    The error is ``l (1 - p) + (1 - l) p``, p = sigmoid(z).

    Args:
        logits: z, floating point.
        labels: l in [0, 1], any dtype, broadcasts with the logits.
        alpha: the weight of the positives, with 1 - alpha for the negatives; a number or an array, None for no weights.
        gamma: the focus, a number or an array.

    Returns:
        The shape of both, in the dtype of the logits.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection".

    Examples:
        >>> import numpy as np
        >>> sigmoid_focal_loss(np.array([3.0, -1.0]), np.array([1, 0]), alpha=0.25).round(6)
        array([2.7000e-05, 1.6994e-02])
    """
    xp = backend_of(logits=logits, labels=labels, alpha=alpha, gamma=gamma)
    logits, dtype = _rows.scores(xp, "logits", logits, like=labels, least_rank=0)
    labels = check.to_array(xp, "labels", labels, xp.dtype(logits), like=logits)
    gamma = _option(xp, "gamma", gamma, logits)
    alpha = None if alpha is None else _option(xp, "alpha", alpha, logits)
    losses = focused_cross_entropy(xp, logits, labels, gamma)
    if alpha is not None:
        losses = (alpha * labels + (1.0 - alpha) * (1.0 - labels)) * losses
    return xp.cast(losses, dtype)


def _option(xp: Backend, name: str, value: Any, like: Array) -> Any:
    """A number, or an array in the dtype and on the device of ``like``."""
    if hasattr(value, "shape"):
        return check.to_array(xp, name, value, xp.dtype(like), like=like)
    return check.check_number(name, value)


def _floats(xp: Backend, **arrays: Any) -> tuple[list[Array], str]:
    """Floating arrays in the precision of reductions, and the dtype of the result, the widest of theirs."""
    like = next((array for array in arrays.values() if xp.is_array(array)), None)
    pairs = [_rows.scores(xp, name, array, like=like, least_rank=0) for name, array in arrays.items()]
    return _promoted(xp, [array for array, _ in pairs], [dtype for _, dtype in pairs])


def _promoted(xp: Backend, arrays: list[Array], dtypes: list[str]) -> tuple[list[Array], str]:
    if "float64" in dtypes:
        return [xp.cast(array, "float64") for array in arrays], "float64"
    return arrays, dtypes[0] if len(set(dtypes)) == 1 else "float32"


def _rows_of_classes(
    xp: Backend, logits: Any, labels: Any, axis: Axes, where: Any
) -> tuple[Array, Array, Array | None, str]:
    """Logits, labels and mask with the classes last, and the dtype of the result."""
    logits, dtype = _rows.scores(xp, "logits", logits, like=labels)
    labels = check.to_array(xp, "labels", labels, like=logits)
    label_dtype = xp.dtype(labels) if "float" in xp.dtype(labels) else dtype
    labels = xp.cast(labels, xp.dtype(logits)) if label_dtype != "float64" else xp.cast(labels, "float64")
    (logits, labels), dtype = _promoted(xp, [logits, labels], [dtype, label_dtype])
    where = mask(xp, where, logits, axis)
    if xp.shape(labels) != xp.shape(logits):
        labels = labels * xp.ones_like(logits, xp.dtype(logits))
    return (
        classes_last(xp, logits, axis),
        classes_last(xp, labels, axis),
        None if where is None else classes_last(xp, where, axis),
        dtype,
    )
