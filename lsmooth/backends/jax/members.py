"""The devices of an axis of ``jax.shard_map`` or ``jax.pmap``, over which classes or rows are spread."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lsmooth.backends.base import Array
from lsmooth.backends.members import Members


class AxisMembers(Members):
    """The members of one or several axes; the first name varies slowest, as in a ``PartitionSpec``.

    Args:
        axes: the names, all of them in scope.
        tracked: whether JAX tracks which values differ between the members, as it does under ``check_vma=True`` and
            ``jax.vmap``. It then transposes sums itself.
    """

    def __init__(self, axes: tuple[Any, ...], tracked: bool):
        self.axes = axes
        self.tracked = tracked
        self.count = int(jax.lax.psum(1, axes))

    @property
    def index(self) -> Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        index = jnp.zeros((), jnp.int32)
        for axis in self.axes:
            index = index * jax.lax.psum(1, axis) + jax.lax.axis_index(axis)
        return index

    def sum(self, x: Array, total: Array | None = None) -> Array:
        if total is not None:
            return (_tracked_known_sum if self.tracked else _known_sum)(self.axes, x, total)
        return jax.lax.psum(x, self.axes) if self.tracked else _sum(self.axes, x)

    def max(self, x: Array) -> Array:
        return jax.lax.pmax(jax.lax.stop_gradient(x), self.axes)

    def shared(self, x: Array) -> Array:
        return x if self.tracked else _shared(self.axes, x)


def axis_members(axes: Any, option: str) -> AxisMembers:
    """The members of an axis name, or of a tuple of names.

    Raises:
        ValueError: if a name is not that of an axis in scope.
    """
    names = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    try:
        if names and None not in names:
            return AxisMembers(names, all(name in varying_axes(jax.lax.axis_index(name)) for name in names))
    except (NameError, TypeError):  # not in scope, or not a name
        pass
    raise ValueError(
        f"{option} must be the name of an axis of jax.shard_map or jax.pmap around the call, or a tuple of names; got "
        f"{axes!r}. Arrays that are sharded under jax.jit need no option."
    )


def varying_axes(x: Array) -> frozenset[Any]:
    """The axes of ``jax.shard_map`` over which a value varies by its type; none without ``check_vma``."""
    kind = jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying  # the older name first


def vary(x: Array, axes: frozenset[Any]) -> Array:
    """``x`` with a type that varies over these axes, so that its gradient is summed over them here."""
    missing = tuple(sorted(axes - varying_axes(x), key=str))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return jax.lax.pvary(x, missing)  # pyright: ignore[reportAttributeAccessIssue]  # the older name


# Without tracking, JAX transposes ``psum`` to ``psum``. These two functions are the derivatives of each other, so that
# higher derivatives are correct.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(axes: tuple[Any, ...], x: Array) -> Array:
    return jax.lax.psum(x, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _shared(axes: tuple[Any, ...], x: Array) -> Array:
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _known_sum(axes: tuple[Any, ...], x: Array, total: Array) -> Array:
    return total


_sum.defvjp(lambda axes, x: (_sum(axes, x), None), lambda axes, _, g: (_shared(axes, g),))
_shared.defvjp(lambda axes, x: (x, None), lambda axes, _, g: (_sum(axes, g),))
_known_sum.defvjp(lambda axes, x, total: (total, None), lambda axes, _, g: (_shared(axes, g), jnp.zeros_like(g)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _tracked_known_sum(axes: tuple[Any, ...], x: Array, total: Array) -> Array:
    return total


@_tracked_known_sum.defjvp
def _tracked_known_sum_jvp(axes: tuple[Any, ...], primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _tracked_known_sum(axes, *primals), jax.lax.psum(tangents[0], axes)
