"""Losses of linear heads on TensorFlow, by a loop over blocks of rows.

The gradients of a sum are computed in the forward pass, block by block, and multiplied by the upstream gradient in
the backward pass; gradients of tensors that no tape watches, such as a frozen head, are skipped. For the losses of
rows, whose upstream gradients are unknown, and for later gradients, the backward pass computes the logits again. The
rows are padded to whole blocks with copies of the last row, as XLA needs equal blocks. Large logits of a known shape
are compiled by XLA even if the caller is not.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas import linear
from lsmooth.backends.formulas.linear import BlockLoss, Call, Form, Head, block_rows, loss_of_all, without_ignored
from lsmooth.backends.options import with_numbers, without_numbers
from lsmooth.backends.tensorflow import compilation, thresholds
from lsmooth.backends.tensorflow.tapes import is_followed


class Plan(NamedTuple):
    """A sweep over rows, without its arrays; equal plans are compiled once."""

    xp: Backend
    loss: BlockLoss  # of each row
    form: Form
    block: int
    wanted: tuple[bool, ...] = ()  # the arrays that get a gradient, in the order of the form


def linear_rows(xp: Backend, loss: Any, call: Call, block_size: int | None) -> Array:
    """`lsmooth.backends.formulas.linear.loss_of_all`, a block of rows at a time."""
    if call.heads[0].weight is None:
        return loss_of_all(xp, loss, call)
    hidden = call.heads[0].hidden
    lead, rank = tf.shape(hidden)[:-1], len(hidden.shape) - 1
    static = hidden.shape[:-1]
    call = call.map_rows(lambda x: x if rank == 1 else tf.reshape(x, tf.concat([[-1], tf.shape(x)[rank:]], 0)))
    num_rows = static.num_elements() if static.is_fully_defined() else None
    block = block_size or block_rows(thresholds.UNKNOWN_ROWS if num_rows is None else num_rows, call)
    if num_rows is not None and num_rows <= block:
        losses = loss_of_all(xp, loss, call, head_logits)
    else:
        plan = Plan(xp, loss._replace(total=False), call.form, block)
        leaves = call.arrays()
        logits = None if num_rows is None else num_rows * call.num_classes
        large = logits is not None and compilation.compile_pays("linear_rows", *leaves, elements=logits)
        losses = _losses(plan, large, leaves, loss.total)
    if loss.total:
        return losses
    columns = getattr(loss, "COLUMNS", ())
    losses = losses if rank == 1 else tf.reshape(losses, tf.concat([lead, columns], 0) if columns else lead)
    losses.set_shape([*static, *columns])
    return losses


def _losses(plan: Plan, large: bool, leaves: list[Array], total: bool) -> Array:
    """The losses. Arrays that no tape watches get no gradient, or in a graph a separate one for later use."""
    form = plan.form
    heads = [Head(*[i in plan.loss.frozen_heads] * 3) for i in range(len(form.parts))]
    frozen = form.values(Call(tuple(heads), dict.fromkeys(form.rows), dict.fromkeys(form.shared)))
    may = [x.dtype.is_floating and not is_frozen for x, is_frozen in zip(leaves, frozen, strict=True)]
    # Tensors of the branch's own graph, because the gradient of `tf.cond` cannot use those of the outer graph.
    leaves = [tf.convert_to_tensor(x) if tf.executing_eagerly() else tf.identity(x) for x in leaves]
    followed = plan._replace(wanted=tuple(wanted and is_followed(x) for x, wanted in zip(leaves, may, strict=True)))
    # Only `_gradient_carrier` has the derivative: neither tapes nor tf.gradients may differentiate the value.
    values = [tf.stop_gradient(x) for x in leaves]
    known = None
    if total and any(followed.wanted):
        ones = tf.ones(tf.shape(leaves[0])[:1], _accumulator(plan.form.call(leaves).heads[-1].hidden))
        losses, *known = (tf.stop_gradient(x) for x in _compiled(_sweep, followed, large)(ones, *values))
    else:
        losses = tf.stop_gradient(_compiled(_rows, plan, large)(*values))
        losses = tf.reduce_sum(losses) if total else losses
    zeros = tf.zeros_like(losses)
    if any(followed.wanted):
        losses += _gradient_carrier(followed, large, leaves, zeros, known)
    if not tf.executing_eagerly():
        # A graph may be differentiated later, by tf.gradients or by a tape around its function.
        later = plan._replace(wanted=tuple(x and not y for x, y in zip(may, followed.wanted, strict=True)))
        if any(later.wanted):
            losses += _gradient_carrier(later, large, leaves, zeros)
    return losses


def _gradient_carrier(
    plan: Plan, large: bool, leaves: list[Array], zeros: Array, known: list[Array] | None = None
) -> Array:
    """Zeros with the derivative of the losses in the wanted arrays; ``known`` holds their gradients."""

    @tf.custom_gradient
    def zero(*_: Array) -> Any:
        def backward(upstream: Array) -> list[Array]:
            again = any(map(is_followed, (upstream, *leaves)))
            if known is not None and not again:
                # Multiply before the cast: the scale of a loss may overflow float16.
                return [tf.cast(tf.cast(g, upstream.dtype) * upstream, g.dtype) for g in known]
            rows = upstream if upstream.shape.rank == 2 else tf.broadcast_to(upstream, tf.shape(leaves[0])[:1])
            # A loop that is compiled separately cannot be differentiated.
            return list(_compiled(_sweep, plan, large and not again)(rows, *leaves))[1:]

        return tf.identity(zeros), backward

    return zero(*itertools.compress(leaves, plan.wanted))


def _compiled(function: Any, plan: Plan, large: bool) -> Any:
    if not large:
        return functools.partial(function, plan)
    numbers: list[float] = []
    program = _xla(function, plan._replace(loss=without_numbers(plan.loss, numbers)))
    # In double precision: the program casts them.
    return functools.partial(program, tf.constant(numbers, tf.float64))


@functools.lru_cache(maxsize=32)
def _xla(function: Any, plan: Plan) -> Any:
    # A partial, because TensorFlow warns of a function that is defined and traced again and again.
    return tf.function(functools.partial(_of_numbers, function, plan), jit_compile=True, autograph=False)


def _of_numbers(function: Any, plan: Plan, numbers: Array, *leaves: Array) -> Any:
    """The function with the numbers of the plan's loss put back, as tensors: one program serves all of them."""
    scalars = tf.unstack(tf.cast(numbers, _accumulator(plan.form.call(leaves).heads[-1].hidden)))
    compilation.mark_constant(scalars)
    return function(plan._replace(loss=with_numbers(plan.loss, iter(scalars))), *leaves)


def _rows(plan: Plan, *leaves: Array) -> Array:
    """The losses of the rows."""
    blocks = _Blocks(plan, leaves)
    dtype = _accumulator(plan.form.call(leaves).heads[-1].hidden)

    def step(i: Array, losses: Any) -> Any:
        return i + 1, losses.write(i, loss_of_all(plan.xp, plan.loss, blocks.call(i), head_logits))

    columns = getattr(plan.loss, "COLUMNS", ())
    stored = tf.TensorArray(dtype, blocks.count, element_shape=[None, *columns])
    _, stored = tf.while_loop(
        lambda i, _: i < blocks.count, step, (0, stored), parallel_iterations=1, maximum_iterations=blocks.count
    )
    return blocks.joined(stored)


def _sweep(plan: Plan, upstream: Array, *leaves: Array) -> list[Array]:
    """The sum of the losses, and the gradients of the wanted leaves, with rows multiplied by ``upstream``.

    Gradients along the rows are stored by block; the others are added up.
    """
    blocks = _Blocks(plan, leaves)
    upstream, real = (blocks.without_repeated(blocks.split(x)) for x in (upstream, tf.ones_like(upstream)))
    wanted = list(itertools.compress(zip(leaves, blocks.along, strict=True), plan.wanted))
    initial = [
        tf.TensorArray(x.dtype, blocks.count, element_shape=[None, *x.shape[1:]])
        if rows
        else tf.zeros(tf.shape(x), _accumulator(x))
        for x, rows in wanted
    ]

    def step(i: Array, total: Array, *found: Any) -> Any:
        losses, *gradients = _block(plan, blocks.call(i), upstream[i])
        losses = tf.where(real[i] > 0, losses, tf.zeros_like(losses))
        return (
            i + 1,
            total + tf.reduce_sum(losses),
            *(
                x.write(i, g) if rows else x + tf.cast(g, x.dtype)
                for x, g, (_, rows) in zip(found, gradients, wanted, strict=True)
            ),
        )

    start = (0, tf.zeros((), upstream.dtype), *initial)
    _, total, *found = tf.while_loop(
        lambda i, *_: i < blocks.count, step, start, parallel_iterations=1, maximum_iterations=blocks.count
    )
    gradients = (blocks.joined(g) if rows else g for g, (_, rows) in zip(found, wanted, strict=True))
    return [total, *(tf.cast(g, x.dtype) for g, (x, _) in zip(gradients, wanted, strict=True))]


def _block(plan: Plan, call: Call, upstream: Array) -> list[Array]:
    """The losses of a block, and their gradients with respect to the leaves wanted."""
    wanted, call = plan.form.call(plan.wanted), without_ignored(plan.xp, call)
    logits = tuple(head_logits(plan.xp, head) for head in call.heads)
    differentiable = [z for z, wants in zip(logits, wanted.heads, strict=True) if any(wants)]
    options = (*call.rows.values(), *call.shared.values())
    differentiable += itertools.compress(options, (*wanted.rows.values(), *wanted.shared.values()))
    with tf.GradientTape() as tape:
        tape.watch(differentiable)
        losses = plan.loss(logits, call.rows, call.shared)
    found: Iterator[Any] = iter(tape.gradient(losses, differentiable, upstream, tf.UnconnectedGradients.ZERO))
    gradients: list[Array] = []
    for head, wants in zip(call.heads, wanted.heads, strict=True):
        if any(wants):
            g = next(found)
            low = tf.cast(g, head.weight.dtype)
            gradients += [low @ head.weight] if wants.hidden else []
            gradients += [tf.matmul(low, head.hidden, transpose_a=True)] if wants.weight else []
            gradients += [tf.reduce_sum(g, 0)] if wants.bias else []
    return [losses, *gradients, *found]


def head_logits(xp: Backend, head: Head) -> Array:
    """``hidden @ weight.T + bias`` in at least float32; in half precision, only products of gradients are rounded."""
    if head.weight.dtype.size > 2:
        return linear.head_logits(xp, head)
    logits = _half_product(head.hidden, head.weight)
    return logits if head.bias is None else logits + tf.cast(head.bias, logits.dtype)


@tf.custom_gradient
def _half_product(hidden: Array, weight: Array) -> Any:
    """``hidden @ weight.T`` in float32."""
    skipped = [tf.executing_eagerly() and not is_followed(x) for x in (hidden, weight)]

    def backward(upstream: Array) -> tuple[Array | None, Array | None]:
        low = tf.cast(upstream, weight.dtype)
        of_hidden = None if skipped[0] else tf.matmul(low, weight)
        return of_hidden, None if skipped[1] else tf.matmul(low, hidden, transpose_a=True)

    return tf.matmul(tf.cast(hidden, tf.float32), tf.cast(weight, tf.float32), transpose_b=True), backward


class _Blocks:
    """Arrays along the rows as (blocks, rows of a block, ...), padded with copies of the last row."""

    def __init__(self, plan: Plan, leaves: Sequence[Array]):
        self.num_rows = leaves[0].shape[0] or tf.shape(leaves[0])[0]
        self.count = _at_least_one(-(-self.num_rows // plan.block))
        self.size = -(-self.num_rows // self.count)
        call = plan.form.call(leaves)
        self.along = plan.form.values(call.along_rows())
        self.parts = call.map_rows(self.split)

    def split(self, x: Array) -> Array:
        index = tf.minimum(tf.range(self.count * self.size), self.num_rows - 1)
        shape = tf.concat([[self.count, self.size], tf.shape(x)[1:]], 0)
        parts = tf.reshape(tf.gather(x, index), shape)
        parts.set_shape([*parts.shape[:2], *x.shape[1:]])
        return parts

    def without_repeated(self, parts: Array) -> Array:
        """(blocks, rows of a block, ...), with zeros in the copies of the last row."""
        real = tf.reshape(tf.range(self.count * self.size) < self.num_rows, tf.shape(parts)[:2])
        real = real if parts.shape.rank == 2 else tf.expand_dims(real, -1)
        return tf.where(real, parts, tf.zeros_like(parts))

    def call(self, i: Array) -> Call:
        """The i-th block."""
        return self.parts.map_rows(lambda x: x[i])

    def joined(self, stored: Any) -> Array:
        """The rows of a TensorArray of blocks, without the copies of the last row."""
        x = stored.stack()
        return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))[: self.num_rows]


def _at_least_one(count: Any) -> Any:
    return max(count, 1) if isinstance(count, int) else tf.maximum(count, 1)


def _accumulator(x: Array) -> tf.DType:
    return tf.float64 if x.dtype == tf.float64 else tf.float32
