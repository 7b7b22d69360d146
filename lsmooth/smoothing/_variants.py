"""Smoothing of multi-label targets, and negative smoothing."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.smoothing._uniform import _binary_targets, _distributions, _floating


def multilabel_smooth_labels(
    labels: Array,
    label_smoothing: float | Array,
    *,
    negative_smoothing: float | Array | None = None,
    normalize: bool = False,
) -> Array:
    """Smoothed multi-label targets: ``(1 - a) t + b (1 - t)``.

    | form | use |
    |---|---|
    | a = b = eps / 2 | symmetric, as `binary_smooth_labels`, for one sigmoid per class |
    | a < b | missing labels: an absent label may be an omission |
    | ``normalize`` | softmax: t is divided by its sum, then the mass a is distributed uniformly over all classes |

    Args:
        labels: t in [0, 1], (..., classes), 1 for positive classes.
        label_smoothing: a in [0, 1], taken from the positives; a number, or a tensor that broadcasts to the rows.
        negative_smoothing: b in [0, 1], the mass given to the negatives; a by default.
        normalize: whether rows sum to one, ``(1 - a) t / sum(t) + a / classes``; rows without labels are uniform.

    Returns:
        The labels' shape: in the dtype of floating labels, else in the framework's default.

    Source: Mahajan et al. 2018, "Exploring the Limits of Weakly Supervised Pretraining"
        (``normalize``); Cole et al. 2021, "Multi-Label Learning from Single Positive Labels" (smoothed negatives).

    Examples:
        >>> from lsmooth.smoothing import multilabel_smooth_labels
        >>> multilabel_smooth_labels([[1, 1, 0, 0]], 0.1, negative_smoothing=0.2)
        array([[0.9, 0.9, 0.2, 0.2]])
        >>> multilabel_smooth_labels([[1, 1, 0, 0]], 0.2, normalize=True)
        array([[0.45, 0.45, 0.05, 0.05]])
    """
    if normalize and negative_smoothing is not None:
        raise ValueError("negative_smoothing cannot be combined with normalize=True; leave one of the two out.")
    xp = backend_of(labels=labels, label_smoothing=label_smoothing, negative_smoothing=negative_smoothing)
    labels = xp.asarray(labels)
    target = _floating(xp, labels) if normalize else _binary_targets(xp, labels)
    shape, dtype = xp.shape(target), xp.dtype(target)
    check.check_has_classes("labels", shape)
    classes = xp.length(target, -1, dtype)
    rows = shape[:-1]
    a = check.number_or_rows(xp, "label_smoothing", label_smoothing, rows, target, dtype, low=0.0, high=1.0)
    a = a if isinstance(a, float) else a[..., None]
    if normalize:
        total = xp.sum(target, axis=-1)[..., None]
        share = xp.where(xp.equal(total, 0), 1.0 / classes, target / xp.where(xp.equal(total, 0), 1.0, total))
        return (1.0 - a) * share + a / classes
    if negative_smoothing is None:
        b = a
    else:
        b = check.number_or_rows(xp, "negative_smoothing", negative_smoothing, rows, target, dtype, low=0.0, high=1.0)
        b = b if isinstance(b, float) else b[..., None]
    return (1.0 - a) * target + b * (1.0 - target)


def negative_smooth_labels(labels: Array, label_smoothing: float, *, num_classes: int | None = None) -> Array:
    """Negative label smoothing: ``(1 - eps) t + eps / classes``, with eps below 0 allowed.

    With a negative eps, targets are above 1 for the label and below 0 for the others: rows still sum to one, but
    the cross-entropy has no lower bound. Negative smoothing corrects label noise. If labels are flipped to another
    class with probability r < 1 - 1 / classes, the observed labels are smoothed on average, and with the eps of
    `noise_correcting_smoothing` the expected target is the true label.

    Args:
        labels: class ids, integers of any shape, with ``num_classes``; or distributions (..., classes) without.
        label_smoothing: eps, a finite number of at most 1.
        num_classes: the number of classes, for class ids.

    Returns:
        (..., classes): in the dtype of floating labels, else in the framework's default. The losses refuse negative
        mass; as the cross-entropy is linear in the labels, use ``(1 - eps) CE(t) + eps CE(1 / classes)``.

    Source: Wei et al. 2022, "To Smooth or Not? When Label Smoothing Meets Noisy Labels".

    Examples:
        >>> from lsmooth.smoothing import negative_smooth_labels
        >>> negative_smooth_labels([1], -0.4, num_classes=4)
        array([[-0.1,  1.3, -0.1, -0.1]])
    """
    if not float("-inf") < label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be a finite number of at most 1, got {label_smoothing}.")
    xp = backend_of(labels=labels)
    target = _distributions(xp, labels, num_classes)
    return (1.0 - label_smoothing) * target + label_smoothing / xp.length(target, -1, xp.dtype(target))


def noise_correcting_smoothing(noise_rate: float, num_classes: int) -> float:
    """The negative smoothing that undoes symmetric label noise.

    Labels that are flipped to another of K classes with probability r are on average smoothed with
    ``s = r K / (K - 1)``, whose inverse is the eps ``-s / (1 - s)``.

    Args:
        noise_rate: r, in [0, 1 - 1 / K).
        num_classes: K, at least 2.

    Returns:
        eps, at most 0, for `negative_smooth_labels`.

    Source: Wei et al. 2022, "To Smooth or Not? When Label Smoothing Meets Noisy Labels"; Patrini et
        al. 2017, "Making Deep Neural Networks Robust to Label Noise" (backward correction).

    Examples:
        >>> from lsmooth.smoothing import noise_correcting_smoothing
        >>> round(noise_correcting_smoothing(0.2, 10), 4)
        -0.2857
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if not 0.0 <= noise_rate < 1.0 - 1.0 / num_classes:
        raise ValueError(f"noise_rate must be in [0, {1.0 - 1.0 / num_classes:g}), got {noise_rate}.")
    smoothing = noise_rate * num_classes / (num_classes - 1.0)
    return -smoothing / (1.0 - smoothing)
