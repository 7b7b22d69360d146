"""Smoothing beyond one label and beyond [0, 1]: several labels at once, and negative smoothing."""

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
    """Targets where several classes are right: ``(1 - a) t + b (1 - t)``.

    | form | what it is for |
    |---|---|
    | a = b = eps / 2 | symmetric: `binary_smooth_labels`, for one sigmoid a class |
    | a != b | missing labels: b above a says that an absent label may be an omission |
    | ``normalize`` | a softmax: t over its sum first, then the mass a spread evenly over all classes |

    Args:
        labels: t, (..., classes), 1 where the class is right and 0 elsewhere, or anything between.
        label_smoothing: a in [0, 1], a number, what is taken from the positives; or a tensor that
            broadcasts to the rows.
        negative_smoothing: b in [0, 1], what is given to the negatives; a unless given.
        normalize: whether rows sum to one, ``(1 - a) t / sum(t) + a / classes``; rows without any
            label are uniform.

    Returns:
        The labels' shape: in the dtype of floating labels, else in the framework's default.

    Raises:
        ValueError: if a number is out of range, or both ``normalize`` and ``negative_smoothing`` are given.

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
        raise ValueError("negative_smoothing has no meaning where rows are normalized; leave one of the two out.")
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

    A negative eps puts more than 1 on the label and less than 0 on the others: the rows still sum to
    one, but are no distributions, and a cross-entropy with them has no lower bound. What makes it
    meaningful is noise. If a label is flipped to any other class with probability r in all, the
    labels one sees are smoothed on average, and `noise_correcting_smoothing` undoes that: the mean of
    the target is the true label. Below its value for r = 1 - 1 / classes, where labels say nothing
    any more, an eps means nothing.

    Args:
        labels: class ids, integers of any shape, with ``num_classes`` given; or distributions
            (..., classes) without.
        label_smoothing: eps, a finite number of at most 1.
        num_classes: the number of classes, for class ids.

    Returns:
        (..., classes): in the dtype of floating labels, else in the framework's default. lsmooth's losses take
        no negative mass. Since a cross-entropy is linear in the labels, that of these targets is
        ``(1 - eps) CE(t) + eps CE(1 / classes)``.

    Raises:
        ValueError: if ``label_smoothing`` is above 1 or not finite, or class ids come without ``num_classes``.

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

    Labels flipped to any other of K classes with probability r in all are, on average, smoothed with
    ``s = r K / (K - 1)``; the eps that inverts it is ``-s / (1 - s)``.

    Args:
        noise_rate: r, in [0, 1 - 1 / K).
        num_classes: K, at least 2.

    Returns:
        eps, at most 0, for `negative_smooth_labels`.

    Raises:
        ValueError: if a number is out of range.

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
