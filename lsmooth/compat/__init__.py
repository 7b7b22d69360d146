"""Drop-ins that repeat another library's signatures and numbers, on any backend's tensors.

One module a library. Each says which version it repeats, NaN and errors included.
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
