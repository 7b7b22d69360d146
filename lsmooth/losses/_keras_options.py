"""The options of the Keras-named losses: checked once, read while a model is trained, and written into its config."""

from __future__ import annotations

import operator
import sys
from numbers import Real
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of


def checked(name: str, option: Any) -> Any:
    """An argument of a loss's constructor, as it came.

    Raises:
        TypeError: if it is of a wrong type.
        ValueError: if it is a number out of range.
    """
    if name in ("from_logits", "apply_class_balancing"):
        if not isinstance(option, (bool, np.bool_)) and option not in (0, 1):
            raise TypeError(f"{name} must be True or False, got {option!r}.")
    elif name == "axis" or (name == "ignore_class" and option is not None):
        if isinstance(option, (bool, np.bool_)) or not hasattr(option, "__index__"):
            kind = "an integer" if name == "axis" else "None or an integer"
            raise TypeError(f"{name} must be {kind}, got {option!r}.")
        return operator.index(option)
    elif name in ("label_smoothing", "alpha", "gamma"):
        _check_number_or_tensor(name, option)
        if isinstance(option, Real) and name == "label_smoothing":
            check.check_range(name, float(option), 0.0, 1.0)
        elif isinstance(option, Real) and name == "gamma":
            check.check_at_least(name, float(option), 0.0)
    return option


def value_of(xp: Backend, name: str, option: Any, y_pred: Array) -> Any:
    """A number or a tensor as it came; the present value of a ``keras.Variable``.

    Raises:
        TypeError: if it is none of these.
        ValueError: if JAX is compiling and would keep the present value for good.
    """
    if type(option) in (float, int):
        return option
    _check_number_or_tensor(name, option)
    if not _is_variable(option):
        return option
    if xp.name == "jax" and not xp.is_concrete(y_pred):
        _check_followed(name, option)
    return option.value


def plain(option: Any) -> Any:
    """An option as numbers and lists of them, which JSON can hold; of a ``keras.Variable`` the present value."""
    if option is None or type(option) in (bool, int, float, str):
        return option
    if isinstance(option, (list, tuple)):
        return [plain(item) for item in option]
    if isinstance(option, np.generic):
        return option.item()
    value = option.value if _is_variable(option) else option
    xp = backend_of(option=value)
    return xp.to_numpy(xp.asarray(value)).tolist()


def _check_number_or_tensor(name: str, option: Any) -> None:
    if option is None or isinstance(option, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number or a tensor, got {option!r}.")


def _is_variable(x: Any) -> bool:
    variable = getattr(sys.modules.get("keras"), "Variable", None)
    return variable is not None and isinstance(x, variable)


def _check_followed(name: str, variable: Any) -> None:
    """A compiled step follows the variables that the model hands over; any other is a constant to it."""
    common = sys.modules["keras.src.backend.common"]
    scope = common.stateless_scope.get_stateless_scope()
    building = common.symbolic_scope.in_symbolic_scope()
    if not building and (scope is None or scope.get_current_value(variable) is None):
        raise ValueError(
            f"{name} is a keras.Variable that is no weight of the model: JAX would keep the value that it has while "
            f"the model is compiled. Make it one, e.g. model.{name} = variable before model.compile(), or compile with "
            "run_eagerly=True."
        )
