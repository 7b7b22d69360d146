"""Distillation methods based on `distillation_loss`: ensembles, peers, sequences, and students without a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import accumulate, log_softmax
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._logits import distillation_loss


def ensemble_distillation_loss(
    teacher_logits: Sequence[Array],
    student_logits: Array,
    *,
    teacher_weights: Sequence[float] | None = None,
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
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Distillation from several teachers: the weighted mean of `distillation_loss` over them.

    ``sum_i w_i D(teacher_i, student) / sum_i w_i``. For the forward KL its gradient is that of the KL
    divergence from the teachers' mean prediction.

    Args:
        teacher_logits: a list of floating tensors, one per teacher, each in the student's shape.
        student_logits: floating point, classes along ``axis``.
        teacher_weights: w, one non-negative number per teacher; equal by default.
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
        num_classes: the number of classes; later logits are padding, as in `distillation_loss`.
        class_shards: as in `distillation_loss`.
        row_shards: as in `distillation_loss`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.

    Returns:
        A scalar; or the rows' losses for ``reduction="none"``. The teachers get no gradient.
        Raises as `distillation_loss` does.

    Source: You et al. 2017, "Learning from Multiple Teacher Networks".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import ensemble_distillation_loss
        >>> teachers = [np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])]
        >>> float(ensemble_distillation_loss(teachers, np.array([[0.0, 0.0]])).round(6))
        0.327813
    """
    weights = [1.0] * len(teacher_logits) if teacher_weights is None else [float(w) for w in teacher_weights]
    if not weights or len(weights) != len(teacher_logits) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise ValueError(
            f"teacher_weights must be {len(teacher_logits)} non-negative numbers, at least one of them above 0; "
            f"got {weights}."
        )
    losses = [
        distillation_loss(
            teacher,
            student_logits,
            temperature=temperature,
            divergence=divergence,
            beta=beta,
            alpha=alpha,
            scale_by_temperature_squared=scale_by_temperature_squared,
            sample_weight=sample_weight,
            labels=labels,
            ignore_index=ignore_index,
            mask=mask,
            axis=axis,
            num_classes=num_classes,
            class_shards=class_shards,
            row_shards=row_shards,
            reduction=reduction,
        )
        for teacher in teacher_logits
    ]
    return sum(w / sum(weights) * loss for w, loss in zip(weights, losses, strict=True))


def mutual_distillation_losses(
    logits: Sequence[Array],
    *,
    temperature: float | Array = 1.0,
    divergence: str = "forward_kl",
    sample_weight: Array | None = None,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> list[Array]:
    """Deep mutual learning: each student is distilled from the others.

    The loss of student i is ``mean_{j != i} D(logits_j, logits_i)``, to be added to its cross-entropy. Students are
    constants in the losses of the others.

    Args:
        logits: a list of at least two floating tensors of one shape, one per student.
        temperature: T > 0, a number, or a tensor that broadcasts to the rows; losses are multiplied by T^2.
        divergence: as in `distillation_loss`.
        sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
        mask: bool, in the rows' shape; rows that are False are excluded.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, as in `distillation_loss`.
        class_shards: as in `distillation_loss`.
        row_shards: as in `distillation_loss`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.

    Returns:
        A list of one loss per student: scalars, or rows for ``reduction="none"``. Raises as `distillation_loss` does.

    Source: Zhang et al. 2018, "Deep Mutual Learning".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import mutual_distillation_losses
        >>> a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        >>> [round(float(loss), 6) for loss in mutual_distillation_losses([a, b])]
        [0.462117, 0.462117]
    """
    if len(logits) < 2:
        raise ValueError(f"logits must be a list of two or more students' logits, got {len(logits)}.")
    return [
        ensemble_distillation_loss(
            [other for j, other in enumerate(logits) if j != i],
            own,
            temperature=temperature,
            divergence=divergence,
            sample_weight=sample_weight,
            mask=mask,
            axis=axis,
            num_classes=num_classes,
            class_shards=class_shards,
            row_shards=row_shards,
            reduction=reduction,
        )
        for i, own in enumerate(logits)
    ]


@over_ragged_rows("student_logits")
def gkd_loss(
    teacher_logits: Array,
    student_logits: Array,
    *,
    beta: float = 0.5,
    temperature: float | Array = 1.0,
    labels: Array | None = None,
    ignore_index: int | None = -100,
    mask: Array | None = None,
    axis: int = -1,
    num_classes: int | None = None,
    class_shards: Any = None,
    row_shards: Any = None,
    reduction: str | None = "mean",
) -> Array:
    """Generalised knowledge distillation (GKD) of sequences, including those that the student generated.

    ``beta KL(t, m) + (1 - beta) KL(s, m)`` with m = beta t + (1 - beta) s, averaged over the tokens that are not
    excluded, without T^2. At beta 0 and 1 the loss is the forward and the reverse KL, as in TRL and Liger Kernel,
    although the formula tends to 0 there.

    Args:
        teacher_logits: floating point, (batch, tokens, vocabulary).
        student_logits: floating point, in the same shape.
        beta: in [0, 1].
        temperature: T > 0, a number, or a tensor that broadcasts to the rows.
        labels: token ids in the rows' shape, used only with ``ignore_index``.
        ignore_index: tokens with this label are excluded, if labels are given.
        mask: bool, in the rows' shape; tokens that are False are excluded.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, as in `distillation_loss`.
        class_shards: as in `distillation_loss`.
        row_shards: as in `distillation_loss`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`; ``"mean"`` is TRL's ``"batchmean"``.

    Returns:
        A scalar; or the tokens' losses for ``reduction="none"``. The teacher gets no gradient.
        Raises as `distillation_loss` does.

    Source: Agarwal et al. 2024, "On-Policy Distillation of Language Models: Learning from
        Self-Generated Mistakes"; TRL's ``GKDTrainer.generalized_jsd_loss``.

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import gkd_loss
        >>> teacher, student = np.array([[[2.0, 0.0], [0.0, 2.0]]]), np.zeros((1, 2, 2))
        >>> float(gkd_loss(teacher, student, labels=[[1, -100]]).round(6))
        0.089541
    """
    beta = check.check_range("beta", beta, 0.0, 1.0)
    names = {0.0: "forward_kl", 1.0: "reverse_kl"}
    return distillation_loss(
        teacher_logits,
        student_logits,
        temperature=temperature,
        divergence=names.get(float(beta), "jensen_shannon"),
        beta=0.5 if beta in names else beta,
        scale_by_temperature_squared=False,
        labels=labels,
        ignore_index=None if labels is None else ignore_index,
        mask=mask,
        axis=axis,
        num_classes=num_classes,
        class_shards=class_shards,
        row_shards=row_shards,
        reduction=reduction,
    )


def virtual_teacher_logits(labels: Array, num_classes: int, *, confidence: float = 0.99) -> Array:
    """The logits of a virtual teacher (TF-KD) with a given confidence in the label, uniform otherwise.

    ``log a`` for the label and ``log((1 - a) / (K - 1))`` for the others, the ``teacher_logits`` of
    `distillation_loss`. The paper's temperature is 20; at temperature 1 the loss is label smoothing up to a constant.

    Args:
        labels: integer class ids of any shape; an id outside 0..num_classes-1 gives a row of NaN.
        num_classes: K, at least 2.
        confidence: a, in [1 / K, 1).

    Returns:
        (..., num_classes), in the framework's default dtype.

    Raises:
        TypeError: if labels are not integers.
        ValueError: if a number is out of range.

    Source: Yuan et al. 2020, "Revisiting Knowledge Distillation via Label Smoothing Regularization".

    Examples:
        >>> from lsmooth.distillation import virtual_teacher_logits
        >>> virtual_teacher_logits([1], 3, confidence=0.9).round(3)
        array([[-2.996, -0.105, -2.996]])
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
    if not 1.0 / num_classes <= confidence < 1.0:
        raise ValueError(f"confidence must be in [{1.0 / num_classes:g}, 1), got {confidence}.")
    xp = backend_of(labels=labels)
    labels = check.class_ids(xp, xp.asarray(labels))
    dtype = xp.dtype(xp.asarray(1.0))
    valid = (labels >= 0) & (labels < num_classes)
    of_label, of_others = float(np.log(confidence)), float(np.log((1.0 - confidence) / (num_classes - 1)))
    row = of_others + (of_label - of_others) * xp.one_hot(xp.where(valid, labels, 0), num_classes, dtype)
    return xp.where(valid[..., None], row, float("nan"))


class MovingAverageTeacher:
    """Self-distillation: the teacher is a moving average of the student's earlier predictions for an example.

    Each visit sets ``m <- momentum m + (1 - momentum) softmax(z)``. After v visits the teacher's prediction is
    ``m / (1 - momentum^v)``; before the first it is uniform. With momentum 0 it is the prediction of the previous
    epoch (PS-KD). The averages are kept in host memory, (examples, classes) in float32.

    Args:
        num_examples: the size of the training set, whose examples are identified by their index.
        num_classes: the number of classes.
        momentum: in [0, 1).

    Raises:
        ValueError: if a number is out of range.

    Source: Laine and Aila 2017, "Temporal Ensembling for Semi-Supervised Learning"; Kim et al. 2021,
        "Self-Knowledge Distillation with Progressive Refinement of Targets" (PS-KD).

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import MovingAverageTeacher, distillation_loss
        >>> teacher = MovingAverageTeacher(100, 2)
        >>> logits = np.array([[2.0, 0.0]])
        >>> teacher.update_state([7], logits)
        >>> float(distillation_loss(teacher.logits([7], like=logits), logits).round(6))
        0.0
    """

    def __init__(self, num_examples: int, num_classes: int, *, momentum: float = 0.9):
        for name, value in (("num_examples", num_examples), ("num_classes", num_classes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}.")
        self.num_examples = num_examples
        self.num_classes = num_classes
        self.momentum = momentum
        self._mean = np.zeros((num_examples, num_classes), np.float32)
        self._visits = np.zeros(num_examples, np.int64)

    def update_state(self, indices: Array, logits: Array) -> None:
        """Add the student's current predictions to the averages. Call it outside ``jit``, since it reads values.

        Args:
            indices: (batch,), the examples, without duplicates.
            logits: (batch, classes), floating point.

        Raises:
            ValueError: if shapes do not fit, or an index is out of range.
        """
        xp = backend_of(indices=indices, logits=logits)
        logits = accumulate(xp, check.float_array(xp, "logits", logits))
        rows = self._rows(xp.to_numpy(xp.asarray(indices)))
        if not check.same_shape(xp.shape(logits), (len(rows), self.num_classes)):
            raise ValueError(f"logits must have shape {(len(rows), self.num_classes)}, got {xp.shape(logits)}.")
        p = xp.to_numpy(xp.exp(log_softmax(xp, xp.stop_gradient(logits))))
        self._mean[rows] = self.momentum * self._mean[rows] + (1.0 - self.momentum) * p
        self._visits[rows] += 1

    def logits(self, indices: Array, *, like: Array | None = None) -> Array:
        """The teacher's log-probabilities for some examples.

        Args:
            indices: (batch,), the examples; a ValueError if an index is out of range.
            like: a tensor of the framework and device of the result, e.g. the student's logits; the indices by default.

        Returns:
            (batch, classes), float32: the ``teacher_logits`` of `distillation_loss`.
        """
        xp = backend_of(indices=indices, like=like)
        given = xp.asarray(indices)
        rows = self._rows(xp.to_numpy(given))
        seen = self._visits[rows][:, None]
        mean = self._mean[rows] / np.where(seen > 0, 1.0 - self.momentum ** np.maximum(seen, 1), 1.0)
        with np.errstate(divide="ignore"):
            values = np.log(np.where(seen > 0, mean, 1.0 / self.num_classes))
        return xp.asarray(values, "float32", like=given if like is None else like)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"num_examples": self.num_examples, "num_classes": self.num_classes, "momentum": self.momentum}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MovingAverageTeacher:
        """The teacher with the arguments that `get_config` returned, without its state."""
        return cls(**config)

    def get_state(self) -> dict[str, np.ndarray]:
        """The averages and the numbers of visits as arrays, for ``numpy.savez``."""
        return {"mean": self._mean.copy(), "visits": self._visits.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `get_state`; a ValueError if the numbers of examples or classes differ."""
        mean = np.asarray(state["mean"], np.float32)
        if mean.shape != self._mean.shape:
            raise ValueError(f"state must be of {self._mean.shape} examples and classes, got {mean.shape}.")
        self._mean, self._visits = mean.copy(), np.array(state["visits"], np.int64)

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        if indices.ndim != 1 or ((indices < 0) | (indices >= self.num_examples)).any():
            raise ValueError(f"indices must be flat and in 0..{self.num_examples - 1}, got {indices.tolist()}.")
        return indices
