"""Distillation losses between the logits of a teacher and of a student."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.shards import over_all_rows
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas.divergence import relative_entropy
from lsmooth.backends.formulas.linear import Head
from lsmooth.backends.formulas.rows import MINUS_INFINITY, centered, label_factor, log_sum_exp_of
from lsmooth.backends.options import DivergenceOptions
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._pair import (
    LogitOptions,
    Pair,
    PairOptions,
    finish,
    parameter_of,
    prepare,
    scale_of,
    tempered,
)
from lsmooth.distillation._shards import spread_loss


@over_ragged_rows("student_logits")
def distillation_loss(
    teacher_logits: Array,
    student_logits: Array,
    *,
    temperature: float | Array = 1.0,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    alpha: float = 0.5,
    logit_softcap: float | None = None,
    teacher_logit_softcap: float | None = None,
    logit_scale: float = 1.0,
    teacher_logit_scale: float = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    labels: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """Divergence between the teacher's and the student's predictions at a temperature.

    With t = softmax(teacher / T) and s = softmax(student / T), T^2 times

    | divergence | of a row |
    |---|---|
    | forward_kl | sum_k t_k (log t_k - log s_k) |
    | reverse_kl | sum_k s_k (log s_k - log t_k) |
    | jensen_shannon | beta KL(t, m) + (1 - beta) KL(s, m), m = beta t + (1 - beta) s |
    | skewed_forward_kl | KL(t, alpha t + (1 - alpha) s) |
    | skewed_reverse_kl | KL(s, alpha s + (1 - alpha) t) |
    | total_variation | 1/2 sum_k abs(t_k - s_k) |
    | alpha | (1 - sum_k t_k^alpha s_k^(1 - alpha)) / (alpha (1 - alpha)) |
    | mse_logits | mean_k (teacher_k / T - student_k / T)^2 |
    | cosine | 1 - cos(teacher, student), of the logits themselves |

    The gradient of the forward KL with respect to the student's logits is T (s - t). All divergences are computed
    from logits, without clipping. Classes with a logit of -inf in both models are excluded; if only the student
    masks a class to which the teacher gives mass, the forward KL is infinite.

    Args:
        teacher_logits: floating point, any shape, classes along ``axis``.
        student_logits: floating point, in the same shape.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        divergence: one of the table.
        beta: the teacher's share in m, in (0, 1), for ``"jensen_shannon"``.
        alpha: in (0, 1), for ``"alpha"`` and the skewed divergences, whose authors use 0.1.
        logit_softcap: c > 0, of the student, whose logits z become c tanh(z / c) before the division by T.
        teacher_logit_softcap: that of the teacher.
        logit_scale: multiplies the student's logits, before the cap.
        teacher_logit_scale: that of the teacher.
        scale_by_temperature_squared: whether the loss is multiplied by T^2, which keeps the size of the gradient.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        labels: class ids in the rows' shape, used only with ``ignore_index``.
        ignore_index: rows with this label are excluded from the loss and its mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, whose amount may differ between the models.
        class_shards: as in `lsmooth.losses.softmax_cross_entropy`; the logits of both models are this member's
            slice. Jensen-Shannon, skewed KL and total variation need a third exchange between members.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, a number is out of range, or a name is unknown.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Agarwal et al. 2024,
        "On-Policy Distillation of Language Models" (generalised Jensen-Shannon); Ko et al. 2024, "DistiLLM:
        Towards Streamlined Distillation for Large Language Models" (skewed KL); Kim et al. 2021,
        "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import distillation_loss
        >>> teacher, student = np.array([[2.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 2.0]])
        >>> float(distillation_loss(teacher, student, temperature=2.0).round(6))
        1.280627
    """
    backend_of(teacher_logits=teacher_logits, student_logits=student_logits).refuse_spread(student_logits)
    parameter = parameter_of(divergence, beta=beta, alpha=alpha)
    of_teacher = LogitOptions(teacher_logit_scale, teacher_logit_softcap).checked("teacher_")
    of_student = LogitOptions(logit_scale, logit_softcap).checked()
    options = PairOptions(temperature, labels, ignore_index, mask, sample_weight, axis, num_classes, reduction)
    options = options._replace(
        stop_teacher_gradient=stop_teacher_gradient, class_shards=class_shards, row_shards=row_shards
    )
    pair = prepare(teacher_logits, student_logits, options)
    if pair.spread.classes is not None:
        heads = (Head(pair.teacher, None), Head(pair.student, None))
        soft = DivergenceOptions(divergence, parameter, pair.temperature)
        forms = (of_teacher, of_student)
        return spread_loss(pair, heads, forms, soft, scale_by_temperature_squared, num_classes=num_classes)
    teacher, student = of_teacher.applied(pair.xp, pair.teacher), of_student.applied(pair.xp, pair.student)
    pair = pair._replace(teacher=teacher, student=student)
    return over_all_rows(pair, divergence_of(pair, divergence, parameter, scale_by_temperature_squared))


@over_ragged_rows("student_logits")
def decoupled_distillation_loss(
    teacher_logits: Array,
    student_logits: Array,
    labels: Array,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float | Array = 1.0,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """DKD: the forward KL with separate weights for the label's class and the other classes.

    ``T^2 (alpha TCKD + beta NCKD)``, with TCKD the KL divergence between (t_y, 1 - t_y) and
    (s_y, 1 - s_y), and NCKD that between the two softmaxes over the classes other than y. The plain
    forward KL is ``TCKD + (1 - t_y) NCKD``. Computed from log-sum-exps, so that confident students have a finite loss.

    Args:
        teacher_logits: floating point, any shape, classes along ``axis``.
        student_logits: floating point, in the same shape.
        labels: y, class ids in the rows' shape; one out of range makes its row NaN.
        alpha: the weight of TCKD, at least 0.
        beta: the weight of NCKD, at least 0.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows; 4 in the paper.
        scale_by_temperature_squared: whether the loss is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        ignore_index: rows with this label are excluded from the loss and its mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, whose amount may differ between the models.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else float32.
        Raises as `distillation_loss` does.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import decoupled_distillation_loss
        >>> teacher, student = np.array([[2.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 2.0]])
        >>> float(decoupled_distillation_loss(teacher, student, [0], beta=2.0).round(6))
        1.919957
    """
    alpha = check.check_at_least("alpha", alpha, 0.0)
    beta = check.check_at_least("beta", beta, 0.0)
    options = PairOptions(temperature, labels, ignore_index, mask, sample_weight, axis, num_classes, reduction)
    options = options._replace(stop_teacher_gradient=stop_teacher_gradient, row_shards=row_shards)
    pair = prepare(teacher_logits, student_logits, options)
    xp, labels = pair.xp, pair.labels
    classes = xp.length(pair.student, -1, xp.dtype(labels))
    known, factor = label_factor(xp, labels, classes, pair.dtype)
    target = xp.equal(xp.one_hot(known, classes, "float32"), 1)
    teacher, student = (centered(xp, z) for z in tempered(pair))
    of_target = _binary_kl(xp, xp.label_log_odds(teacher, labels), xp.label_log_odds(student, labels))
    others = (_log_softmax_of_others(xp, z, target) for z in (teacher, student))
    losses = (alpha * of_target + beta * relative_entropy(xp, *others)) * factor
    return finish(pair, losses, scale_by_temperature_squared)


@over_ragged_rows("student_logits")
def standardized_distillation_loss(
    teacher_logits: Array,
    student_logits: Array,
    *,
    temperature: float | Array = 1.0,
    divergence: str = "forward_kl",
    beta: float = 0.5,
    alpha: float = 0.5,
    scale_by_temperature_squared: bool = True,
    sample_weight: Array | None = None,
    labels: Array | None = None,
    ignore_index: int | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """Distillation of standardised logits, which does not depend on the scale of the teacher's logits.

    `distillation_loss` of ``(z - mean(z)) / std(z)`` of each row of logits, before the division by T. The
    standard deviation divides by the number of classes that are not masked; constant rows become 0.

    Args:
        teacher_logits: floating point, any shape, classes along ``axis``.
        student_logits: floating point, in the same shape.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        divergence: as in `distillation_loss`.
        beta: as in `distillation_loss`.
        alpha: as in `distillation_loss`.
        scale_by_temperature_squared: whether the loss is multiplied by T^2.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        labels: class ids in the rows' shape, used only with ``ignore_index``.
        ignore_index: rows with this label are excluded from the loss and its mean.
        mask: bool, in the rows' shape; rows that are False are excluded.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, whose amount may differ between the models.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. float64 for float64 student logits, else float32.
        Raises as `distillation_loss` does.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation". The authors' code divides by K - 1
        in the standard deviation, which is equivalent to a temperature ``sqrt(K / (K - 1))`` times as high.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import standardized_distillation_loss
        >>> teacher = np.array([[2.0, 1.0, 0.0]])
        >>> float(standardized_distillation_loss(teacher, 5.0 * teacher - 1.0).round(6))
        0.0
    """
    parameter = parameter_of(divergence, beta=beta, alpha=alpha)
    options = PairOptions(1.0, labels, ignore_index, mask, sample_weight, axis, num_classes, reduction)
    options = options._replace(stop_teacher_gradient=stop_teacher_gradient, row_shards=row_shards)
    pair = prepare(teacher_logits, student_logits, options, row_temperature=temperature)
    xp = pair.xp
    rows = xp.shape(pair.student)[:-1]
    divisor = check.number_or_rows(
        xp, "temperature", temperature, rows, pair.student, pair.dtype, low=0.0, high=float("inf")
    )
    teacher, student = (_standardized(xp, z) for z in tempered(pair))
    pair = pair._replace(teacher=teacher, student=student, temperature=divisor)
    return over_all_rows(pair, divergence_of(pair, divergence, parameter, scale_by_temperature_squared))


def divergence_of(pair: Pair, divergence: str, parameter: float, scale_by_temperature_squared: bool) -> Array:
    """The loss of a checked call."""
    options = divergence_options(pair, divergence, parameter, scale_by_temperature_squared)
    return pair.xp.softmax_divergence(pair.teacher, pair.student, options)


def divergence_options(
    pair: Pair, divergence: str, parameter: float, scale_by_temperature_squared: bool
) -> DivergenceOptions:
    """The kernel's options of a checked call."""
    return DivergenceOptions(
        divergence=divergence,
        parameter=parameter,
        temperature=pair.temperature,
        counted=pair.counted,
        scale=scale_of(pair, scale_by_temperature_squared),
        total=pair.reduction != "none",
        constant_teacher=pair.constant_teacher,
    )


def _standardized(xp: Backend, logits: Array) -> Array:
    masked = xp.equal(logits, MINUS_INFINITY)
    unmasked = xp.cast(~masked, xp.dtype(logits))
    count = xp.sum(unmasked, axis=-1)[..., None]
    finite = xp.where(masked, 0.0, centered(xp, logits))
    deviation = (finite - xp.sum(finite, axis=-1)[..., None] / count) * unmasked
    variance = xp.sum(deviation * deviation, axis=-1)[..., None] / count
    constant = xp.equal(variance, 0)
    return xp.where(masked, logits, deviation / xp.where(constant, 1.0, variance) ** 0.5)


def _binary_kl(xp: Backend, teacher: Array, student: Array) -> Array:
    """KL between two Bernoulli distributions given by their log-odds g: log p = -softplus(-g)."""
    p = relative_entropy(xp, -xp.softplus(-teacher)[..., None], -xp.softplus(-student)[..., None])
    return p + relative_entropy(xp, -xp.softplus(teacher)[..., None], -xp.softplus(student)[..., None])


def _log_softmax_of_others(xp: Backend, logits: Array, target: Array) -> Array:
    """The log-softmax over the classes other than the target, which gets a number whose exponential is 0."""
    top, log_sum, _ = log_sum_exp_of(xp, logits, ~target)
    return xp.where(target, -1e4, logits - top[..., None] - log_sum[..., None])
