"""The sum of the hard and the soft loss."""

from __future__ import annotations

from typing import Any

from lsmooth import _validation as check
from lsmooth._rows import checks as _rows
from lsmooth._rows.reductions import check_reduction
from lsmooth._rows.shards import over_all_rows
from lsmooth.backends import Array
from lsmooth.backends.formulas.linear import Head
from lsmooth.backends.options import DivergenceOptions, SoftmaxOptions
from lsmooth.backends.ragged import over_ragged_rows
from lsmooth.distillation._logits import divergence_options
from lsmooth.distillation._pair import Arguments, PairOptions, parameter_of, prepare
from lsmooth.distillation._shards import spread_loss


class DistillationLoss:
    """The loss of a student: cross-entropy with the labels plus divergence from a teacher.

    ``(1 - alpha) CE(labels, student) + alpha T^2 D(teacher / T, student / T)``.

    Args:
        alpha: the weight of the teacher, in [0, 1].
        temperature: T > 0, of the divergence: a number, or a tensor that broadcasts to the rows.
        label_smoothing: eps in [0, 1], of the cross-entropy: a number, or a tensor that broadcasts to the rows.
        divergence: D, as in `distillation_loss`.
        beta: for ``"jensen_shannon"``.
        divergence_alpha: the alpha of `distillation_loss`.
        scale_by_temperature_squared: whether D is multiplied by T^2.
        ignore_index: rows with this label are excluded from both terms and their mean.
        axis: the class axis.
        num_classes: the number of classes; later logits are padding, whose amount may differ between the models.
        class_shards: as in `distillation_loss`. Groups are not part of the config, which other processes may read.
        row_shards: as in `lsmooth.losses.softmax_cross_entropy`.
        reduction: as in `lsmooth.losses.softmax_cross_entropy`.

    Raises:
        ValueError: if a number is out of range, or a name is unknown.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; the weights as in Mueller
        et al. 2019, "When Does Label Smoothing Help?".

    Examples:
        >>> import numpy as np
        >>> from lsmooth.distillation import DistillationLoss
        >>> loss = DistillationLoss(alpha=0.9, temperature=4.0)
        >>> teacher, student = np.array([[2.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 2.0]])
        >>> float(loss([0], teacher, student).round(6))
        1.428428
    """

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float | Array = 1.0,
        *,
        label_smoothing: float | Array = 0.0,
        divergence: str = "forward_kl",
        beta: float = 0.5,
        divergence_alpha: float = 0.5,
        scale_by_temperature_squared: bool = True,
        ignore_index: int | None = None,
        axis: int = -1,
        num_classes: int | None = None,
        class_shards: Any = None,
        row_shards: Any = None,
        reduction: str | None = "mean",
    ):
        check.check_range("alpha", alpha, 0.0, 1.0)
        _check_number("temperature", temperature, 0.0, float("inf"))
        _check_number("label_smoothing", label_smoothing, 0.0, 1.0)
        check_reduction(reduction)
        parameter_of(divergence, beta=beta, alpha=divergence_alpha)
        self.alpha = alpha
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.divergence = divergence
        self.beta = beta
        self.divergence_alpha = divergence_alpha
        self.scale_by_temperature_squared = scale_by_temperature_squared
        self.ignore_index = ignore_index
        self.axis = axis
        self.num_classes = None if num_classes is None else check.check_count("num_classes", num_classes)
        self.reduction = reduction
        self._shards = {"class_shards": class_shards, "row_shards": row_shards}

    def __call__(
        self,
        labels: Array,
        teacher_logits: Array,
        student_logits: Array,
        *,
        sample_weight: Array | None = None,
        mask: Array | None = None,
    ) -> Array:
        """The loss of a batch.

        Args:
            labels: class ids, or distributions in the shape of the logits.
            teacher_logits: floating point, classes along ``axis``; treated as constants.
            student_logits: floating point, in the same shape.
            sample_weight: weights of the rows: a scalar, or of the rows' rank, each dimension equal or 1.
            mask: bool, in the shape of the rows; rows that are False are excluded.

        Returns:
            A scalar; or the rows' losses for ``reduction="none"``. Raises as `distillation_loss` does.
        """
        return _hard_and_soft(
            labels,
            teacher_logits,
            student_logits,
            loss=self,
            sample_weight=sample_weight,
            mask=mask,
            temperature=self.temperature,
            label_smoothing=self.label_smoothing,
            axis=self.axis,
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, without groups, for JSON."""
        return {name: x for name, x in vars(self).items() if name != "_shards"}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistillationLoss:
        """The loss with the arguments that `get_config` returned."""
        return cls(**config)


@over_ragged_rows("student_logits")
def _hard_and_soft(
    labels: Array,
    teacher_logits: Array,
    student_logits: Array,
    *,
    loss: DistillationLoss,
    sample_weight: Array | None,
    mask: Array | None,
    temperature: float | Array,
    label_smoothing: float | Array,
    axis: int,
) -> Array:
    """The loss of a batch; arguments along the rows are not in ``loss``, because `over_ragged_rows` replaces them."""
    common: dict[str, Any] = {"ignore_index": loss.ignore_index, "axis": axis, "reduction": loss.reduction}
    common |= {"num_classes": loss.num_classes, **loss._shards}
    ids = None if loss.ignore_index is None else labels
    options = PairOptions(temperature, ids, sample_weight=sample_weight, mask=mask, **common)
    names = Arguments(order=("labels", labels, "loss(labels, teacher_logits, student_logits)"))
    pair = prepare(teacher_logits, student_logits, options, names, hard_labels=labels, label_smoothing=label_smoothing)
    xp = pair.xp
    rows = _rows.prepare(
        xp, labels, student_logits, _rows.RowOptions(label_smoothing, sample_weight, mask=mask, **common)
    )
    parameter = parameter_of(loss.divergence, beta=loss.beta, alpha=loss.divergence_alpha)
    if pair.spread.classes is not None:
        return spread_loss(
            pair,
            (Head(pair.teacher, None), Head(pair.student, None)),
            (),
            DivergenceOptions(loss.divergence, parameter, pair.temperature),
            loss.scale_by_temperature_squared,
            labels=rows.labels,
            label_smoothing=rows.label_smoothing,
            alpha=float(loss.alpha),
            num_classes=loss.num_classes,
        )
    # The kernels multiply their gradients by the rows' factors, so the weight of each term goes into its factors.
    rows = rows._replace(scale=_weighted(rows.scale, 1.0 - float(loss.alpha)))
    pair = pair._replace(scale=_weighted(pair.scale, float(loss.alpha)))
    hard = SoftmaxOptions(rows.label_smoothing, counted=rows.counted, scale=rows.scale, total=rows.reduction != "none")
    soft = divergence_options(pair, loss.divergence, parameter, loss.scale_by_temperature_squared)
    return over_all_rows(pair, xp.hard_and_soft(rows.labels, pair.teacher, pair.student, hard, soft))


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    if not hasattr(value, "shape"):
        check.check_range(name, value, low, high)


def _weighted(scale: Any, weight: float) -> Any:
    return weight if scale is None else weight * scale
