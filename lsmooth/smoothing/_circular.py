"""Targets for ordered classes, on a circle or a line: mass on the classes near the label."""

from __future__ import annotations

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import match_rank

WINDOWS = ("pulse", "rectangle", "triangle", "gaussian")


def circular_smooth_labels(
    labels: Array, num_classes: int, *, window: str = "gaussian", radius: float = 6.0, normalize: bool = False
) -> Array:
    """Circular smooth labels (CSL): a window around the label, for classes on a circle.

    With d the distance ``min(|k - y| mod K, K - |k - y| mod K)`` and r the radius, class k gets

    | window | g(d) |
    |---|---|
    | pulse | 1 at d = 0, else 0 |
    | rectangle | 1 for d <= r, else 0 |
    | triangle | max(1 - d / r, 0) |
    | gaussian | exp(-d^2 / (2 r^2)) |

    Args:
        labels: y, integer class ids of any shape, modulo ``num_classes``; see `circular_bins` for angles.
        num_classes: K, the number of classes around the circle.
        window: one of the table.
        radius: r > 0, in classes.
        normalize: whether rows sum to one, for a softmax; else their maximum is 1, for K sigmoids as in the paper.

    Returns:
        (..., num_classes), in the framework's default dtype.

    Source: Yang and Yan 2020, "Arbitrary-Oriented Object Detection with Circular Smooth Label".

    Examples:
        >>> from lsmooth.smoothing import circular_smooth_labels
        >>> circular_smooth_labels([0, 4], 5, window="triangle", radius=2)
        array([[1. , 0.5, 0. , 0. , 0.5],
               [0.5, 0. , 0. , 0.5, 1. ]])
    """
    if window not in WINDOWS:
        raise ValueError(f"window must be one of {', '.join(WINDOWS)}; got {window!r}.")
    radius = check.check_range("radius", radius, 0.0, float("inf"))
    xp = backend_of(labels=labels)
    labels = _class_ids(xp, labels, num_classes)
    around = _offsets(xp, labels, num_classes) % num_classes
    distance = xp.cast(xp.where(2 * around > num_classes, num_classes - around, around), _default_float(xp))
    if window == "gaussian":
        values = xp.exp(distance * distance / (-2.0 * radius * radius))
    elif window == "triangle":
        values = xp.where(distance < radius, 1.0 - distance / radius, 0.0)
    else:
        values = xp.cast(distance <= (radius if window == "rectangle" else 0.0), _default_float(xp))
    return values / xp.sum(values, axis=-1)[..., None] if normalize else values


def circular_bins(angles: Array, num_classes: int, *, period: float = 180.0, start: float = 0.0) -> Array:
    """The class of an angle: ``floor(((a - start) mod period) K / period)``.

    Args:
        angles: a, floating point, any shape, in the unit of ``period``.
        num_classes: K, the number of classes around the circle.
        period: the period of the angles: 180 or 360 degrees, pi or 2 pi.
        start: the angle where class 0 begins.

    Returns:
        Class ids in 0..num_classes-1, int32, in the shape of the angles.

    Source: Yang and Yan 2020, "Arbitrary-Oriented Object Detection with Circular Smooth Label".

    Examples:
        >>> from lsmooth.smoothing import circular_bins
        >>> circular_bins([0.0, 95.0, -1.0], 18).tolist()
        [0, 9, 17]
    """
    period = check.check_range("period", period, 0.0, float("inf"))
    _check_num_classes(num_classes)
    xp = backend_of(angles=angles)
    angles = check.float_array(xp, "angles", angles)
    # The remainder of a tiny negative angle rounds to the period itself, which is class 0.
    return xp.cast(((angles - start) % period) * (num_classes / period), "int32") % num_classes


def circular_angles(scores: Array, *, period: float = 180.0, start: float = 0.0) -> Array:
    """The angle at the middle of the class with the largest score, the inverse of `circular_bins`.

    ``start + (argmax_k + 1/2) period / K``; if neighbouring classes share the largest score, as with a
    rectangular window, the middle of their range.

    Args:
        scores: (..., K), floating point: logits, probabilities, or smoothed labels.
        period: as in `circular_bins`.
        start: as in `circular_bins`.

    Returns:
        (...), angles in the unit of ``period``, in the dtype of the scores.

    Source: Yang and Yan 2020, "Arbitrary-Oriented Object Detection with Circular Smooth Label".

    Examples:
        >>> from lsmooth.smoothing import circular_angles, circular_bins, circular_smooth_labels
        >>> circular_angles(circular_smooth_labels(circular_bins([31.0, 178.0], 18), 18)).tolist()
        [35.0, 175.0]
    """
    period = check.check_range("period", period, 0.0, float("inf"))
    xp = backend_of(scores=scores)
    scores = check.float_array(xp, "scores", scores)
    classes = check.known_classes("scores", xp.shape(scores))
    largest = xp.max(scores, axis=-1)[..., None]
    top = xp.equal(scores, largest)
    before = xp.moveaxis(xp.take(xp.moveaxis(top, -1, 0), (_arange(xp, classes, scores, "int32") - 1) % classes), 0, -1)
    first = xp.argmax(xp.cast(top & ~before, xp.dtype(scores)), axis=-1)[..., None]
    after = (match_rank(xp, _arange(xp, classes, scores, xp.dtype(first)), first) - first) % classes
    last = -xp.max(xp.where(top, -classes, -after), axis=-1)[..., None] - 1  # relative to the first class of the range
    middle = (xp.cast(first, xp.dtype(scores)) + 0.5 * xp.cast(last, xp.dtype(scores)) + 0.5) % classes
    return start + xp.where(xp.equal(largest, largest), middle, float("nan"))[..., 0] * (period / classes)


def ordinal_smooth_labels(labels: Array, num_classes: int, *, sigma: float = 1.0) -> Array:
    """Targets for ordered classes: ``q_k ~ exp(-(k - y)^2 / (2 sigma^2))``, rows summing to one.

    Args:
        labels: y, integer class ids of any shape; an id outside 0..num_classes-1 gives a row of NaN.
        num_classes: the number of classes.
        sigma: the spread, above 0, in classes.

    Returns:
        (..., num_classes), in the framework's default dtype.

    Source: Diaz and Marathe 2019, "Soft Labels for Ordinal Regression", with the squared distance.

    Examples:
        >>> from lsmooth.smoothing import ordinal_smooth_labels
        >>> ordinal_smooth_labels([0, 2], 4, sigma=0.5).round(3)
        array([[0.881, 0.119, 0.   , 0.   ],
               [0.   , 0.106, 0.787, 0.106]])
    """
    sigma = check.check_range("sigma", sigma, 0.0, float("inf"))
    xp = backend_of(labels=labels)
    labels = _class_ids(xp, labels, num_classes)
    valid = (labels >= 0) & (labels < num_classes)
    if check.is_validating(xp, labels):
        check.check_class_ids(xp, labels, num_classes)
    distance = xp.cast(_offsets(xp, xp.where(valid, labels, 0), num_classes), _default_float(xp))
    values = xp.exp(distance * distance / (-2.0 * sigma * sigma))
    return xp.where(valid[..., None], values / xp.sum(values, axis=-1)[..., None], float("nan"))


def _class_ids(xp: Backend, labels: Array, num_classes: int) -> Array:
    _check_num_classes(num_classes)
    return check.class_ids(xp, xp.asarray(labels))


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}.")


def _offsets(xp: Backend, labels: Array, num_classes: int) -> Array:
    """``k - y`` of each class k, (..., classes)."""
    labels = labels[..., None]
    return match_rank(xp, _arange(xp, num_classes, labels), labels) - labels


def _arange(xp: Backend, num_classes: int, like: Array, dtype: str | None = None) -> Array:
    return xp.asarray(np.arange(num_classes), dtype or xp.dtype(like), like=like)


def _default_float(xp: Backend) -> str:
    return xp.dtype(xp.asarray(1.0))
