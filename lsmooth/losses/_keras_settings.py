"""What Keras holds for a whole process, and what it ties to a tensor: asked of Keras if the user imported it.

Keras is never imported here. Without it the answers are Keras' own defaults.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from lsmooth._validation import FLOATS
from lsmooth.backends import Array, Backend


def floatx() -> str:
    """The dtype of losses that were given none: ``keras.config.floatx()``, else ``"float32"``."""
    config = _config()
    return "float32" if config is None else config.floatx()


def epsilon() -> float:
    """How far probabilities are kept from 0 and 1: ``keras.config.epsilon()``, else 1e-7."""
    config = _config()
    return 1e-7 if config is None else config.epsilon()


def compute_dtype(dtype: Any) -> str:
    """The name of a float dtype given as a name, a framework's or NumPy's dtype, or a Keras dtype policy."""
    given = dtype
    dtype = getattr(dtype, "compute_dtype", dtype)
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None) or getattr(dtype, "__name__", str(dtype))
    name = name.removeprefix("mixed_").rpartition(".")[2]
    if name not in FLOATS:
        raise ValueError(f"dtype must be None or one of {', '.join(FLOATS)}; got {given!r}.")
    return name


def get_mask(x: Any) -> Array | None:
    """The mask that a Keras layer left on its output, True where an entry counts."""
    mask = getattr(x, "_keras_mask", None)
    getter = getattr(sys.modules.get("keras.src.backend"), "get_keras_mask", None)
    return getter(x) if mask is None and getter is not None else mask


def set_mask(x: Array, mask: Array) -> None:
    """Leave a mask on a tensor for Keras to find; without Keras nobody asks for it."""
    setter = getattr(sys.modules.get("keras.src.backend"), "set_keras_mask", None)
    if setter is not None:
        setter(x, mask)


def logits_behind(xp: Backend, y_pred: Array, from_logits: bool, activation: str, function: str) -> tuple[Array, bool]:
    """The logits that a softmax or a sigmoid turned into ``y_pred``, where TensorFlow still knows them.

    Probabilities next to 0 or 1 have lost what the gradient needs. Keras leaves the logits on the output of its
    activations, as ``_keras_logits``; in a graph they are also the input of the operation that made ``y_pred``.

    Args:
        xp: the backend of ``y_pred``.
        y_pred: probabilities, or logits.
        from_logits: whether ``y_pred`` is said to hold logits.
        activation: the operation to look behind in a graph, ``"Softmax"`` or ``"Sigmoid"``.
        function: the name of the loss, for the warning.

    Returns:
        The logits and True; or ``y_pred`` and ``from_logits`` as they were.
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
            f"is computed on that {activation.lower()}'s input. Leave the activation out, or give from_logits=False.",
            UserWarning,
            # The caller of the public function and its wrapper; losses of a sigmoid take one more call.
            stacklevel=5 if activation == "Sigmoid" else 4,
        )
    return logits, True


def share_of_replica(xp: Backend, mean: Array) -> Array:
    """A mean divided by the number of replicas of a TensorFlow strategy, which adds up what they return."""
    scale = getattr(sys.modules.get("keras.src.losses.loss"), "scale_loss_for_distribution", None)
    return mean if scale is None or xp.name != "tensorflow" else scale(mean)


def _config() -> Any:
    return getattr(sys.modules.get("keras"), "config", None)
