"""Checks of arguments, with messages that name the argument, the given value and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any

import numpy as np

from lsmooth.backends import Array, Backend
from lsmooth.backends.formulas.rows import ROUNDING

VALIDATING: ContextVar[bool] = ContextVar(
    "lsmooth_validate", default=os.environ.get("LSMOOTH_VALIDATE", "0") not in ("", "0")
)

FLOATS = ("float64", "float32", "bfloat16", "float16")
_WIDER = {"int8": "int32", "uint8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64", "uint64": "int64"}


@contextmanager
def validate(enabled: bool = True) -> Iterator[None]:
    """Check the values of tensors too within a ``with`` block: labels in range, no NaN.

    Shapes, dtypes and options are always checked. Reading values needs a synchronisation with the device, so they
    are checked only in such a block, or in a process started with ``LSMOOTH_VALIDATE=1``. Traced and compiled calls
    have no values to check.

    Args:
        enabled: False disables the check within the block.

    Examples:
        >>> import lsmooth
        >>> with lsmooth.validate():
        ...     lsmooth.losses.softmax_cross_entropy([3], [[0.0, 1.0]])
        Traceback (most recent call last):
        ...
        ValueError: labels must be class ids in 0..1, got 3 at index (0,).
    """
    token = VALIDATING.set(enabled)
    try:
        yield
    finally:
        VALIDATING.reset(token)


def is_validating(xp: Backend, *arrays: Array | None) -> bool:
    """Whether to check values. The context variable is not read for traced arrays, which have no values."""
    for array in arrays:
        if array is not None and not xp.is_concrete(array):
            return False
    return VALIDATING.get()


def to_array(xp: Backend, name: str, value: Any, dtype: str | None = None, like: Array | None = None) -> Array:
    """``value`` as an array of this backend; a TypeError unless it holds real numbers."""
    if isinstance(value, np.ndarray):
        if xp.is_concrete(value) and value.dtype.kind in "OSUMm":  # torch.compile cannot trace NumPy dtypes
            raise TypeError(f"{name} must be an array, a tensor or numbers, got an array of dtype {value.dtype}.")
    elif not xp.is_array(value) and not hasattr(value, "__array__"):
        first = value
        while isinstance(first, (list, tuple)) and len(first) > 0:
            first = first[0]
        if not (isinstance(first, (list, tuple, int, float)) or hasattr(first, "__array__")):
            hint = " Call the model on its inputs and pass the result." if callable(value) else ""
            raise TypeError(f"{name} must be an array, a tensor or numbers, got {_shortened(value)}.{hint}")
    given = _dtype_of(xp, value) if xp.is_array(value) or xp.is_concrete(value) else ""
    if "complex" in given:  # a cast would drop the imaginary part
        raise TypeError(f"{name} must hold real numbers, got {given}; take the real part.")
    array = xp.asarray(value, dtype, like=like)
    if xp.name == "tensorflow" and array.shape.rank is None:
        raise ValueError(
            f"{name} must have a known number of axes, got a tensor of unknown rank; give it one, e.g. "
            "tf.ensure_shape(x, [None, 10])."
        )
    return array


def _dtype_of(xp: Backend, value: Any) -> str:
    """The dtype of an array of this backend or of NumPy; "" for other objects."""
    return xp.dtype(value) if xp.is_array(value) else str(getattr(value, "dtype", ""))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


# The first of two arguments that are easily swapped: its name, its value, and a call in the correct order.
Order = tuple[str, Any, str]


def float_array(xp: Backend, name: str, value: Any, like: Array | None = None, order: Order | None = None) -> Array:
    """``value`` as an array of this backend; a TypeError unless its dtype is floating point."""
    dtype = _dtype_of(xp, value)
    if "complex" not in dtype:
        value = to_array(xp, name, value, like=like)
        dtype = xp.dtype(value)
    if order is not None and "int" in dtype:
        _check_order(xp, name, dtype, order)
    check_float(name, dtype)
    return value


def check_float(name: str, dtype: str) -> None:
    """Raise a TypeError unless the dtype is floating point."""
    if dtype not in FLOATS:
        raise TypeError(f"{name} must be floating point, got {dtype}; cast it, e.g. to float32.")


def logits_array(
    xp: Backend, name: str, value: Any, labels: Any, call: str = "softmax_cross_entropy(labels, logits)"
) -> Array:
    """Logits as a floating array of this backend, on the device of the labels."""
    return float_array(xp, name, value, labels if xp.is_array(labels) else None, ("labels", labels, call))


def _check_order(xp: Backend, name: str, dtype: str, order: Order) -> None:
    """Raise a TypeError if the other argument is floating point and this one is not, because they are swapped."""
    first, value, call = order
    other = _dtype_of(xp, value) or (str(np.asarray(value).dtype) if isinstance(value, (list, tuple)) else "")
    if other in FLOATS:
        leading = call.partition("(")[2].partition(",")[0]
        verb = "come" if leading.endswith("s") else "comes"
        raise TypeError(
            f"{leading} {verb} first, as in {call}: {name} must be floating point, got {dtype}, and {first} "
            f"got {other}."
        )


def class_ids(xp: Backend, labels: Array, name: str = "labels", kind: str = "class") -> Array:
    """Integer labels in a signed dtype that is large enough for any number of classes; a TypeError for other dtypes."""
    dtype = xp.dtype(labels)
    if "int" not in dtype:
        raise TypeError(f"{name} must be integer {kind} ids, got {dtype}; cast them, e.g. to int64.")
    return xp.cast(labels, _WIDER[dtype]) if dtype in _WIDER else labels


def check_ignore_index(value: Any) -> int | None:
    """None, or an integer as Python's int."""
    if value is None:
        return None
    if not is_integer_number(value):
        raise TypeError(f"ignore_index must be None or an integer, got {value!r}.")
    return int(value)


def is_integer(xp: Backend, array: Array) -> bool:
    """Whether the dtype is an integer dtype; bool is not."""
    return "int" in xp.dtype(array)


def number_or_rows(
    xp: Backend, name: str, value: Any, rows: Sequence[int | None], like: Array, dtype: str, *, low: float, high: float
) -> Any:
    """A Python number in [low, high] as a float, or a tensor that broadcasts to the rows."""
    if type(value) is float or isinstance(value, Real):  # NumPy's numbers too
        return check_range(name, value, low, high)  # pyright: ignore[reportArgumentType]
    if value is None or isinstance(value, str):
        raise TypeError(f"{name} must be a number or a tensor, got {value!r}.")
    array = to_array(xp, name, value, dtype, like=like)
    check_broadcast(name, xp.shape(array), rows)
    if is_validating(xp, array):
        values = xp.to_numpy(array)
        allowed = (values > low) & (values < high) if high == float("inf") else (values >= low) & (values <= high)
        if not allowed.all():
            check_range(name, float(values[~allowed].reshape(-1)[0]), low, high)
    return array


def is_integer_number(value: Any) -> bool:
    """Whether ``value`` is a Python or NumPy integer; a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real_number(value: Any) -> bool:
    """Whether ``value`` is a Python or NumPy number; a bool is not."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_count(name: str, value: Any, low: int = 1) -> int:
    """An integer of at least ``low``, as Python's int."""
    if not is_integer_number(value) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}.")
    return int(value)


def check_fraction(name: str, value: Any) -> float:
    """A number in (0, 1), as Python's float."""
    if not is_real_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value!r}.")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """True or False, as Python's bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_range(name: str, value: float, low: float, high: float) -> float:
    """A number in [low, high], or in (low, inf) if ``high`` is infinite, as Python's float."""
    number = check_number(name, value)
    if high == float("inf"):
        if not low < number < high:
            raise ValueError(f"{name} must be a finite number above {low:g}, got {number:g}.")
    elif not low <= number <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {number:g}.")
    return number


def check_number(name: str, value: Any) -> float:
    """A Python or NumPy number as Python's float; bools are refused."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    return float(value)


def check_at_least(name: str, value: float, low: float) -> float:
    """A finite number of at least ``low``, as Python's float."""
    number = check_number(name, value)
    if not low <= number < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least {low:g}, got {number:g}.")
    return number


def check_has_classes(name: str, shape: Sequence[int | None]) -> None:
    """Raise a ValueError unless there is an axis for the classes."""
    if not shape:
        raise ValueError(f"{name} must have at least one axis, the classes; got a scalar.")


def known_classes(name: str, shape: Sequence[int | None]) -> int:
    """The size of the last axis, which must be known statically."""
    if not shape or shape[-1] is None:
        raise ValueError(f"{name} must have a known number of classes along the last axis, got shape {tuple(shape)}.")
    return shape[-1]


def check_axis(axis: int, shape: Sequence[int | None]) -> int:
    """``axis`` counted from the front."""
    if not shape:
        raise ValueError("logits must have at least one axis, the classes; got a scalar.")
    if not is_integer_number(axis) or not -len(shape) <= axis < len(shape):
        raise ValueError(
            f"axis must be an integer in [{-len(shape)}, {len(shape) - 1}] for logits of shape {tuple(shape)}, "
            f"got {axis}."
        )
    return int(axis) % len(shape)


def check_labels(
    xp: Backend,
    labels: Any,
    logits: Array,
    axis: int,
    name: str = "logits",
    weight: Array | None = None,
    num_classes: int | None = None,
) -> tuple[Array, int, bool]:
    """The checked labels, the class axis counted from the front, and whether the labels are distributions.

    With a ``weight`` (classes, features), ``logits`` are the hidden states of a linear head. Distributions may have
    ``num_classes`` entries, or one per logit.
    """
    shape = xp.shape(logits)
    front = check_axis(axis, shape)
    rows = shape[:front] + shape[front + 1 :]
    if weight is not None:
        shape = (*shape[:front], xp.shape(weight)[0], *shape[front + 1 :])
    if shape[front] == 0:
        raise ValueError(f"{name} must have at least one class, got shape {shape} with axis={axis}.")
    labels = to_array(xp, "labels", labels, like=logits)
    padded = shape
    if num_classes is not None:
        if shape[front] is not None and num_classes > shape[front]:
            raise ValueError(
                f"num_classes must be at most {shape[front]}, the number of logits, because later logits are padding; "
                f"got {num_classes}."
            )
        shape = (*shape[:front], num_classes, *shape[front + 1 :])
    if same_shape(xp.shape(labels), shape) or same_shape(xp.shape(labels), padded):
        return labels, front, True
    if not same_shape(xp.shape(labels), rows):
        column = " Drop the last axis: labels[..., 0]." if same_shape(xp.shape(labels), (*rows, 1)) else ""
        raise ValueError(
            f"labels must have shape {rows} (class ids) or {shape} (distributions) for {name} of shape {shape} "
            f"with axis={axis}; got {xp.shape(labels)}.{fitting_axis(xp.shape(labels), shape) or column}"
        )
    if not is_integer(xp, labels):
        raise TypeError(
            f"labels of shape {rows} are class ids and must be integers, got {xp.dtype(labels)}; cast them, e.g. to "
            f"int64, or give distributions of shape {shape}."
        )
    return class_ids(xp, labels), front, False


def fitting_axis(rows: Sequence[int | None], shape: Sequence[int | None], name: str = "labels") -> str:
    """A hint for a message: the class axis that rows of this shape would fit; axis 1 if there are several."""
    axes = [a for a in (1, *range(len(shape))) if same_shape(rows, (*shape[:a], *shape[a + 1 :]))]
    fit = "fit" if name.endswith("s") else "fits"
    return f" The {name} {fit} axis={axes[0]}." if axes else ""


def check_broadcast(name: str, shape: Sequence[int | None], rows: Sequence[int | None]) -> None:
    """Raise a ValueError unless ``shape`` broadcasts to the rows by NumPy's rules."""
    pairs = zip(reversed(shape), reversed(rows), strict=False)
    if len(shape) > len(rows) or not all(a in (1, b) or a is None or b is None for a, b in pairs):
        raise ValueError(f"{name} must broadcast to the rows, of shape {tuple(rows)}; got shape {tuple(shape)}.")


def check_weight_shape(name: str, shape: Sequence[int | None], rows: Sequence[int | None]) -> None:
    """Raise a ValueError unless ``shape`` is () or has the rows' rank, since broadcasting fewer axes is ambiguous."""
    same = len(shape) == len(rows) and all(
        a in (1, b) or a is None or b is None for a, b in zip(shape, rows, strict=True)
    )
    if shape and not same:
        raise ValueError(
            f"{name} must be a scalar or have shape {tuple(rows)}, each dimension equal or 1; "
            f"got shape {tuple(shape)}. Add dimensions of size 1 where it should repeat, e.g. {name}[:, None]."
        )


def same_shape(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes can be equal; None is an unknown size."""
    return a == b or (len(a) == len(b) and all(x is None or y is None or x == y for x, y in zip(a, b, strict=True)))


def check_class_ids(xp: Backend, labels: Array, num_classes: int, counted: Array | None = None) -> None:
    """Under `validate`: raise a ValueError for labels outside 0..num_classes-1 in counted rows."""
    values = xp.to_numpy(labels)
    bad = (values < 0) | (values >= num_classes)
    if counted is not None:
        bad &= xp.to_numpy(counted)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"labels must be class ids in 0..{num_classes - 1}, got {values[where]} at index {where}.")


def check_not_nan(xp: Backend, name: str, array: Array, counted: Array | None = None) -> None:
    """Under `validate`: raise a ValueError for NaN in counted rows, which are the leading axes of the array."""
    _check_values(xp, name, array, counted, np.isnan, "hold no NaN")


def check_distributions(xp: Backend, labels: Array, counted: Array | None = None) -> None:
    """Under `validate`: raise a ValueError for negative or NaN labels (..., classes) in counted rows."""
    check_not_nan(xp, "labels", labels, counted)
    _check_values(xp, "labels", labels, counted, lambda x: x < -ROUNDING, "be distributions, which are non-negative")


def check_binary_labels(xp: Backend, labels: Array, counted: Array | None = None) -> None:
    """Under `validate`: raise a ValueError for labels outside [0, 1] or NaN in counted rows."""
    check_not_nan(xp, "labels", labels, counted)
    _check_values(xp, "labels", labels, counted, lambda x: (x < -ROUNDING) | (x > 1 + ROUNDING), "be in [0, 1]")


def _check_values(
    xp: Backend, name: str, array: Array, counted: Array | None, is_bad: Callable[[np.ndarray], np.ndarray], must: str
) -> None:
    values = xp.to_numpy(array)
    bad = is_bad(values)
    if counted is not None:
        rows = xp.to_numpy(counted)
        bad &= rows.reshape(rows.shape + (1,) * (bad.ndim - rows.ndim))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} must {must}, got {values[where]:g} at index {where}.")
