"""Numbers are arguments of JAX's programs: other values of an option need no compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import compilations
import numpy as np
import pytest
from conftest import require_backend

from lsmooth.distillation import distillation_loss
from lsmooth.losses import (
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_statistics,
    softmax_focal_loss,
)

SMALL, LARGE = (4, 8), (1024, 1024)  # of the second, the sums are taken by loops over blocks

CALLS: dict[str, Callable[..., Any]] = {
    "label_smoothing": lambda y, t, z, x: softmax_cross_entropy(y, z, label_smoothing=x),
    "temperature": lambda y, t, z, x: softmax_cross_entropy(y, z, temperature=x),
    "z_loss": lambda y, t, z, x: softmax_cross_entropy(y, z, z_loss=x),
    "logit_softcap": lambda y, t, z, x: softmax_cross_entropy(y, z, logit_softcap=x),
    "sigmoid label_smoothing": lambda y, t, z, x: sigmoid_cross_entropy(t, z, label_smoothing=x),
    "teacher's temperature": lambda y, t, z, x: distillation_loss(t, z, temperature=x),
    "reverse temperature": lambda y, t, z, x: distillation_loss(t, z, temperature=x, divergence="reverse_kl"),
    "jensen_shannon beta": lambda y, t, z, x: distillation_loss(t, z, divergence="jensen_shannon", beta=x),
    "alpha divergence": lambda y, t, z, x: distillation_loss(t, z, divergence="alpha", alpha=x),
}


TRACED: dict[str, Callable[..., Any]] = {
    "smoothed": lambda y, t, z: softmax_cross_entropy(y, z, label_smoothing=0.1),
    "distributions": lambda y, t, z: softmax_cross_entropy(t, z, z_loss=0.1),
    "focal": lambda y, t, z: softmax_focal_loss(y, z),
    "statistics": lambda y, t, z: softmax_cross_entropy_with_statistics(y, z)[0],
    "distillation": lambda y, t, z: distillation_loss(t, z, temperature=2.0),
}


@pytest.mark.parametrize("loss", TRACED)
def test_a_traced_loss_nests_no_jit(loss: str):
    """Each function under jit is traced and differentiated apart, which takes longer than to run a small batch."""
    require_backend("jax")
    import jax

    labels, floats = jax.ShapeDtypeStruct((4,), "int32"), jax.ShapeDtypeStruct((4, 8), "float32")
    program = str(jax.make_jaxpr(jax.grad(TRACED[loss], 2))(labels, floats, floats))
    assert "jit[" not in program


@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("option", CALLS)
def test_another_number_compiles_nothing(option: str, shape: tuple[int, int]):
    require_backend("jax")
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=shape), jnp.float32)
    teacher = jnp.asarray(rng.uniform(size=shape), jnp.float32)
    labels = jnp.asarray(rng.integers(0, shape[1], shape[0]))

    def value_and_gradient(x: float) -> Any:
        return jax.value_and_grad(lambda z: CALLS[option](labels, teacher, z, x))(logits)

    first = value_and_gradient(0.3)
    with compilations.of_jax() as count:
        second = value_and_gradient(0.4)
    assert count() == 0
    expected = CALLS[option](np.asarray(labels), *(np.asarray(x, np.float64) for x in (teacher, logits)), 0.4)
    np.testing.assert_allclose(second[0], expected, rtol=2e-5)
    assert float(first[0]) != float(second[0])
