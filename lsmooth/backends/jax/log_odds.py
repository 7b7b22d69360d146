"""The log-odds of labels with their gradient in closed form: XLA compiles fewer loops, and keeps fewer arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lsmooth.backends.base import Array


@jax.custom_jvp
def log_odds(logits: Array, labels: Array) -> Array:
    """`formulas.label_log_odds` of class ids that are in range, before the factor for the others."""
    return _odds_and_gradient(logits, labels)[0]


@log_odds.defjvp
def _log_odds_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    odds, gradient = _odds_and_gradient(*primals)
    return odds, jnp.sum(gradient * tangents[0], axis=-1)


def _odds_and_gradient(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The odds; and 1 at the label, less the softmax of the other classes."""
    classes = jax.lax.broadcasted_iota(labels.dtype, (1,) * labels.ndim + logits.shape[-1:], labels.ndim)
    at_label = classes == labels[..., None]
    others = jnp.where(at_label, -jnp.inf, logits)
    top = jax.lax.stop_gradient(jnp.max(others, axis=-1))
    alone = top == -jnp.inf
    top = jnp.where(jnp.isinf(top), 0.0, top)
    terms = jnp.exp(others - top[..., None])
    total = jnp.where(alone, 1.0, jnp.sum(terms, axis=-1))
    label = jnp.take_along_axis(logits, labels[..., None], axis=-1, mode="clip")[..., 0]
    odds = jnp.where(alone, jnp.inf, label - top - jnp.log(total))
    return odds, jnp.where(at_label, jnp.where(alone, 0.0, 1.0)[..., None], -terms / total[..., None])
