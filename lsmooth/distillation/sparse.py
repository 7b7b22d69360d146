"""Distillation from the few largest probabilities of a teacher."""

from __future__ import annotations

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend
from lsmooth.backends.divergences import relative_entropy
from lsmooth.backends.formulas import MINUS_INFINITY, log_softmax, log_sum_exp_of
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._pair import Pair, finish, prepare, tempered

TAILS = ("renormalize", "drop", "bucket")


@over_ragged_rows("student_logits")
def sparse_distillation_loss(
    teacher_indices: Array,
    teacher_log_probs: Array,
    student_logits: Array,
    *,
    tail: str = "renormalize",
    temperature: float | Array = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    labels: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """Forward KL from a teacher of whom only the top-k classes are kept.

    With t_j the kept probabilities, s the student's softmax, and sums over the kept classes j,

    | tail | of a row |
    |---|---|
    | renormalize | both over the kept classes alone: KL(t / sum(t), s / sum(s)) |
    | drop | sum_j t_j (log t_j - log s_j): below 0 where the student puts more on the kept classes |
    | bucket | the same, with what is left as one more class on both sides |

    ``bucket`` alone is a divergence of the two predictions: at least 0, and 0 where they agree on the kept
    classes.

    Args:
        teacher_indices: integer class ids, (..., k), of the kept classes; each once.
        teacher_log_probs: (..., k), floating point, their log-probabilities, so that exp of them sums
            to at most one; -inf marks an empty place, whose index does not matter. For
            ``renormalize``, logits serve as well.
        student_logits: (..., classes), floating point.
        tail: one of the above.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows, of both sides. Only for
            ``renormalize``: at another temperature the mass of the tail is not known.
        scale_by_temperature_squared: whether the loss is multiplied by T^2.
        sample_weight: multiplies the rows: a scalar, or of their rank, each dimension equal or 1.
        labels: class ids in the rows' shape, for ``ignore_index`` alone.
        ignore_index: rows with this label cost nothing and count in no mean.
        mask: bool, in the rows' shape, True for the rows that count.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether the teacher's values get no gradient.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else
        float32. A class id out of range, in a place that is not empty, makes its row NaN.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, a number is out of range, or the tail is unknown.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; for what the tails do,
        Anshumann et al. 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs".

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
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}; got {tail!r}.")
    if tail != "renormalize" and not (check.is_real_number(temperature) and temperature == 1):
        raise ValueError(f"temperature must be 1 for tail={tail!r}, whose mass at another temperature is not known.")
    pair = prepare(
        teacher_log_probs,
        student_logits,
        temperature,
        labels=labels,
        ignore_index=ignore_index,
        mask=mask,
        sample_weight=sample_weight,
        reduction=reduction,
        stop_teacher_gradient=stop_teacher_gradient,
        teacher_name="teacher_log_probs",
        same_classes=False,
        order=(
            "teacher_indices",
            teacher_indices,
            "sparse_distillation_loss(teacher_indices, teacher_log_probs, student_logits)",
        ),
        teacher_indices=teacher_indices,
    )
    xp = pair.xp
    teacher, student = tempered(pair)
    pair = pair._replace(teacher=teacher, student=student)
    kept, indices = _kept_classes(pair, teacher_indices)
    chosen = xp.gather(student, xp.where(indices < 0, 0, indices))
    if tail == "renormalize":
        chosen = xp.where(indices < 0, MINUS_INFINITY, chosen)
        losses = relative_entropy(xp, log_softmax(xp, kept), log_softmax(xp, chosen))
    elif tail == "drop":
        top = xp.stop_gradient(xp.max(student, axis=-1))[..., None]
        top = xp.where(xp.equal(top, MINUS_INFINITY), 0.0, top)
        losses = relative_entropy(xp, kept, chosen - top - xp.logsumexp(student - top, axis=-1)[..., None])
    else:
        chosen = xp.where(indices < 0, MINUS_INFINITY, chosen)
        losses = _with_bucket(xp, kept, indices, student, chosen)
    return finish(pair, losses, scale_by_temperature_squared)


def _kept_classes(pair: Pair, teacher_indices: Array) -> tuple[Array, Array]:
    """The teacher's values, NaN where their class is out of range, and their classes, -1 where empty."""
    xp, kept = pair.xp, pair.teacher
    indices = xp.asarray(teacher_indices, like=pair.student)
    if not check.is_integer(xp, indices):
        raise TypeError(f"teacher_indices must be integers, got {xp.dtype(indices)}.")
    if not check.same_shape(xp.shape(indices), xp.shape(kept)):
        raise ValueError(
            f"teacher_indices must have the shape of the teacher_log_probs, {xp.shape(kept)}; got {xp.shape(indices)}."
        )
    indices = check.class_ids(xp, indices)
    if pair.counted is not None:
        indices = xp.where(pair.counted[..., None], indices, 0)
    empty = xp.equal(kept, MINUS_INFINITY)
    valid = (indices >= 0) & (indices < xp.length(pair.student, -1, xp.dtype(indices)))
    return kept * xp.one_or_nan(valid | empty, xp.dtype(kept)), xp.where(valid & ~empty, indices, -1)


def _with_bucket(xp: Backend, kept: Array, indices: Array, student: Array, chosen: Array) -> Array:
    """``sum_j t_j (log t_j - log s_j)`` over the kept classes and the bucket of the others."""
    top, log_sum, none_left = log_sum_exp_of(xp, student, _left(xp, student, indices))
    # Both parts less the largest logit of all, so that nothing is lost to a common offset of the logits.
    highest = xp.stop_gradient(xp.max(chosen, axis=-1))
    highest = xp.where(none_left | (highest > top), highest, top)
    highest = xp.where(xp.equal(highest, MINUS_INFINITY), 0.0, highest)
    chosen = chosen - highest[..., None]
    log_rest = log_sum + xp.where(none_left, 0.0, top - highest)
    lse = xp.log(xp.sum(xp.exp(chosen), axis=-1) + xp.where(none_left, 0.0, xp.exp(log_rest)))
    losses = relative_entropy(xp, kept, chosen - lse[..., None])

    rest = 1.0 - xp.sum(xp.exp(kept), axis=-1)
    without = none_left | (rest <= 0)
    rest = xp.where(without, 1.0, rest)
    return losses + xp.where(without, 0.0, rest * (xp.log(rest) - (log_rest - lse)))


def _left(xp: Backend, student: Array, indices: Array) -> Array:
    """Which classes have no index in their row; an empty place, -1, stands for another place of its row."""
    another = xp.max(indices, axis=-1)[..., None]
    ones = xp.ones_like(student, xp.dtype(student))
    # A row of empty places keeps all its classes.
    value = xp.where(another < 0, ones[..., :1], 0.0) * xp.ones_like(indices, xp.dtype(student))
    left = xp.put(ones, xp.where(indices < 0, xp.where(another < 0, 0, another), indices), value)
    return xp.equal(left, 1)
