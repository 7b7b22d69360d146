"""Divergences from a teacher of whom only some classes are kept: the others count as one class, the bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.divergence import jensen_shannon_terms, relative_terms, tempered
from lsmooth.backends.formulas.rows import MINUS_INFINITY, along_classes, log_softmax, row_maximum
from lsmooth.backends.options import DivergenceOptions

TAILS = ("renormalize", "drop", "bucket")
# In place of a logit, less than any: -inf would stop TensorFlow's `enable_check_numerics`.
_FAR = -1e30


def _jensen_shannon(xp: Backend, log_t: Array, log_s: Array, beta: float) -> Array:
    of_t, of_s = jensen_shannon_terms(xp, log_t, log_s, beta)
    return of_t + of_s


# What each class adds, from its log-probabilities. These need not sum to one.
TERMS: dict[str, Callable[[Backend, Array, Array, float], Array]] = {
    "forward_kl": lambda xp, log_t, log_s, _: relative_terms(xp, log_t, log_s),
    "reverse_kl": lambda xp, log_t, log_s, _: relative_terms(xp, log_s, log_t),
    "jensen_shannon": _jensen_shannon,
}


def check_tail(tail: str, divergence: str) -> None:
    """Check both names.

    Raises:
        ValueError: if one is unknown.
    """
    for name, value, known in (("tail", tail, TAILS), ("divergence", divergence, tuple(TERMS))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def kept_indices(xp: Backend, teacher_indices: Any, log_probs: Array, counted: Array | None) -> Array:
    """The class ids of the kept classes, signed integers; 0 where a row does not count.

    Raises:
        TypeError: if they are not integers.
        ValueError: if their shape is not that of the log-probabilities.
    """
    indices = xp.asarray(teacher_indices, like=log_probs)
    if not check.is_integer(xp, indices):
        raise TypeError(f"teacher_indices must be integers, got {xp.dtype(indices)}.")
    if not check.same_shape(xp.shape(indices), xp.shape(log_probs)):
        raise ValueError(
            f"teacher_indices must have the shape of the teacher_log_probs, {xp.shape(log_probs)}; "
            f"got {xp.shape(indices)}."
        )
    indices = check.class_ids(xp, indices)
    return indices if counted is None else xp.where(counted[..., None], indices, 0)


def kept_divergence(
    xp: Backend, log_probs: Array, indices: Array, student: Array, tail: str, options: DivergenceOptions
) -> Array:
    """``scale D`` of each row, or their sum, over the kept classes and what the tail makes of the others.

    Args:
        xp: the backend.
        log_probs: (..., k), of the kept classes; -inf marks an empty place.
        indices: (..., k), from `kept_indices`.
        student: (..., classes), logits.
        tail: one of `TAILS`.
        options: of the divergence.

    Returns:
        (...), the loss of each row; or their sum. A row with a class out of range is NaN.
    """
    terms, temperature, counted = TERMS[options.divergence], options.temperature, options.counted
    kept, student = tempered(xp, log_probs, student, 1.0, counted)
    empty = xp.equal(kept, MINUS_INFINITY)
    valid = (indices >= 0) & (indices < xp.length(student, -1, xp.dtype(indices)))
    kept = kept * xp.one_or_nan(valid | empty, xp.dtype(kept))
    indices = xp.where(valid & ~empty, indices, -1)
    chosen = xp.gather(student, xp.where(indices < 0, 0, indices))
    chosen = xp.where(indices < 0, MINUS_INFINITY, chosen)
    if tail == "renormalize":
        log_t, log_s = (
            log_softmax(xp, _over(xp, z - row_maximum(xp, z)[..., None], temperature)) for z in (kept, chosen)
        )
        losses = xp.sum(terms(xp, log_t, log_s, options.parameter), axis=-1)
    else:
        reference = row_maximum(xp, chosen)
        chosen, rest = chosen - reference[..., None], _log_sum_exp_of_others(xp, student, indices, reference)
        (log_s, log_s_rest) = _log_softmax_with(xp, chosen, rest, temperature)
        without = xp.equal(rest, MINUS_INFINITY)
        log_t, log_t_rest = kept, _log_rest(xp, kept, without, options.divergence)
        if not _is_one(temperature):
            log_t, log_t_rest = _log_softmax_with(xp, kept, log_t_rest, temperature)
        losses = xp.sum(terms(xp, log_t, log_s, options.parameter), axis=-1)
        if tail == "bucket":
            losses = losses + terms(xp, log_t_rest, log_s_rest, options.parameter)
    if options.scale is not None:
        losses = losses * options.scale
    if counted is not None:
        losses = xp.where(counted, losses, 0.0)
    return xp.sum(losses) if options.total else losses


def _is_one(temperature: Any) -> bool:
    return isinstance(temperature, float) and temperature == 1.0


def _over(xp: Backend, z: Array, temperature: Any) -> Array:
    """``z / T``; -inf stays, without a part in the derivative of T."""
    if _is_one(temperature):
        return z
    absent = xp.equal(z, MINUS_INFINITY)
    over = along_classes(xp, temperature) if len(xp.shape(z)) > len(_shape(xp, temperature)) else temperature
    return xp.where(absent, MINUS_INFINITY, xp.where(absent, 0.0, z) / over)


def _shape(xp: Backend, temperature: Any) -> tuple[Any, ...]:
    return () if isinstance(temperature, float) else xp.shape(temperature)


def _log_sum_exp_of_others(xp: Backend, student: Array, indices: Array, reference: Array) -> Array:
    """The log-sum-exp of the classes without an index, less the reference of their row; -inf if there are none.

    It is exact however little they have, and however large the logits and the reference are.
    An empty place, -1, stands for another place of its row, so that every place can be overwritten.
    """
    another = xp.max(indices, axis=-1)[..., None]
    place = xp.where(indices < 0, xp.where(another < 0, 0, another), indices)
    first = student[..., :1] + 0.0 * xp.cast(indices, xp.dtype(student))
    others = xp.put(student, place, xp.where(another < 0, first, _FAR))
    top = row_maximum(xp, others)
    total = xp.sum(xp.exp(others - top[..., None]), axis=-1)
    none = xp.equal(total, 0) | (top < 0.5 * _FAR)
    return xp.where(none, MINUS_INFINITY, (top - reference) + xp.log(xp.where(none, 1.0, total)))


def _log_rest(xp: Backend, kept: Array, without: Array, divergence: str) -> Array:
    """The logarithm of the teacher's mass on the other classes, -inf where it has none.

    The reverse KL would be infinite there. A mass that is lost in the rounding of the others is taken to be as much
    as that.
    """
    rest = 1.0 - xp.sum(xp.exp(kept), axis=-1)
    if divergence == "reverse_kl":
        rounding = 2.0**-52 if xp.dtype(rest) == "float64" else 2.0**-23
        rest = xp.where(rest < rounding, rounding, rest)
    without = without | (rest <= 0)
    return xp.where(without, MINUS_INFINITY, xp.log(xp.where(without, 1.0, rest)))


def _log_softmax_with(xp: Backend, z: Array, rest: Array, temperature: Any) -> tuple[Array, Array]:
    """The log-softmax at T of z (..., k) and of one more class, its logit in ``rest`` (...)."""
    top, last = row_maximum(xp, z), xp.stop_gradient(rest)
    none = xp.equal(xp.max(xp.stop_gradient(z), axis=-1), MINUS_INFINITY)
    top = xp.where(xp.equal(last, MINUS_INFINITY), top, xp.where(none | (last > top), last, top))
    z, rest = _over(xp, z - top[..., None], temperature), _over(xp, rest - top, temperature)
    lse = xp.log(xp.sum(xp.exp(z), axis=-1) + xp.exp(rest))
    return z - lse[..., None], rest - lse
