"""The arguments of the Keras-named losses as arrays, and losses of clipped probabilities."""

from __future__ import annotations

import warnings
from typing import Any

from lsmooth import _keras_settings as keras_settings
from lsmooth import _validation as check
from lsmooth._keras_settings import logits_behind, value_of
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.rows import accumulate, label_factor
from lsmooth.losses._cross_entropy import sigmoid_cross_entropy
from lsmooth.smoothing import binary_smooth_labels, smooth_labels


def arrays_of(y_true: Any, y_pred: Any, axis: int) -> tuple[Backend, Array, Array]:
    """The backend, and labels and floating-point predictions as its arrays."""
    xp = backend_of(y_true=y_true, y_pred=y_pred)
    y_pred = xp.asarray(y_pred, like=y_true if xp.is_array(y_true) else None)
    if xp.dtype(y_pred) not in check.FLOATS:
        y_pred = xp.cast(y_pred, keras_settings.floatx())
    rank = len(xp.shape(y_pred))
    if not check.is_integer_number(axis) or not -rank <= axis < rank:
        raise ValueError(f"axis must be an integer in [{-rank}, {rank - 1}] for y_pred of rank {rank}, got {axis!r}.")
    if check.is_validating(xp, y_pred):
        check.check_not_nan(xp, "y_pred", y_pred)
    return xp, xp.asarray(y_true, like=y_pred), y_pred


def row_labels(xp: Backend, y_true: Array, y_pred: Array, axis: int) -> Array:
    """Class ids as integers in the shape of ``y_pred`` without ``axis``."""
    shape = xp.shape(y_pred)
    front = axis % len(shape)
    rows = shape[:front] + shape[front + 1 :]
    if len(xp.shape(y_true)) == len(shape) and xp.shape(y_true)[front] == 1:
        y_true = xp.moveaxis(y_true, front, -1)[..., 0]
    if not check.same_shape(xp.shape(y_true), rows):
        raise ValueError(
            f"y_true must have shape {rows}, or a 1 at axis {axis}, for y_pred of shape {shape}; "
            f"got {xp.shape(y_true)}.{check.fitting_axis(xp.shape(y_true), shape)}{_order(xp, y_true, y_pred)}"
        )
    return check.class_ids(xp, y_true) if check.is_integer(xp, y_true) else xp.cast(y_true, "int64")


def check_same_shape(xp: Backend, y_true: Array, y_pred: Array) -> None:
    if not check.same_shape(xp.shape(y_true), xp.shape(y_pred)):
        raise ValueError(
            f"y_true and y_pred must have the same shape, got {xp.shape(y_true)} and {xp.shape(y_pred)}."
            f"{_order(xp, y_true, y_pred)}"
        )


def _order(xp: Backend, y_true: Array, y_pred: Array) -> str:
    """A hint for the message if the arguments are probably swapped."""
    return " y_true comes first, y_pred second." if len(xp.shape(y_true)) > len(xp.shape(y_pred)) else ""


def warn_of_one_class(xp: Backend, name: str, y_pred: Array, axis: int) -> None:
    if xp.shape(y_pred)[axis] == 1:
        warnings.warn(
            f"{name} needs two or more classes, but y_pred has shape {xp.shape(y_pred)}; "
            "use binary_crossentropy for binary labels.",
            SyntaxWarning,
            stacklevel=4,  # the caller of the public function
        )


def targets_and_probabilities(
    xp: Backend, y_true: Array, y_pred: Array, label_smoothing: Any, axis: int
) -> tuple[Array, Array]:
    """Smoothed labels and normalised, clipped probabilities; the classes last."""
    p = _probabilities(xp, xp.moveaxis(y_pred, axis, -1))
    return smooth_labels(xp.cast(xp.moveaxis(y_true, axis, -1), xp.dtype(p)), label_smoothing), p


def _probabilities(xp: Backend, y_pred: Array) -> Array:
    p = accumulate(xp, y_pred)
    return _clipped(xp, p / xp.expand_dims(xp.sum(p, axis=-1)))


def sparse_losses_of_probabilities(
    xp: Backend, labels: Array, y_pred: Array, counted: Array | None, label_smoothing: Any
) -> Array:
    if counted is not None:
        labels = xp.where(counted, labels, 0)
        y_pred = xp.where(counted[..., None], y_pred, 1.0)
    p = accumulate(xp, y_pred)
    eps = check.number_or_rows(
        xp, "label_smoothing", label_smoothing, xp.shape(labels), p, xp.dtype(p), low=0.0, high=1.0
    )
    if check.is_validating(xp, labels, y_pred):
        check.check_class_ids(xp, labels, xp.shape(y_pred)[-1], counted)
    classes, factor = xp.length(p, -1, xp.dtype(labels)), None
    ids = xp.host_values(labels)
    if ids is None or (ids.size and not (ids.min() >= 0 and ids.max() < classes)):
        labels, factor = label_factor(xp, labels, classes, xp.dtype(p))
    log_q = xp.log(_clipped(xp, xp.pick(p, labels) / xp.sum(p, axis=-1)))
    if not isinstance(eps, float) or eps > 0.0:
        log_q = (1.0 - eps) * log_q + eps * mean_over(xp, xp.log(_probabilities(xp, p)), -1)
    losses = -log_q if factor is None else -factor * log_q
    return losses if counted is None else xp.where(counted, losses, 0.0)


def binary_losses(
    xp: Backend, y_true: Array, y_pred: Array, from_logits: bool, label_smoothing: Any, function: str
) -> Array:
    """The binary cross-entropy of each element, computed from logits if they are known."""
    y_pred, from_logits = logits_behind(xp, y_pred, from_logits, "Sigmoid", function)
    if from_logits:
        return sigmoid_cross_entropy(y_true, y_pred, label_smoothing=label_smoothing, reduction="none")
    p = _clipped(xp, accumulate(xp, y_pred))
    label = binary_smooth_labels(xp.cast(y_true, xp.dtype(p)), label_smoothing)
    return -label * xp.log(p) - (1.0 - label) * xp.log(1.0 - p)


def focal_options(xp: Backend, alpha: Any, gamma: Any, label_smoothing: Any, y_pred: Array) -> tuple[Any, Any, Any]:
    gamma = value_of(xp, "gamma", gamma, y_pred)
    gamma = check.check_at_least("gamma", gamma, 0.0)
    return value_of(xp, "alpha", alpha, y_pred), gamma, value_of(xp, "label_smoothing", label_smoothing, y_pred)


def _clipped(xp: Backend, p: Array) -> Array:
    """``p`` clipped to [epsilon, 1 - epsilon]; the gradient of clipped entries is 0."""
    return xp.clip(p, keras_settings.epsilon(), 1.0 - keras_settings.epsilon())


def mean_over(xp: Backend, x: Array, axis: int) -> Array:
    size = xp.shape(x)[axis]
    count = xp.sum(xp.ones_like(x, xp.dtype(x)), axis=axis) if size is None else max(size, 1)
    return xp.sum(x, axis=axis) / count
