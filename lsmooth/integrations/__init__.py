"""Layers, losses and training steps for each framework. Each module imports its framework.

Wrong types raise a TypeError, and numbers that are out of range, unknown names or shapes that do not fit a ValueError.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsmooth.integrations import flax, keras, sklearn, torch, transformers

__all__ = ["flax", "keras", "sklearn", "torch", "transformers"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"lsmooth.integrations.{name}")
    raise AttributeError(f"module 'lsmooth.integrations' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
