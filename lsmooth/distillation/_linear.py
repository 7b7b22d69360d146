"""Distillation between two linear heads, without materialising their logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lsmooth import _validation as check
from lsmooth._rows.checks import over_rows, rows_of
from lsmooth._rows.heads import check_block_size, check_head, head_without_padding
from lsmooth._rows.shards import over_all_rows
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.linear import Call, Head, Kernels, linear_rows
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions, with_arrays, without_arrays
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._pair import Arguments, LogitOptions, Pair, PairOptions, parameter_of, prepare
from lsmooth.distillation._shards import spread_loss
from lsmooth.distillation._sparse import check_tail, top_k_divergence, top_k_indices

SOFT, HARD = "soft.", "hard."


@over_ragged_rows("student_hidden")
def linear_distillation_loss(
    teacher_hidden: Array,
    teacher_weight: Array,
    student_hidden: Array,
    student_weight: Array,
    *,
    teacher_bias: Array | None = None,
    student_bias: Array | None = None,
    labels: Array | None = None,
    alpha: float | None = None,
    temperature: float | Array = 1.0,
    label_smoothing: float | Array = 0.0,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    divergence_alpha: float = 0.5,
    logit_softcap: float | None = None,
    teacher_logit_softcap: float | None = None,
    logit_scale: float = 1.0,
    teacher_logit_scale: float = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
    block_size: int | None = None,
) -> Array:
    """The loss of a student, from the hidden states and output layers of both models.

    ``(1 - alpha) CE(labels, student) + alpha T^2 D(teacher / T, student / T)``, as in `DistillationLoss`, with the
    logits ``hidden @ weight.T + bias`` of both models. Loss and gradients are computed for one block of rows at a
    time; in JAX for all rows at once if their number is symbolic, as in ``jax.export``.

    Args:
        teacher_hidden: floating point, (..., features of the teacher).
        teacher_weight: (classes, features of the teacher).
        student_hidden: (..., features of the student), the same rows.
        student_weight: (classes, features of the student).
        teacher_bias: (classes,), or None.
        student_bias: (classes,), or None.
        labels: class ids in the rows' shape; None for the divergence alone.
        alpha: the weight of the teacher, in [0, 1]; if None, 0.5 with labels and 1 without.
        temperature: T > 0, of the divergence; a number, or a tensor that broadcasts to the rows.
        label_smoothing: eps in [0, 1], of the cross-entropy; a number, or a tensor that broadcasts to the rows.
        divergence: D, as in `distillation_loss`.
        beta: for ``"jensen_shannon"``.
        divergence_alpha: the alpha of `distillation_loss`.
        logit_softcap: c > 0, of the student, whose logits z become c tanh(z / c) in both terms.
        teacher_logit_softcap: that of the teacher.
        logit_scale: multiplies the student's logits, before the cap.
        teacher_logit_scale: that of the teacher.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from both terms and their mean, even if they hold NaN.
        mask: bool, in the rows' shape; rows that are False are excluded.
        num_classes: the number of classes; later rows of the weights are padding, which may differ in amount.
        class_shards: as in `lsmooth.losses.linear_softmax_cross_entropy`.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student states, else float32.
        Raises as `distillation_loss` does.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; fused with the output
        layers as in Liger Kernel's distillation losses (Hsu et al. 2024).

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import linear_distillation_loss
        >>> hidden, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> float(linear_distillation_loss(hidden, weight, hidden, -weight, labels=[2], alpha=0.9).round(6))
        1.276139
    """
    xp = backend_of(
        teacher_hidden=teacher_hidden,
        teacher_weight=teacher_weight,
        student_hidden=student_hidden,
        student_weight=student_weight,
        teacher_bias=teacher_bias,
        student_bias=student_bias,
        labels=labels,
        temperature=temperature,
        label_smoothing=label_smoothing,
        sample_weight=sample_weight,
        mask=mask,
    )
    xp.refuse_spread(student_hidden, student_weight)
    parameter = parameter_of(divergence, beta=beta, alpha=divergence_alpha)
    block_size = check_block_size(block_size)
    alpha = _teacher_share(alpha, labels)
    student = check_head(xp, student_hidden, student_weight, student_bias, prefix="student_")
    teacher = check_head(xp, teacher_hidden, teacher_weight, teacher_bias, like=student.hidden, prefix="teacher_")
    member_classes = num_classes if class_shards is None else None
    student = head_without_padding(xp, student, member_classes, "student_")
    teacher = head_without_padding(xp, teacher, member_classes, "teacher_")
    if xp.shape(teacher.weight)[0] != xp.shape(student.weight)[0]:
        raise ValueError(
            f"teacher_weight must have as many classes as student_weight, {xp.shape(student.weight)[0]}; "
            f"got {xp.shape(teacher.weight)[0]}."
        )
    options = PairOptions(temperature, labels, ignore_index, mask, sample_weight, reduction=reduction)
    options = options._replace(
        stop_teacher_gradient=stop_teacher_gradient, class_shards=class_shards, row_shards=row_shards
    )
    names = Arguments("teacher_hidden", "student_hidden", same_classes=False)
    pair = prepare(teacher.hidden, student.hidden, options, names)
    if stop_teacher_gradient:
        teacher = teacher._replace(
            weight=xp.stop_gradient(teacher.weight),
            bias=None if teacher.bias is None else xp.stop_gradient(teacher.bias),
        )
    soft = DivergenceOptions(divergence, parameter, pair.temperature)
    loss = DistillationOfBlock(
        xp,
        soft,
        alpha=alpha,
        frozen_heads=(0,) if stop_teacher_gradient else (),
        logits=(
            LogitOptions(teacher_logit_scale, teacher_logit_softcap).checked("teacher_"),
            LogitOptions(logit_scale, logit_softcap).checked(),
        ),
    )
    heads = (teacher._replace(hidden=pair.teacher), student._replace(hidden=pair.student))
    if pair.spread.classes is not None:
        return spread_loss(
            pair,
            heads,
            loss.logits,
            soft,
            scale_by_temperature_squared,
            labels=pair.labels,
            label_smoothing=_checked_smoothing(pair, label_smoothing),
            alpha=alpha,
            num_classes=num_classes,
            block_size=block_size,
        )
    return _loss_of_heads(pair, loss, heads, label_smoothing, scale_by_temperature_squared, block_size)


@over_ragged_rows("hidden")
def linear_sparse_distillation_loss(
    teacher_indices: Array,
    teacher_log_probs: Array,
    hidden: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    tail: str = "renormalize",
    temperature: float | Array = 1.0,
    labels: Array | None = None,
    alpha: float | None = None,
    label_smoothing: float | Array = 0.0,
    logit_softcap: float | None = None,
    logit_scale: float = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
    block_size: int | None = None,
) -> Array:
    """The loss of a student with a top-k teacher, from the student's hidden states and output layer.

    ``(1 - alpha) CE(labels, student) + alpha T^2 D``, with D as in `sparse_distillation_loss` and the logits
    ``hidden @ weight.T + bias``. Loss and gradients are computed for one block of rows at a time, without an array
    of the size of all logits.

    Args:
        teacher_indices: integer class ids, (..., k), of the stored classes; without duplicates.
        teacher_log_probs: (..., k), their log-probabilities; -inf marks an unused entry.
        hidden: floating point, (..., features), the same rows.
        weight: (classes, features).
        bias: (classes,), or None.
        divergence: as in `sparse_distillation_loss`.
        beta: for ``"jensen_shannon"``.
        tail: the treatment of the other classes, as in `sparse_distillation_loss`.
        temperature: T > 0, of the divergence; a number, or a tensor that broadcasts to the rows.
        labels: class ids in the rows' shape; None for the divergence alone.
        alpha: the weight of the teacher, in [0, 1]; if None, 0.5 with labels and 1 without.
        label_smoothing: eps in [0, 1], of the cross-entropy; a number, or a tensor that broadcasts to the rows.
        logit_softcap: c > 0; the logits z become c tanh(z / c), in both terms.
        logit_scale: multiplies the logits, before the cap.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from both terms and their mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        num_classes: the number of classes; later rows of the weight and indices are padding.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.
        block_size: rows per block; chosen from the sizes if None.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 hidden states, else float32.
        Raises as `distillation_loss` does.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import linear_sparse_distillation_loss
        >>> hidden, weight = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> kept = np.log([[0.7, 0.2]])
        >>> float(linear_sparse_distillation_loss([[2, 1]], kept, hidden, weight, tail="bucket").round(6))
        0.005787
    """
    check_tail(tail, divergence)
    parameter = parameter_of(divergence, beta=beta)
    block_size = check_block_size(block_size)
    alpha = _teacher_share(alpha, labels)
    call = "linear_sparse_distillation_loss(teacher_indices, teacher_log_probs, hidden, weight)"
    options = PairOptions(temperature, labels, ignore_index, mask, sample_weight, reduction=reduction)
    options = options._replace(stop_teacher_gradient=stop_teacher_gradient, row_shards=row_shards)
    names = Arguments("teacher_log_probs", "hidden", False, ("teacher_indices", teacher_indices, call))
    arrays = {"teacher_indices": teacher_indices, "weight": weight, "bias": bias, "label_smoothing": label_smoothing}
    pair = prepare(teacher_log_probs, hidden, options, names, **arrays)
    xp = pair.xp
    head = head_without_padding(xp, check_head(xp, pair.student, weight, bias), num_classes)
    teacher_rows = {
        "log_probs": pair.teacher,
        "indices": top_k_indices(xp, teacher_indices, pair.teacher, pair.counted),
    }
    loss = DistillationOfBlock(
        xp,
        DivergenceOptions(divergence, parameter, pair.temperature),
        alpha=alpha,
        logits=(LogitOptions(logit_scale, logit_softcap).checked(),),
        tail=tail,
    )
    pair = pair._replace(student=head.hidden)
    return _loss_of_heads(pair, loss, (head,), label_smoothing, scale_by_temperature_squared, block_size, teacher_rows)


def _loss_of_heads(
    pair: Pair,
    loss: DistillationOfBlock,
    heads: tuple[Head, ...],
    label_smoothing: Any,
    scale_by_temperature_squared: bool,
    block_size: int | None,
    teacher_rows: Mapping[str, Array] | None = None,
) -> Array:
    """The loss of a checked call, computed block by block."""
    xp, classes = pair.xp, pair.xp.shape(heads[-1].weight)[0]
    rows = rows_of(xp, pair.student)
    eps = _checked_smoothing(pair, label_smoothing)
    if pair.labels is not None and check.is_validating(xp, pair.labels):
        check.check_class_ids(xp, pair.labels, classes, pair.counted)
    soft, hard = loss.soft, None
    if scale_by_temperature_squared:
        soft = soft._replace(scale=pair.temperature * pair.temperature)
    soft, arrays, _ = without_arrays(xp, soft)
    arrays = {SOFT + name: x for name, x in arrays.items()}
    if loss.alpha < 1.0:
        hard, more, _ = without_arrays(xp, SoftmaxOptions(eps))
        arrays |= {"labels": pair.labels, **{HARD + name: x for name, x in more.items()}}
    # The kernels of linear heads look up these arrays of both terms by these names.
    arrays |= {name: x for name, x in (("counted", pair.counted), ("scale", pair.scale)) if xp.is_array(x)}
    arrays = {name: over_rows(xp, x, rows) for name, x in arrays.items()}
    scale = None if "scale" in arrays else pair.scale
    loss = loss._replace(soft=soft, hard=hard, scale=scale, total=pair.reduction != "none")
    return over_all_rows(pair, linear_rows(xp, loss, Call(heads, {**arrays, **(teacher_rows or {})}, {}), block_size))


def _checked_smoothing(pair: Pair, label_smoothing: Any) -> Any:
    rows = pair.xp.shape(pair.student)[:-1]
    return check.number_or_rows(
        pair.xp, "label_smoothing", label_smoothing, rows, pair.student, pair.dtype, low=0.0, high=1.0
    )


class DistillationOfBlock(NamedTuple):
    """The `lsmooth.backends.formulas.linear.BlockLoss` of a teacher's and a student's head, in this order.

    With a tail, there is only the student's head, and ``rows`` hold the teacher's stored classes.
    """

    xp: Backend
    soft: DivergenceOptions  # its arrays are in ``rows``, under names with the prefix `SOFT`, or `HARD`
    hard: SoftmaxOptions | None = None
    alpha: float = 1.0
    scale: float | None = None
    total: bool = True
    frozen_heads: tuple[int, ...] = ()
    logits: tuple[LogitOptions, ...] = ()  # of each head
    tail: str | None = None

    def __call__(
        self,
        logits: tuple[Array, ...],
        rows: Mapping[str, Array],
        shared: Mapping[str, Array],
        final_kernels: Kernels | None = None,
    ) -> Array:
        """The divergence, plus the cross-entropy if there are labels."""
        xp, scale = self.xp, rows.get("scale", self.scale)
        each = [form.applied(xp, z) for form, z in zip(self.logits, logits, strict=True)]
        student = each[-1]
        common = {"total": self.total, "counted": rows.get("counted")}
        soft = with_arrays(self.soft._replace(**common), rows, prefix=SOFT)
        squared = 1.0 if soft.scale is None else soft.scale
        soft = soft._replace(scale=_times(self.alpha * squared, scale))
        if self.tail is None:
            kernels = final_kernels if final_kernels is not None and self.hard is None else xp
            losses = kernels.softmax_divergence(each[0], student, soft)
        else:
            losses = top_k_divergence(xp, rows["log_probs"], rows["indices"], student, self.tail, soft)
        if self.hard is None:
            return losses
        hard = with_arrays(self.hard._replace(**common), rows, prefix=HARD)
        hard = hard._replace(scale=_times(1.0 - self.alpha, scale))
        return losses + xp.softmax_cross_entropy(student, rows["labels"], hard)


def _teacher_share(alpha: float | None, labels: Any) -> float:
    if alpha is None:
        return 1.0 if labels is None else 0.5
    check.check_range("alpha", alpha, 0.0, 1.0)
    if labels is None and alpha != 1.0:
        raise ValueError(f"alpha must be 1 without labels, got {alpha}.")
    return float(alpha)


def _times(factor: float, scale: Any) -> Any:
    return factor if scale is None else factor * scale
