"""Label smoothing, calibration and distillation for NumPy, JAX, TensorFlow and PyTorch.

Functions take tensors of any of these frameworks, and return tensors of the same framework with the correct
gradient. Importing lsmooth imports only NumPy. The code for a framework is loaded with the first tensor of that
framework, or when the framework is selected by name.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lsmooth._keras_registration import register_with_keras
from lsmooth._validation import validate
from lsmooth.backends import get_backend, set_backend, use_backend

if TYPE_CHECKING:
    from lsmooth import (
        analysis,
        calibration,
        compat,
        distillation,
        integrations,
        losses,
        metrics,
        plots,
        preference,
        smoothing,
        testing,
    )

__version__ = "0.1.0"

_SUBMODULES = (
    "analysis",
    "backends",
    "calibration",
    "compat",
    "distillation",
    "integrations",
    "losses",
    "metrics",
    "plots",
    "preference",
    "smoothing",
    "testing",
)

__all__ = [
    "__version__",
    "analysis",
    "calibration",
    "compat",
    "distillation",
    "get_backend",
    "integrations",
    "losses",
    "metrics",
    "plots",
    "preference",
    "set_backend",
    "smoothing",
    "testing",
    "use_backend",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"lsmooth.{name}")
    message = f"module 'lsmooth' has no attribute {name!r}"
    if not name.startswith("_") and (home := _home_of(name)):
        message += f"; it is in {home}: from {home} import {name}"
        if sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap":
            raise ImportError(message)  # `from lsmooth import name` would replace the text of an AttributeError
    raise AttributeError(message)


def _home_of(name: str) -> str | None:
    """The module of lsmooth that exports this name."""
    modules = (importlib.import_module(f"lsmooth.{module}") for module in _SUBMODULES)
    return next((module.__name__ for module in modules if name in getattr(module, "__all__", ())), None)


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_keras()
