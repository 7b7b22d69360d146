"""What Keras holds for a whole process, and what it ties to a tensor: asked of Keras if the user imported it.

Keras is never imported here. Without it the answers are Keras' own defaults.
"""

from __future__ import annotations

import sys
from typing import Any

from lsmooth._validation import FLOATS
from lsmooth.backends import Array


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


def _config() -> Any:
    return getattr(sys.modules.get("keras"), "config", None)
