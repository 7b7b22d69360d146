# %% [markdown]
# # Train in JAX with label smoothing
#
# The loss is a function of arrays. It works under `jit`, `grad` and `vmap`.

# %%
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from lsmooth.losses import softmax_cross_entropy

digits = load_digits()
inputs, labels = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
parameters = {"weights": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
optimizer = optax.adam(1e-1)


# %%
def loss(parameters):
    logits = inputs @ parameters["weights"] + parameters["bias"]
    return softmax_cross_entropy(labels, logits, label_smoothing=0.1)


@jax.jit
def step(parameters, state):
    value, gradient = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(parameters, updates), state, value


# %%
state, losses = optimizer.init(parameters), []
for _ in range(60):
    parameters, state, value = step(parameters, state)
    losses.append(float(value))
print(f"{losses[0]:.3f}, then {losses[-1]:.3f}")
assert 0.5 < losses[-1] < 0.8 < 2.3 < losses[0]  # 0.5 is the entropy of the smoothed labels
