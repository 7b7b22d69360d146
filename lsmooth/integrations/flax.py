"""A training step for Flax NNX models, in Optax' idiom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from lsmooth.losses import softmax_cross_entropy


def make_train_step(
    loss: Callable[..., jax.Array] = softmax_cross_entropy, **options: Any
) -> Callable[[nnx.Module, nnx.Optimizer, Any, Any], jax.Array]:
    """One compiled step of gradient descent: logits, loss, gradient, update.

    The model is called with the inputs and returns logits; the loss is that of
    ``loss(labels, logits, **options)``, a scalar. The step updates model and optimizer in place.

    Args:
        loss: a function of `lsmooth.losses`, or one with its argument order.
        **options: the loss's own.

    Returns:
        ``step(model, optimizer, inputs, labels)``, which returns the loss before the update.

    Source: the training loop of Flax' NNX guide, with Optax behind ``nnx.Optimizer``.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from flax import nnx
        >>> from lsmooth.integrations.flax import make_train_step
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> optimizer = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
        >>> step = make_train_step(label_smoothing=0.1)
        >>> inputs, labels = jnp.eye(2), jnp.array([0, 2])
        >>> bool(step(model, optimizer, inputs, labels) > step(model, optimizer, inputs, labels))
        True
    """

    @nnx.jit
    def step(model: nnx.Module, optimizer: nnx.Optimizer, inputs: Any, labels: Any) -> jax.Array:
        def objective(model: Any) -> jax.Array:
            return loss(labels, model(inputs), **options)

        value, gradient = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradient)
        return value

    return step
