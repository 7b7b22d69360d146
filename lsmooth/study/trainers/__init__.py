"""The trainers, one for each framework, with the framework's own tools."""

from __future__ import annotations

import importlib
import importlib.util

from lsmooth.study.config import BACKENDS
from lsmooth.study.trainers.base import Network, Objective, Trainer

__all__ = ["Network", "Objective", "Trainer", "default_backend", "installed_trainers", "load_trainer"]

# The packages that each framework trains with.
_NEEDS = {"torch": ("torch",), "jax": ("jax", "flax", "optax"), "tensorflow": ("tensorflow", "keras")}


def installed_trainers() -> tuple[str, ...]:
    """The frameworks that can train here, in the order of preference."""
    return tuple(name for name in BACKENDS if not _missing(name))


def default_backend() -> str:
    """The first framework that is installed.

    Raises:
        ImportError: if none is.
    """
    installed = installed_trainers()
    if not installed:
        raise ImportError(
            "The study trains networks and finds no framework; install one: pip install 'lsmooth[torch]'."
        )
    return installed[0]


def load_trainer(name: str) -> Trainer:
    """The trainer of that framework, importing it.

    Raises:
        ValueError: if the name is unknown.
        ImportError: if a package of the framework is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {name!r}.")
    missing = _missing(name)
    if missing:
        raise ImportError(
            f"backend {name} needs {', '.join(missing)}; install it with pip install 'lsmooth[{name}]', "
            f"or choose one that is installed: {', '.join(installed_trainers()) or 'none'}."
        )
    return importlib.import_module(f"lsmooth.study.trainers.{name}").TRAINER


def _missing(name: str) -> list[str]:
    return [package for package in _NEEDS[name] if importlib.util.find_spec(package) is None]
