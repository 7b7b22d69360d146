"""Divergences by blocks of rows on JAX, against the formulas they stand for."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.formulas import divergence  # noqa: E402
from lsmooth.backends.jax import divergence as kernel  # noqa: E402
from lsmooth.backends.jax import thresholds  # noqa: E402
from lsmooth.backends.options import DivergenceOptions  # noqa: E402
from lsmooth.distillation import distillation_loss  # noqa: E402

jnp = jax.numpy
ROWS, CLASSES = 11, 6
OPTIONS = {"temperature": 2.0, "scale_by_temperature_squared": False}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of three rows, the last of two; and no formula to fall back on."""
    require_backend("jax")
    if jax.device_count() > 1 or jax.default_backend() != "cpu":
        pytest.skip("the kernel is for one CPU")
    monkeypatch.setattr(thresholds, "BLOCK_ELEMENTS", 3 * CLASSES)
    monkeypatch.setattr(thresholds, "BLOCKED_ELEMENTS", 3 * CLASSES)
    kernel._sweep.clear_cache()
    yield
    kernel._sweep.clear_cache()


@pytest.fixture
def fused(monkeypatch):
    """Fail if the formula is called during the test."""
    monkeypatch.setattr(formulas, "softmax_divergence", None)


def pair(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(0.0, 2.0, (ROWS, CLASSES))) for _ in range(2))


def formula(teacher, student, **options):
    return formulas.softmax_divergence(load_backend("jax"), teacher, student, DivergenceOptions(**options))


def close(actual, expected, tolerance=1e-11):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_small_logits_use_the_formula(fused):
    t, s = (z[:2] for z in pair())
    with pytest.raises(TypeError):
        distillation_loss(t, s)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_values_and_gradients(fused, monkeypatch, wrap):
    t, s = pair()
    rows = wrap(lambda z: distillation_loss(t, z, reduction="none", **OPTIONS))(s)
    slope = wrap(jax.grad(lambda z: distillation_loss(t, z, **OPTIONS)))(s)
    monkeypatch.undo()
    close(rows, formula(t, s, temperature=2.0))
    close(slope, jax.grad(lambda z: formula(t, z, temperature=2.0).mean())(s))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("name", sorted(set(divergence.DIVERGENCES) - set(divergence.OF_LOGITS)))
def test_every_divergence_with_weights_of_rows(name, wrap):
    """Ignored rows too; the gradients of both the student and the weights, of the rows and of their sum."""
    t, s = (z.at[:, 1].set(-jnp.inf) for z in pair())
    counted, weight = jnp.arange(ROWS) % 4 != 1, jnp.linspace(0.5, 2.0, ROWS)
    options = {"divergence": name, "parameter": 0.3, "temperature": 2.0, "counted": counted}
    xp = load_backend("jax")

    def blocks(z, w):
        return xp.softmax_divergence(t, z, DivergenceOptions(scale=w, constant_teacher=True, **options))

    def whole(z, w):
        return formula(t, z, scale=w, **options)

    for total in (jnp.sum, lambda rows: jnp.sum(rows * jnp.arange(1.0, ROWS + 1.0))):
        ours, theirs = (
            wrap(jax.value_and_grad(lambda z, w, f=f, total=total: total(f(z, w)), (0, 1)))(s, weight)
            for f in (blocks, whole)
        )
        jax.tree.map(close, ours, theirs)
        assert (ours[1][0][~counted] == 0).all()
    given = {"constant_teacher": True, "total": True, "scale": 0.25, **options}
    close(xp.softmax_divergence(t, s, DivergenceOptions(**given)), 0.25 * whole(s, 1.0).sum())


@pytest.mark.parametrize("rows", [7, 12, ROWS])
def test_blocks_of_one_size_where_there_are_such(rows):
    """12 rows make blocks of three; of 7 and of 11 some are left."""
    t, s = (jnp.tile(z, (2, 1))[:rows] for z in pair())
    value, slope = jax.value_and_grad(lambda z: distillation_loss(t, z, **OPTIONS))(s)
    expected, expected_slope = jax.value_and_grad(lambda z: formula(t, z, temperature=2.0).mean())(s)
    close(value, expected)
    close(slope, expected_slope)
    text = str(jax.make_jaxpr(jax.grad(lambda z: distillation_loss(t, z, **OPTIONS)))(s))
    assert ("concatenate" in text) == (rows % 3 != 0)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_checkpoint_and_float16_with_a_scale_of_the_loss(name):
    """Small factors of rows underflow in half precision unless the loss is scaled before the cast."""
    t, s = (z.astype("float16") for z in pair())

    def loss(z):
        return 2.0**20 * distillation_loss(t, z, sample_weight=1e-6, reduction="sum", divergence=name, **OPTIONS)

    slope = jax.grad(jax.checkpoint(loss))(s)
    exact = jax.grad(lambda z: 2.0**20 * 1e-6 * formula(t, z, temperature=2.0, divergence=name).sum())(
        s.astype("float64")
    )
    assert slope.dtype == "float16"
    close(slope.astype("float64"), exact, 1e-3)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian, lambda f: jax.jacfwd(jax.hessian(f))])
def test_derivatives_of_every_order_and_mode(derivative):
    t, s = pair()
    close(
        derivative(lambda z: distillation_loss(t, z, **OPTIONS))(s),
        derivative(lambda z: formula(t, z, temperature=2.0).mean())(s),
    )


def test_vmap_of_gradients(monkeypatch):
    t, s = (jnp.stack([a, b, -a]) for a, b in zip(pair(0), pair(1), strict=True))
    each = jax.vmap(jax.grad(lambda z, a: distillation_loss(a, z, **OPTIONS)))(s, t)
    close(each, jax.vmap(jax.grad(lambda z, a: formula(a, z, temperature=2.0).mean()))(s, t))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_masked_rows_may_hold_any_finite_or_infinite_values(fused, garbage):
    t, s = pair()
    counted = np.arange(ROWS) % 3 != 0
    expected = jax.value_and_grad(lambda z: distillation_loss(t, z, mask=counted, **OPTIONS))(s)
    t, s = (z.at[~counted].set(garbage) for z in (t, s))
    value, slope = jax.value_and_grad(lambda z: distillation_loss(t, z, mask=counted, **OPTIONS))(s)
    close(value, expected[0])
    close(slope, expected[1])
    assert (slope[~counted] == 0).all()


def test_masked_classes():
    t, s = (z.at[:, 2].set(-jnp.inf) for z in pair())
    t = t.at[4, 3].set(-jnp.inf)
    value, slope = jax.value_and_grad(lambda z: distillation_loss(t, z, **OPTIONS))(s)
    expected, expected_slope = jax.value_and_grad(lambda z: formula(t, z, temperature=2.0).mean())(s)
    close(value, expected)
    close(slope, expected_slope)
    assert jnp.isfinite(jax.hessian(lambda z: distillation_loss(t, z, **OPTIONS))(s)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_precision(fused, monkeypatch, dtype):
    t, s = (z.astype(dtype) for z in pair())
    value, slope = jax.value_and_grad(lambda z: distillation_loss(t, z, **OPTIONS))(s)
    assert (value.dtype, slope.dtype) == (jnp.float32, s.dtype)
    monkeypatch.undo()
    exact = [z.astype("float64") for z in (t, s)]
    close(value, formula(*exact, temperature=2.0).mean(), 2e-6)
    close(slope.astype("float64"), jax.grad(lambda z: formula(exact[0], z, temperature=2.0).mean())(exact[1]), 4e-3)


def test_far_logits_and_leading_axes(fused):
    t, s = pair()
    rows = distillation_loss(t + 1e6, s - 1e6, reduction="none")
    close(rows, distillation_loss(t, s, reduction="none"), 1e-8)
    cube = [z[:10].reshape(2, 5, CLASSES) for z in (t, s)]
    close(distillation_loss(*cube, reduction="none"), distillation_loss(t, s, reduction="none")[:10].reshape(2, 5))


def test_a_teacher_that_requires_a_gradient_gets_one():
    t, s = pair()
    slope = jax.grad(lambda z: distillation_loss(z, s, stop_teacher_gradient=False))(t)
    close(slope, jax.grad(lambda z: formula(z, s).mean())(t))
    assert (slope != 0).all()
