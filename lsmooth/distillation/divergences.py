"""Divergences between two rows of logits, exact: no probability is clipped.

Each takes the logits of the teacher and of the student, classes last, and gives one number a row.
A class that both mask (-inf) is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas import MINUS_INFINITY
from lsmooth.losses._probabilities import log_softmax

Divergence = Callable[[Backend, Array, Array], Array]
NAMES = ("forward_kl", "reverse_kl", "jensen_shannon", "total_variation", "alpha", "mse_logits")


def get_divergence(name: str, *, beta: float = 0.5, alpha: float = 0.5) -> Divergence:
    """The divergence of that name, with its parameter bound.

    Raises:
        ValueError: if there is none, or a parameter is out of range.
    """
    if name == "jensen_shannon":
        _check_inside("beta", beta)
        return lambda xp, teacher, student: jensen_shannon(xp, teacher, student, beta)
    if name == "alpha":
        _check_inside("alpha", alpha)
        return lambda xp, teacher, student: alpha_divergence(xp, teacher, student, alpha)
    simple = {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "total_variation": total_variation,
        "mse_logits": mse_logits,
    }
    if name not in simple:
        raise ValueError(f"divergence must be one of {', '.join(NAMES)}; got {name!r}.")
    return simple[name]


def forward_kl(xp: Backend, teacher: Array, student: Array) -> Array:
    """KL(t || s) = ``sum_k t_k (log t_k - log s_k)``; its gradient is s - t."""
    return relative_entropy(xp, log_softmax(xp, teacher), log_softmax(xp, student))


def reverse_kl(xp: Backend, teacher: Array, student: Array) -> Array:
    """KL(s || t) = ``sum_k s_k (log s_k - log t_k)``."""
    return forward_kl(xp, student, teacher)


def relative_entropy(xp: Backend, log_p: Array, log_q: Array) -> Array:
    """``sum_k p_k (log p_k - log q_k)``; where p has no mass, q may have none."""
    p = xp.exp(log_p)
    empty = p == 0
    return xp.sum(p * (xp.where(empty, 0.0, log_p) - xp.where(empty, 0.0, log_q)), axis=-1)


def jensen_shannon(xp: Backend, teacher: Array, student: Array, beta: float) -> Array:
    """``beta KL(t || m) + (1 - beta) KL(s || m)``, m = beta t + (1 - beta) s.

    With d = log s - log t + log((1 - beta) / beta), log t - log m = -log beta - softplus(d) and
    log s - log m = -log(1 - beta) - softplus(-d).
    """
    log_t, log_s = log_softmax(xp, teacher), log_softmax(xp, student)
    no_t, no_s = log_t == MINUS_INFINITY, log_s == MINUS_INFINITY
    either = no_t | no_s
    d = xp.where(either, 0.0, log_s) - xp.where(either, 0.0, log_t) + math.log((1.0 - beta) / beta)
    of_t = -math.log(beta) - xp.where(no_s, 0.0, xp.softplus(d))
    of_s = -math.log(1.0 - beta) - xp.where(no_t, 0.0, xp.softplus(-d))
    return xp.sum(beta * xp.exp(log_t) * of_t + (1.0 - beta) * xp.exp(log_s) * of_s, axis=-1)


def total_variation(xp: Backend, teacher: Array, student: Array) -> Array:
    """``1/2 sum_k |t_k - s_k|``: the most that any event's probability differs."""
    return 0.5 * xp.sum(abs(xp.exp(log_softmax(xp, teacher)) - xp.exp(log_softmax(xp, student))), axis=-1)


def alpha_divergence(xp: Backend, teacher: Array, student: Array, alpha: float) -> Array:
    """``(1 - sum_k t_k^alpha s_k^(1 - alpha)) / (alpha (1 - alpha))``, Amari's; between the two KL."""
    mixed = alpha * log_softmax(xp, teacher) + (1.0 - alpha) * log_softmax(xp, student)
    return (1.0 - xp.sum(xp.exp(mixed), axis=-1)) / (alpha * (1.0 - alpha))


def mse_logits(xp: Backend, teacher: Array, student: Array) -> Array:
    """``1/K sum_k (z^t_k - z^s_k)^2``, over the classes that not both mask."""
    absent = (teacher == MINUS_INFINITY) & (student == MINUS_INFINITY)
    difference = xp.where(absent, 0.0, teacher) - xp.where(absent, 0.0, student)
    return xp.sum(difference * difference, axis=-1) / xp.sum(xp.cast(~absent, xp.dtype(student)), axis=-1)


def _check_inside(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"{name} must be in (0, 1), got {value}; for the ends take divergence='forward_kl' or 'reverse_kl'."
        )
