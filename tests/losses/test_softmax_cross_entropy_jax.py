"""Softmax cross-entropy under JAX's transformations."""

from __future__ import annotations

import re

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402
from conftest import require_backend  # noqa: E402
from loss_parity import distributions, float32_exact  # noqa: E402

from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 2])
LOGITS = float32_exact(RNG, (4, 3))
SOFT = distributions(RNG, (4, 3))
EPS, TEMPERATURE, WEIGHT = 0.2, 2.0, np.array([0.5, 1.0, 0.0, 2.0])


@pytest.fixture(autouse=True)
def _needs_jax():
    require_backend("jax")


def close(actual, expected, rtol=1e-12):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["integers", "soft"])
def test_jit_with_every_tensor_traced(labels):
    """Options too: no value is read, so other values need no compilation."""
    traces = []

    @jax.jit
    def loss(labels, logits, eps, temperature, weight, prior):
        traces.append(1)
        return softmax_cross_entropy(
            labels,
            logits,
            label_smoothing=eps,
            temperature=temperature,
            sample_weight=weight,
            smoothing_prior=prior,
            z_loss=0.01,
        )

    for eps in (0.0, EPS, 1.0):
        options = {"label_smoothing": eps, "temperature": TEMPERATURE, "sample_weight": WEIGHT, "z_loss": 0.01}
        options["smoothing_prior"] = np.array([0.5, 0.3, 0.2])
        expected, expected_gradient = reference.softmax_cross_entropy(labels, LOGITS, **options)
        tensors = [jnp.asarray(x) for x in (labels, LOGITS, eps, TEMPERATURE, WEIGHT, options["smoothing_prior"])]
        close(loss(*tensors), expected)
        close(jax.grad(loss, argnums=1)(*tensors), expected_gradient)
    assert len(traces) <= 2  # one for the value, one for the gradient


def test_vmap_over_examples_and_over_options():
    logits = jnp.asarray(LOGITS)
    expected = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="none")[0]
    close(
        jax.vmap(lambda y, z: softmax_cross_entropy(y, z, label_smoothing=EPS))(jnp.asarray(LABELS), logits), expected
    )
    many = jax.vmap(lambda eps: softmax_cross_entropy(LABELS, logits, label_smoothing=eps))(jnp.asarray([0.0, 0.5]))
    close(many, [reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=eps)[0] for eps in (0.0, 0.5)])
    close(
        jax.vmap(jax.grad(lambda z, y: softmax_cross_entropy(y, z, label_smoothing=EPS)))(logits, jnp.asarray(LABELS)),
        reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="sum")[1],
    )
    close(
        jax.vmap(sigmoid_cross_entropy)(jnp.asarray(SOFT), logits),
        reference.sigmoid_cross_entropy(SOFT, LOGITS, reduction="none")[0].mean(-1),
    )


def test_vmap_over_the_classes_axis_of_an_image():
    image = float32_exact(np.random.default_rng(1), (2, 3, 4, 5))
    labels = np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    close(
        jax.vmap(lambda y, z: softmax_cross_entropy(y, z, axis=0, reduction="none"))(
            jnp.asarray(labels), jnp.asarray(image)
        ),
        reference.softmax_cross_entropy(labels, image, axis=1, reduction="none")[0],
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("labels", [LABELS, np.eye(3)[LABELS]], ids=["integers", "soft"])
def test_forward_mode_and_second_derivatives(labels, masked):
    """The Hessian of a row is (diag(p) - p p^T) / T^2, also where a class is masked."""
    logits = LOGITS.copy()
    if masked:
        logits[0, 1] = -np.inf
    z = jnp.asarray(logits)

    def loss(z):
        return softmax_cross_entropy(labels, z, label_smoothing=EPS, temperature=TEMPERATURE, reduction="sum")

    _, gradient = reference.softmax_cross_entropy(
        labels, logits, label_smoothing=EPS, temperature=TEMPERATURE, reduction="sum"
    )
    close(jax.jacfwd(loss)(z), gradient)
    close(jax.jacrev(loss)(z), gradient)
    p = np.exp(logits / TEMPERATURE)
    p = p / p.sum(-1, keepdims=True)
    hessian = np.zeros((4, 3, 4, 3))
    for i in range(4):
        hessian[i, :, i] = (np.diag(p[i]) - np.outer(p[i], p[i])) / TEMPERATURE**2
    close(jax.hessian(loss)(z), hessian)


def test_forward_mode_through_ignored_rows():
    logits = jnp.asarray(LOGITS).at[1].set(jnp.nan)
    gradient = jax.jacfwd(lambda z: softmax_cross_entropy(LABELS, z, ignore_index=2, label_smoothing=EPS))(logits)
    assert np.isfinite(gradient).all()
    close(gradient[1], np.zeros(3))


def test_without_x64_the_result_is_float32():
    with jax.enable_x64(False):
        value = softmax_cross_entropy(LABELS, jnp.asarray(LOGITS), label_smoothing=EPS, sample_weight=WEIGHT)
        assert value.dtype == "float32"
        close(
            value, reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, sample_weight=WEIGHT)[0], 1e-6
        )
        for dtype in (np.int64, np.uint8, np.int32):
            gradient = jax.grad(lambda z, dtype=dtype: softmax_cross_entropy(LABELS.astype(dtype), z))(
                jnp.asarray(LOGITS)
            )
            assert gradient.dtype == "float32"
            close(gradient, reference.softmax_cross_entropy(LABELS, LOGITS)[1], 1e-6)


def test_shapes_are_known_without_values():
    out = jax.eval_shape(
        lambda y, z: softmax_cross_entropy(y, z, label_smoothing=EPS, reduction="none"),
        jax.ShapeDtypeStruct((7, 2), "int32"),
        jax.ShapeDtypeStruct((7, 2, 5), "bfloat16"),
    )
    assert (out.shape, out.dtype) == ((7, 2), "float32")


def test_no_one_hot_label_is_formed():
    """All arrays of the size of the logits are floats; one-hot labels would need a comparison."""
    jaxpr = str(jax.make_jaxpr(softmax_cross_entropy)(np.zeros(8, np.int32), np.zeros((8, 1000))))
    assert "f64[8,1000]" in jaxpr
    assert not re.search(r"(bool|[iu]\d+)\[8,1000\]", jaxpr)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
@pytest.mark.parametrize("rows", [13, 14], ids=["small", "large"])
def test_small_and_medium_programs_have_neither_branch_nor_scatter(rows, dtype):
    """Both take XLA long to compile, for every batch size. Classes, but no labels, are masked."""
    rng = np.random.default_rng(2)
    logits, labels = float32_exact(rng, (rows, 300)), rng.integers(0, 44, rows).astype(dtype)
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    logits[np.arange(rows), labels] = 1.0

    def loss(z):
        return softmax_cross_entropy(jnp.asarray(labels), z, label_smoothing=EPS)

    step = jax.jit(jax.value_and_grad(loss))
    text = str(jax.make_jaxpr(step)(logits))
    assert "cond[" not in text
    assert "scatter" not in text
    value, gradient = reference.softmax_cross_entropy(labels, logits, label_smoothing=EPS)
    close(step(jnp.asarray(logits))[0], value)
    close(step(jnp.asarray(logits))[1], gradient)
    close(jax.jacfwd(loss)(jnp.asarray(logits)), gradient)
    each = softmax_cross_entropy(labels.astype(int) + 290, jnp.asarray(logits), reduction="none")
    assert (np.isnan(each) == (labels >= 10)).all()


def test_the_loss_runs_under_scan_and_checkpoint():
    logits = jnp.asarray(np.stack([LOGITS, LOGITS]))

    def total(z):
        step = jax.checkpoint(lambda carry, z: (carry + softmax_cross_entropy(LABELS, z, label_smoothing=EPS), None))
        return jax.lax.scan(step, jnp.zeros(()), z)[0]

    expected, gradient = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS)
    close(total(logits), 2.0 * expected)
    close(jax.grad(total)(logits), np.stack([gradient, gradient]))


def test_an_eager_call_compiles_nothing_the_second_time(caplog):
    def call():
        softmax_cross_entropy(jnp.asarray(LABELS), jnp.asarray(LOGITS), label_smoothing=EPS).block_until_ready()

    call()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        call()
    assert not [record.message for record in caplog.records if "Compiling" in record.message]


def test_another_number_compiles_nothing(caplog):
    """Smoothing and temperature may follow a schedule."""

    def loss(z, eps, temperature):
        return softmax_cross_entropy(jnp.asarray(LABELS), z, label_smoothing=eps, temperature=temperature)

    def check(eps, temperature):
        expected, gradient = reference.softmax_cross_entropy(
            LABELS, LOGITS, label_smoothing=eps, temperature=temperature
        )
        close(loss(jnp.asarray(LOGITS), eps, temperature), expected)
        close(jax.grad(loss)(jnp.asarray(LOGITS), eps, temperature), gradient)

    check(0.3, 1.5)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        check(0.1, 2.0)
    assert not [record.message for record in caplog.records if "Compiling" in record.message]
    check(0.0, 1.0)


def test_a_call_outside_jit_is_one_program(caplog):
    logits, labels = jnp.asarray(LOGITS[:, :2]), jnp.asarray(LABELS % 2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        softmax_cross_entropy(labels, logits, label_smoothing=0.15, ignore_index=None)
    assert len([record.message for record in caplog.records if "Compiling" in record.message]) == 1


@pytest.mark.parametrize(("rows", "branches"), [(8388, False), (8389, True)])
def test_masked_classes_are_branched_on_only_in_large_batches(rows, branches):
    def loss(labels, logits):
        return softmax_cross_entropy(labels, logits, label_smoothing=EPS)

    labels, logits = jax.ShapeDtypeStruct((rows,), "int32"), jax.ShapeDtypeStruct((rows, 1000), "float32")
    assert ("cond[" in str(jax.make_jaxpr(jax.grad(loss, 1))(labels, logits))) == branches


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_smoothing_forms_no_array_of_the_logits_size(temperature):
    """From 2^23 logits on: XLA would otherwise keep the differences that the mean and the log-sum-exp both read."""
    logits, labels = jax.ShapeDtypeStruct((4096, 4096), "float32"), jax.ShapeDtypeStruct((4096,), "int32")

    def loss(labels, logits):
        return softmax_cross_entropy(labels, logits, label_smoothing=0.1, temperature=temperature)

    program = jax.jit(loss).lower(labels, logits).compile().as_text()
    outside_branches = program[program.index("\nENTRY") :].splitlines()
    assert not [line for line in outside_branches if "= f32[4096,4096]" in line and "parameter(" not in line]
