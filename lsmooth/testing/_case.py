"""A backend and a float dtype under test, and how its arrays are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lsmooth.backends import Array, Backend

# Relative to the largest expected number.
TOLERANCES = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def has_dtype(xp: Backend, dtype: str) -> bool:
    """Whether a backend has a dtype."""
    try:
        return xp.dtype(xp.asarray(np.ones(1), dtype)) == dtype
    except (TypeError, ValueError, KeyError):
        return False


class Case:
    """A backend and a float dtype under test; compares the backend's results with expected ones."""

    def __init__(self, xp: Backend, dtype: str):
        self.xp, self.dtype = xp, dtype

    def floats(self, *values: Any) -> Array:
        """Float64 values in the dtype of the case."""
        return self.xp.asarray(np.asarray(values, np.float64), self.dtype)

    def integers(self, *values: Any) -> Array:
        """Integers, int32."""
        return self.xp.asarray(np.asarray(values), "int32")

    def arrays(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options with arrays of the backend: booleans stay booleans, others have the dtype of a loss."""
        dtype = "float64" if self.dtype == "float64" else "float32"
        return {
            name: self.xp.asarray(x, "bool" if x.dtype == bool else dtype) if isinstance(x, np.ndarray) else x
            for name, x in given.items()
        }

    def equal(
        self,
        what: str,
        got: Callable[[], Array],
        expected: Any,
        dtype: str | None = None,
        tolerance: float | None = None,
    ) -> None:
        """Raise unless ``got()`` is an array of this dtype and these values; messages name the operation."""
        xp, expected = self.xp, np.asarray(expected)
        try:
            array = got()
            is_array, is_of, values = xp.is_array(array), xp.dtype(array), xp.to_numpy(array)
        except Exception as error:
            raise AssertionError(f"{xp.name} backend, {self.dtype}: {what} raised {error!r}.") from error
        self.require(is_array, what, f"gave a {type(array).__name__}, which is_array does not know")
        self.require(dtype is None or is_of == dtype, what, f"gave {is_of}, expected {dtype}")
        self.require(values.shape == expected.shape, what, f"gave shape {values.shape}, expected {expected.shape}")
        finite = np.abs(expected[np.isfinite(expected)]).max(initial=1.0) if expected.dtype.kind == "f" else 1.0
        tolerance = (tolerance or TOLERANCES[dtype if dtype in TOLERANCES else self.dtype]) * float(finite)
        close = np.allclose(values.astype(np.float64), expected.astype(np.float64), 0.0, tolerance, equal_nan=True)
        self.require(close, what, f"gave {values.tolist()}, expected {expected.tolist()}")

    def require(self, holds: bool, what: str, instead: str) -> None:
        """Raise an AssertionError that names the backend, the dtype and the operation."""
        if not holds:
            raise AssertionError(f"{self.xp.name} backend, {self.dtype}: {what} {instead}.")

    def gradient(
        self,
        what: str,
        function: Callable[[Array], Array],
        x: np.ndarray,
        expected: Any,
        tolerance: float | None = None,
    ) -> None:
        """The gradient of the sum of ``function`` at ``x``, if the backend computes gradients."""
        point = self.xp.asarray(x, self.dtype)
        try:
            answer = self.xp.value_and_grad(lambda x: self.xp.sum(function(x)), point)
        except NotImplementedError:
            return
        except Exception as error:
            raise AssertionError(
                f"{self.xp.name} backend, {self.dtype}: the gradient of {what} raised {error!r}."
            ) from error
        self.equal(f"the gradient of {what}", lambda: answer[1], expected, self.dtype, tolerance)
