"""Drop-in replacements with another library's signatures and numbers, for the tensors of any backend.

There is one module per library. Its docstring names the version that it reproduces, including NaN. All functions
and classes raise a TypeError if tensors of two frameworks meet or an argument has a wrong type or dtype, and a
ValueError if shapes do not fit, a number is out of range or a name is unknown.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsmooth.compat import (
        annotated_transformer,
        distillkit,
        fairseq,
        megatron,
        opennmt,
        optax,
        tf_losses,
        timm,
        torch,
        transformers,
        ultralytics,
    )

__all__ = [
    "annotated_transformer",
    "distillkit",
    "fairseq",
    "megatron",
    "opennmt",
    "optax",
    "tf_losses",
    "timm",
    "torch",
    "transformers",
    "ultralytics",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"lsmooth.compat.{name}")
    raise AttributeError(f"module 'lsmooth.compat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
