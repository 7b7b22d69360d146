"""The conformance suite of backends."""

from __future__ import annotations

from lsmooth.backends import Backend
from lsmooth.testing import _kernels, _losses, _operations
from lsmooth.testing._case import Case, has_dtype

FLOATS = ("float64", "float32", "bfloat16", "float16")


def check_backend(backend: Backend) -> None:
    """Check a backend.

    Every operation of `lsmooth.backends.Backend` is compared with NumPy, both cross-entropies with
    `lsmooth.testing.reference`, and every kernel with every option with the formulas in NumPy's float64; gradients too
    if the backend computes them. Float dtypes other than float32 are checked if the backend has them.

    Args:
        backend: an instance of a `Backend` subclass; it need not be registered.

    Raises:
        TypeError: if it is not a `Backend`.
        AssertionError: if a result differs; the message names the operation, its result, and the expected one.

    Examples:
        >>> from lsmooth.backends import load_backend
        >>> check_backend(load_backend("numpy"))
    """
    if not isinstance(backend, Backend):
        raise TypeError(f"backend must be an instance of lsmooth.backends.Backend, got {type(backend).__name__}.")
    dtypes = [dtype for dtype in FLOATS if has_dtype(backend, dtype)]
    if "float32" not in dtypes:
        raise AssertionError(f"The {backend.name} backend must have float32: asarray([1.0], 'float32') has another.")
    for dtype in dtypes:
        operations = _operations.CHECKS if dtype in ("float64", "float32") else (_operations.check_arrays,)
        # Kernels are checked in the widest dtype only, since the other checks cover the arithmetic of each dtype.
        kernels = _kernels.CHECKS if dtype == dtypes[0] else ()
        for check in (*operations, *_losses.CHECKS, *kernels):
            check(Case(backend, dtype))
