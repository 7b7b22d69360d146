"""Mass taken from the label and distributed over the classes, uniformly or by a prior."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import match_rank


def smooth_labels(
    labels: Array,
    label_smoothing: float | Array,
    *,
    num_classes: int | None = None,
    prior: Array | None = None,
    padding_idx: int | None = None,
    exclude_target: bool = False,
) -> Array:
    """Smoothed target distributions: ``(1 - eps) t + eps u``.

    | form | target of the label | of the others |
    |---|---|---|
    | default | 1 - eps + eps u_y | eps u_k, with u_k = 1 / classes by default |
    | ``exclude_target`` | 1 - eps | eps u_k / (1 - u_y): eps / (classes - 1) for the uniform u |
    | ``padding_idx`` | 1 - eps | the same without the padding class, which gets 0: eps / (classes - 2) |

    Args:
        labels: class ids, integers of any shape, with ``num_classes``; or distributions (..., classes) without
            ``num_classes``, which must be one-hot if they are integers. An id outside 0..num_classes-1 gives a
            row of NaN.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the rows.
        num_classes: the number of classes, for class ids.
        prior: u, (classes,), non-negative; scaled to sum to one.
        padding_idx: the padding class; rows labelled with it are 0.
        exclude_target: whether the smoothing mass goes only to the other classes.

    Returns:
        (..., classes): in the dtype of floating labels, else in the framework's default.

    Raises:
        ValueError: if class ids come without ``num_classes``, a number is out of range, or there are too few classes.

    Source: Szegedy et al. 2016; fairseq's ``label_smoothed_nll_loss`` (``exclude_target``); the
        Annotated Transformer (``padding_idx``).

    Examples:
        >>> from lsmooth.smoothing import smooth_labels
        >>> smooth_labels([2, 0], 0.5, num_classes=5, padding_idx=0).round(4)
        array([[0.    , 0.1667, 0.5   , 0.1667, 0.1667],
               [0.    , 0.    , 0.    , 0.    , 0.    ]])
    """
    xp = backend_of(labels=labels, label_smoothing=label_smoothing, prior=prior)
    target = _distributions(xp, labels, num_classes)
    dtype = xp.dtype(target)
    shape = xp.shape(target)
    classes = shape[-1]
    eps = check.number_or_rows(xp, "label_smoothing", label_smoothing, shape[:-1], target, dtype, low=0.0, high=1.0)
    eps = eps if isinstance(eps, float) else eps[..., None]

    if prior is not None:
        prior = xp.asarray(prior, dtype, like=target)
        if not check.same_shape(xp.shape(prior), (classes,)):
            raise ValueError(f"prior must have shape ({classes},), one number per class; got {xp.shape(prior)}.")
        prior = match_rank(xp, prior, target)
    if classes == 0:
        return target
    if padding_idx is None and not exclude_target:
        spread = 1.0 / xp.length(target, -1, dtype) if prior is None else prior / xp.sum(prior)
        return (1.0 - eps) * target + eps * spread

    classes = check.known_classes("labels", shape)
    least = 2 if padding_idx is None else 3
    if classes < least:
        raise ValueError(f"num_classes must be at least {least} to spread mass over other classes, got {classes}.")
    mass = xp.ones_like(target, dtype) if prior is None else prior
    if padding_idx is not None:
        if not 0 <= padding_idx < classes:
            raise ValueError(f"padding_idx must be in 0..{classes - 1}, got {padding_idx}.")
        padding = xp.one_hot(xp.asarray(padding_idx, "int32", like=target), classes, dtype)
        not_padding = 1.0 - match_rank(xp, padding, target)
        target, mass = target * not_padding, mass * not_padding
    # Class k gets eps u_k / (1 - u_j) from label j: the sum over all j minus the term j = k.
    share = target / (xp.sum(mass, axis=-1)[..., None] - mass)
    return (1.0 - eps) * target + eps * mass * (xp.sum(share, axis=-1)[..., None] - share)


def binary_smooth_labels(labels: Array, label_smoothing: float | Array) -> Array:
    """Smoothed binary targets: ``(1 - eps) t + eps / 2``.

    Args:
        labels: t in [0, 1], any shape and dtype; integers must be 0 or 1.
        label_smoothing: eps in [0, 1], a number; or a tensor that broadcasts to the labels.

    Returns:
        The labels' shape: in the dtype of floating labels, else in the framework's default.

    Source: ``tf.compat.v1.losses.sigmoid_cross_entropy``; Ultralytics' ``smooth_BCE``.

    Examples:
        >>> from lsmooth.smoothing import binary_smooth_labels
        >>> binary_smooth_labels([0, 1], 0.1)
        array([0.05, 0.95])
    """
    xp = backend_of(labels=labels, label_smoothing=label_smoothing)
    target = _binary_targets(xp, xp.asarray(labels))
    eps = check.number_or_rows(
        xp, "label_smoothing", label_smoothing, xp.shape(target), target, xp.dtype(target), low=0.0, high=1.0
    )
    return (1.0 - eps) * target + 0.5 * eps


def _distributions(xp: Backend, labels: Array, num_classes: int | None) -> Array:
    labels = xp.asarray(labels)
    if num_classes is None:
        if check.is_integer(xp, labels) and len(xp.shape(labels)) < 2:
            raise ValueError(
                f"num_classes is needed to smooth class ids; got integer labels of shape {xp.shape(labels)}."
            )
        return _one_hot_rows(xp, labels) if check.is_integer(xp, labels) else _floating(xp, labels)
    if not check.is_integer(xp, labels):
        raise TypeError(
            f"labels must be integer class ids where num_classes is given, got {xp.dtype(labels)}; "
            "leave num_classes out for distributions."
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
    labels = check.class_ids(xp, labels)
    if check.is_validating(xp, labels):
        check.check_class_ids(xp, labels, num_classes)
    dtype = xp.dtype(xp.asarray(1.0))
    valid = (labels >= 0) & (labels < num_classes)
    row = xp.where(valid, xp.cast(valid, dtype), float("nan"))
    return xp.one_hot(labels, num_classes, dtype) * row[..., None]


def _one_hot_rows(xp: Backend, labels: Array) -> Array:
    """Integer rows with at most a single 1; other rows are an error, or NaN if values cannot be read."""
    target = _floating(xp, labels)
    mass = xp.sum(target, axis=-1)
    # t (t - 1) is positive for every integer but 0 and 1.
    one_hot = xp.equal(xp.sum(target * target, axis=-1), mass) & (mass <= 1.0)
    return _where_valid(
        xp,
        target,
        one_hot[..., None],
        f"num_classes is needed to smooth class ids: got integer labels of shape {xp.shape(labels)} that are not "
        "one-hot. Pass num_classes= with class ids; pass distributions as floating-point labels.",
    )


def _binary_targets(xp: Backend, labels: Array) -> Array:
    """Floating labels; integers other than 0 and 1 are an error, or NaN if values cannot be read."""
    target = _floating(xp, labels)
    if not check.is_integer(xp, labels):
        return target
    message = "labels must be 0 or 1 for binary smoothing; for class ids use smooth_labels(num_classes=...)."
    return _where_valid(xp, target, xp.equal(target * target, target), message)


def _where_valid(xp: Backend, target: Array, valid: Array, message: str) -> Array:
    """``target``, with NaN where it is invalid; a ValueError if values can be read without synchronisation."""
    values = None if xp.host_values(target) is None else xp.host_values(valid)
    if values is not None and not values.all():
        raise ValueError(message)
    return xp.where(valid, target, float("nan"))


def _floating(xp: Backend, array: Array) -> Array:
    return array if xp.dtype(array) in check.FLOATS else xp.cast(array, xp.dtype(xp.asarray(1.0)))
