"""Distillation from a teacher of which only the top-k classes are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.shards import over_all_rows
from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.divergence import jensen_shannon_terms, relative_terms, tempered
from lsmooth.backends.formulas.rows import MINUS_INFINITY, along_classes, log_softmax, row_maximum
from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._logits import divergence_options
from lsmooth.distillation._pair import Arguments, PairOptions, parameter_of, prepare

TAILS = ("renormalize", "drop", "bucket")
# Replaces logits that are left out, because TensorFlow's `enable_check_numerics` refuses -inf.
_LOWEST = -1e30


def _jensen_shannon(xp: Backend, log_t: Array, log_s: Array, beta: float) -> Array:
    of_t, of_s = jensen_shannon_terms(xp, log_t, log_s, beta)
    return of_t + of_s


# The term of each class from its log-probabilities, which need not be normalised.
TERMS: dict[str, Callable[[Backend, Array, Array, float], Array]] = {
    "forward_kl": lambda xp, log_t, log_s, _: relative_terms(xp, log_t, log_s),
    "reverse_kl": lambda xp, log_t, log_s, _: relative_terms(xp, log_s, log_t),
    "jensen_shannon": _jensen_shannon,
}


@over_ragged_rows("student_logits")
def sparse_distillation_loss(
    teacher_indices: Array,
    teacher_log_probs: Array,
    student_logits: Array,
    *,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    tail: str = "renormalize",
    temperature: float | Array = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    labels: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """Divergence from a teacher of which only the top-k classes are stored.

    The divergence is a sum over the stored classes j, with the teacher's probabilities t_j and the student's softmax
    s_j. The other classes form one class, the tail, whose probability under the teacher is ``1 - sum_j t_j``.

    | tail | t_j and s_j | summed over |
    |---|---|---|
    | renormalize | divided by their sum over the stored classes | the stored classes |
    | drop | not renormalised | the stored classes |
    | bucket | not renormalised | the stored classes and the tail |

    | divergence | each class adds |
    |---|---|
    | forward_kl | t_j (log t_j - log s_j) |
    | reverse_kl | s_j (log s_j - log t_j) |
    | jensen_shannon | beta t_j log(t_j / m_j) + (1 - beta) s_j log(s_j / m_j), m = beta t + (1 - beta) s |

    ``drop`` is negative if the student gives more mass to the stored classes than the teacher; the other two are at
    least 0, and 0 if both distributions agree. If all classes are stored, all three equal `distillation_loss`.

    At a temperature T, the log-probabilities of both sides are divided by T and normalised again. Since the
    teacher's distribution over the tail is unknown, the tail is one class at every T, on both sides: its probability
    becomes ``(1 - sum_j t_j)^(1/T)`` before the normalisation. If the stored log-probabilities were computed at T
    already, as in TRL, pass ``student_logits / T`` and ``temperature=1``.

    Args:
        teacher_indices: integer class ids, (..., k), of the stored classes; without duplicates.
        teacher_log_probs: (..., k), floating point, their log-probabilities; -inf marks an unused entry, whose index
            is ignored. ``renormalize`` also accepts logits.
        student_logits: (..., classes), floating point.
        divergence: one of the table.
        beta: the teacher's share in m, in (0, 1), for ``"jensen_shannon"``.
        tail: one of the table.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        scale_by_temperature_squared: whether the loss is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        labels: class ids in the rows' shape, used only with ``ignore_index``.
        ignore_index: rows with this label are excluded from the loss and its mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        num_classes: the number of classes; later logits and indices are padding.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else float32. A
        class id out of range makes its row NaN. Raises as `distillation_loss` does.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; on the tails: Anshumann et al. 2025,
        "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import sparse_distillation_loss
        >>> kept, student = np.log([[0.7, 0.2]]), np.log([[0.6, 0.2, 0.2]])
        >>> for tail in ("renormalize", "drop", "bucket"):
        ...     print(tail, round(float(sparse_distillation_loss([[0, 1]], kept, student, tail=tail)), 6))
        renormalize 0.002112
        drop 0.107905
        bucket 0.038591
    """
    check_tail(tail, divergence)
    parameter = parameter_of(divergence, beta=beta)
    options = PairOptions(
        temperature, labels, ignore_index, mask, sample_weight, num_classes=num_classes, reduction=reduction
    )
    options = options._replace(stop_teacher_gradient=stop_teacher_gradient, row_shards=row_shards)
    call = "sparse_distillation_loss(teacher_indices, teacher_log_probs, student_logits)"
    names = Arguments("teacher_log_probs", same_classes=False, order=("teacher_indices", teacher_indices, call))
    pair = prepare(teacher_log_probs, student_logits, options, names, teacher_indices=teacher_indices)
    indices = top_k_indices(pair.xp, teacher_indices, pair.teacher, pair.counted)
    options = divergence_options(pair, divergence, parameter, scale_by_temperature_squared)
    losses = top_k_divergence(pair.xp, pair.teacher, indices, pair.student, tail, options)
    return over_all_rows(pair, losses)


def check_tail(tail: str, divergence: str) -> None:
    """Raise a ValueError if one of the names is unknown."""
    for name, value, known in (("tail", tail, TAILS), ("divergence", divergence, tuple(TERMS))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def top_k_indices(xp: Backend, teacher_indices: Any, log_probs: Array, counted: Array | None) -> Array:
    """The class ids of the stored classes as signed integers, checked; 0 in ignored rows."""
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


def top_k_divergence(
    xp: Backend, log_probs: Array, indices: Array, student: Array, tail: str, options: DivergenceOptions
) -> Array:
    """``scale D`` of each row (...), or their sum, from the stored classes (..., k) and the logits (..., classes)."""
    terms, temperature, counted = TERMS[options.divergence], options.temperature, options.counted
    teacher, student = tempered(xp, log_probs, student, 1.0, counted)
    empty = xp.equal(teacher, MINUS_INFINITY)
    valid = (indices >= 0) & (indices < xp.length(student, -1, xp.dtype(indices)))
    teacher = teacher * xp.one_or_nan(valid | empty, xp.dtype(teacher))
    indices = xp.where(valid & ~empty, indices, -1)
    chosen = xp.gather(student, xp.where(indices < 0, 0, indices))
    chosen = xp.where(indices < 0, MINUS_INFINITY, chosen)
    if tail == "renormalize":
        log_t, log_s = (
            log_softmax(xp, _over(xp, z - row_maximum(xp, z)[..., None], temperature)) for z in (teacher, chosen)
        )
        losses = xp.sum(terms(xp, log_t, log_s, options.parameter), axis=-1)
    else:
        reference = row_maximum(xp, chosen)
        chosen, rest = chosen - reference[..., None], _log_sum_exp_of_others(xp, student, indices, reference)
        (log_s, log_s_rest) = _log_softmax_with(xp, chosen, rest, temperature)
        no_tail = xp.equal(rest, MINUS_INFINITY)
        log_t, log_t_rest = teacher, _log_rest(xp, teacher, no_tail, options.divergence)
        if not _is_one(temperature):
            log_t, log_t_rest = _log_softmax_with(xp, teacher, log_t_rest, temperature)
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
    """``z / T``; -inf stays -inf and does not contribute to the gradient of T."""
    if _is_one(temperature):
        return z
    absent = xp.equal(z, MINUS_INFINITY)
    rank = 0 if isinstance(temperature, float) else len(xp.shape(temperature))
    divisor = along_classes(xp, temperature) if len(xp.shape(z)) > rank else temperature
    return xp.where(absent, MINUS_INFINITY, xp.where(absent, 0.0, z) / divisor)


def _log_sum_exp_of_others(xp: Backend, student: Array, indices: Array, reference: Array) -> Array:
    """The log-sum-exp of the classes that are not stored, minus the row's reference; -inf if there are none.

    The result is accurate for any mass and for large logits. An unused entry has the index -1, which is replaced by
    another index of its row, so that every entry can be overwritten.
    """
    used = xp.max(indices, axis=-1)[..., None]
    position = xp.where(indices < 0, xp.where(used < 0, 0, used), indices)
    first = student[..., :1] + 0.0 * xp.cast(indices, xp.dtype(student))
    others = xp.put(student, position, xp.where(used < 0, first, _LOWEST))
    top = row_maximum(xp, others)
    total = xp.sum(xp.exp(others - top[..., None]), axis=-1)
    none = xp.equal(total, 0) | (top < 0.5 * _LOWEST)
    return xp.where(none, MINUS_INFINITY, (top - reference) + xp.log(xp.where(none, 1.0, total)))


def _log_rest(xp: Backend, teacher: Array, no_tail: Array, divergence: str) -> Array:
    """The logarithm of the teacher's mass on the tail, -inf if it has none.

    For the reverse KL, which would be infinite, the mass is at least the rounding error of the stored probabilities.
    """
    rest = 1.0 - xp.sum(xp.exp(teacher), axis=-1)
    if divergence == "reverse_kl":
        rounding = 2.0**-52 if xp.dtype(rest) == "float64" else 2.0**-23
        rest = xp.where(rest < rounding, rounding, rest)
    no_tail = no_tail | (rest <= 0)
    return xp.where(no_tail, MINUS_INFINITY, xp.log(xp.where(no_tail, 1.0, rest)))


def _log_softmax_with(xp: Backend, z: Array, rest: Array, temperature: Any) -> tuple[Array, Array]:
    """The log-softmax at T over z (..., k) and one more class, whose logit is ``rest`` (...)."""
    top, last = row_maximum(xp, z), xp.stop_gradient(rest)
    none = xp.equal(xp.max(xp.stop_gradient(z), axis=-1), MINUS_INFINITY)
    top = xp.where(xp.equal(last, MINUS_INFINITY), top, xp.where(none | (last > top), last, top))
    z, rest = _over(xp, z - top[..., None], temperature), _over(xp, rest - top, temperature)
    lse = xp.log(xp.sum(xp.exp(z), axis=-1) + xp.exp(rest))
    return z - lse[..., None], rest - lse
