"""Losses in Optax' and JAX' own functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from lsmooth.bench.suites._frameworks import ALPHA, EPS, SEQUENCES, TEMPERATURE


def cross_entropy(x: Array, y: Array) -> Array:
    """Smoothed one-hot labels."""
    onehot = jax.nn.one_hot(y, x.shape[-1])
    return optax.softmax_cross_entropy(x, optax.smooth_labels(onehot, EPS)).mean()


def focal(x: Array, y: Array) -> Array:
    """The formula over the cross-entropy."""
    nll = optax.softmax_cross_entropy_with_integer_labels(x, y)
    return ((1 - jnp.exp(-nll)) ** 2 * nll).mean()


def sigmoid_cross_entropy(x: Array, y: Array) -> Array:
    """Smoothed by eps / 2."""
    return optax.sigmoid_binary_cross_entropy(x, y * (1 - EPS) + EPS / 2).mean()


def forward_kl(x: Array, teacher: Array) -> Array:
    """KL(teacher, student)."""
    log_t, log_s = (jax.nn.log_softmax(z / TEMPERATURE) for z in (teacher, x))
    return TEMPERATURE**2 * optax.losses.kl_divergence_with_log_targets(log_s, log_t).mean()


def forward_kl_and_cross_entropy(x: Array, teacher: Array, y: Array) -> Array:
    """The weighted sum of both."""
    hard = optax.losses.softmax_cross_entropy_with_integer_labels(x, y).mean()
    return (1.0 - ALPHA) * hard + ALPHA * forward_kl(x, teacher)


def linear_cross_entropy(h: Array, w: Array, y: Array) -> Array:
    """The head, then the smoothed loss."""
    return cross_entropy(h @ w.T, y)


def linear_forward_kl(h: Array, w: Array, teacher_h: Array, teacher_w: Array) -> Array:
    """Both heads, then the forward KL."""
    return forward_kl(h @ w.T, teacher_h @ teacher_w.T)


def dpo(h: Array, w: Array, y: Array) -> Array:
    """The DPO loss of sequences, chosen ones first; the reference's log-probabilities are equal."""
    tokens = jnp.take_along_axis(jax.nn.log_softmax(h @ w.T), y[:, None], -1)
    log_p = tokens.reshape(SEQUENCES, -1).sum(-1)
    return -jax.nn.log_sigmoid(0.1 * (log_p[: SEQUENCES // 2] - log_p[SEQUENCES // 2 :])).mean()
