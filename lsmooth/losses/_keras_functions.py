"""Keras' cross-entropies as functions: its names, arguments and numbers, for the tensors of any backend.

``from_logits=True`` uses lsmooth's own losses, which do not clip. Probabilities are treated as in Keras: scaled to
sum to one, then clipped by ``keras.config.epsilon()``. On TensorFlow, probabilities that are the output of a Keras
softmax or sigmoid, or of one in the same graph, are replaced by its logits.
"""

from __future__ import annotations

from lsmooth import _keras_settings as keras_settings
from lsmooth._keras_settings import logits_behind, value_of
from lsmooth.backends import Array
from lsmooth.backends.formulas.rows import accumulate
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.losses._cross_entropy import softmax_cross_entropy
from lsmooth.losses._focal import sigmoid_focal_loss, softmax_focal_loss
from lsmooth.losses._keras_arrays import (
    arrays_of,
    binary_losses,
    check_same_shape,
    focal_options,
    mean_over,
    row_labels,
    sparse_losses_of_probabilities,
    targets_and_probabilities,
    warn_of_one_class,
)
from lsmooth.smoothing import binary_smooth_labels


@over_ragged_rows("y_pred")
def categorical_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float | Array = 0.0, axis: int = -1
) -> Array:
    """Cross-entropy of each row of predictions against its distribution over classes.

    ``-sum_k q_k log p_k``, with ``q = (1 - eps) t + eps / classes``.

    Args:
        y_true: t, (..., classes), one-hot or soft, any dtype.
        y_pred: p, or logits, in the shape of ``y_true``.
        from_logits: whether ``y_pred`` holds logits; probabilities are scaled to sum to one and clipped.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        axis: the class axis. The smoothing uses its length; Keras 3.15 uses that of the last axis.

    Returns:
        The losses of the rows, in the shape of ``y_pred`` without ``axis``, in its dtype.

    Raises:
        ValueError: if shapes differ, or ``axis`` or ``label_smoothing`` is out of range.
        TypeError: if tensors of two frameworks meet.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import categorical_crossentropy
        >>> y_pred = np.array([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
        >>> categorical_crossentropy([[0, 1, 0], [0, 0, 1]], y_pred, label_smoothing=0.1).round(4)
        array([0.685 , 2.2333])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, axis)
    check_same_shape(xp, y_true, y_pred)
    warn_of_one_class(xp, "categorical_crossentropy", y_pred, axis)
    label_smoothing = value_of(xp, "label_smoothing", label_smoothing, y_pred)
    y_pred, from_logits = logits_behind(xp, y_pred, from_logits, "Softmax", "categorical_crossentropy")
    if from_logits:
        losses = softmax_cross_entropy(y_true, y_pred, label_smoothing=label_smoothing, axis=axis, reduction="none")
    else:
        targets, p = targets_and_probabilities(xp, y_true, y_pred, label_smoothing, axis)
        losses = -xp.sum(targets * xp.log(p), axis=-1)
    return xp.cast(losses, xp.dtype(y_pred))


@over_ragged_rows("y_pred")
def sparse_categorical_crossentropy(
    y_true: Array,
    y_pred: Array,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    *,
    label_smoothing: float | Array = 0.0,
) -> Array:
    """Cross-entropy of each row of predictions against its class id.

    ``-(1 - eps) log p_y - eps / classes sum_k log p_k``; no one-hot label is formed.

    Args:
        y_true: y, class ids, in the shape of ``y_pred`` with ``axis`` removed or of length 1. Floats are
            truncated. An id outside 0..classes-1 makes its row NaN.
        y_pred: p, or logits, any shape, classes along ``axis``.
        from_logits: whether ``y_pred`` holds logits; probabilities are scaled to sum to one and clipped.
        ignore_class: rows with this id have a loss of 0, and are masked for Keras' reductions.
        axis: the class axis; Keras 3.15 supports only the last one on JAX and TensorFlow.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows. Not in Keras.

    Returns:
        The losses of the rows, in the shape of ``y_pred`` without ``axis``, in its dtype.
        Raises as `categorical_crossentropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import sparse_categorical_crossentropy
        >>> y_pred = np.array([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
        >>> sparse_categorical_crossentropy([1, 2], y_pred, label_smoothing=0.1).round(4)
        array([0.685 , 2.2333])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, axis)
    labels = row_labels(xp, y_true, y_pred, axis)
    label_smoothing = value_of(xp, "label_smoothing", label_smoothing, y_pred)
    counted = None if ignore_class is None else ~xp.equal(labels, ignore_class)
    if counted is None:  # with ignored rows, Keras replaces y_pred by a tensor that is no output of a softmax
        y_pred, from_logits = logits_behind(xp, y_pred, from_logits, "Softmax", "sparse_categorical_crossentropy")
    if from_logits:
        losses = softmax_cross_entropy(
            labels, y_pred, label_smoothing=label_smoothing, ignore_index=ignore_class, axis=axis, reduction="none"
        )
    else:
        losses = sparse_losses_of_probabilities(xp, labels, xp.moveaxis(y_pred, axis, -1), counted, label_smoothing)
    losses = xp.cast(losses, xp.dtype(y_pred))
    if counted is not None:
        keras_settings.set_mask(losses, counted)
    return losses


@over_ragged_rows("y_pred")
def binary_crossentropy(
    y_true: Array, y_pred: Array, from_logits: bool = False, label_smoothing: float | Array = 0.0, axis: int = -1
) -> Array:
    """Mean binary cross-entropy along an axis.

    ``-l log p - (1 - l) log(1 - p)``, with ``l = (1 - eps) t + eps / 2``.

    Args:
        y_true: t in [0, 1], any dtype.
        y_pred: p, or logits, in the shape of ``y_true``.
        from_logits: whether ``y_pred`` holds logits; probabilities are clipped.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the elements.
        axis: the axis to take the mean along.

    Returns:
        The means, in the shape of ``y_pred`` without ``axis``, in its dtype. Raises as `categorical_crossentropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import binary_crossentropy
        >>> binary_crossentropy([[0, 1], [0, 0]], np.array([[0.6, 0.4], [0.4, 0.6]])).round(4)
        array([0.9163, 0.7136])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, axis)
    check_same_shape(xp, y_true, y_pred)
    label_smoothing = value_of(xp, "label_smoothing", label_smoothing, y_pred)
    losses = binary_losses(xp, y_true, y_pred, from_logits, label_smoothing, "binary_crossentropy")
    return xp.cast(mean_over(xp, losses, axis), xp.dtype(y_pred))


@over_ragged_rows("y_pred")
def categorical_focal_crossentropy(
    y_true: Array,
    y_pred: Array,
    alpha: float | Array = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float | Array = 0.0,
    axis: int = -1,
) -> Array:
    """Focal cross-entropy of each row of predictions against its distribution over classes.

    ``-sum_k alpha_k (1 - p_k)^gamma q_k log p_k``, with ``q = (1 - eps) t + eps / classes``.

    Args:
        y_true: t, (..., classes), one-hot or soft, any dtype.
        y_pred: p, or logits, in the shape of ``y_true``.
        alpha: a number, or one a class.
        gamma: the focus, at least 0; 0 gives alpha times the cross-entropy.
        from_logits: whether ``y_pred`` holds logits, which Keras clips; probabilities are scaled to sum to one.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        axis: the class axis, also of ``alpha`` and the smoothing; in Keras 3.15 these use the last one.

    Returns:
        The losses of the rows, in the shape of ``y_pred`` without ``axis``, in its dtype.
        Raises as `categorical_crossentropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import categorical_focal_crossentropy
        >>> y_pred = np.array([[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]])
        >>> categorical_focal_crossentropy([[0, 1, 0], [0, 0, 1]], y_pred).round(6)
        array([2.63000e-04, 6.75912e-01])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, axis)
    check_same_shape(xp, y_true, y_pred)
    warn_of_one_class(xp, "categorical_focal_crossentropy", y_pred, axis)
    alpha, gamma, label_smoothing = focal_options(xp, alpha, gamma, label_smoothing, y_pred)
    if from_logits:
        losses = softmax_focal_loss(
            y_true, y_pred, gamma=gamma, alpha=alpha, label_smoothing=label_smoothing, axis=axis, reduction="none"
        )
    else:
        targets, p = targets_and_probabilities(xp, y_true, y_pred, label_smoothing, axis)
        weight = xp.asarray(alpha, xp.dtype(p), like=p)
        losses = -xp.sum(weight * (1.0 - p) ** gamma * targets * xp.log(p), axis=-1)
    return xp.cast(losses, xp.dtype(y_pred))


@over_ragged_rows("y_pred")
def binary_focal_crossentropy(
    y_true: Array,
    y_pred: Array,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float | Array = 0.0,
    axis: int = -1,
) -> Array:
    """Mean binary focal cross-entropy along an axis.

    ``(l (1 - p) + (1 - l) p)^gamma (-l log p - (1 - l) log(1 - p))``, with ``l = (1 - eps) t + eps / 2``; times
    ``alpha l + (1 - alpha) (1 - l)`` with ``apply_class_balancing``.

    Args:
        y_true: t in [0, 1], any dtype.
        y_pred: p, or logits, in the shape of ``y_true``.
        apply_class_balancing: whether to weight the classes by alpha.
        alpha: the weight of the positives, in [0, 1].
        gamma: the focus, at least 0; 0 gives the cross-entropy.
        from_logits: whether ``y_pred`` holds logits, which are not clipped as in Keras; probabilities are clipped.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the elements.
        axis: the axis to take the mean along.

    Returns:
        The means, in the shape of ``y_pred`` without ``axis``, in its dtype. Raises as `categorical_crossentropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import binary_focal_crossentropy
        >>> binary_focal_crossentropy([[0, 1], [0, 0]], np.array([[0.6, 0.4], [0.4, 0.6]])).round(4)
        array([0.3299, 0.2058])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, axis)
    check_same_shape(xp, y_true, y_pred)
    alpha, gamma, label_smoothing = focal_options(xp, alpha, gamma, label_smoothing, y_pred)
    if from_logits:
        balance = alpha if apply_class_balancing else None
        losses = sigmoid_focal_loss(
            y_true, y_pred, gamma=gamma, alpha=balance, label_smoothing=label_smoothing, reduction="none"
        )
    else:
        p = accumulate(xp, y_pred)
        label = binary_smooth_labels(xp.cast(y_true, xp.dtype(p)), label_smoothing)
        losses = binary_losses(xp, label, y_pred, False, 0.0, "binary_focal_crossentropy")
        # Clipped, because the gradient of a power below 1 is infinite at 0.
        miss = xp.clip(label * (1.0 - p) + (1.0 - label) * p, keras_settings.epsilon(), 3e38)
        losses = miss**gamma * losses
        if apply_class_balancing:
            losses = losses * (alpha * label + (1.0 - alpha) * (1.0 - label))
    return xp.cast(mean_over(xp, losses, axis), xp.dtype(y_pred))


@over_ragged_rows("y_pred")
def kl_divergence(y_true: Array, y_pred: Array) -> Array:
    """Kullback-Leibler divergence of each row of predictions from its distribution.

    ``sum_k t_k log(t_k / p_k)``, both clipped to [epsilon, 1]. For logits, without clipping, see
    `lsmooth.distillation.distillation_loss`.

    Args:
        y_true: t, (..., classes).
        y_pred: p, in the shape of ``y_true``.

    Returns:
        The divergences, (...), in the dtype of ``y_pred``. Raises as `categorical_crossentropy` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.losses import kl_divergence
        >>> kl_divergence([[0.5, 0.5]], np.array([[0.9, 0.1]])).round(4)
        array([0.5108])
    """
    xp, y_true, y_pred = arrays_of(y_true, y_pred, -1)
    check_same_shape(xp, y_true, y_pred)
    epsilon = keras_settings.epsilon()
    p = accumulate(xp, y_pred)
    t = xp.clip(xp.cast(y_true, xp.dtype(p)), epsilon, 1.0)
    return xp.cast(xp.sum(t * xp.log(t / xp.clip(p, epsilon, 1.0)), axis=-1), xp.dtype(y_pred))
