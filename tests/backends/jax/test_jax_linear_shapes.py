"""Linear heads on JAX: without jit, with symbolic shapes, and with devices that hold no arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.distillation import linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy

ROWS, FEATURES, CLASSES = 12, 3, 7
BLOCK = 4

rng = np.random.default_rng(0)
HIDDEN, TEACHER_HIDDEN = (rng.normal(size=(ROWS, FEATURES)) for _ in range(2))
WEIGHT, TEACHER_WEIGHT = (rng.normal(size=(CLASSES, FEATURES)) for _ in range(2))
BIAS, PRIOR = rng.normal(size=CLASSES), rng.dirichlet(np.ones(CLASSES))
LABELS = np.where(np.arange(ROWS) % 4 == 1, -100, np.arange(ROWS) % CLASSES)
EPS, TEMPERATURE, SAMPLE_WEIGHT = rng.uniform(0.1, 0.3, ROWS), rng.uniform(1.0, 2.0, ROWS), rng.uniform(size=ROWS)

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ignored rows": {"ignore_index": -100},
    "per row": {"ignore_index": -100, "label_smoothing": EPS, "temperature": TEMPERATURE},
    "per class": {"ignore_index": -100, "smoothing_prior": PRIOR, "class_weight": PRIOR, "label_smoothing": EPS},
    "weighted": {"ignore_index": -100, "sample_weight": SAMPLE_WEIGHT, "temperature": TEMPERATURE},
}


@pytest.fixture(autouse=True)
def jax_is_tried() -> None:
    require_backend("jax")


def cross_entropy(hidden: Any, weight: Any, labels: Any, reduction: str, options: dict[str, Any]) -> Any:
    return linear_softmax_cross_entropy(
        labels, hidden, weight, BIAS, reduction=reduction, block_size=BLOCK, **{"label_smoothing": 0.1, **options}
    )


def distillation(hidden: Any, weight: Any, labels: Any, reduction: str, options: dict[str, Any]) -> Any:
    named = {name: x for name, x in options.items() if name not in ("smoothing_prior", "class_weight")}
    return linear_distillation_loss(
        TEACHER_HIDDEN,
        TEACHER_WEIGHT,
        hidden,
        weight,
        student_bias=BIAS,
        labels=labels,
        alpha=0.25,
        reduction=reduction,
        block_size=BLOCK,
        **{"label_smoothing": 0.1, **named},
    )


LOSSES = {"cross_entropy": cross_entropy, "distillation": distillation}


def labels_for(options: dict[str, Any]) -> np.ndarray:
    return LABELS if "ignore_index" in options else LABELS % CLASSES


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_the_same_without_jit(loss: str, options: str, reduction: str):
    import jax
    import jax.numpy as jnp

    labels = labels_for(OPTIONS[options])
    expected = LOSSES[loss](HIDDEN, WEIGHT, labels, reduction, OPTIONS[options])

    def total(hidden: Any, weight: Any) -> Any:
        losses = LOSSES[loss](hidden, weight, jnp.asarray(labels), reduction, OPTIONS[options])
        return (losses * jnp.arange(1.0, losses.size + 1).reshape(losses.shape)).sum(), losses

    compiled = jax.jit(jax.grad(total, (0, 1), has_aux=True))(HIDDEN, WEIGHT)
    with jax.disable_jit():
        gradients, losses = jax.grad(total, (0, 1), has_aux=True)(jnp.asarray(HIDDEN), jnp.asarray(WEIGHT))
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(compiled[1], expected, rtol=1e-9)
    for got, wanted in zip(gradients, compiled[0], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_exported_losses_take_any_number_of_rows(loss: str, reduction: str):
    import jax
    from jax import export

    options = {"ignore_index": -100}

    def step(hidden: Any, weight: Any, labels: Any) -> Any:
        def total(hidden: Any, weight: Any) -> Any:
            hidden = hidden.reshape(hidden.shape)
            if loss == "distillation":
                losses = linear_distillation_loss(
                    0.5 * hidden, TEACHER_WEIGHT, hidden, weight, reduction=reduction, block_size=BLOCK
                )
            else:
                losses = linear_softmax_cross_entropy(
                    labels, hidden, weight, BIAS, label_smoothing=0.1, reduction=reduction, block_size=BLOCK, **options
                )
            return losses.sum()

        return jax.value_and_grad(total, (0, 1))(hidden, weight)

    (rows,) = export.symbolic_shape("rows")
    float64, int64 = np.dtype("float64"), np.dtype("int64")
    arguments = [
        jax.ShapeDtypeStruct((rows, FEATURES), float64),
        jax.ShapeDtypeStruct((CLASSES, FEATURES), float64),
        jax.ShapeDtypeStruct((rows,), int64),
    ]
    exported = export.export(jax.jit(step))(*arguments)
    for n in (1, BLOCK, BLOCK + 3, ROWS):
        given = HIDDEN[:n], WEIGHT, LABELS[:n]
        value, gradients = exported.call(*given)
        wanted, wanted_gradients = jax.jit(step)(*given)
        np.testing.assert_allclose(value, wanted, rtol=1e-9)
        for got, there in zip(gradients, wanted_gradients, strict=True):
            np.testing.assert_allclose(got, there, rtol=1e-9, atol=1e-12)


MEMORY = """
import jax, jax.numpy as jnp
from lsmooth.distillation import linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy

hidden, weight, labels = jnp.zeros((2048, 16)), jnp.zeros((16000, 16)), jnp.zeros(2048, jnp.int32)
losses = (
    lambda h, w: linear_softmax_cross_entropy(labels, h, w, label_smoothing=0.1),
    lambda h, w: linear_softmax_cross_entropy(labels, h, w, reduction="none").sum(),
    lambda h, w: linear_distillation_loss(h, w, h, w, temperature=2.0),
)
for loss in losses:
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(hidden, weight).compile()
    print(compiled.memory_analysis().temp_size_in_bytes)
"""


def test_devices_that_hold_nothing_cost_no_memory():
    taken = []
    for devices in (1, 8):
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        done = subprocess.run(
            [sys.executable, "-c", MEMORY], capture_output=True, text=True, env=environment, check=True
        )
        taken.append([int(line) for line in done.stdout.split()])
    for alone, beside_others in zip(*taken, strict=True):
        assert beside_others < 1.25 * alone
        assert beside_others < 2048 * 16000 * 4
