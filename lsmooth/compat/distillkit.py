"""DistillKit's loss from a teacher's top-k classes, for the tensors of any backend.

Reproduces ``distillkit.lossfuncs.sparse_kl_div`` as of 2025.
"""

from __future__ import annotations

import math

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.compat import _rows

MISSING = ("zero", "symmetric_uniform")


def sparse_kl_div(
    logits: Array,
    target_ids: Array,
    target_values: Array,
    mask: Array | None = None,
    eps: float = 1e-6,
    missing: str = "zero",
    log_target: bool = True,
    temperature: float = 1.0,
    target_generation_temperature: float = 1.0,
    student_generation_temperature: float = 1.0,
    chunk_length: int | None = None,
) -> Array:
    """The forward KL between a teacher's top-k classes and a student's logits, summed over tokens, without T^2.

    With ``missing="zero"`` the teacher is renormalised over its stored classes, and the student's log-softmax is over
    all classes. With ``"symmetric_uniform"`` the other classes form one more class on both sides. If T differs from
    the temperature of the teacher's values, with a = T_teacher / T, the teacher's probabilities become
    ``t_j^a / (sum_j t_j^a + (1 - sum_j t_j)^a)``, and the student's ``softmax(a z)``.

    Args:
        logits: of the student, (..., classes).
        target_ids: class ids, (..., k).
        target_values: (..., k), log-probabilities of the teacher; logits if ``log_target`` is False.
        mask: in the rows' shape, multiplies the rows.
        eps: the least mass of the other classes, approximately; a teacher's mass of at most eps counts as 0.
        missing: ``"zero"`` or ``"symmetric_uniform"``.
        log_target: whether the values are log-probabilities.
        temperature: T.
        target_generation_temperature: the temperature of the values.
        student_generation_temperature: the temperature of the student's logits.
        chunk_length: not used.

    Returns:
        A scalar in the precision of the logits, at least float32.

    Source: Arcee AI's DistillKit, ``distillkit.lossfuncs.sparse_kl_div``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.compat.distillkit import sparse_kl_div
        >>> kept, student = np.log([[0.7, 0.2]]), np.log([[0.6, 0.2, 0.2]])
        >>> float(sparse_kl_div(student, [[0, 1]], kept, missing="symmetric_uniform").round(6))
        0.038591
    """
    del chunk_length
    xp = backend_of(logits=logits, target_ids=target_ids, target_values=target_values, mask=mask)
    if missing not in MISSING:
        raise ValueError(f"missing must be one of {', '.join(MISSING)}; got {missing!r}.")
    if missing != "zero" and not log_target:
        raise ValueError("missing='symmetric_uniform' needs log-probabilities, log_target=True.")
    temperature = check.check_range("temperature", temperature, 0.0, float("inf"))
    student, _ = _rows.scores(xp, "logits", logits)
    teacher, _ = _rows.scores(xp, "target_values", target_values, like=student)
    teacher = xp.cast(xp.stop_gradient(teacher), xp.dtype(student))
    ids = _rows.integers(xp, "target_ids", target_ids, like=student)
    if not check.same_shape(xp.shape(ids), xp.shape(teacher)):
        raise ValueError(f"target_ids must have the shape of target_values, {xp.shape(teacher)}; got {xp.shape(ids)}.")

    log_s = xp.gather(_rows.log_softmax(xp, student * (student_generation_temperature / temperature)), ids)
    exponent = target_generation_temperature / temperature
    log_t = _teacher(xp, teacher, exponent, missing)
    losses = xp.sum(xp.exp(log_t) * (log_t - log_s), axis=-1)
    if missing != "zero":
        rest_t, rest_s = (_log_missing(xp, log_p, eps) for log_p in (log_t, log_s))
        mass = xp.exp(rest_t)
        losses = losses + xp.where(mass > eps, mass * (rest_t - rest_s), 0.0)
    if mask is not None:
        losses = losses * xp.cast(check.to_array(xp, "mask", mask, like=losses), xp.dtype(losses))
    return xp.sum(losses)


def _teacher(xp: Backend, values: Array, exponent: float, missing: str) -> Array:
    """The teacher's log-probabilities at T."""
    if missing == "zero":
        return _rows.log_softmax(xp, exponent * values)
    if exponent == 1.0:
        return values
    rest = xp.clip(1.0 - xp.sum(xp.exp(values), axis=-1), 0.0, 1.0)
    return exponent * values - xp.log(xp.sum(xp.exp(exponent * values), axis=-1) + rest**exponent)[..., None]


def _log_missing(xp: Backend, log_p: Array, eps: float) -> Array:
    """``log(1 - sum(p))``, with the sum limited to ``exp(-eps)``."""
    lowest = -math.expm1(-eps)
    rest = 1.0 - xp.sum(xp.exp(log_p), axis=-1)
    return xp.log(xp.where(rest < lowest, lowest, rest))
