"""Losses of linear heads on JAX: a scan over blocks of rows.

The scan that computes a sum also computes the gradients of each block from its logits, and the tangent is
their product with the tangents of the inputs. This rule is linear, so JAX supports forward mode, reverse mode
and higher orders. Losses of rows, whose upstream gradients are unknown, are recomputed by ``jax.checkpoint``.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import NamedSharding

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas.linear import BlockLoss, Call, Head, block_rows, joined, loss_of_all, without_ignored
from lsmooth.backends.jax import spread, thresholds
from lsmooth.backends.jax.members import vary, varying_axes
from lsmooth.backends.options import with_numbers, without_numbers


class Placement(NamedTuple):
    """The devices that hold the rows, as far as they are known."""

    devices: int
    """The number of devices that share the rows."""
    may_share: bool
    """Whether several devices may share the rows; then a block takes every n-th row, for all devices to work."""
    one_cpu: bool
    """Whether one CPU holds everything, where loops cost little."""


class Plan(NamedTuple):
    """A sweep over rows, without its arrays; equal plans are compiled once."""

    xp: Backend
    loss: BlockLoss
    block: int
    place: Placement


class LossOfNumbers(NamedTuple):
    """A block loss whose numbers are arrays of the call, so that another number compiles nothing."""

    loss: Any
    total: bool

    def __call__(self, logits: tuple[Array, ...], rows: Any, shared: Any, final_kernels: Any = None) -> Array:
        """The loss with the numbers of ``shared`` put back."""
        loss = with_numbers(self.loss, (shared[f"number {i}"] for i in itertools.count()))
        return loss(logits, rows, shared, final_kernels)


def _with_numbers(loss: BlockLoss, call: Call) -> tuple[BlockLoss, Call]:
    """The same loss, with its numbers as arrays."""
    found: list[float] = []
    kept, dtype = without_numbers(loss, found), _accumulator(call.heads[-1].hidden)
    numbers = {f"number {i}": jnp.asarray(x, dtype) for i, x in enumerate(found)}
    loss = LossOfNumbers(kept, loss.total)  # pyright: ignore[reportAssignmentType]
    return loss, call._replace(shared={**call.shared, **numbers})


def linear_rows(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None) -> Array:
    """`lsmooth.backends.formulas.linear.loss_of_all`, a block of rows at a time."""
    if call.heads[0].weight is None:  # XLA fuses the operations on given logits
        return loss_of_all(xp, loss, call)
    if spread.shares_head(loss, call):
        return spread.linear_rows(xp, loss, call, block_size)
    # Sum gradients of shared arrays over the devices after the loop, not in it.
    axes = frozenset[Any]().union(*map(varying_axes, call.arrays()))
    call = call.map(lambda x: vary(x, axes)) if axes else call
    lead = call.heads[0].hidden.shape[:-1]
    place = _placement(call)
    if not (axes or place.may_share or any(map(spread.is_staged, call.arrays()))):
        loss, call = _with_numbers(loss, call)
    call = call.map_rows(lambda x: jnp.reshape(x, (-1, *x.shape[len(lead) :])))
    num_rows = _num_rows(call)
    # A symbolic number of rows, as in `jax.export`, cannot be divided into a fixed number of blocks.
    block = _block_rows(num_rows, call, place, loss.total, block_size) if isinstance(num_rows, int) else None
    if block is None or num_rows <= block:
        losses = loss_of_all(xp, loss, call, head_logits)
    else:
        losses = (_total if loss.total else _rows)(Plan(xp, loss, block, place), call)
    return losses if loss.total else jnp.reshape(losses, (*lead, *losses.shape[1:]))


def _placement(call: Call) -> Placement:
    """The placement by the arrays, their types, or the mesh in scope; one device by default."""
    arrays = call.arrays()
    on_cpu, mesh = jax.default_backend() == "cpu", jax.sharding.get_abstract_mesh()
    if mesh.manual_axes:  # devices along manual axes have their own rows
        devices = mesh.size // math.prod(mesh.shape[axis] for axis in mesh.manual_axes)
        return Placement(devices, devices > 1, False)
    tracer: Any = jax.core.Tracer  # pyright: ignore[reportAttributeAccessIssue]
    if jax.device_count() == 1 or not any(isinstance(x, tracer) for x in arrays):
        shared = any(len(x.sharding.device_set) > 1 for x in arrays) if jax.device_count() > 1 else False
        devices = _shards(call.heads[0].hidden) if shared else 1
        return Placement(devices, devices > 1, on_cpu and not shared)
    devices = math.prod(mesh.shape.values()) if mesh.shape else 1
    return Placement(devices, True, False)


def _shards(x: Array) -> int:
    """The number of pieces into which devices split an array, apart from its last axis."""
    piece = x.sharding.shard_shape(x.shape)
    return math.prod(math.ceil(size / part) for size, part in zip(x.shape[:-1], piece[:-1], strict=True) if part)


def _block_rows(num_rows: int, call: Call, place: Placement, total: bool, block_size: int | None) -> int:
    """The rows of a block, as many per device as on a single one."""
    # Unless a block is processed in parts, XLA keeps several arrays of its size.
    elements = thresholds.LINEAR_BLOCK_ELEMENTS if total and place.one_cpu else thresholds.LINEAR_BLOCK_ELEMENTS // 2
    if place.may_share and place.devices == 1:
        elements = thresholds.LINEAR_BLOCK_ELEMENTS // 4
    share = math.ceil(num_rows / place.devices)
    block = block_size or place.devices * _even_rows(share, block_rows(share, call, elements))
    # Devices that may share the rows get equal numbers.
    step = max(place.devices, jax.device_count()) if place.may_share else 1
    return block if block < step else step * math.ceil(block / step)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_of_rows(plan: Plan, call: Call) -> Array:
    return _sweep(plan, call.map(lambda x: False), call)[0]


@functools.partial(_sum_of_rows.defjvp, symbolic_zeros=True)
def _sum_of_rows_jvp(plan: Plan, primals: tuple[Call], tangents: tuple[Call]) -> tuple[Array, Array]:
    (call,), (tangent,) = primals, tangents
    wanted = tangent.map(lambda x: not isinstance(x, SymbolicZero))
    total, gradients = _shielded(lambda call: _sweep(plan, wanted, call))(call)
    wide = total.dtype  # the scale of a loss may overflow float16
    terms = gradients.map(lambda g, dx: jnp.sum(g.astype(wide) * dx.astype(wide)), tangent)
    return total, sum(jax.tree.leaves(terms), start=jnp.zeros_like(total))


_total = jax.jit(_sum_of_rows, static_argnums=0, inline=True)


def _shielded(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """The function with its own derivative as a custom rule.

    JAX moves loop-invariant values, such as zeros of the size of a block, out of a scan and keeps them in memory,
    except in functions with a custom rule.
    """
    shielded = jax.custom_jvp(function)
    shielded.defjvp(functools.partial(jax.jvp, function))
    return shielded


def _sweep(plan: Plan, wanted: Call, call: Call) -> tuple[Array, Call]:
    """The sum of the rows and the wanted gradients, None for the others."""

    def step(carry: Any, here: Call) -> Any:
        total, sums = carry
        value, gradients = _block(plan, wanted, here, sums)
        return (total + value, gradients.shared_part()), gradients.row_part()

    zero = _zero(call)
    zeros = jax.tree.map(lambda x: x + zero.astype(x.dtype), _zeros(call, wanted))
    (total, shared), of_rows = _scan(_num_rows(call), plan.block, step, (zero, zeros), call, plan.place.may_share)
    return total, joined(of_rows, shared)


def _block(plan: Plan, wanted: Call, call: Call, sums: Call) -> tuple[Array, Call]:
    """The loss of a block, and the gradients of its rows; those of shared arrays are added to the sums."""
    call = without_ignored(plan.xp, call)
    logits = [head_logits(plan.xp, head) for head in call.heads]
    others, wanted_others = call._replace(heads=()), wanted._replace(heads=())
    differentiable = [any(head) for head in wanted.heads]
    value, slopes, gradients = _slopes(plan, differentiable, wanted_others, logits, others)
    heads = [
        _head_gradients(plan, *each) if wants else Head(None, None)
        for wants, each in zip(
            differentiable, zip(call.heads, slopes, wanted.heads, sums.heads, strict=True), strict=True
        )
    ]
    shared = _added(sums._replace(heads=()), gradients.shared_part()).shared
    return value, Call(tuple(heads), gradients.rows, shared)


def _slopes(
    plan: Plan, differentiable: list[bool], wanted: Call, logits: list[Array], others: Call
) -> tuple[Array, list[Any], Call]:
    """The loss of a block, the gradients of differentiable logits, and those of the other wanted arrays.

    On one CPU the gradients overwrite the logits, a few rows at a time, so that XLA's temporaries stay in cache.
    """
    num_rows = logits[0].shape[0]
    part = _part_rows(num_rows, sum(z.shape[1] for z in logits)) if plan.place.one_cpu else num_rows
    if part == num_rows:
        return _slopes_at_once(plan, differentiable, wanted, logits, others)

    def slopes_of(some: list[Array], here: Call) -> Any:
        return _slopes_at_once(plan, differentiable, wanted, some, here)

    def zeros_of(*arrays: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(slopes_of, *arrays))

    def step(carry: Any, here: Call) -> Any:
        start, total, logits, sums = carry
        some = [jax.lax.dynamic_slice_in_dim(z, start, part) for z in logits]
        # Always true. `cond` makes XLA copy the slice before the logits are overwritten.
        value, slopes, gradients = jax.lax.cond(start >= 0, slopes_of, zeros_of, some, here)
        logits = [
            z if slope is None else jax.lax.dynamic_update_slice_in_dim(z, slope, start, 0)
            for z, slope in zip(logits, slopes, strict=True)
        ]
        return (start + part, total + value, logits, _added(sums, gradients.shared_part())), gradients.row_part()

    start = (0, jnp.zeros((), logits[-1].dtype), logits, _zeros(others, wanted))
    (_, total, logits, shared), of_rows = _scan(num_rows, part, step, start, others)
    return total, logits, joined(of_rows, shared)


def _slopes_at_once(
    plan: Plan, differentiable: list[bool], wanted: Call, logits: list[Array], others: Call
) -> tuple[Array, list[Any], Call]:
    """`_slopes` of all rows at once."""

    def loss(chosen: list[Any], options: Call) -> Array:
        given = [z if x is None else x for z, x in zip(logits, chosen, strict=True)]
        here = _chosen(others, wanted, options)
        return plan.loss(tuple(given), here.rows, here.shared)

    chosen = [z if wants else None for z, wants in zip(logits, differentiable, strict=True)]
    value, pull = jax.vjp(loss, chosen, _only(others, wanted))
    return value, *pull(jnp.ones_like(value))


def _only(call: Call, wanted: Call) -> Call:
    """The wanted arrays, None for the others."""
    return call.map(lambda x, wants: x if wants else None, wanted)


def _chosen(call: Call, wanted: Call, instead: Call) -> Call:
    """The call with wanted arrays replaced."""
    return call.map(lambda x, wants, y: y if wants else x, wanted, instead)


def _zeros(call: Call, wanted: Call) -> Call:
    """Zeros for the wanted gradients of shared arrays, None for the others."""
    return _only(call, wanted).shared_part().map(lambda x: jnp.zeros_like(x, _accumulator(x)))


def _zero(call: Call) -> Array:
    """0 as the start of a sum; under ``jax.shard_map`` its type varies over the devices like the arrays."""
    return vary(jnp.zeros((), _accumulator(call.heads[-1].hidden)), varying_axes(call.heads[-1].hidden))


def _added(sums: Call, gradients: Call) -> Call:
    return sums.map(jnp.add, gradients)


def head_logits(_: Backend, head: Head) -> Array:
    """``hidden @ weight.T + bias``, in at least float32."""
    logits = _product(head.hidden, head.weight, 1, 1)
    return logits if head.bias is None else logits + head.bias[None, :]


def _head_gradients(plan: Plan, head: Head, slope: Array, wanted: Head, sums: Head) -> Head:
    g = slope.astype(head.weight.dtype)
    return Head(
        _product(g, head.weight, 1, 0, head.hidden).astype(head.hidden.dtype) if wanted.hidden else None,
        _add_product(plan, sums.weight, g, head.hidden) if wanted.weight else None,
        sums.bias + jnp.sum(slope, axis=0) if wanted.bias else None,  # pyright: ignore[reportOptionalOperand]
    )


def _add_product(plan: Plan, total: Array, g: Array, hidden: Array) -> Array:
    """``total + g.T @ hidden``, on one CPU in parts of the classes, because XLA allocates the product."""
    classes, features = total.shape
    count = -(-classes * features // thresholds.WEIGHT_GRADIENT_ELEMENTS)
    if count == 1 or not plan.place.one_cpu:
        return total + _product(g, hidden, 0, 0, total)
    some = -(-classes // count)

    def add(i: Any, total: Array) -> Array:
        start = jnp.minimum(i * some, classes - some)
        here = jax.lax.dynamic_slice_in_dim(g, start, some, 1)
        if classes % some:  # the last part overlaps the one before
            here = jnp.where(start + jnp.arange(some) < i * some, 0, here)
        so_far = jax.lax.dynamic_slice_in_dim(total, start, some)
        return jax.lax.dynamic_update_slice_in_dim(total, so_far + _product(here, hidden, 0, 0), start, 0)

    return jax.lax.fori_loop(0, count, add, total)


def _product(a: Array, b: Array, axis_of_a: int, axis_of_b: int, like: Array | None = None) -> Array:
    """A matrix product; if devices share the summed axis, the result is sharded like ``like``."""
    dimensions = (((axis_of_a,), (axis_of_b,)), ((), ()))
    sharding = jax.typeof(a).sharding
    shared = like is not None and sharding.spec[axis_of_a] is not None
    out = NamedSharding(sharding.mesh, jax.typeof(like).sharding.spec) if shared else None
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=_accumulator(a), out_sharding=out)


@functools.partial(jax.jit, static_argnums=0)  # inlined, the backward pass of every eager call would be compiled
def _rows(plan: Plan, call: Call) -> Array:
    # Cast to full precision outside the loop, which accumulates the gradients.
    types = call.map(lambda x: x.dtype)
    call = call.map(lambda x, along_rows: x if along_rows else x.astype(_accumulator(x)), call.along_rows())

    @jax.checkpoint
    def block(here: Call) -> Array:
        return loss_of_all(plan.xp, plan.loss, here.map(lambda x, dtype: x.astype(dtype), types), head_logits)

    return _scan(_num_rows(call), plan.block, lambda _, here: (None, block(here)), None, call, plan.place.may_share)[1]


def _scan(
    num_rows: int, block: int, step: Callable[[Any, Call], Any], carry: Any, call: Call, may_share: bool = False
) -> Any:
    """``step`` over full blocks and then over the remaining rows; results of rows are joined.

    If devices may share the rows, a block has every n-th row, so that all devices work.
    """
    full, alone = num_rows // block, not may_share
    of_rows, shared = call.row_part(), call.shared_part()

    def split(x: Array) -> Array:
        x = x[: full * block]
        shape = x.shape[1:]
        return x.reshape(full, block, *shape) if alone else jnp.moveaxis(x.reshape(block, full, *shape), 1, 0)

    def join(x: Array) -> Array:
        return (x if alone else jnp.moveaxis(x, 0, 1)).reshape(-1, *x.shape[2:])

    def step_with_shared(carry: Any, here: Call) -> Any:
        return step(carry, joined(here, shared))

    carry, parts = jax.lax.scan(step_with_shared, carry, jax.tree.map(split, of_rows), full)
    rows = jax.tree.map(join, parts)
    if full * block < num_rows:
        carry, rest = step_with_shared(carry, jax.tree.map(lambda x: x[full * block :], of_rows))
        rows = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), rows, rest)
    return carry, rows


def _even_rows(num_rows: int, most: int) -> int:
    """A number of rows per block, at most ``most``, that leaves few rows over and can be split into parts."""
    if num_rows <= most:
        return num_rows
    return min(range(most - most % 8, most // 2, -8), key=lambda n: num_rows % n, default=most)


def _part_rows(num_rows: int, classes: int) -> int:
    """A number of rows that fits in cache and divides the others; all rows if there is none."""
    most = max(1, thresholds.LINEAR_PART_ELEMENTS // classes)
    if num_rows <= most:
        return num_rows
    return next((n for n in range(most, most // 8, -1) if num_rows % n == 0), num_rows)


def _accumulator(x: Array) -> Any:
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32


def _num_rows(call: Call) -> int:
    return call.heads[0].hidden.shape[0]
