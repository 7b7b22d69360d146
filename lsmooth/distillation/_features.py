"""Losses between the features of a teacher and of a student."""

from __future__ import annotations

import math
from typing import Any

from lsmooth import _validation as check
from lsmooth._rows.checks import weighted_reduction
from lsmooth.backends import Array, Backend, backend_of


def hint_loss(
    teacher_features: Array,
    student_features: Array,
    *,
    sample_weight: Array | None = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """FitNets' hints: the mean squared difference of two feature maps.

    ``mean_j (f^t_j - f^s_j)^2`` of each example, over all its features. If the student's features differ in size,
    map them with a regressor that is trained along with the student.

    Args:
        teacher_features: floating point, (batch, ...).
        student_features: floating point, in the same shape.
        sample_weight: weights of the examples: a scalar, or (batch,).
        reduction: as in `lsmooth.losses.softmax_cross_entropy`, each example being a row.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or (batch,) for ``reduction="none"``. float64 for float64 student features, else float32.

    Raises:
        TypeError: if tensors of two frameworks meet, or a dtype is wrong.
        ValueError: if shapes do not fit, or the reduction is unknown.

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", whose loss is half a sum.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import hint_loss
        >>> float(hint_loss(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])))
        2.5
    """
    xp, teacher, student = _features(
        teacher_features, student_features, stop_teacher_gradient, sample_weight=sample_weight
    )
    _check_same(xp, teacher, student)
    difference = _flat(xp, teacher) - _flat(xp, student)
    return weighted_reduction(xp, _mean(xp, difference * difference), sample_weight, reduction)


def attention_transfer_loss(
    teacher_features: Array,
    student_features: Array,
    *,
    axis: int = -1,
    power: float = 2.0,
    sample_weight: Array | None = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """Attention transfer: the squared difference of two normalised attention maps.

    ``mean_i (a^t_i / |a^t| - a^s_i / |a^s|)^2`` over the positions i, with a_i the mean over channels of
    ``abs(f_i)^power``. The numbers of channels may differ.

    Args:
        teacher_features: floating point, (batch, ..., channels).
        student_features: floating point, in the same shape except for the channels.
        axis: the channel axis: -1, or 1 for PyTorch images.
        power: above 0.
        sample_weight: weights of the examples: a scalar, or (batch,).
        reduction: as in `lsmooth.losses.softmax_cross_entropy`, each example being a row.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or (batch,) for ``reduction="none"``. float64 for float64 student features, else float32.
        Raises as `hint_loss` does.

    Source: Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", as in the authors' code.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import attention_transfer_loss
        >>> teacher, student = np.array([[[1.0, 1.0], [0.0, 0.0]]]), np.array([[[0.0], [5.0]]])
        >>> float(attention_transfer_loss(teacher, student))
        1.0
    """
    power = check.check_range("power", power, 0.0, float("inf"))
    xp, teacher, student = _features(
        teacher_features, student_features, stop_teacher_gradient, sample_weight=sample_weight
    )
    maps = [_attention(xp, x, axis, power) for x in (teacher, student)]
    _check_same(xp, *maps)
    difference = _unit(xp, _flat(xp, maps[0])) - _unit(xp, _flat(xp, maps[1]))
    return weighted_reduction(xp, _mean(xp, difference * difference), sample_weight, reduction)


def similarity_preserving_loss(
    teacher_features: Array, student_features: Array, *, stop_teacher_gradient: bool = True
) -> Array:
    """Similarity-preserving distillation: the squared difference of the pairwise similarities in a batch.

    ``|G^t - G^s|^2 / batch^2``, where G is the batch's matrix of inner products with rows scaled to length one.
    The features may differ in shape beyond the batch.

    Args:
        teacher_features: floating point, (batch, ...).
        student_features: floating point, (batch, ...).
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar. float64 for float64 student features, else float32. Raises as `hint_loss` does.

    Source: Tung and Mori 2019, "Similarity-Preserving Knowledge Distillation".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import similarity_preserving_loss
        >>> float(similarity_preserving_loss(np.eye(2), np.ones((2, 3))).round(6))
        0.292893
    """
    xp, teacher, student = _features(teacher_features, student_features, stop_teacher_gradient)
    grams = [x @ xp.moveaxis(x, 0, 1) for x in (_flat(xp, teacher), _flat(xp, student))]
    difference = _unit(xp, grams[0]) - _unit(xp, grams[1])
    return _mean_of_all(xp, difference * difference)


def relational_distance_loss(
    teacher_features: Array, student_features: Array, *, stop_teacher_gradient: bool = True
) -> Array:
    """RKD-D: Huber loss between the teacher's and the student's pairwise distances.

    ``mean_ij h(d^t_ij - d^s_ij)``, with d the distances divided by their mean, and h the Huber loss: x^2 / 2 for
    abs(x) <= 1, else abs(x) - 1/2.

    Args:
        teacher_features: floating point, (batch, ...).
        student_features: floating point, (batch, ...); the size may differ.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar. float64 for float64 student features, else float32. Raises as `hint_loss` does.

    Source: Park et al. 2019, "Relational Knowledge Distillation"; the mean includes the pairs of an example with
        itself, as in the authors' code.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import relational_distance_loss
        >>> float(relational_distance_loss(np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [5.0], [15.0]])))
        0.0
    """
    xp, teacher, student = _features(teacher_features, student_features, stop_teacher_gradient)
    distances = [_relative_distances(xp, _flat(xp, x)) for x in (teacher, student)]
    return _mean_of_all(xp, _huber(xp, distances[0] - distances[1]))


def relational_angle_loss(
    teacher_features: Array, student_features: Array, *, stop_teacher_gradient: bool = True
) -> Array:
    """RKD-A: Huber loss between the teacher's and the student's angles in triples of examples.

    ``mean_ijk h(cos^t_ijk - cos^s_ijk)``, with the cosine of the angle at i between j and k, and h the Huber loss.

    Args:
        teacher_features: floating point, (batch, ...).
        student_features: floating point, (batch, ...); the size may differ.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar. float64 for float64 student features, else float32. Needs memory for batch^3 numbers.
        Raises as `hint_loss` does.

    Source: Park et al. 2019, "Relational Knowledge Distillation"; the mean is over all triples, as in the
        authors' code, where this loss has the weight 2 and `relational_distance_loss` the weight 1.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import relational_angle_loss
        >>> triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> float(relational_angle_loss(triangle, 7.0 * triangle[:, ::-1]).round(6))
        0.0
    """
    xp, teacher, student = _features(teacher_features, student_features, stop_teacher_gradient)
    cosines = [_cosines(xp, _flat(xp, x)) for x in (teacher, student)]
    return _mean_of_all(xp, _huber(xp, cosines[0] - cosines[1]))


def contrastive_distillation_loss(
    teacher_embeddings: Array,
    student_embeddings: Array,
    *,
    labels: Array | None = None,
    temperature: float = 0.07,
    prior_ratio: float | None = None,
    reduction: str | None = "mean",
    stop_teacher_gradient: bool = True,
) -> Array:
    """CRD within a batch: contrastive loss of the teacher's and the student's embeddings.

    With c_ij the cosine of teacher i and student j, and h_ij = e^(c_ij / T) / (e^(c_ij / T) + r),

    ``-log h_ii - sum_{j != i} log(1 - h_ij)``,

    where r is the expected number of negatives divided by the size of the data set. Computed with softplus, which
    does not overflow. There is no memory bank.

    Args:
        teacher_embeddings: floating point, (batch, features).
        student_embeddings: floating point, in the same shape.
        labels: class ids (batch,); if given, examples of the same class are not negatives.
        temperature: T > 0.
        prior_ratio: r > 0; 1 by default.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`, each example being a row.
        stop_teacher_gradient: whether to treat the teacher as a constant.

    Returns:
        A scalar; or (batch,) for ``reduction="none"``. float64 for float64 student embeddings, else float32.
        Raises as `hint_loss` does.

    Source: Tian et al. 2020, "Contrastive Representation Distillation".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import contrastive_distillation_loss
        >>> float(contrastive_distillation_loss(np.eye(2), 3.0 * np.eye(2), temperature=0.5).round(6))
        0.820075
    """
    temperature = check.check_range("temperature", temperature, 0.0, float("inf"))
    ratio = 1.0 if prior_ratio is None else prior_ratio
    check.check_range("prior_ratio", ratio, 0.0, float("inf"))
    xp, teacher, student = _features(teacher_embeddings, student_embeddings, stop_teacher_gradient, labels=labels)
    _check_same(xp, teacher, student)
    cosines = _unit(xp, _flat(xp, teacher)) @ xp.moveaxis(_unit(xp, _flat(xp, student)), 0, 1)
    log_odds = cosines / temperature - math.log(ratio)
    index = xp.cumsum(xp.ones_like(log_odds[..., 0], "int32"))
    same = positive = xp.equal(index[:, None], index[None, :])
    if labels is not None:
        ids = check.class_ids(xp, xp.asarray(labels, like=student))
        if not check.same_shape(xp.shape(ids), xp.shape(log_odds)[:1]):
            raise ValueError(f"labels must have shape {xp.shape(log_odds)[:1]}, got {xp.shape(ids)}.")
        same = positive | xp.equal(ids[:, None], ids[None, :])
    negatives = xp.where(same, 0.0, xp.softplus(log_odds))
    losses = xp.sum(xp.where(positive, xp.softplus(-log_odds), negatives), axis=-1)
    return weighted_reduction(xp, losses, None, reduction)


def _features(teacher: Any, student: Any, stop: bool, **others: Any) -> tuple[Backend, Array, Array]:
    """Teacher and student in the precision of the result; their batch sizes must be equal."""
    xp = backend_of(teacher_features=teacher, student_features=student, **others)
    student = check.float_array(xp, "student_features", student, like=teacher if xp.is_array(teacher) else None)
    teacher = check.float_array(xp, "teacher_features", teacher, like=student)
    shapes = xp.shape(teacher), xp.shape(student)
    if not all(shapes) or not check.same_shape(shapes[0][:1], shapes[1][:1]):
        raise ValueError(
            f"teacher_features and student_features must share their first axis, got shapes {shapes[0]} and "
            f"{shapes[1]}."
        )
    dtype = "float64" if xp.dtype(student) == "float64" else "float32"
    teacher = xp.stop_gradient(teacher) if stop else teacher
    return xp, xp.cast(teacher, dtype), xp.cast(student, dtype)


def _check_same(xp: Backend, teacher: Array, student: Array) -> None:
    if not check.same_shape(xp.shape(teacher), xp.shape(student)):
        raise ValueError(
            f"teacher_features and student_features must have the same shape, got {xp.shape(teacher)} and "
            f"{xp.shape(student)}."
        )


def _flat(xp: Backend, x: Array) -> Array:
    size = 1
    for n in xp.shape(x)[1:]:
        if n is None:
            raise ValueError(f"features must have known sizes beyond the first axis, got shape {xp.shape(x)}.")
        size *= n
    return xp.reshape(x, (-1, size))


def _mean(xp: Backend, x: Array) -> Array:
    return xp.sum(x, axis=-1) / check.known_classes("features", xp.shape(x))


def _mean_of_all(xp: Backend, x: Array) -> Array:
    return weighted_reduction(xp, x, None, "mean")


def _attention(xp: Backend, x: Array, axis: int, power: float) -> Array:
    x = xp.moveaxis(x, check.check_axis(axis, xp.shape(x)), -1)
    return xp.sum(abs(x) ** power, axis=-1)  # the map is normalised later, so a sum serves as the mean


def _length(xp: Backend, x: Array) -> Array:
    """The Euclidean norm along the last axis, with a zero gradient at zero."""
    squared = xp.sum(x * x, axis=-1)
    zero = xp.equal(squared, 0)
    return xp.where(zero, 0.0, xp.where(zero, 1.0, squared) ** 0.5)


def _unit(xp: Backend, x: Array) -> Array:
    """``x`` scaled to norm one along the last axis; zero stays zero."""
    length = _length(xp, x)[..., None]
    return x / xp.where(xp.equal(length, 0), 1.0, length)


def _relative_distances(xp: Backend, x: Array) -> Array:
    distances = _length(xp, x[:, None, :] - x[None, :, :])
    count = xp.sum(xp.cast(distances > 0, xp.dtype(x)))
    mean = xp.sum(distances) / xp.where(xp.equal(count, 0), 1.0, count)
    return distances / xp.where(xp.equal(mean, 0), 1.0, mean)


def _cosines(xp: Backend, x: Array) -> Array:
    directions = _unit(xp, x[None, :, :] - x[:, None, :])
    return directions @ xp.moveaxis(directions, 1, 2)


def _huber(xp: Backend, x: Array) -> Array:
    size = abs(x)
    return xp.where(size < 1, 0.5 * x * x, size - 0.5)
