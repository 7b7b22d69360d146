"""Registers lsmooth's classes with Keras as soon as both are imported, so that saved models load.

Keras is never imported here. Until the user imports it, a finder on ``sys.meta_path`` waits for the import.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _KerasFinder(MetaPathFinder):
    """Finds Keras by the other finders, and registers the classes after its import."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        others = [other for other in sys.meta_path if other is not self and hasattr(other, "find_spec")]
        found = (other.find_spec(name, path, target) for other in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = exec_module
        return spec


def register_with_keras() -> None:
    """Register the classes now if Keras has been imported, else after its import."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    importlib.import_module("lsmooth._keras_settings").join_keras()
