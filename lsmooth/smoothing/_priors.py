"""Smoothing by class frequency: a prior, and a smoothing for each class."""

from __future__ import annotations

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of

SHAPES = ("concave", "linear", "convex")


def class_prior(
    labels: Array,
    num_classes: int,
    *,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    pseudo_count: float = 0.0,
) -> Array:
    """The share of each class among labels: the prior of unigram smoothing.

    ``(n_k + c) / sum_j (n_j + c)``, with n_k the weighted count of class k and c the pseudo-count.

    Args:
        labels: integer class ids of any shape. An id outside 0..num_classes-1 makes the prior NaN.
        num_classes: the number of classes.
        sample_weight: weights of the labels, in their shape.
        ignore_index: labels of this value are not counted.
        pseudo_count: c, at least 0; a positive c gives mass to classes that do not occur.

    Returns:
        (num_classes,), summing to one, in the framework's default dtype: the ``smoothing_prior`` of
        `lsmooth.losses.softmax_cross_entropy`, the ``prior`` of `smooth_labels`.

    Source: Pereyra et al. 2017, "Regularizing Neural Networks by Penalizing Confident Output
        Distributions" (unigram smoothing).

    Examples:
        >>> from lsmooth.smoothing import class_prior
        >>> class_prior([0, 0, 2, 0], 4, pseudo_count=1.0)
        array([0.5  , 0.125, 0.25 , 0.125])
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
    pseudo_count = check.check_at_least("pseudo_count", pseudo_count, 0.0)
    xp = backend_of(labels=labels, sample_weight=sample_weight)
    labels = check.class_ids(xp, xp.asarray(labels))
    dtype = xp.dtype(xp.asarray(1.0))
    weight = xp.ones_like(labels, dtype)
    if sample_weight is not None:
        given = xp.asarray(sample_weight, dtype, like=labels)
        if not check.same_shape(xp.shape(given), xp.shape(labels)):
            raise ValueError(f"sample_weight must have the labels' shape {xp.shape(labels)}, got {xp.shape(given)}.")
        weight = weight * given
    counted = None if ignore_index is None else ~xp.equal(labels, ignore_index)
    if check.is_validating(xp, labels):
        check.check_class_ids(xp, labels, num_classes, counted)
    valid = (labels >= 0) & (labels < num_classes)
    weight = xp.where(valid, weight, float("nan"))
    if counted is not None:
        weight = xp.where(counted, weight, 0.0)
    index = xp.where(valid, labels, 0)
    counts = xp.bincount(xp.reshape(index, (-1,)), xp.reshape(weight, (-1,)), num_classes) + pseudo_count
    return counts / xp.sum(counts)


def smoothing_of_labels(labels: Array, class_smoothing: Array) -> Array:
    """A label smoothing that depends on the class: ``eps_y`` of each row.

    Args:
        labels: integer class ids of any shape; or floating distributions t, (..., classes), which give
            ``sum_k t_k eps_k``. An id outside 0..classes-1 gives 0.
        class_smoothing: eps, (classes,), one smoothing in [0, 1] per class.

    Returns:
        The rows' smoothing, in their shape: the ``label_smoothing`` of the losses and of `smooth_labels`.

    Source: Zhong et al. 2021, "Improving Calibration for Long-Tailed Recognition".

    Examples:
        >>> from lsmooth.smoothing import smoothing_of_labels
        >>> smoothing_of_labels([2, 0, 0], [0.3, 0.2, 0.0])
        array([0. , 0.3, 0.3])
    """
    xp = backend_of(labels=labels, class_smoothing=class_smoothing)
    labels = xp.asarray(labels)
    if not check.is_integer(xp, labels):
        table = xp.asarray(class_smoothing, xp.dtype(labels), like=labels)
        _check_table(xp.shape(table), xp.shape(labels)[-1])
        return xp.sum(labels * table, axis=-1)
    table = xp.asarray(class_smoothing, like=labels)
    _check_table(xp.shape(table), None)
    labels = check.class_ids(xp, labels)
    valid = (labels >= 0) & (labels < xp.length(table, 0, xp.dtype(labels)))
    return xp.where(valid, xp.take(table, xp.where(valid, labels, 0)), 0.0)


def label_aware_smoothing(
    class_counts: Array, *, head: float = 0.4, tail: float = 0.1, shape: str = "concave"
) -> Array:
    """Label-aware smoothing: the more examples a class has, the more its labels are smoothed.

    ``eps = tail + (head - tail) f(x)``, where x is the count of the class scaled to [0, 1], and f is
    ``sin(pi x / 2)`` (concave), ``x`` (linear) or ``1 - cos(pi x / 2)`` (convex).

    Args:
        class_counts: (classes,), the number of examples of each class; read on the host.
        head: the smoothing of the most frequent class, in [0, 1].
        tail: the smoothing of the rarest class, in [0, 1].
        shape: ``"concave"``, ``"linear"`` or ``"convex"``.

    Returns:
        (classes,), the ``class_smoothing`` of `smoothing_of_labels`, in the framework's default dtype; ``head``
        for all classes if the counts are equal.

    Source: Zhong et al. 2021, "Improving Calibration for Long-Tailed Recognition" (MiSLAS).

    Examples:
        >>> from lsmooth.smoothing import label_aware_smoothing
        >>> label_aware_smoothing([500, 250, 0], shape="linear")
        array([0.4 , 0.25, 0.1 ])
    """
    head = check.check_range("head", head, 0.0, 1.0)
    tail = check.check_range("tail", tail, 0.0, 1.0)
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}; got {shape!r}.")
    xp = backend_of(class_counts=class_counts)
    counts = xp.asarray(class_counts)
    if not xp.is_concrete(counts):
        raise TypeError("label_aware_smoothing reads class_counts on the host; call it outside tracing.")
    values = xp.to_numpy(counts).astype(np.float64)
    _check_table(values.shape, None, "class_counts")
    spread = values.max() - values.min()
    x = (values - values.min()) / spread if spread else np.ones_like(values)
    if shape != "linear":
        x = np.sin(np.pi / 2 * x) if shape == "concave" else 1.0 - np.cos(np.pi / 2 * x)
    return xp.asarray(tail + (head - tail) * x, xp.dtype(xp.asarray(1.0)), like=counts)


def _check_table(shape: tuple[int | None, ...], classes: int | None, name: str = "class_smoothing") -> None:
    if len(shape) != 1 or shape[0] == 0 or (None not in (classes, shape[0]) and shape[0] != classes):
        wanted = "classes" if classes is None else classes
        raise ValueError(f"{name} must have shape ({wanted},), one number per class; got {shape}.")
