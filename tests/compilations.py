"""The programs that a framework compiles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def of_jax() -> Iterator[Callable[[], int]]:
    """Count the programs that JAX compiles."""
    from jax import monitoring

    seen: list[str] = []

    def listen(event: str, duration_secs: float, **others: Any) -> None:
        if "backend_compile" in event:
            seen.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    yield lambda: len(seen)
    monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def of_tensorflow() -> Iterator[Callable[[], int]]:
    """Count the traces of the functions that lsmooth gives to XLA: of every shape, at its first call.

    XLA is left out, which would take the time.
    """
    import tensorflow as tf

    from lsmooth.backends.tensorflow import compilation, linear, thresholds

    functions: list[Any] = []
    function = tf.function

    def recorded(python_function: Any, jit_compile: bool, autograph: bool) -> Any:
        functions.append(function(python_function, autograph=autograph))
        return functions[-1]

    with pytest.MonkeyPatch.context() as patch:
        for cached in (compilation.compiled, linear._xla):
            cached.cache_clear()
        patch.setattr(tf, "function", recorded)
        patch.setattr(thresholds, "XLA_ELEMENTS", 0)
        patch.setattr(thresholds, "COMPILE_AFTER", 0)
        yield lambda: sum(f.experimental_get_tracing_count() for f in functions)
        for cached in (compilation.compiled, linear._xla):
            cached.cache_clear()


OF = {"jax": of_jax, "tensorflow": of_tensorflow}
