"""Shared parts of the drop-in replacements: checked arguments, and the two sums of smoothed losses."""

from __future__ import annotations

from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas import divergence
from lsmooth.backends.formulas.rows import accumulate, label_factor, match_rank
from lsmooth.smoothing import smooth_labels


def scores(xp: Backend, name: str, value: Any, like: Any = None, least_rank: int = 1) -> tuple[Array, str]:
    """Logits or log-probabilities in the precision of reductions, and their original dtype."""
    array = check.logits_array(xp, name, value, like, f"loss({name}, labels)")
    if len(xp.shape(array)) < least_rank:
        raise ValueError(f"{name} must have at least one axis, the classes; got a scalar.")
    return accumulate(xp, array), xp.dtype(array)


def number(name: str, value: Any) -> Any:
    """A number or a scalar array as Python's float; traced or differentiated arrays unchanged."""
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        xp = backend_of(value=value)
        if not xp.is_concrete(value) or getattr(value, "requires_grad", False):
            return check.to_array(xp, name, value)
        array = xp.to_numpy(value)
        value = array[()] if array.ndim == 0 else value
    return check.check_number(name, value)


def real_numbers(name: str, value: Any, rank: int | None = None) -> Any:
    """``value`` unchanged, if it is None or holds real numbers."""
    if value is None:
        return None
    xp = backend_of(value=value)
    array = check.to_array(xp, name, value)
    if xp.dtype(array) == "bool":
        raise TypeError(f"{name} must hold real numbers, got bool.")
    if rank is not None and len(xp.shape(array)) != rank:
        raise ValueError(f"{name} must have shape (classes,), one number per class; got shape {xp.shape(array)}.")
    return value


def class_id(name: str, value: Any) -> int:
    """An integer as Python's int; bools are refused."""
    if not check.is_integer_number(value):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    return int(value)


def class_count(xp: Backend, array: Array) -> Any:
    """The size of the last axis: an int, or a scalar of the array's dtype if it is known only at run time."""
    return xp.length(array, -1, xp.dtype(array))


def integers(xp: Backend, name: str, value: Any, like: Array) -> Array:
    """Class ids of any shape, in a dtype that is large enough for any number of classes."""
    return check.class_ids(xp, check.to_array(xp, name, value, like=like), name)


def class_ids(
    xp: Backend, name: str, value: Any, log_probs: Array, ignore_index: int | None = None, are_all: bool = True
) -> Array:
    """Class ids in the shape of the rows; `lsmooth.validate` checks their range if this member has all classes."""
    labels = integers(xp, name, value, log_probs)
    rows = xp.shape(log_probs)[:-1]
    if not check.same_shape(xp.shape(labels), rows):
        raise ValueError(f"{name} must have shape {rows}, one class id per row; got {xp.shape(labels)}.")
    if are_all and check.is_validating(xp, labels):
        counted = None if ignore_index is None else ~xp.equal(labels, ignore_index)
        check.check_class_ids(xp, labels, xp.shape(log_probs)[-1], counted)
    return labels


def log_softmax(xp: Backend, logits: Array) -> Array:
    """``z - log(sum(exp(z)))`` over the last axis, which may be empty."""
    return logits if xp.shape(logits)[-1] == 0 else divergence.log_softmax(xp, logits)


def pick(xp: Backend, log_probs: Array, labels: Array) -> Array:
    """The label's log-probability in each row; 0 without classes."""
    return xp.sum(log_probs, axis=-1) if xp.shape(log_probs)[-1] == 0 else xp.pick(log_probs, labels)


def per_class(xp: Backend, eps: float, log_probs: Array) -> float:
    """``eps / classes``, which is infinite without classes."""
    return float("inf") if xp.shape(log_probs)[-1] == 0 else eps / class_count(xp, log_probs)


def divide(xp: Backend, numerator: Array, divisor: Any) -> Array:
    """A quotient with 0 / 0 = NaN, which does not raise under ``numpy.errstate``."""
    if not xp.is_array(divisor):
        divisor = xp.asarray(divisor, xp.dtype(numerator), like=numerator)
    empty = xp.equal(divisor, 0)
    return xp.one_or_nan(~empty, xp.dtype(numerator)) * numerator / xp.where(empty, 1.0, divisor)


def nll_and_spread(
    xp: Backend, log_probs: Array, labels: Array, *, class_weight: Array | None = None, ignore_index: int | None = None
) -> tuple[Array, Array]:
    """``-w_y log p_y`` and ``-sum_k w_k log p_k`` of each row: every smoothed loss is a mixture of the two.

    Both are 0 in rows whose label is ``ignore_index``. As in the original libraries, -inf does not mask a class.
    """
    counted = None if ignore_index is None else ~xp.equal(labels, ignore_index)
    if counted is not None:
        labels = xp.where(counted, labels, 0)
    labels, factor = label_factor(xp, labels, xp.length(log_probs, -1, xp.dtype(labels)), xp.dtype(log_probs))
    if class_weight is not None:
        factor = factor * (xp.take(class_weight, labels) if xp.shape(class_weight)[0] != 0 else 1.0)
    nll = -factor * pick(xp, log_probs, labels)
    weighted = log_probs if class_weight is None else log_probs * match_rank(xp, class_weight, log_probs)
    spread = -xp.sum(weighted, axis=-1)
    if counted is None:
        return nll, spread
    return xp.where(counted, nll, 0.0), xp.where(counted, spread, 0.0)


def mix_with_others(xp: Backend, nll: Array, spread: Array, eps: float, log_probs: Array) -> Array:
    """The loss with 1 - eps on the label's class and eps / (classes - 1) on each of the others."""
    if xp.shape(log_probs)[-1] == 1:
        raise ValueError("Smoothing over the other classes needs at least two classes, got 1.")
    others = eps / (class_count(xp, log_probs) - 1)
    return (1.0 - eps - others) * nll + others * spread


def padded_kl_divergence(
    xp: Backend,
    named_log_probs: tuple[str, Any],
    named_labels: tuple[str, Any],
    size: int,
    padding_idx: int,
    eps: float,
) -> tuple[Array, Array]:
    """``sum q log q - q x`` for log-probabilities x; and q, the smoothed targets without the padding class."""
    log_probs, dtype = scores(xp, *named_log_probs, like=named_labels[1])
    if xp.shape(log_probs)[-1] not in (size, None):
        raise ValueError(f"{named_log_probs[0]} must have {size} classes, got shape {xp.shape(log_probs)}.")
    labels = class_ids(xp, *named_labels, log_probs)
    labels, factor = label_factor(xp, labels, size, xp.dtype(log_probs))
    one_hot = xp.one_hot(labels, size, xp.dtype(log_probs)) * factor[..., None]
    targets = smooth_labels(one_hot, eps, padding_idx=padding_idx)
    entropy = targets * xp.log(xp.where(xp.equal(targets, 0), 1.0, targets))
    return xp.cast(xp.sum(entropy - targets * log_probs), dtype), xp.cast(targets, dtype)


def mean(xp: Backend, losses: Array) -> Array:
    """The mean of all losses; NaN if there are none."""
    return divide(xp, xp.sum(losses), xp.sum(xp.ones_like(losses, xp.dtype(losses))))


def reduced(xp: Backend, losses: Array, reduction: str) -> Array:
    """The losses reduced by one of torch's three reductions."""
    if reduction == "none":
        return losses
    return mean(xp, losses) if reduction == "mean" else xp.sum(losses)


def check_torch_reduction(reduction: Any) -> None:
    """Raise a ValueError unless ``reduction`` is one of torch's three."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be one of none, mean, sum; got {reduction!r}.")
