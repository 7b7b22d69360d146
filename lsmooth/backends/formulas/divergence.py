"""Divergences between two rows of logits, exact: no probability is clipped.

Each takes the logits of the teacher and of the student, classes last, and returns one number per row.
Classes that both mask (-inf) are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lsmooth.backends.formulas.rows import MINUS_INFINITY, centered, log_softmax, logits_over_temperature, reduced
from lsmooth.backends.options import DIVERGENCE, DivergenceOptions

if TYPE_CHECKING:
    from lsmooth.backends.base import Array, Backend


def softmax_divergence(xp: Backend, teacher: Array, student: Array, options: DivergenceOptions = DIVERGENCE) -> Array:
    """``scale D(teacher / T, student / T)`` of each row.

    Args:
        xp: the backend.
        teacher: (..., classes), floating point.
        student: likewise; the result has its precision, at least float32.
        options: D, T and the others.

    Returns:
        (...), the loss of each row; or their sum.
    """
    temperature, counted = options.temperature, options.counted
    of_logits = options.divergence in OF_LOGITS
    pair = tempered(xp, teacher, student, 1.0 if of_logits else temperature, counted)
    losses = DIVERGENCES[options.divergence](xp, *pair, options.parameter)
    if options.divergence == "mse_logits":  # divide after the subtraction, because the logits may be large
        losses = losses / (temperature * temperature)
    return reduced(xp, losses, options)


def tempered(
    xp: Backend, teacher: Array, student: Array, temperature: Any, counted: Array | None
) -> tuple[Array, Array]:
    """Both logits over T in the precision of the result, zeros in ignored rows.

    Unless T is the number 1, the largest logit of each row is subtracted first, so that the division of a common
    offset loses no digits.
    """
    dtype = "float64" if xp.dtype(student) == "float64" else "float32"
    both = (xp.cast(teacher, dtype), xp.cast(student, dtype))
    if counted is not None:
        both = (xp.where(counted[..., None], z, 0.0) for z in both)
    if isinstance(temperature, float) and temperature == 1.0:
        teacher, student = both
    else:
        teacher, student = (logits_over_temperature(xp, centered(xp, z), temperature) for z in both)
    return teacher, student


def forward_kl(xp: Backend, teacher: Array, student: Array, _: float = 0.0) -> Array:
    """KL(t || s) = ``sum_k t_k (log t_k - log s_k)``; its gradient is s - t."""
    return relative_entropy(xp, log_softmax(xp, teacher), log_softmax(xp, student))


def reverse_kl(xp: Backend, teacher: Array, student: Array, _: float = 0.0) -> Array:
    """KL(s || t) = ``sum_k s_k (log s_k - log t_k)``."""
    log_t, log_s = log_softmax(xp, teacher), log_softmax(xp, student)
    losses = relative_entropy(xp, log_s, log_t)
    return losses + _level(xp, xp.exp(log_s), losses + 1.0)


def _level(xp: Backend, s: Array, mean: Array) -> Array:
    """0, with derivative ``-mean`` in a softmax s, which reduces the rounding of the gradient in the logits.

    With d the derivative of a loss in s, that gradient is ``s_k (d_k - sum_j s_j d_j)``. If s is almost one-hot, the
    two terms almost cancel; subtracting the mean of d beforehand keeps both of them small.
    """
    mean = xp.stop_gradient(xp.where(xp.equal(abs(mean), -MINUS_INFINITY), 0.0, mean))
    return xp.sum((xp.stop_gradient(s) - s) * mean[..., None], axis=-1)


def relative_entropy(xp: Backend, log_p: Array, log_q: Array) -> Array:
    """``sum_k p_k (log p_k - log q_k)``; q may be 0 where p is."""
    return xp.sum(relative_terms(xp, log_p, log_q), axis=-1)


def relative_terms(xp: Backend, log_p: Array, log_q: Array) -> Array:
    """The terms of `relative_entropy`."""
    p = xp.exp(log_p)
    empty = xp.equal(p, 0)
    return p * (xp.where(empty, 0.0, log_p) - xp.where(empty, 0.0, log_q))


def jensen_shannon(xp: Backend, teacher: Array, student: Array, beta: float) -> Array:
    """``beta KL(t || m) + (1 - beta) KL(s || m)``, m = beta t + (1 - beta) s."""
    log_t, log_s = log_softmax(xp, teacher), log_softmax(xp, student)
    of_t, of_s = jensen_shannon_terms(xp, log_t, log_s, beta)
    return xp.sum(of_t + of_s, axis=-1) + _level(xp, xp.exp(log_s), xp.sum(of_s, axis=-1))


def jensen_shannon_terms(xp: Backend, log_t: Array, log_s: Array, beta: float) -> tuple[Array, Array]:
    """The terms of ``beta KL(t || m)`` and of ``(1 - beta) KL(s || m)``.

    With d = log s - log t + log((1 - beta) / beta), log t - log m = -log beta - softplus(d) and
    log s - log m = -log(1 - beta) - softplus(-d).
    """
    no_t, no_s = xp.equal(log_t, MINUS_INFINITY), xp.equal(log_s, MINUS_INFINITY)
    either = no_t | no_s
    log_beta, log_rest = (math.log(x) if isinstance(x, float) else xp.log(x) for x in (beta, 1.0 - beta))
    d = xp.where(either, 0.0, log_s) - xp.where(either, 0.0, log_t) + (log_rest - log_beta)
    of_t = -log_beta - xp.where(no_s, 0.0, xp.softplus(d))
    of_s = -log_rest - xp.where(no_t, 0.0, xp.softplus(-d))
    return beta * xp.exp(log_t) * of_t, xp.exp(log_s) * ((1.0 - beta) * of_s)


def skewed_forward_kl(xp: Backend, teacher: Array, student: Array, skew: float) -> Array:
    """KL(t || m), m = skew t + (1 - skew) s."""
    of_t, _ = jensen_shannon_terms(xp, log_softmax(xp, teacher), log_softmax(xp, student), skew)
    return xp.sum(of_t, axis=-1) / skew


def skewed_reverse_kl(xp: Backend, teacher: Array, student: Array, skew: float) -> Array:
    """KL(s || m), m = skew s + (1 - skew) t."""
    log_t, log_s = log_softmax(xp, teacher), log_softmax(xp, student)
    _, of_s = jensen_shannon_terms(xp, log_t, log_s, 1.0 - skew)
    losses = xp.sum(of_s, axis=-1) / skew
    return losses + _level(xp, xp.exp(log_s), losses)


def total_variation(xp: Backend, teacher: Array, student: Array, _: float = 0.0) -> Array:
    """``1/2 sum_k |t_k - s_k|``: the largest difference of the probabilities of an event."""
    t, s = xp.exp(log_softmax(xp, teacher)), xp.exp(log_softmax(xp, student))
    slope = xp.where(s > t, 0.5, xp.where(s < t, -0.5, s * 0.0))
    return 0.5 * xp.sum(abs(t - s), axis=-1) + _level(xp, s, xp.sum(s * slope, axis=-1))


def alpha_divergence(xp: Backend, teacher: Array, student: Array, alpha: float) -> Array:
    """``(1 - sum_k t_k^alpha s_k^(1 - alpha)) / (alpha (1 - alpha))``, Amari's; between the two KL."""
    mixed = alpha * log_softmax(xp, teacher) + (1.0 - alpha) * log_softmax(xp, student)
    return (1.0 - xp.sum(xp.exp(mixed), axis=-1)) / (alpha * (1.0 - alpha))


def mse_logits(xp: Backend, teacher: Array, student: Array, _: float = 0.0) -> Array:
    """``1/K sum_k (z^t_k - z^s_k)^2``, over the classes that at most one of them masks."""
    return of_sums(xp, "mse_logits", sums_of_squares(xp, teacher, student))


def sums_of_squares(xp: Backend, teacher: Array, student: Array) -> dict[str, Array]:
    """The sums of `mse_logits`."""
    teacher, student, absent = _without_masked(xp, teacher, student)
    difference = teacher - student
    present = xp.sum(xp.cast(~absent, xp.dtype(student)), axis=-1)
    return {"squares": xp.sum(difference * difference, axis=-1), "present": present}


def cosine(xp: Backend, teacher: Array, student: Array, _: float = 0.0) -> Array:
    """``1 - sum_k z^t_k z^s_k / (|z^t| |z^s|)``; 1 where one of them is 0."""
    return of_sums(xp, "cosine", sums_of_products(xp, teacher, student))


def sums_of_products(xp: Backend, teacher: Array, student: Array) -> dict[str, Array]:
    """The sums of `cosine`."""
    teacher, student, _absent = _without_masked(xp, teacher, student)
    return {
        "teacher_squares": xp.sum(teacher * teacher, axis=-1),
        "student_squares": xp.sum(student * student, axis=-1),
        "products": xp.sum(teacher * student, axis=-1),
    }


def of_sums(xp: Backend, divergence: str, sums: dict[str, Array]) -> Array:
    """A divergence of logits from the sums over its classes."""
    if divergence == "mse_logits":
        return sums["squares"] / sums["present"]
    squares = sums["teacher_squares"] * sums["student_squares"]
    squares = xp.where(xp.equal(squares, 0), 1.0, squares)
    return 1.0 - sums["products"] / squares**0.5


def _without_masked(xp: Backend, teacher: Array, student: Array) -> tuple[Array, Array, Array]:
    """Both logits, 0 for classes that both mask; and the mask of those classes."""
    absent = xp.equal(teacher, MINUS_INFINITY) & xp.equal(student, MINUS_INFINITY)
    return xp.where(absent, 0.0, teacher), xp.where(absent, 0.0, student), absent


# Divergences of the logits themselves, which are not divided by T beforehand.
OF_LOGITS = ("mse_logits", "cosine")
SUMS_OF_LOGITS = {"mse_logits": sums_of_squares, "cosine": sums_of_products}
DIVERGENCES: dict[str, Callable[[Backend, Array, Array, float], Array]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "skewed_forward_kl": skewed_forward_kl,
    "skewed_reverse_kl": skewed_reverse_kl,
    "total_variation": total_variation,
    "alpha": alpha_divergence,
    "mse_logits": mse_logits,
    "cosine": cosine,
}


def _mixed_terms(xp: Backend, log_t: Array, log_s: Array, beta: float) -> Array:
    of_t, of_s = jensen_shannon_terms(xp, log_t, log_s, beta)
    return of_t + of_s


# The terms per class, from log-probabilities, of divergences that need both softmaxes.
TERMS: dict[str, Callable[[Backend, Array, Array, float], Array]] = {
    "jensen_shannon": _mixed_terms,
    "skewed_forward_kl": lambda xp, log_t, log_s, skew: jensen_shannon_terms(xp, log_t, log_s, skew)[0] / skew,
    "skewed_reverse_kl": lambda xp, log_t, log_s, skew: jensen_shannon_terms(xp, log_t, log_s, 1.0 - skew)[1] / skew,
    "total_variation": lambda xp, log_t, log_s, _: 0.5 * abs(xp.exp(log_t) - xp.exp(log_s)),
}
