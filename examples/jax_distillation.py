"""JAX: a small student learns the digits from a larger teacher, in Flax NNX and Optax."""

import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from lsmooth.distillation import DistillationLoss
from lsmooth.integrations.flax import make_distillation_step, make_train_step


def network(width: int, seed: int) -> nnx.Module:
    """Two layers, from pixels to logits."""
    rngs = nnx.Rngs(seed)
    return nnx.Sequential(nnx.Linear(64, width, rngs=rngs), nnx.relu, nnx.Linear(width, 10, rngs=rngs))


def main(steps: int = 60) -> list[float]:
    """Train a teacher, then a student on half the images, and print how often they are right on the other half."""
    digits = load_digits()
    images, labels = jnp.asarray(digits.data / 16.0, jnp.float32), jnp.asarray(digits.target)
    half = len(labels) // 2
    batch, held_out = (images[:half], labels[:half]), (images[half:], labels[half:])

    teacher = network(128, seed=0)
    optimizer = nnx.Optimizer(teacher, optax.adam(0.01), wrt=nnx.Param)
    train = make_train_step()
    for _ in range(steps):
        train(teacher, optimizer, *batch)

    student = network(16, seed=1)
    optimizer = nnx.Optimizer(student, optax.adam(0.02), wrt=nnx.Param)
    distil = make_distillation_step(DistillationLoss(alpha=0.9, temperature=4.0))
    losses = [float(distil(student, optimizer, teacher, *batch)) for _ in range(steps)]

    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    for name, model in (("teacher", teacher), ("student", student)):
        right = jnp.mean(model(held_out[0]).argmax(-1) == held_out[1])
        print(f"{name} is right on {100 * float(right):.1f}% of the other half")
    return losses


if __name__ == "__main__":
    main()
