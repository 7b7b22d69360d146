"""Flax NNX and Optax; one compilation serves every seed and every setting."""
# ruff: noqa: D102 (documented in lsmooth.study.trainers.base)

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lsmooth.study.config import Training
from lsmooth.study.trainers.base import Objective, batches, layer_sizes


class JaxNetwork(nnx.Module):
    """Linear layers with ReLUs between; Glorot's initial weights, as in the other frameworks."""

    def __init__(self, sizes: tuple[int, ...], rngs: nnx.Rngs):
        init = nnx.initializers.glorot_uniform()
        layers = [nnx.Linear(rows, columns, kernel_init=init, rngs=rngs) for rows, columns in pairwise(sizes)]
        self.hidden = nnx.List(layers[:-1])
        self.output = layers[-1]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.output(self.features(x))

    def features(self, inputs: np.ndarray | jax.Array) -> jax.Array:
        x = jnp.asarray(inputs)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return x

    def logits(self, inputs: np.ndarray) -> jax.Array:
        return self(jnp.asarray(inputs))

    def output_weight(self) -> jax.Array:
        return self.output.kernel[...].T


@lru_cache  # the same object each time, since nnx.jit compiles for each new optimiser
def _adam(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate)


@partial(nnx.jit, static_argnames="objective")
def _train_round(
    network: JaxNetwork,
    optimizer: nnx.Optimizer,
    x: jax.Array,
    y: jax.Array,
    steps: jax.Array,
    setting: jax.Array,
    objective: Objective,
) -> None:
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def step(carry: tuple[JaxNetwork, nnx.Optimizer], rows: jax.Array) -> tuple[JaxNetwork, nnx.Optimizer]:
        network, optimizer = carry
        gradients = nnx.grad(lambda network: objective(y[rows], network(x[rows]), setting))(network)
        optimizer.update(network, gradients)
        return carry

    step((network, optimizer), steps)


class JaxTrainer:
    """`Trainer` over JAX, on its default device."""

    def versions(self) -> dict[str, str]:
        return {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}

    def train(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        objective: Objective,
        setting: float,
        *,
        num_classes: int,
        seed: int,
        training: Training,
        after_round: Callable[[JaxNetwork], None],
    ) -> JaxNetwork:
        network = JaxNetwork(layer_sizes(inputs, num_classes, training), nnx.Rngs(seed))
        optimizer = nnx.Optimizer(network, _adam(training.learning_rate), wrt=nnx.Param)
        x, y, number = jnp.asarray(inputs), jnp.asarray(targets), jnp.float32(setting)
        for steps in batches(len(inputs), training, seed):
            _train_round(network, optimizer, x, y, jnp.asarray(steps), number, objective)
            after_round(network)
        return network


TRAINER = JaxTrainer()
