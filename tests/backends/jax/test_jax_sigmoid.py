"""The sigmoid cross-entropy with its gradient in closed form on JAX, by blocks and whole, against its formula."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

from conftest import require_backend  # noqa: E402

from lsmooth.backends import formulas, load_backend  # noqa: E402
from lsmooth.backends.jax import sigmoid, thresholds  # noqa: E402
from lsmooth.backends.options import SigmoidOptions  # noqa: E402
from lsmooth.losses import sigmoid_cross_entropy  # noqa: E402

jnp = jax.numpy
ROWS, COLUMNS, EPS = 7, 3, 0.2
EXTREMES = np.array([[-40.0, -2.0, 0.0], [0.5, 3.0, 40.0], [-800.0, 0.0, 800.0]])
WRAPPED = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


@pytest.fixture(params=[False, True], ids=["whole", "blocks"])
def in_blocks(request, monkeypatch):
    """Sums by blocks of two rows each, or without blocks."""
    require_backend("jax")
    if request.param and (jax.device_count() > 1 or jax.default_backend() != "cpu"):
        pytest.skip("blocks are for one CPU")
    if request.param:
        monkeypatch.setattr(thresholds, "BLOCK_ELEMENTS", 2 * COLUMNS)
        monkeypatch.setattr(thresholds, "BLOCKED_ELEMENTS", 3)
    sigmoid._sum.clear_cache()
    yield request.param
    sigmoid._sum.clear_cache()


@pytest.fixture
def fused(monkeypatch):
    """Fail if the formula is called during the test."""
    monkeypatch.setattr(formulas, "sigmoid_cross_entropy", None)


def example(rows=ROWS):
    rng = np.random.default_rng(rows)
    return jnp.asarray(rng.uniform(0.0, 1.0, (rows, COLUMNS))), jnp.asarray(rng.normal(0.0, 3.0, (rows, COLUMNS)))


def formula(labels, logits, eps=0.0):
    return formulas.sigmoid_cross_entropy(load_backend("jax"), logits, labels, SigmoidOptions(eps))


def mean(labels, logits):
    return sigmoid_cross_entropy(labels, logits, label_smoothing=EPS)


def expected_mean(labels, logits):
    return formula(labels, logits, EPS).mean()


def close(actual, expected, tolerance=1e-13):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=0)


@WRAPPED
@pytest.mark.parametrize("rows", [6, 7])
def test_values_and_gradients(in_blocks, fused, monkeypatch, wrap, rows):
    found = wrap(jax.value_and_grad(mean, (0, 1)))(*example(rows))
    looped = "scan" in str(jax.make_jaxpr(lambda *x: mean(*x))(*example(rows)))  # traces are cached by function
    monkeypatch.undo()
    assert looped == in_blocks
    jax.tree.map(close, found, jax.value_and_grad(expected_mean, (0, 1))(*example(rows)))


@WRAPPED
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_extreme_logits(in_blocks, fused, monkeypatch, wrap, reduction):
    """Every loss by itself as well, down to the smallest."""
    labels, z = jnp.asarray([[0.0, 1.0, 0.3], [0.7, 0.0, 1.0], [0.0, 0.5, 1.0]]), jnp.asarray(EXTREMES)

    def each(labels, z):
        losses = [sigmoid_cross_entropy(y, x, reduction=reduction) for y, x in zip(labels, z, strict=True)]
        return jnp.stack(losses)

    def total(labels, z):
        return each(labels, z).sum()

    found = wrap(each)(labels, z), *wrap(jax.grad(total, (0, 1)))(labels, z), wrap(jax.hessian(total, 1))(labels, z)
    monkeypatch.undo()
    losses = formula(labels, z)
    right = [losses.sum(-1) if reduction == "sum" else losses]
    right += [*jax.grad(lambda *x: formula(*x).sum(), (0, 1))(labels, z)]
    for actual, expected in zip(found, right, strict=False):
        close(actual, expected)
    odds = np.exp(-abs(EXTREMES.ravel()))
    close(found[3].reshape(9, 9), np.diag(odds / (1 + odds) ** 2))


@WRAPPED
def test_infinite_logits(in_blocks, fused, wrap):
    z, labels = jnp.asarray([-np.inf, np.inf, -np.inf, np.inf]), jnp.asarray([0.0, 1.0, 1.0, 0.0])
    for part, total in ((slice(0, 2), 0.0), (slice(2, 4), np.inf)):
        value, slope = wrap(jax.value_and_grad(lambda x, y: sigmoid_cross_entropy(y, x, reduction="sum")))(
            z[part], labels[part]
        )
        assert value == total
        np.testing.assert_array_equal(slope, 1 / (1 + np.exp(-z[part])) - labels[part])
        forward = wrap(jax.jacfwd(lambda x, y: sigmoid_cross_entropy(y, x, reduction="sum")))(z[part], labels[part])
        np.testing.assert_array_equal(forward, slope)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian, lambda f: jax.jacfwd(jax.hessian(f))])
@pytest.mark.parametrize("argument", [0, 1])
def test_derivatives_of_every_order_and_mode(in_blocks, derivative, argument):
    arguments = list(example())

    def of(loss):
        return lambda x: loss(*arguments[:argument], x, *arguments[argument + 1 :])

    found, expected = (derivative(of(loss))(arguments[argument]) for loss in (mean, expected_mean))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)


def test_vmap_and_upstream_factors(in_blocks):
    labels, z = (jnp.stack([x, x[::-1], 1 - x]) for x in example())
    found, expected = (
        jax.vmap(jax.grad(lambda y, x, f=f: -3.0 * f(y, x), 1))(labels, z) for f in (mean, expected_mean)
    )
    close(found, expected)


def test_weights_and_smoothing_of_each_element(in_blocks):
    """Which blocks do not know; one factor for all they do."""
    labels, z = example()
    weight, eps = jnp.linspace(0.5, 2.0, ROWS)[:, None], jnp.linspace(0.0, 0.5, ROWS * COLUMNS).reshape(z.shape)

    def ours(x, w, e):
        return sigmoid_cross_entropy(labels, x, label_smoothing=e, sample_weight=w, reduction="sum")

    def theirs(x, w, e):
        return (w * formula(labels, x, e)).sum()

    for w, e in ((weight, eps), (weight, jnp.asarray(EPS)), (jnp.asarray(2.5), eps)):
        found, expected = (jax.value_and_grad(f, (0, 1, 2))(z, w, e) for f in (ours, theirs))
        jax.tree.map(close, found, expected)
    found, expected = (jax.value_and_grad(f, (0, 1))(z, jnp.asarray(2.5), EPS) for f in (ours, theirs))
    jax.tree.map(close, found, expected)
    assert ("scan" in str(jax.make_jaxpr(lambda w: ours(z, w, EPS))(jnp.asarray(2.5)))) == in_blocks


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_precision(in_blocks, fused, monkeypatch, dtype):
    labels, z = example()
    labels, z = labels.astype("float32"), z.astype(dtype)
    value, slope = jax.value_and_grad(mean, 1)(labels, z)
    assert (value.dtype, slope.dtype) == (jnp.float32, z.dtype)
    monkeypatch.undo()
    exact = jax.value_and_grad(expected_mean, 1)(labels.astype("float64"), z.astype("float64"))
    close(value, exact[0], 1e-6)
    np.testing.assert_allclose(slope.astype("float64"), exact[1], rtol=1e-6 if dtype == "float32" else 1e-2, atol=1e-7)


def test_no_rows_and_no_axes(in_blocks):
    assert sigmoid_cross_entropy(jnp.ones((0, 3)), jnp.ones((0, 3))) == 0
    close(sigmoid_cross_entropy(jnp.asarray(1.0), jnp.asarray(0.5)), np.log1p(np.exp(-0.5)))
