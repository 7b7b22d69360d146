"""The array operations that lsmooth asks of a framework, from which all formulas are written.

Arrays support ``+ - * / ** @``, ``< <= > >=``, ``& | ~``, ``abs`` and indexing with integers,
slices, None and an ellipsis (``x[..., None]``, ``x[0, ...]``) themselves, with Python numbers taking
the array's dtype, so these need no method. Equality does: ``x == y`` compares identities in some of
TensorFlow's modes, so lsmooth calls `Operations.equal`. Dtypes are named by strings: ``"float32"``,
``"bfloat16"``, ``"int64"``, ``"bool"``. A framework without float64 returns float32 for
float64. `Operations.is_concrete` is False while a framework traces or compiles; without tracing it
returns True.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A NumPy array, a ``jax.Array``, a ``tf.Tensor``, a ``torch.Tensor``, or a backend's own."""


class Operations(ABC):
    """The operations of a framework: abstract methods, and methods with defaults built on them."""

    name: str
    """How users name it: ``lsmooth.set_backend(name)``."""

    types: tuple[type, ...] = ()
    """The classes of its arrays that are known in advance. `is_array` is called once for each other class."""

    # Arrays in and out.

    @abstractmethod
    def is_array(self, x: object) -> bool:
        """Whether ``x`` is one of this framework's arrays, a traced or symbolic one included."""

    @abstractmethod
    def asarray(self, x: Any, dtype: str | None = None, like: Array | None = None) -> Array:
        """Convert ``x`` to an array of ``dtype``, on the device of ``like``."""

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy ``x`` to the host, without its gradient; half precision becomes float32."""

    def host_values(self, x: Array) -> np.ndarray | None:
        """A read-only view of the values of ``x``, if they are in host memory.

        None if reading them needs a copy, or if the framework differentiates, maps or records operations on ``x``.
        """
        return None

    @abstractmethod
    def dtype(self, x: Array) -> str:
        """The name of the dtype of ``x``."""

    @abstractmethod
    def cast(self, x: Array, dtype: str) -> Array:
        """``x`` in another dtype."""

    @abstractmethod
    def shape(self, x: Array) -> tuple[Any, ...]:
        """The shape of ``x``, with None where it is unknown until the program runs."""

    def length(self, x: Array, axis: int, dtype: str = "int32") -> Any:
        """The length of an axis: an int, or a scalar array of ``dtype`` where it is unknown until the program runs."""
        return self.shape(x)[axis]

    def size(self, x: Array) -> Any:
        """The number of elements of ``x``: an int, or a scalar array where it is not yet known."""
        return math.prod(self.shape(x))  # type: ignore[arg-type]

    @abstractmethod
    def is_concrete(self, x: Array) -> bool:
        """Whether the values of ``x`` can be read now: False while tracing or compiling."""

    @abstractmethod
    def ones_like(self, x: Array, dtype: str) -> Array:
        """Ones in the shape of ``x``, on its device."""

    @abstractmethod
    def one_hot(self, index: Array, num_classes: int, dtype: str) -> Array:
        """(..., num_classes), 1 at ``index`` and 0 elsewhere; zeros where it is out of range."""

    # Elementwise.

    @abstractmethod
    def exp(self, x: Array) -> Array: ...

    @abstractmethod
    def log(self, x: Array) -> Array: ...

    @abstractmethod
    def tanh(self, x: Array) -> Array: ...

    @abstractmethod
    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)), exact in both tails, with the gradient 1/2 at 0."""

    @abstractmethod
    def ceil(self, x: Array) -> Array: ...

    def equal(self, x: Array, y: Any) -> Array:
        """Elementwise ``x == y``; ``y`` may be a Python number."""
        return x == y

    @abstractmethod
    def where(self, condition: Array, x: Any, y: Any) -> Array:
        """Elementwise choice; one of ``x`` and ``y`` may be a Python number."""

    def clip(self, x: Array, low: float, high: float) -> Array:
        """``x`` clipped to [low, high]. Frameworks differ in the gradient at the ends."""
        return self.where(x < low, low, self.where(x > high, high, x))

    def divide_logits(self, x: Array, divisor: Array) -> Array:
        """``x / divisor``; an x of -inf gives the divisor no gradient, not NaN for 0 times infinity."""
        inverse = 1.0 / divisor
        finite = self.where(self.equal(abs(x), float("inf")), 0.0, x)
        # The second term is 0; its derivative is that of the quotient by the divisor.
        return x / self.stop_gradient(divisor) + finite * (inverse - self.stop_gradient(inverse))

    def one_or_nan(self, proper: Array, dtype: str) -> Array:
        """1 where ``proper`` is True and NaN elsewhere. Multiplying by it makes a value and its gradient NaN."""
        return self.where(proper, self.cast(proper, dtype), float("nan"))

    # Reductions.

    @abstractmethod
    def sum(self, x: Array, axis: int | None = None) -> Array: ...

    @abstractmethod
    def max(self, x: Array, axis: int) -> Array: ...

    @abstractmethod
    def argmax(self, x: Array, axis: int) -> Array:
        """The first index of the maximum."""

    @abstractmethod
    def logsumexp(self, x: Array, axis: int) -> Array:
        """log(sum(exp(x))), with -inf entries contributing nothing."""

    def unmasked_mean(self, x: Array, shift: Array) -> Array:
        """The mean of ``x - shift`` over the last axis, without entries of -inf; ``shift`` has one number per row.

        A method, because JAX skips the mask by a branch if no entry is masked.
        """
        masked = self.equal(x, float("-inf"))
        kept = self.cast(~masked, self.dtype(x))
        return self.sum(self.where(masked, 0.0, x - shift[..., None]), axis=-1) / self.sum(kept, axis=-1)

    # Moving and indexing.

    @abstractmethod
    def moveaxis(self, x: Array, source: int, destination: int) -> Array: ...

    def expand_dims(self, x: Array) -> Array:
        """``x[..., None]``."""
        return x[..., None]

    @abstractmethod
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array: ...

    @abstractmethod
    def take(self, table: Array, index: Array) -> Array:
        """``table[index]``: rows of a table by an integer array of any shape."""

    @abstractmethod
    def gather(self, x: Array, index: Array) -> Array:
        """Entries of the last axis of each row of x (..., classes), by index (..., n)."""

    def put(self, x: Array, index: Array, values: Array) -> Array:
        """A copy of x (..., classes) with ``values`` (..., n) at ``index`` (..., n) of each row.

        An index that occurs twice in a row has equal values there.
        """
        every = self.asarray(np.arange(self.shape(x)[-1]), "int32", like=x)  # type: ignore[arg-type]
        for place in range(self.shape(index)[-1]):  # type: ignore[arg-type]
            here = self.equal(self.cast(index[..., place], "int32")[..., None], every)
            x = self.where(here, values[..., place][..., None], x)
        return x

    def pick(self, x: Array, index: Array) -> Array:
        """One entry of the last axis per row: ``x[..., index[...]]``."""
        return self.gather(x, index[..., None])[..., 0]

    def top(self, x: Array, index: Array) -> tuple[Array, Array]:
        """The maximum of the last axis, and whether ``index``, one per row, is its first position.

        A method, because PyTorch finds a maximum and its index in one pass.
        """
        winner = self.argmax(x, -1)
        return self.pick(x, winner), self.equal(winner, self.cast(index, self.dtype(winner)))

    @abstractmethod
    def bincount(self, index: Array, weights: Array, length: int) -> Array:
        """The sum of ``weights`` per value of the flat integer array ``index`` below ``length``."""

    @abstractmethod
    def argsort(self, x: Array) -> Array:
        """The indices that sort the last axis of ``x`` in ascending order; the sort is stable."""

    @abstractmethod
    def cumsum(self, x: Array) -> Array:
        """Cumulative sums along the last axis of ``x``."""

    @abstractmethod
    def searchsorted(self, x: Array, values: Array, side: str) -> Array:
        """The entries of the sorted, flat ``x`` below each value; ``side="right"`` counts those equal to it too."""

    # Gradients.

    @abstractmethod
    def stop_gradient(self, x: Array) -> Array: ...

    def value_and_grad(self, function: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
        """The scalar ``function(x)`` and its gradient, if the framework can differentiate.

        Only `lsmooth.testing.check_backend` calls it.
        """
        raise NotImplementedError(f"The {self.name} backend does not compute gradients.")
