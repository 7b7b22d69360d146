"""Losses of linear heads on JAX: a scan over blocks of rows.

The derivative of a sum is known when the sum is: the scan that computes it forms the gradients of
each block while its logits are there, and the tangent is their product with the inputs' tangents.
That rule is linear, so JAX transposes it for reverse mode and follows it in forward mode, and to
any order. Rows, whose upstream gradients are not known, are computed again, by ``jax.checkpoint``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.linear import BlockLoss, Call, Head, block_rows, whole

# XLA keeps a few arrays of a block's size, where other backends have two.
BLOCK_ELEMENTS = 2**23


class Plan(NamedTuple):
    """A sweep over rows, but for the arrays; equal plans are compiled once."""

    xp: Backend
    loss: BlockLoss
    block: int


def linear_rows(xp: Backend, loss: BlockLoss, call: Call, block_size: int | None) -> Array:
    """`lsmooth.backends.linear.whole`, a block of rows at a time."""
    lead = call.heads[0].hidden.shape[:-1]
    call = call.map_rows(lambda x: jnp.reshape(x, (-1, *x.shape[len(lead) :])))
    num_rows = call.heads[0].hidden.shape[0]
    block = block_size or block_rows(num_rows, call, BLOCK_ELEMENTS)
    if num_rows <= block:
        losses = whole(xp, loss, call)
    else:
        losses = (_total if loss.total else _rows)(Plan(xp, loss, block), call)
    return losses if loss.total else jnp.reshape(losses, lead)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_of_rows(plan: Plan, call: Call) -> Array:
    def add(total: Array, here: Call) -> tuple[Array, None]:
        return total + whole(plan.xp, plan.loss, here), None

    total, _ = _scan(plan, add, jnp.zeros((), _accumulator(call.heads[-1].hidden)), call)
    return total


@functools.partial(_sum_of_rows.defjvp, symbolic_zeros=True)
def _sum_of_rows_jvp(plan: Plan, primals: tuple[Call], tangents: tuple[Call]) -> tuple[Array, Array]:
    (call,), (tangent,) = primals, tangents
    moves = [x is not None and not isinstance(x, SymbolicZero) for x in tangent.leaves()]
    total, gradients = _sweep(plan, call, moves)
    pairs = [(g, dx) for g, dx, moving in zip(gradients, tangent.leaves(), moves, strict=True) if moving]
    return total, sum((jnp.sum(g * dx.astype(g.dtype)) for g, dx in pairs), start=jnp.zeros_like(total))


_total = jax.jit(_sum_of_rows, static_argnums=0, inline=True)


def _sweep(plan: Plan, call: Call, moves: list[bool]) -> tuple[Array, list[Any]]:
    """The sum of the rows, and the gradients of the leaves that move."""
    along_rows = call.along_rows()
    summed = [
        jnp.zeros(x.shape, _accumulator(x)) if moving and not rows else None
        for x, moving, rows in zip(call.leaves(), moves, along_rows, strict=True)
    ]

    def step(carry: Any, here: Call) -> Any:
        total, sums = carry
        value, gradients = _block(plan, here, moves)
        sums = [None if x is None else x + g for x, g in zip(sums, gradients, strict=True)]
        return (total + value, sums), [g if rows else None for g, rows in zip(gradients, along_rows, strict=True)]

    zero = jnp.zeros((), _accumulator(call.heads[-1].hidden))
    (total, sums), parts = _scan(plan, step, (zero, summed), call)
    return total, [part if rows else x for x, part, rows in zip(sums, parts, along_rows, strict=True)]


def _block(plan: Plan, call: Call, moves: list[bool]) -> tuple[Array, list[Any]]:
    """The loss of a block and its gradients, those of the heads by their closed form."""
    leaves, moving = call.leaves(), call.rebuild(moves)
    logits = tuple(head_logits(head) for head in call.heads)
    options = [i for i in range(3 * len(call.heads), len(leaves)) if moves[i]]

    def loss(logits: tuple[Array, ...], given: list[Array]) -> Array:
        filled = list(leaves)
        for i, x in zip(options, given, strict=True):
            filled[i] = x
        here = call.rebuild(filled)
        return plan.loss(logits, here.rows, here.shared)

    value, pull = jax.vjp(loss, logits, [leaves[i] for i in options])
    of_logits, of_options = pull(jnp.ones_like(value))
    gradients: list[Any] = [None] * len(leaves)
    for i, (head, g, wanted) in enumerate(zip(call.heads, of_logits, moving.heads, strict=True)):
        gradients[3 * i : 3 * i + 3] = _head_gradients(head, g, wanted)
    for i, g in zip(options, of_options, strict=True):
        gradients[i] = g
    return value, gradients


def head_logits(head: Head) -> Array:
    """``hidden @ weight.T + bias``, accumulated and kept in at least float32."""
    logits = _product(head.hidden, head.weight, 1, 1)
    return logits if head.bias is None else logits + head.bias


def _head_gradients(head: Head, gradient: Array, wanted: Head) -> list[Any]:
    g = gradient.astype(head.weight.dtype)
    return [
        _product(g, head.weight, 1, 0).astype(head.hidden.dtype) if wanted.hidden else None,
        _product(g, head.hidden, 0, 0) if wanted.weight else None,
        jnp.sum(gradient, axis=0) if wanted.bias else None,
    ]


def _product(a: Array, b: Array, axis_of_a: int, axis_of_b: int) -> Array:
    dimensions = (((axis_of_a,), (axis_of_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=_accumulator(a))


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _rows(plan: Plan, call: Call) -> Array:
    block = jax.checkpoint(lambda here: whole(plan.xp, plan.loss, here))
    return _scan(plan, lambda _, here: (None, block(here)), None, call)[1]


def _scan(plan: Plan, step: Callable[[Any, Call], Any], carry: Any, call: Call) -> Any:
    """``step`` over full blocks, then over the rows left, if any; what it gives for rows is joined."""
    num_rows = call.heads[0].hidden.shape[0]
    full = num_rows // plan.block
    flags = call.along_rows()

    def part(leaves: Any) -> Call:
        """What is not along the rows is the same for every block."""
        return call.rebuild([y if along else x for x, y, along in zip(call.leaves(), leaves, flags, strict=True)])

    in_rows = [x if along else None for x, along in zip(call.leaves(), flags, strict=True)]
    blocks = [None if x is None else x[: full * plan.block].reshape(full, plan.block, *x.shape[1:]) for x in in_rows]
    carry, parts = jax.lax.scan(lambda carry, leaves: step(carry, part(leaves)), carry, blocks)
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
    if full * plan.block < num_rows:
        rest = [None if x is None else x[full * plan.block :] for x in in_rows]
        carry, last = step(carry, part(rest))
        joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), joined, last)
    return carry, joined


def _accumulator(x: Array) -> Any:
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32
