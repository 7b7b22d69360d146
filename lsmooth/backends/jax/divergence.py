"""Divergences on the CPU, by a loop over blocks of rows.

XLA stores intermediate results that several reductions share in arrays of the size of the logits. A loop over blocks
keeps them in cache, and computes the gradient in the same pass, times the factor of each row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lsmooth.backends.base import Array, Backend
from lsmooth.backends.formulas import divergence
from lsmooth.backends.jax import thresholds
from lsmooth.backends.options import DivergenceOptions


class Plan(NamedTuple):
    """The computation without its arrays; equal plans are compiled once."""

    xp: Backend
    divergence: str


class Numbers(NamedTuple):
    """Options that are numbers, as arguments of a program, so that other values need no compilation."""

    parameter: Any
    temperature: Any


KNOWN = ("divergence", "parameter", "temperature", "counted", "scale", "total", "constant_teacher")


def fits(student: Array, options: DivergenceOptions) -> bool:
    """Whether `blocks` takes these arguments and is as fast as the formula."""
    return (
        options.divergence not in divergence.OF_LOGITS  # their reductions share no intermediate results
        and options.constant_teacher
        and isinstance(options.temperature, float)
        and blocks_pay(student)
    )


def blocks_pay(logits: Array) -> bool:
    """Whether a loop over blocks of rows is as fast as the formula: for large logits on one CPU."""
    known = all(isinstance(size, int) for size in logits.shape)
    return known and logits.size >= thresholds.BLOCKED_ELEMENTS and on_one_cpu()


def on_one_cpu() -> bool:
    """Whether there is one CPU, where a loop costs little and gathers nothing from other devices."""
    alone = jax.device_count() == 1 and not jax.sharding.get_abstract_mesh().manual_axes
    return alone and jax.default_backend() == "cpu"


def blocks(xp: Backend, teacher: Array, student: Array, options: DivergenceOptions) -> Array:
    """`formulas.softmax_divergence`, for arguments that fit."""
    *lead, classes = student.shape
    dtype, counted = precision(student), options.counted
    factor = jnp.broadcast_to(jnp.asarray(1.0 if options.scale is None else options.scale, dtype), lead).reshape(-1)
    if counted is not None:
        counted = jnp.reshape(counted, -1)
        factor = jnp.where(counted, factor, 0.0)
    numbers = Numbers(*(jnp.asarray(x, dtype) for x in (options.parameter, options.temperature)))
    rows = teacher.reshape(-1, classes), student.reshape(-1, classes), counted, factor
    losses = _rows(Plan(xp, options.divergence), numbers, *rows)
    return jnp.sum(losses) if options.total else losses.reshape(lead)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rows(plan: Plan, numbers: Numbers, teacher: Array, student: Array, counted: Array | None, factor: Array) -> Array:
    return factor * _sweep(plan, False, numbers, teacher, student, counted, factor)[0]


@_rows.defjvp
def _rows_jvp(plan: Plan, primals: Any, tangents: Any) -> tuple[Array, Array]:
    factor, (_, _, d_student, _, d_factor) = primals[-1], tangents
    losses, slope = _sweep(plan, True, *primals)
    return factor * losses, losses * d_factor + jnp.sum(slope * d_student.astype(slope.dtype), axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)  # without jit, every eager call would compile the loop
def _sweep(plan: Plan, with_slope: bool, numbers: Numbers, *arrays: Any) -> tuple[Array, ...]:
    """The losses of the rows; with ``with_slope`` also the gradients of the student, times the factors of the rows."""
    row = _forward_kl if plan.divergence == "forward_kl" else _by_formula
    return in_blocks(lambda x: row(plan, numbers, *x)[: 1 + with_slope], arrays)


def _forward_kl(
    plan: Plan, numbers: Numbers, teacher: Array, student: Array, counted: Array | None, factor: Array
) -> tuple[Array, ...]:
    """KL(t || s) and its gradient s - t, which share exponentials."""
    t, s = divergence.tempered(plan.xp, teacher, student, numbers.temperature, counted)
    t, s = (z - jax.lax.stop_gradient(jnp.max(z, axis=-1)) for z in (t, s))
    mass_t, mass_s = jnp.exp(t), jnp.exp(s)
    sum_t, sum_s = jnp.sum(mass_t), jnp.sum(mass_s)
    # The student may have no mass where the teacher has none.
    gap = jnp.sum(mass_t * jnp.where(mass_t == 0, 0.0, t - s)) / sum_t
    factor = factor / numbers.temperature
    return gap + jnp.log(sum_s) - jnp.log(sum_t), mass_s * (factor / sum_s) - mass_t * (factor / sum_t)


def _by_formula(
    plan: Plan, numbers: Numbers, teacher: Array, student: Array, counted: Array | None, factor: Array
) -> tuple[Array, ...]:
    def loss(student: Array) -> Array:
        tempered = divergence.tempered(plan.xp, teacher, student, numbers.temperature, counted)
        return divergence.DIVERGENCES[plan.divergence](plan.xp, *tempered, numbers.parameter)

    loss_of_row, pull = jax.vjp(loss, student.astype(precision(student)))
    return loss_of_row, *pull(factor)


def in_blocks(row: Callable[[Any], Any], arrays: tuple[Array, ...]) -> Any:
    """Apply ``row`` to each row of the arrays, in blocks; the second array has the size of the logits."""
    num_rows, classes = arrays[1].shape
    most = max(1, thresholds.BLOCK_ELEMENTS // classes)
    # Joining remaining rows with the others would copy all of them.
    block = next((n for n in range(most, most // 2, -1) if num_rows % n == 0), most)
    return jax.lax.map(row, arrays, batch_size=block)


def precision(x: Array) -> Any:
    """The dtype of the loss of such logits."""
    return jnp.float64 if x.dtype == jnp.float64 else jnp.float32
