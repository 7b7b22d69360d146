"""The forward KL on the CPU, by a loop over blocks of rows.

XLA keeps what several reductions share in temporaries of the logits' size. Here what they share is
of a block's size and stays in cache. The gradient, softmax(s) - softmax(t), is one elementwise
expression of the logits and a few numbers a row, which XLA fuses with what is done to it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lsmooth.backends.base import Array

# Elements of a block, and of the smallest logits for which blocks pay.
BLOCK_ELEMENTS = 2**20


def fits(
    teacher: Array,
    student: Array,
    *,
    divergence: str = "forward_kl",
    temperature: Any = 1.0,
    constant_teacher: bool = False,
    **_: Any,
) -> bool:
    """Whether `rows` knows these options, and a loop is no worse than the formula: one CPU, large logits."""
    return (
        divergence == "forward_kl"
        and constant_teacher
        and isinstance(temperature, float)
        and all(isinstance(size, int) for size in student.shape)
        and student.size >= BLOCK_ELEMENTS
        and jax.default_backend() == "cpu"
        and jax.device_count() == 1  # a loop over rows would gather those of other devices
    )


def rows(teacher: Array, student: Array, temperature: float, counted: Array | None) -> Array:
    """KL(t || s) of each row, for arguments that fit."""
    classes = student.shape[-1]
    counted = None if counted is None else counted.reshape(-1)
    losses = _rows(teacher.reshape(-1, classes), student.reshape(-1, classes), counted, 1.0 / temperature)
    return losses.reshape(student.shape[:-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _rows(teacher: Array, student: Array, counted: Array | None, inverse: float) -> Array:
    return _statistics(teacher, student, counted, inverse)[0]


@_rows.defjvp
def _rows_jvp(inverse: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
    teacher, student, counted = primals
    loss, *of_rows = _statistics(teacher, student, counted, inverse)
    top_t, log_t, top_s, log_s = (x[:, None] for x in of_rows)
    t = jnp.exp(_scaled(teacher, counted, inverse, student.dtype) - top_t - log_t)
    s = jnp.exp(_scaled(student, counted, inverse, student.dtype) - top_s - log_s)
    slope = (s - t) * inverse
    if counted is not None:
        slope = jnp.where(counted[:, None], slope, 0.0)
    return loss, jnp.sum(slope * tangents[1].astype(slope.dtype), axis=-1)


@functools.partial(jax.jit, static_argnums=3, inline=True)  # called eagerly, the loop would be compiled at every call
def _statistics(teacher: Array, student: Array, counted: Array | None, inverse: float) -> tuple[Array, ...]:
    """Of each row: KL(t || s), and log-sum-exp of both in two parts, the maximum and what is left."""

    def row(x: tuple[Array, Array, Array | None]) -> tuple[Array, ...]:
        t, s = (_scaled(z, x[2], inverse, student.dtype) for z in x[:2])
        top_t, top_s = (jax.lax.stop_gradient(jnp.max(z)) for z in (t, s))
        t, s = t - top_t, s - top_s
        mass_t, mass_s = jnp.exp(t), jnp.exp(s)
        sum_t = jnp.sum(mass_t)
        log_t, log_s = jnp.log(sum_t), jnp.log(jnp.sum(mass_s))
        # Where the teacher has no mass the student may have none.
        difference = jnp.where(mass_t == 0, 0.0, t - s)
        return jnp.sum(mass_t * difference) / sum_t + log_s - log_t, top_t, log_t, top_s, log_s

    return jax.lax.map(row, (teacher, student, counted), batch_size=max(1, BLOCK_ELEMENTS // student.shape[-1]))


def _scaled(z: Array, counted: Array | None, inverse: float, dtype: Any) -> Array:
    z = z.astype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
    if counted is not None:
        z = jnp.where(counted[..., None], z, 0.0)
    return z * inverse
