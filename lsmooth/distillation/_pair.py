"""The arguments of a loss between a teacher's and a student's logits: checks and reduction."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from lsmooth import _validation as check
from lsmooth._rows.checks import row_mask, row_weight, rows_of
from lsmooth._rows.reductions import check_reduction, reduce_rows
from lsmooth._rows.shards import Spread, over_all_rows, scale_and_divisor, spread_of
from lsmooth.backends import Array, Backend, backend_of
from lsmooth.backends.formulas import divergence
from lsmooth.backends.formulas.divergence import DIVERGENCES
from lsmooth.backends.formulas.rows import accumulate, is_number
from lsmooth.backends.formulas.softmax import capped_logits


def parameter_of(divergence: str, *, beta: float = 0.5, alpha: float = 0.5) -> float:
    """The parameter of a divergence, beta or alpha; a ValueError if it is out of range or the name is unknown."""
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}; got {divergence!r}.")
    name, value = ("beta", beta) if divergence == "jensen_shannon" else ("alpha", alpha)
    if divergence in ("jensen_shannon", "alpha", "skewed_forward_kl", "skewed_reverse_kl") and not 0.0 < value < 1.0:
        raise ValueError(
            f"{name} must be in (0, 1), got {value}; for the limits use divergence='forward_kl' or 'reverse_kl'."
        )
    return float(value)


class LogitOptions(NamedTuple):
    """The scale and the soft-cap of a model's logits z: ``c tanh(scale z / c)``."""

    scale: float = 1.0
    softcap: float | None = None

    def checked(self, prefix: str = "") -> LogitOptions:
        """The options as Python numbers; a ValueError if one is not above 0."""
        scale = check.check_range(f"{prefix}logit_scale", self.scale, 0.0, float("inf"))
        cap = self.softcap
        if cap is not None:
            cap = check.check_range(f"{prefix}logit_softcap", cap, 0.0, float("inf"))
        return LogitOptions(float(scale), None if cap is None else float(cap))

    def applied(self, xp: Backend, logits: Array) -> Array:
        """The scaled and capped logits, in at least float32 if they change."""
        scaled = not is_number(self.scale, 1.0)
        if not scaled and self.softcap is None:
            return logits
        logits = accumulate(xp, logits)
        # Numbers that are arguments of a program have the student's dtype.
        scale, cap = (xp.cast(x, xp.dtype(logits)) if xp.is_array(x) else x for x in self)
        return capped_logits(xp, logits * scale if scaled else logits, cap)


class PairOptions(NamedTuple):
    """The options of every loss between two models, as the user gave them."""

    temperature: Any = 1.0
    labels: Any = None
    ignore_index: int | None = None
    mask: Any = None
    sample_weight: Any = None
    axis: int = -1
    num_classes: int | None = None
    reduction: str | None = "mean"
    stop_teacher_gradient: bool = True
    row_shards: Any = None
    class_shards: Any = None


class Arguments(NamedTuple):
    """The names of the two arrays in a loss's signature."""

    teacher: str = "teacher_logits"
    student: str = "student_logits"
    same_classes: bool = True  # whether both arrays hold logits of the same classes
    order: check.Order | None = None


LOGITS = Arguments()


class Pair(NamedTuple):
    """The checked arguments of a call, with the classes along the last axis."""

    xp: Backend
    teacher: Array
    student: Array
    labels: Array | None  # class ids (...), 0 where a row is ignored
    counted: Array | None  # bool, False for rows that are ignored
    temperature: Any  # a float, or an array that broadcasts to the rows
    dtype: str
    scale: Any  # the factor of each row in the reduction
    reduction: str
    constant_teacher: bool  # whether its gradient has been stopped
    spread: Spread = Spread(None, None)
    divisor: Any = None  # of the sum over the rows of all members; the scale does not include it


def prepare(
    teacher_logits: Any, student_logits: Any, options: PairOptions, names: Arguments = LOGITS, **others: Any
) -> Pair:
    """Check the arguments that the losses share; ``others`` take part in the choice of the backend.

    With ``class_shards``, padding is not removed.
    """
    xp = backend_of(
        teacher_logits=teacher_logits,
        student_logits=student_logits,
        temperature=options.temperature,
        labels=options.labels,
        mask=options.mask,
        sample_weight=options.sample_weight,
        **others,
    )
    reduction = check_reduction(options.reduction)
    spread = spread_of(xp, options.class_shards, options.row_shards)
    like = teacher_logits if xp.is_array(teacher_logits) else None
    student = check.float_array(xp, names.student, student_logits, like, names.order)
    teacher = check.float_array(xp, names.teacher, teacher_logits, student, names.order)
    if options.stop_teacher_gradient and names.same_classes and _are_swapped(xp, teacher, student):
        warnings.warn(
            f"{names.teacher} requires a gradient and {names.student} does not. The teacher comes first and gets no "
            f"gradient: check that they are not swapped, and compute the teacher's logits under torch.no_grad().",
            stacklevel=3,
        )
    shape = xp.shape(student)
    count = options.num_classes if spread.classes is None else None
    teacher, student = _with_classes_last(xp, teacher, student, options.axis, count, names)
    dtype = "float64" if xp.dtype(student) == "float64" else "float32"
    if options.stop_teacher_gradient:
        teacher = xp.stop_gradient(teacher)

    rows = rows_of(xp, student)
    labels, counted = _labels_and_counted(xp, options, rows, shape)
    if check.is_validating(xp, teacher, student):
        check.check_not_nan(xp, names.teacher, teacher, counted)
        check.check_not_nan(xp, names.student, student, counted)
    temperature = check.number_or_rows(
        xp, "temperature", options.temperature, xp.shape(rows), student, dtype, low=0.0, high=float("inf")
    )
    weight = row_weight(xp, options.sample_weight, rows, student, dtype)
    weights = {"sample_weight": weight, "counted": counted}
    scale, divisor = scale_and_divisor(xp, reduction, rows, student, dtype, spread, **weights)
    constant = options.stop_teacher_gradient
    return Pair(xp, teacher, student, labels, counted, temperature, dtype, scale, reduction, constant, spread, divisor)


def _with_classes_last(
    xp: Backend, teacher: Array, student: Array, axis: int, num_classes: int | None, names: Arguments
) -> tuple[Array, Array]:
    """Both arrays without padding, with the classes along the last axis."""
    front = check.check_axis(axis, xp.shape(student))
    if num_classes is not None:
        student = _without_padding(xp, names.student, student, front, num_classes)
        if names.same_classes and len(xp.shape(teacher)) == len(xp.shape(student)):
            teacher = _without_padding(xp, names.teacher, teacher, front, num_classes)
    shape = xp.shape(student)
    wanted = shape if names.same_classes else (*shape[:-1], *xp.shape(teacher)[-1:])
    if not check.same_shape(xp.shape(teacher), wanted):
        raise ValueError(f"{names.teacher} must fit {names.student} of shape {shape}; got {xp.shape(teacher)}.")
    if shape[front] == 0:
        raise ValueError(f"{names.student} must have at least one class, got shape {shape} with axis={axis}.")
    if front != len(shape) - 1:
        student, teacher = xp.moveaxis(student, front, -1), xp.moveaxis(teacher, front, -1)
    return teacher, student


def _without_padding(xp: Backend, name: str, logits: Array, axis: int, num_classes: int) -> Array:
    """A view of the first ``num_classes`` logits of each row."""
    given, count = xp.shape(logits)[axis], check.check_count("num_classes", num_classes)
    if given is not None and count > given:
        raise ValueError(f"num_classes must be at most {given}, the number of {name}; got {num_classes}.")
    return logits if count == given else logits[(*[slice(None)] * axis, slice(count), ...)]


def _are_swapped(xp: Backend, teacher: Array, student: Array) -> bool:
    """Whether, on PyTorch, the teacher requires a gradient and the student does not."""
    return xp.is_concrete(student) and getattr(teacher, "requires_grad", False) and not student.requires_grad


def tempered(pair: Pair) -> tuple[Array, Array]:
    """Both logits divided by T in the precision of the result; zeros in ignored rows."""
    return divergence.tempered(pair.xp, pair.teacher, pair.student, pair.temperature, pair.counted)


def scale_of(pair: Pair, scale_by_temperature_squared: bool) -> Any:
    """The factor of each row: that of the reduction, times T^2 if wanted."""
    squared = squared_temperature(pair) if scale_by_temperature_squared else 1.0
    if isinstance(squared, float) and squared == 1.0:
        return pair.scale
    return squared if pair.scale is None else pair.scale * squared


def squared_temperature(pair: Pair) -> Any:
    """T^2, a float or an array that broadcasts to the rows."""
    return pair.temperature * pair.temperature


def finish(pair: Pair, losses: Array, scale_by_temperature_squared: bool) -> Array:
    """The reduction of the rows' losses, times T^2 if wanted."""
    scale = scale_of(pair, scale_by_temperature_squared)
    return over_all_rows(pair, reduce_rows(pair.xp, losses, scale, pair.reduction))


def _labels_and_counted(
    xp: Backend, options: PairOptions, rows: Array, logits: tuple[int | None, ...]
) -> tuple[Array | None, Array | None]:
    shape, labels = xp.shape(rows), options.labels
    counted = row_mask(xp, options.mask, rows, logits)
    ignore_index = check.check_ignore_index(options.ignore_index)
    if labels is None:
        if ignore_index is not None:
            raise ValueError("ignore_index needs labels; without labels, pass mask, False for rows to exclude.")
        return None, counted
    labels = check.class_ids(xp, check.to_array(xp, "labels", labels, like=rows))
    if not check.same_shape(xp.shape(labels), shape):
        hint = check.fitting_axis(xp.shape(labels), logits)
        raise ValueError(f"labels must have the rows' shape {shape}, got {xp.shape(labels)}.{hint}")
    if ignore_index is not None:
        not_ignored = ~xp.equal(labels, ignore_index)
        counted = not_ignored if counted is None else counted & not_ignored
    return (labels if counted is None else xp.where(counted, labels, 0)), counted
