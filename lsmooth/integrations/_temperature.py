"""The common parts of models with a temperature in any framework: outputs, labels and the fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, backend_of
from lsmooth.backends.formulas.rows import log_softmax
from lsmooth.backends.formulas.sigmoid import sigmoid
from lsmooth.calibration import TemperatureScaling, apply_temperature


def check_last_activation(activation: str | None, *, from_logits: bool, binary: bool) -> None:
    """Raise if the options contradict the model's last activation, which may be unknown."""
    if activation not in ("softmax", "sigmoid"):
        return
    if from_logits:
        raise ValueError(
            f"model ends in a {activation}, so it returns probabilities: give from_logits=False, or a model "
            f"without its {activation}."
        )
    if binary != (activation == "sigmoid"):
        raise ValueError(f"model ends in a {activation}: give binary={activation == 'sigmoid'}.")


def check_options(axis: Any, *, from_logits: Any, binary: Any) -> int:
    """The class axis as Python's int; a TypeError if it or a flag has a wrong type."""
    check.check_flag("from_logits", from_logits)
    check.check_flag("binary", binary)
    if not check.is_integer_number(axis):
        raise TypeError(f"axis must be an integer, got {axis!r}.")
    return int(axis)


def real_temperature(temperature: Any) -> Any:
    """A number or an array of real numbers."""
    if hasattr(temperature, "__array__"):
        xp = backend_of(temperature=temperature)
        return check.to_array(xp, "temperature", temperature, "float32")
    return check.check_number("temperature", temperature)


def scaled(outputs: Array, temperature: Any, *, axis: int, from_logits: bool, binary: bool) -> Array:
    """Logits divided by the temperature; for probabilities, the probabilities of the divided logits."""
    axis = -1 if binary else axis
    if from_logits:
        return apply_temperature(outputs, temperature, axis=axis)
    xp = backend_of(outputs=outputs)
    logits = xp.log(outputs) - xp.log(1.0 - outputs) if binary else xp.log(outputs)
    return probabilities(apply_temperature(logits, temperature, axis=axis), axis=axis, binary=binary)


def probabilities(logits: Array, *, axis: int, binary: bool) -> Array:
    """The softmax of logits; the sigmoid if ``binary``."""
    xp = backend_of(logits=logits)
    if binary:
        return sigmoid(xp, logits)
    return xp.moveaxis(xp.exp(log_softmax(xp, xp.moveaxis(logits, axis, -1))), -1, axis)


def fit_temperature(scaler: TemperatureScaling, batches: Iterable[tuple[Any, ...]]) -> TemperatureScaling:
    """Fit to batches ``(outputs, labels)`` or ``(outputs, labels, sample_weight)`` in a single pass."""
    return scaler.fit_batches(_checked(scaler, batches), once=True)


def _checked(scaler: TemperatureScaling, batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    first = True
    for outputs, *rest in batches:
        if first and not scaler.binary:
            _check_classes(outputs, scaler.axis, scaler.from_logits)
        first = False
        yield outputs, *(_in_rows_shape(x, outputs, scaler.axis, scaler.binary) for x in rest)


def _check_classes(outputs: Array, axis: int, from_logits: bool) -> None:
    xp = backend_of(outputs=outputs)
    shape = xp.shape(outputs)
    if shape[axis] == 1:
        raise ValueError(
            f"The model returns one number per row, of shape {shape}: give binary=True if it is the logit or the "
            "probability of a binary label."
        )
    if not from_logits:
        return
    values = xp.to_numpy(outputs)
    proper = (values >= 0).all() and np.allclose(values.sum(axis=axis), 1.0, atol=1e-3)
    if proper and ((values > 0) & (values < 1)).any():
        raise ValueError(
            "The model returns probabilities: its outputs are non-negative, and each row sums to 1. Give "
            "from_logits=False, or a model without its softmax."
        )


def _in_rows_shape(x: Any, outputs: Array, axis: int, binary: bool) -> Any:
    """Labels or weights in the rows' shape, from which they may differ by a dimension of size 1."""
    if x is None:
        return None
    x = x if hasattr(x, "shape") else np.asarray(x)
    rank, shape = len(outputs.shape), tuple(x.shape)
    if binary:
        return x[..., None] if len(shape) == rank - 1 and outputs.shape[-1] == 1 else x
    if len(shape) == rank and shape[axis] == 1 and outputs.shape[axis] != 1:
        return x[(slice(None),) * (axis % rank) + (0,)]
    return x
