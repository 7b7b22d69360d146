"""Sigmoid cross-entropy with its gradient in closed form, ``sigmoid(z) - l``.

Differentiating the formula makes XLA store several arrays of the size of the logits. On one CPU, a loop over blocks
sums the losses of large logits, and keeps intermediate results in cache.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lsmooth.backends.base import Array
from lsmooth.backends.formulas.rows import ROUNDING
from lsmooth.backends.formulas.sigmoid import smooth_binary_labels
from lsmooth.backends.jax.divergence import blocks_pay, in_blocks, precision
from lsmooth.backends.options import SigmoidOptions

KNOWN = ("label_smoothing", "counted", "scale", "total")


def cross_entropy(logits: Array, labels: Array, options: SigmoidOptions) -> Array:
    """`formulas.sigmoid_cross_entropy` for options that are known."""
    label_smoothing, counted, scale, total = options.label_smoothing, options.counted, options.scale, options.total
    one_factor = isinstance(label_smoothing, float) and (scale is None or jnp.ndim(scale) == 0) and counted is None
    if total and one_factor and blocks_pay(logits):
        loss = _total(None if label_smoothing == 0.0 else label_smoothing, logits, labels)
        return loss if scale is None else loss * scale
    if counted is not None:
        logits, labels = (jnp.where(counted, x, 0) for x in (logits, labels))
    losses = _elements(logits.astype(precision(logits)), _smoothed(labels, label_smoothing))
    losses = losses if scale is None else losses * scale
    losses = losses if counted is None else jnp.where(counted, losses, 0)
    return jnp.sum(losses) if total else losses


def _smoothed(labels: Array, label_smoothing: Any) -> Array:
    """The smoothed labels, unchanged if ``label_smoothing`` is None; NaN in place of labels outside [0, 1]."""
    proper = ((labels >= -ROUNDING) & (labels <= 1.0 + ROUNDING)).astype(labels.dtype)
    return smooth_binary_labels(labels * (proper / proper), 0.0 if label_smoothing is None else label_smoothing)


@jax.custom_jvp
def _elements(z: Array, labels: Array) -> Array:
    return _loss(z, labels)


@_elements.defjvp
def _elements_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _elements(*primals), _change(*primals, *tangents)


@jax.custom_jvp
def _total(eps: float | None, z: Array, labels: Array) -> Array:
    return _sum(eps, z, labels)


@_total.defjvp
def _total_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (eps, z, labels), (_, dz, d_labels) = primals, tangents
    dtype = precision(z)
    d_labels = d_labels if eps is None else d_labels * (1.0 - eps)
    change = _change(z.astype(dtype), _smoothed(labels, eps), dz.astype(dtype), d_labels)
    return _total(eps, z, labels), jnp.sum(change)


@functools.partial(jax.jit, inline=True)  # without jit, every eager call would compile the loop
def _sum(eps: float | None, z: Array, labels: Array) -> Array:
    def row(arrays: tuple[Array, Array]) -> Array:
        z, labels = arrays
        return jnp.sum(_loss(z.astype(precision(z)), _smoothed(labels, eps)))

    return jnp.sum(in_blocks(row, tuple(x.reshape(-1, x.shape[-1]) for x in (z, labels))))


@functools.partial(jax.jit, inline=True)
def _loss(z: Array, labels: Array) -> Array:
    """``(1 - l) log(1 + exp(z)) + l log(1 + exp(-z))``; an infinite logit on the right side of its label has loss 0."""
    size, wrong = _size_and_wrong(z, labels)
    return jnp.where(wrong == 0, 0.0, size) * wrong + jnp.log1p(jnp.exp(-size))


@functools.partial(jax.jit, inline=True)
def _change(z: Array, labels: Array, dz: Array, d_labels: Array) -> Array:
    """The derivative of the losses along dz and d_labels."""
    size, wrong = _size_and_wrong(z, labels)
    rest = jax.nn.sigmoid(-size)  # the smaller probability, which is exact
    slope = jnp.where(z > 0, wrong - rest, rest - wrong)
    largest = jnp.finfo(z.dtype).max  # an infinite logit times a zero change of a label would be NaN
    return slope * dz - jnp.clip(z, -largest, largest) * d_labels


def _size_and_wrong(z: Array, labels: Array) -> tuple[Array, Array]:
    """|z|, with a one-sided derivative at 0, and the mass of the label on the other side of z."""
    return jnp.where(z > 0, z, -z), jnp.where(z > 0, 1.0 - labels, labels)
