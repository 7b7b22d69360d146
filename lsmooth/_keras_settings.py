"""Keras' process-wide settings, masks, variables and registry, which are read only if the user has imported Keras.

Keras is never imported here. Without it, its own defaults apply.
"""

from __future__ import annotations

import inspect
import operator
import sys
import warnings
from numbers import Real
from typing import Any

import numpy as np

from lsmooth import _validation as check
from lsmooth.backends import Array, Backend, backend_of

_joined = False


def floatx() -> str:
    """The default dtype of losses: ``keras.config.floatx()``, else ``"float32"``."""
    config = _config()
    return "float32" if config is None else config.floatx()


def epsilon() -> float:
    """The least distance of clipped probabilities from 0 and 1: ``keras.config.epsilon()``, else 1e-7."""
    config = _config()
    return 1e-7 if config is None else config.epsilon()


def compute_dtype(dtype: Any) -> str:
    """The name of a float dtype given as a name, a framework's or NumPy's dtype, or a Keras dtype policy."""
    given = dtype
    dtype = getattr(dtype, "compute_dtype", dtype)
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
    name = name.removeprefix("mixed_").rpartition(".")[2]
    if name not in check.FLOATS:
        raise ValueError(f"dtype must be None or one of {', '.join(check.FLOATS)}; got {given!r}.")
    return name


def get_mask(x: Any) -> Array | None:
    """The mask of a Keras layer's output, False where an entry is masked; None if it has none."""
    mask = getattr(x, "_keras_mask", None)
    getter = getattr(sys.modules.get("keras.src.backend"), "get_keras_mask", None)
    return getter(x) if mask is None and getter is not None else mask


def set_mask(x: Array, mask: Array) -> None:
    """Attach a mask to a tensor for Keras' reductions; without Keras, do nothing."""
    setter = getattr(sys.modules.get("keras.src.backend"), "set_keras_mask", None)
    if setter is not None:
        setter(x, mask)


def logits_behind(xp: Backend, y_pred: Array, from_logits: bool, activation: str, function: str) -> tuple[Array, bool]:
    """The logits of ``y_pred`` and True, if TensorFlow knows them; else ``y_pred`` and ``from_logits`` unchanged.

    Gradients of probabilities near 0 or 1 are inaccurate. Keras attaches the logits to the output of its activations
    as ``_keras_logits``; in a graph they are the input of the ``activation``, ``"Softmax"`` or ``"Sigmoid"``.
    ``function`` is the name of the loss, for the warning.
    """
    if xp.name != "tensorflow":
        return y_pred, from_logits
    logits = getattr(y_pred, "_keras_logits", None)
    if logits is None and not xp.is_concrete(y_pred):
        operation = getattr(y_pred, "op", None)
        logits = operation.inputs[0] if operation is not None and operation.type == activation else None
    if logits is None:
        return y_pred, from_logits
    if from_logits:
        warnings.warn(
            f"{function} was given from_logits=True, but y_pred is the output of a {activation.lower()}: the loss "
            f"uses the input of the {activation.lower()}. Remove the activation, or give from_logits=False.",
            UserWarning,
            # The caller of the public function; `binary_losses` adds one frame.
            stacklevel=5 if activation == "Sigmoid" else 4,
        )
    return logits, True


def share_of_replica(xp: Backend, mean: Array) -> Array:
    """A mean divided by the number of replicas of a TensorFlow strategy, because their losses are summed."""
    scale = getattr(sys.modules.get("keras.src.losses.loss"), "scale_loss_for_distribution", None)
    return mean if scale is None or xp.name != "tensorflow" else scale(mean)


def _config() -> Any:
    return getattr(sys.modules.get("keras"), "config", None)


def checked(name: str, option: Any) -> Any:
    """An argument of a loss's constructor; a TypeError or ValueError if it is invalid."""
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
    """A number or a tensor unchanged; the current value of a ``keras.Variable``.

    Under ``jax.jit``, a variable that would become a constant of the compiled function is a ValueError.
    """
    if type(option) in (float, int):
        return option
    _check_number_or_tensor(name, option)
    if not _is_variable(option):
        return option
    if xp.name == "jax" and not xp.is_concrete(y_pred):
        _check_is_tracked(name, option)
    return option.value


def plain(option: Any) -> Any:
    """An option as numbers and lists, for JSON; the current value of a ``keras.Variable``."""
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


def _check_is_tracked(name: str, variable: Any) -> None:
    """Raise unless the variable is tracked by the model: a compiled step treats any other as a constant."""
    common = sys.modules["keras.src.backend.common"]
    scope = common.stateless_scope.get_stateless_scope()
    building = common.symbolic_scope.in_symbolic_scope()
    if not building and (scope is None or scope.get_current_value(variable) is None):
        raise ValueError(
            f"{name} is a keras.Variable that the model does not track: JAX would treat its current value as a "
            f"constant. Track it, e.g. model.{name} = variable before model.compile(), or compile with "
            "run_eagerly=True."
        )


def join_keras() -> None:
    """Make `Loss` a ``keras.losses.Loss`` and register the losses, once, if Keras has been imported.

    Keras passes sample weights only to a ``keras.losses.Loss``; it treats any other callable as a function of
    ``(y_true, y_pred)`` that returns one loss per row. The new base class also applies to existing instances and
    subclasses. Registered names are those under which saved models refer to the losses.
    """
    global _joined
    if _joined or (keras := sys.modules.get("keras")) is None:
        return
    base = getattr(getattr(keras, "losses", None), "Loss", None)
    if base is None or not hasattr(keras, "saving"):  # Keras is being imported
        return
    from lsmooth.losses._loss import Loss
    from lsmooth.losses._serialization import KNOWN

    Loss.__bases__ = (base,)
    # Files saved by earlier versions use the second name.
    for package in ("lsmooth.losses", "lsmooth"):
        for loss in set(KNOWN.values()):
            # Keras unwraps a function before it looks up the name for an h5 file.
            for registered in (inspect.unwrap(loss), loss):
                keras.saving.register_keras_serializable(package)(registered)
    _joined = True


def refuse_a_mean(xp: Backend, logits: Array, reduction: str | None, name: str = "") -> None:
    """Raise if Keras calls a function that returns a mean, which Keras would treat as the loss of every row."""
    if xp.name == "torch" and not xp.is_concrete(logits):  # torch.compile cannot trace frames
        return
    if reduction in (None, "none") or "keras" not in sys.modules:
        return
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        ("lsmooth.losses.", "lsmooth.backends.", "lsmooth._rows.", "lsmooth._keras_settings")
    ):
        frame, name = frame.f_back, name if frame.f_code.co_name == "wrapper" else frame.f_code.co_name
    if frame is not None and frame.f_globals.get("__name__") == "keras.src.losses.losses":
        replacement = "BinaryCrossentropy" if name.startswith("sigmoid") else "SparseCategoricalCrossentropy"
        raise TypeError(
            f"{name} returns one number for the batch, but Keras needs the loss of each row to apply sample and "
            f"class weights: pass lsmooth.losses.{replacement}(from_logits=True) to compile(), or a function "
            f"that calls {name} with reduction='none'."
        )
