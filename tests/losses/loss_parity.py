"""A loss on one backend against the float64 reference: values, gradients, and their dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from conftest import as_dtype, assert_close
from hypothesis import HealthCheck, settings

from lsmooth import losses
from lsmooth.backends import Backend
from lsmooth.testing import reference

# Few and fixed examples, so that builds are reproducible.
DRAWN = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ARRAY_OPTIONS = (
    "label_smoothing",
    "smoothing_prior",
    "class_weight",
    "sample_weight",
    "temperature",
    "pos_weight",
)


def float32_exact(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 3.0) -> np.ndarray:
    """Normal numbers, as float64, that float32 holds exactly."""
    return rng.normal(0.0, scale, shape).astype(np.float32).astype(np.float64)


def distributions(rng: np.random.Generator, shape: tuple[int, ...], axis: int = -1) -> np.ndarray:
    """Positive rows that sum to one along ``axis``."""
    t = rng.gamma(1.0, 1.0, shape) + 1e-3
    return t / t.sum(axis, keepdims=True)


def check_parity(
    backend: Backend,
    labels: Any,
    logits: np.ndarray,
    *,
    loss: str = "softmax_cross_entropy",
    dtype: str = "float64",
    factor: float = 1.0,
    upstream: np.ndarray | None = None,
    tensors: bool = False,
    compiled: bool = False,
    **options: Any,
) -> None:
    """Value and gradient equal the reference's.

    Args:
        backend: where it runs.
        labels: a NumPy array.
        logits: a NumPy array, rounded to ``dtype`` first.
        loss: the function of `lsmooth.losses`.
        dtype: of the logits.
        factor: widens the parity bar, for sums that are badly conditioned.
        upstream: the upstream gradients of the losses of rows, for the reduction "none".
        tensors: whether labels and options are handed over as the framework's tensors.
        compiled: whether JAX calls it under ``jit``: for a shape seen once it is sooner compiled as a
            whole than operation by operation.
        **options: of the loss.
    """
    inputs = as_dtype(backend, logits, dtype)
    expected, expected_gradient = getattr(reference, loss)(labels, backend.to_numpy(inputs), **options)
    result = "float64" if dtype == "float64" else "float32"
    if tensors:
        labels = backend.asarray(labels)
        options = {name: backend.asarray(x, result) if name in ARRAY_OPTIONS else x for name, x in options.items()}

    def call(z: Any) -> Any:
        return getattr(losses, loss)(labels, z, **options)

    wrap = jax_jit if compiled and backend.name == "jax" else lambda function: function
    value = wrap(call)(inputs)
    assert backend.is_array(value)
    assert backend.dtype(value) == result
    assert backend.shape(value) == expected.shape
    assert_close(backend, value, expected, result, factor)

    if backend.name == "numpy" or not np.isfinite(expected).all():
        return
    if upstream is not None:
        rows = np.expand_dims(upstream, options.get("axis", -1)) if loss == "softmax_cross_entropy" else upstream
        expected_gradient = expected_gradient * rows
        upstream = backend.asarray(upstream, result)

    def total(z: Any) -> Any:
        return backend.sum(call(z) if upstream is None else call(z) * upstream)

    _, gradient = wrap(lambda z: backend.value_and_grad(total, z))(inputs)
    assert backend.dtype(gradient) == dtype
    assert_close(backend, gradient, expected_gradient, dtype, factor)


def jax_jit(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``jax.jit``, imported where JAX is there."""
    import jax

    return jax.jit(function)
