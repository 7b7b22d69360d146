"""The choice of the backend of a call: by the type of its tensors, else by the user's default."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.ragged import RaggedArgumentError

# name -> (the package to install, the class, the conversion that fixes a mixed call)
_BUILT_IN = {
    "numpy": ("numpy", "lsmooth.backends.numpy:NumpyBackend", "np.asarray({})"),
    "jax": ("jax", "lsmooth.backends.jax:JaxBackend", "jnp.asarray(np.asarray({}))"),
    "tensorflow": (
        "tensorflow",
        "lsmooth.backends.tensorflow:TensorflowBackend",
        "tf.convert_to_tensor(np.asarray({}))",
    ),
    "torch": ("torch", "lsmooth.backends.torch:BACKEND", "torch.from_numpy(np.asarray({}))"),
}
ENTRY_POINT_GROUP = "lsmooth.backends"

_loaded: dict[str, Backend] = {}
# The backend of each type that has been seen; None for types that the default backend converts.
_backend_of_type: dict[type, Backend | None] = dict.fromkeys(
    (np.ndarray, np.float64, np.float32, np.int64, np.int32, float, int, bool, list, tuple, type(None))
)
_UNKNOWN: Any = object()
# Held while the tables change; look-ups need no lock.
_registering = threading.RLock()
_default: ContextVar[str | None] = ContextVar("lsmooth_backend", default=None)


def installed_backends() -> tuple[str, ...]:
    """The names of the backends that can be loaded here, built-in ones first.

    Returns:
        Names for `set_backend`; ``"numpy"`` is always among them.

    Examples:
        >>> "numpy" in installed_backends()
        True
    """
    built_in = [name for name, (package, _, _) in _BUILT_IN.items() if importlib.util.find_spec(package)]
    third_party = [name for name in (*tuple(_loaded), *_entry_points()) if name not in _BUILT_IN]
    return tuple(dict.fromkeys(built_in + third_party))


def load_backend(name: str) -> Backend:
    """The backend of that name, importing its framework if need be.

    Args:
        name: one of `installed_backends`.

    Raises:
        ValueError: if no backend has that name.
        ImportError: if its framework is not installed.

    Examples:
        >>> load_backend("numpy").name
        'numpy'
    """
    if name in _loaded:
        return _loaded[name]
    if name in _BUILT_IN:
        package, target, _ = _BUILT_IN[name]
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"The {name} backend needs {package}, which is not installed: pip install 'lsmooth[{name}]'. "
                f"Installed backends: {', '.join(installed_backends())}."
            )
        module, _, cls = target.partition(":")
        backend = getattr(importlib.import_module(module), cls)
        return register_backend(backend() if isinstance(backend, type) else backend)
    entry_point = _entry_points().get(name)
    if entry_point is None:
        extra = f" lsmooth's own are {', '.join(_BUILT_IN)}: pip install 'lsmooth[jax]' brings one, for example."
        raise ValueError(
            f"No backend is called {name!r}. Installed backends: {', '.join(installed_backends())}.{extra}"
        )
    return register_backend(entry_point.load()())


def register_backend(backend: Backend) -> Backend:
    """Register a backend under its name, and dispatch its arrays to it.

    A package can register a backend without a call, through the entry-point group ``lsmooth.backends``,
    whose value is the backend's class.

    Args:
        backend: an instance of a `Backend` subclass; `lsmooth.testing.check_backend` checks it.

    Returns:
        The backend.

    Raises:
        TypeError: if it is not a `Backend`.
    """
    if not isinstance(backend, Backend):
        raise TypeError(f"backend must be an instance of lsmooth.backends.Backend, got {type(backend).__name__}.")
    with _registering:
        _loaded[backend.name] = backend
        _backend_of_type.update(dict.fromkeys(backend.types, backend))
        for cls, known in tuple(_backend_of_type.items()):
            if known is None and cls.__module__ not in ("builtins", "numpy"):
                del _backend_of_type[cls]
    return backend


def set_backend(name: str | None) -> None:
    """Choose the backend that plain arrays, lists and numbers are converted to.

    Args:
        name: one of `installed_backends`, or None for the environment's ``LSMOOTH_BACKEND``,
            which is ``"numpy"`` if unset.

    Raises:
        ValueError: if no backend has that name.
        ImportError: if its framework is not installed.

    Examples:
        >>> set_backend("numpy")
        >>> get_backend()
        'numpy'
    """
    if name is not None:
        load_backend(name)
    _default.set(name)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """`set_backend` for the length of a ``with`` block, in this thread or task alone.

    Args:
        name: one of `installed_backends`.

    Raises:
        ValueError: if no backend has that name.
        ImportError: if its framework is not installed.

    Examples:
        >>> with use_backend("numpy"):
        ...     get_backend()
        'numpy'
    """
    load_backend(name)
    token = _default.set(name)
    try:
        yield
    finally:
        _default.reset(token)


def get_backend() -> str:
    """The name of the backend that plain arrays are converted to.

    Returns:
        What `use_backend` or `set_backend` chose, else ``LSMOOTH_BACKEND``, else ``"numpy"``.

    Examples:
        >>> get_backend()
        'numpy'
    """
    return _default.get() or os.environ.get("LSMOOTH_BACKEND") or "numpy"


def backend_of(**arrays: Any) -> Backend:
    """The backend of a call with these arguments.

    The framework's tensors decide; NumPy arrays, lists and numbers beside them are converted to
    that framework. Without any tensor, the default backend is used.

    Args:
        **arrays: the tensors of the call, by the name of their argument.

    Returns:
        The backend.

    Raises:
        TypeError: if tensors of two frameworks meet.

    Examples:
        >>> backend_of(labels=[1], logits=[[0.0, 1.0]]).name
        'numpy'
    """
    found: Backend | None = None
    decider = ""
    for name, array in arrays.items():
        cls = type(array)
        backend = _backend_of_type.get(cls, _UNKNOWN)  # a single look-up, because other threads change the table
        if backend is _UNKNOWN:
            backend = _find(cls, array)
        if backend is None or backend is found:
            continue
        if found is not None:
            raise _mixed(decider, arrays[decider], found, name, array)
        found, decider = backend, name
    return load_backend(get_backend()) if found is None else found


# TensorFlow's AutoGraph does not convert functions with this attribute. The first call inside tf.function runs this
# function before the TensorFlow backend, which excludes the rest of lsmooth, is loaded.
backend_of.__dict__["autograph_info__"] = {}


def _find(cls: type, array: Array) -> Backend | None:
    """Look up the backend of a class, in its own framework first, and cache the answer."""
    if "torch" in sys.modules and isinstance(array, sys.modules["torch"].Tensor):
        # Without string methods: torch.compile traces this function if the first call is a compiled one.
        from lsmooth.backends.torch import BACKEND

        if BACKEND.is_concrete(array):  # tracing must not change the table
            _backend_of_type[cls] = register_backend(BACKEND)
        return BACKEND
    if cls.__name__ == "KerasTensor":
        raise TypeError(
            "A KerasTensor has no values: lsmooth computes on tensors. Call it inside a layer's call(), "
            "in a keras.layers.Lambda, or as the loss given to model.compile()."
        )
    if cls.__name__ == "RaggedTensor":
        raise RaggedArgumentError(
            "This function takes no tf.RaggedTensor: pass the flat values of each, e.g. labels.flat_values and "
            "logits.flat_values, and convert results back with labels.with_flat_values(losses)."
        )
    if cls.__module__.startswith("keras.") and hasattr(array, "value"):  # a Keras variable: its value decides
        cls, array = type(array.value), array.value
        backend = _backend_of_type.get(cls, _UNKNOWN)
        if backend is not _UNKNOWN:
            return backend
    packages = {base.__module__.partition(".")[0].replace("jaxlib", "jax") for base in cls.__mro__}
    for name, (package, _, _) in _BUILT_IN.items():
        if package in packages:
            load_backend(name)
    found = _owner(array)
    if found is None and not packages <= {"builtins", "numpy"}:
        for name in _entry_points():
            load_backend(name)
        found = _owner(array)
    with _registering:
        # Look again: another thread may have registered a backend.
        found = _backend_of_type[cls] = _owner(array)
    return found


def _owner(array: Array) -> Backend | None:
    others = (backend for backend in reversed(tuple(_loaded.values())) if backend.name != "numpy")
    return next((backend for backend in others if backend.is_array(array)), None)


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points  # takes 40 ms, which most processes never need

    return {entry_point.name: entry_point for entry_point in entry_points(group=ENTRY_POINT_GROUP)}


def _mixed(first: str, array: Array, backend: Backend, second: str, other: Array) -> TypeError:
    convert = _BUILT_IN.get(backend.name, ("", "", f"convert {{}} to {backend.name}"))[2]
    return TypeError(
        f"{first} is a {_type_name(array)} and {second} a {_type_name(other)}; "
        f"convert one of them, e.g. {convert.format(second)}."
    )


def _type_name(array: Array) -> str:
    package = {"jaxlib": "jax", "tensorflow": "tf"}.get(type(array).__module__.split(".")[0])
    package = package or type(array).__module__.split(".")[0]
    name = {"ArrayImpl": "Array", "EagerTensor": "Tensor", "SymbolicTensor": "Tensor"}.get(type(array).__name__)
    return f"{package}.{name or type(array).__name__}"
