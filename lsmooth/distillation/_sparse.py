"""Distillation from the few largest probabilities of a teacher."""

from __future__ import annotations

from typing import Any

from lsmooth.backends import Array
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._divergences import parameter_of
from lsmooth.distillation._kept import check_tail, kept_divergence, kept_indices
from lsmooth.distillation._logits import divergence_options
from lsmooth.distillation._pair import Arguments, PairOptions, prepare
from lsmooth.losses._shards import over_all_rows


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
    """Divergence from a teacher of whom only the top-k classes are kept.

    With t_j the kept probabilities and s the student's softmax, the divergence is a sum over the kept classes j.
    The other classes count as one class, the tail; the teacher's probability of it is ``1 - sum_j t_j``.

    | tail | log t_j and log s_j | summed over |
    |---|---|---|
    | renormalize | of the kept classes alone, each side divided by its sum | the kept classes |
    | drop | as they are: the tail takes its share of either side | the kept classes |
    | bucket | the same | the kept classes and the tail |

    | divergence | each class adds |
    |---|---|
    | forward_kl | t_j (log t_j - log s_j) |
    | reverse_kl | s_j (log s_j - log t_j) |
    | jensen_shannon | beta t_j log(t_j / m_j) + (1 - beta) s_j log(s_j / m_j), m = beta t + (1 - beta) s |

    ``drop`` can be negative where the student gives more to the kept classes than the teacher does. The others are at
    least 0, and 0 where both sides agree. With all classes kept, the three are `distillation_loss`.

    T divides the log-probabilities of both sides, which are then normalised again. How the teacher divides its
    tail over classes is not known, so at every T the tail is one class, on both sides: its probability becomes
    ``(1 - sum_j t_j)^(1/T)`` before the normalisation. ``renormalize`` leaves it out, and so needs no such rule.
    Log-probabilities that a teacher gave at T, as TRL computes them, go with ``student_logits / T`` and
    ``temperature=1``.

    Args:
        teacher_indices: integer class ids, (..., k), of the kept classes; each once.
        teacher_log_probs: (..., k), floating point, their log-probabilities, so that exp of them sums
            to at most one; -inf marks an empty place, whose index does not matter. For
            ``renormalize``, logits serve as well.
        student_logits: (..., classes), floating point.
        divergence: one of the above.
        beta: the teacher's share in m, in (0, 1), of ``"jensen_shannon"``.
        tail: one of the above.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows, of both sides; see above.
        scale_by_temperature_squared: whether the loss is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        labels: class ids in the rows' shape, used only with ``ignore_index``.
        ignore_index: rows with this label are excluded from the loss and its mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        num_classes: the student's logits from there on are padding; so is a teacher's index.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else
        float32. A class id out of range, in a place that is not empty, makes its row NaN.
        Raises as `distillation_loss` does.

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
    check_tail(tail, divergence)
    parameter = parameter_of(divergence, beta=beta)
    options = PairOptions(
        temperature, labels, ignore_index, mask, sample_weight, num_classes=num_classes, reduction=reduction
    )
    options = options._replace(stop_teacher_gradient=stop_teacher_gradient, row_shards=row_shards)
    call = "sparse_distillation_loss(teacher_indices, teacher_log_probs, student_logits)"
    names = Arguments("teacher_log_probs", same_classes=False, order=("teacher_indices", teacher_indices, call))
    pair = prepare(teacher_log_probs, student_logits, options, names, teacher_indices=teacher_indices)
    indices = kept_indices(pair.xp, teacher_indices, pair.teacher, pair.counted)
    options = divergence_options(pair, divergence, parameter, scale_by_temperature_squared)
    losses = kept_divergence(pair.xp, pair.teacher, indices, pair.student, tail, options)
    return over_all_rows(pair, losses)
