"""JAX: a digit classifier in Flax NNX and Optax, trained on smoothed labels."""

import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from lsmooth.losses import softmax_cross_entropy


@nnx.jit
def train_step(model: nnx.Module, optimizer: nnx.Optimizer, images: jnp.ndarray, labels: jnp.ndarray) -> jnp.ndarray:
    """One step of gradient descent; returns the loss before it."""

    def loss(model: nnx.Module) -> jnp.ndarray:
        return softmax_cross_entropy(labels, model(images), label_smoothing=0.1)

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


def main(steps: int = 60) -> list[float]:
    """Train on the whole data set and print the loss as it falls."""
    digits = load_digits()
    images, labels = jnp.asarray(digits.data / 16.0, jnp.float32), jnp.asarray(digits.target)
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(64, 64, rngs=rngs), nnx.relu, nnx.Linear(64, 10, rngs=rngs))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    losses = [float(train_step(model, optimizer, images, labels)) for _ in range(steps)]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses


if __name__ == "__main__":
    main()
