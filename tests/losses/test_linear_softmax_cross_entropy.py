"""The loss of a linear head equals the loss of its logits: the number, and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close, require_backend
from loss_parity import as_dtype, distributions, float32_exact, jax_jit

from lsmooth._rows.reductions import REDUCTIONS
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy
from lsmooth.testing import reference

ROWS, FEATURES, CLASSES = 7, 3, 5
RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 4, 2, 1, 3, 2])
PER_ROW = np.linspace(0.0, 1.0, ROWS)
OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "per row": {"label_smoothing": PER_ROW, "temperature": PER_ROW + 0.5, "sample_weight": PER_ROW},
    "per class": {
        "label_smoothing": 0.3,
        "smoothing_prior": np.array([0.5, 0.25, 0.125, 0.125, 0.0]),
        "class_weight": np.array([0.5, 2.0, 0.0, 1.0, 3.0]),
    },
    "z_loss, cap, temperature": {"z_loss": 0.01, "logit_softcap": 3.0, "temperature": 2.5, "label_smoothing": 0.1},
    "ignore_index": {"ignore_index": 2, "label_smoothing": 0.1},
}


def head(seed: int = 1, rows: tuple[int, ...] = (ROWS,)) -> tuple[np.ndarray, ...]:
    """Hidden states, weight and bias."""
    rng = np.random.default_rng(seed)
    shapes = ((*rows, FEATURES), (CLASSES, FEATURES), (CLASSES,))
    return tuple(float32_exact(rng, shape, 1.0) for shape in shapes)


def expected_of(labels, hidden, weight, bias, upstream=1.0, **options):
    """Value and gradients by the chain rule, from the reference's gradient of the logits."""
    value, slope = reference.softmax_cross_entropy(labels, hidden @ weight.T + bias, **options)
    slope = slope * np.asarray(upstream)[..., None]
    flat, inputs = slope.reshape(-1, CLASSES), hidden.reshape(-1, FEATURES)
    return value, np.concatenate([(slope @ weight).ravel(), (flat.T @ inputs).ravel(), flat.sum(0)])


def check(backend, labels, arrays, *, upstream=None, dtype="float64", factor=4.0, block_size=3, **options):
    """Value, and the gradients of hidden states, weight and bias, which go in as one vector."""
    arrays = tuple(backend.to_numpy(as_dtype(backend, x, dtype)).astype(np.float64) for x in arrays)
    expected, gradient = expected_of(labels, *arrays, 1.0 if upstream is None else upstream, **options)
    ends = np.cumsum([0] + [x.size for x in arrays])
    result = "float64" if dtype == "float64" else "float32"
    rows_upstream = None if upstream is None else backend.asarray(upstream, result)

    def call(x):
        parts = [backend.reshape(x[a:b], y.shape) for a, b, y in zip(ends, ends[1:], arrays, strict=False)]
        return linear_softmax_cross_entropy(labels, *parts, block_size=block_size, **options)

    def total(x):
        return backend.sum(call(x) if rows_upstream is None else call(x) * rows_upstream)

    wrap = jax_jit if backend.name == "jax" else lambda function: function
    vector = as_dtype(backend, np.concatenate([x.ravel() for x in arrays]), dtype)
    value = wrap(call)(vector)
    assert backend.dtype(value) == result
    assert backend.shape(value) == expected.shape
    assert_close(backend, value, expected, dtype, factor)
    if backend.name == "numpy":
        return
    beside, slope = wrap(lambda x: backend.value_and_grad(total, x))(vector)
    assert_close(backend, beside, np.sum(expected if upstream is None else expected * upstream), dtype, factor)
    assert backend.dtype(slope) == dtype
    assert_close(backend, slope, gradient, dtype, factor)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_mean_with_every_option(backend, options):
    check(backend, LABELS, head(), upstream=np.array(-3.0), **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_row_with_its_own_upstream_gradient(backend, options):
    check(backend, LABELS, head(), upstream=np.linspace(-1.0, 2.0, ROWS), reduction="none", **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions(backend, reduction):
    check(backend, LABELS, head(), reduction=reduction, ignore_index=4, sample_weight=PER_ROW)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_distributions_as_labels(backend, reduction):
    check(backend, distributions(RNG, (ROWS, CLASSES)), head(), reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize("block_size", [1, 2, 6, 7, 100, None])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_blocks_that_divide_the_rows_and_blocks_that_do_not(backend, block_size, reduction):
    check(backend, LABELS, head(), block_size=block_size, reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize("rows", [(1,), (0,), (), (2, 3)])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_any_leading_shape(backend, rows, reduction):
    labels = np.random.default_rng(2).integers(0, CLASSES, rows)
    check(backend, labels, head(2, rows), reduction=reduction, block_size=2, ignore_index=1)


def test_features_lie_along_any_axis(backend):
    hidden, weight, bias = head(3, (2, 4))
    labels = np.random.default_rng(3).integers(0, CLASSES, (2, 4))
    value = linear_softmax_cross_entropy(
        labels, backend.asarray(np.moveaxis(hidden, -1, 1)), weight, bias, axis=1, block_size=3
    )
    assert_close(backend, value, expected_of(labels, hidden, weight, bias)[0], "float64", 4.0)


@pytest.mark.parametrize(("dtype", "factor"), [("float32", 4.0), ("bfloat16", 8.0), ("float16", 8.0)])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_dtypes(backend, dtype, factor, reduction):
    check(backend, LABELS, head(), dtype=dtype, factor=factor, reduction=reduction, label_smoothing=0.1)


def test_sums_of_many_half_precision_rows_are_kept_in_float32(differentiable_backend):
    """The bias's gradient is a sum of 2000 rows, which bfloat16 would lose after 256."""
    backend = differentiable_backend
    hidden, labels = np.zeros((2000, FEATURES)), np.zeros(2000, int)
    bias = backend.asarray(np.zeros(CLASSES), "bfloat16")
    hidden, weight = (backend.asarray(x, "bfloat16") for x in (hidden, np.zeros((CLASSES, FEATURES))))
    _, slope = backend.value_and_grad(
        lambda b: linear_softmax_cross_entropy(labels, hidden, weight, b, reduction="sum", block_size=7), bias
    )
    assert_close(backend, slope, 2000 * (np.full(CLASSES, 0.2) - np.eye(CLASSES)[0]), "bfloat16")


def test_masked_classes_have_a_bias_of_minus_infinity(backend):
    hidden, weight, bias = head()
    bias[1] = -np.inf
    labels = np.where(LABELS == 1, 0, LABELS)
    kept = [0, 2, 3, 4]
    logits = (hidden @ weight.T + bias)[:, kept]
    expected, _ = reference.softmax_cross_entropy(
        np.searchsorted(kept, labels), logits, label_smoothing=0.2, reduction="sum"
    )

    def loss(x):
        return linear_softmax_cross_entropy(labels, x, weight, bias, label_smoothing=0.2, reduction="sum", block_size=3)

    x = backend.asarray(hidden)
    assert_close(backend, loss(x), expected, "float64", 4.0)
    if backend.name != "numpy":
        assert np.isfinite(backend.to_numpy(backend.value_and_grad(loss, x)[1])).all()


def test_a_label_out_of_range_is_nan(backend):
    hidden, weight, bias = head()
    labels = np.where(LABELS == 2, CLASSES, LABELS)
    value = linear_softmax_cross_entropy(labels, backend.asarray(hidden), weight, bias, reduction="none", block_size=3)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(value)), LABELS == 2)


def test_a_batch_of_ignored_rows_has_zero_loss(backend):
    check(backend, np.full(ROWS, 2), head(), ignore_index=2)


def test_larger_than_one_block_by_its_own_choice(backend):
    """30 rows of 500 000 classes: blocks are chosen where the logits are large."""
    rng = np.random.default_rng(4)
    hidden, weight = rng.normal(size=(60, 2)), rng.normal(size=(500_000, 2))
    labels = rng.integers(0, 500_000, 60)
    value = linear_softmax_cross_entropy(labels, backend.asarray(hidden, "float32"), weight.astype(np.float32))
    expected = np.mean([np.log(np.exp(weight @ h).sum()) - weight[y] @ h for h, y in zip(hidden, labels, strict=True)])
    assert_close(backend, value, expected, "float32", 4.0)


def test_tied_weights_add_their_gradients(differentiable_backend):
    """The hidden states are rows of the weight itself."""
    backend = differentiable_backend
    _, weight, bias = head()
    ids = np.array([0, 1, 4, 4, 2, 3, 1])

    def loss(w):
        return linear_softmax_cross_entropy(LABELS, backend.take(w, backend.asarray(ids)), w, bias, block_size=3)

    _, slope = backend.value_and_grad(loss, backend.asarray(weight))
    _, parts = expected_of(LABELS, weight[ids], weight, bias)
    expected = parts[21:36].reshape(CLASSES, FEATURES)
    np.add.at(expected, ids, parts[:21].reshape(ROWS, FEATURES))
    assert_close(backend, slope, expected, "float64", 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((CLASSES, 2))}, r"weight must have shape \(classes, features\)"),
        ({"bias": np.zeros(3)}, r"bias must have shape \(5,\)"),
        ({"block_size": 0}, "block_size must be a positive number of rows"),
        ({"labels": np.zeros(3, int)}, r"labels must have shape \(7,\) \(class ids\) or \(7, 5\)"),
        ({"class_weight": np.zeros(3)}, r"class_weight must have shape \(5,\)"),
    ],
)
def test_arguments_of_the_wrong_shape_are_named(backend, change, message):
    hidden, weight, bias = head()
    given = {"labels": LABELS, "hidden": backend.asarray(hidden), "weight": weight, "bias": bias} | change
    with pytest.raises(ValueError, match=message):
        linear_softmax_cross_entropy(**given)


# JAX: every mode of differentiation.


def test_jax_options_that_require_a_gradient_get_one():
    require_backend("jax")
    import jax

    hidden, weight, bias = (jax.numpy.asarray(x) for x in head())
    ramp = jax.numpy.linspace(0.5, 2.0, ROWS)
    options = {
        "label_smoothing": jax.numpy.asarray(0.2),
        "temperature": ramp,
        "sample_weight": ramp,
        "class_weight": jax.numpy.linspace(0.5, 2.0, CLASSES),
    }

    def fused(options):
        return linear_softmax_cross_entropy(LABELS, hidden, weight, bias, block_size=3, **options)

    def plain(options):
        return softmax_cross_entropy(LABELS, hidden @ weight.T + bias, **options)

    ours, theirs = (jax.value_and_grad(f)(options) for f in (fused, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)
    assert all(np.abs(x).max() > 0 for x in ours[1].values())


def test_jax_forward_mode_and_second_derivatives():
    require_backend("jax")
    import jax

    arrays = tuple(jax.numpy.asarray(x) for x in head())

    def fused(*arrays):
        return linear_softmax_cross_entropy(LABELS, *arrays, label_smoothing=0.1, block_size=3)

    def plain(h, w, b):
        z = jax.nn.log_softmax(h @ w.T + b)
        return -(0.9 * z[np.arange(ROWS), LABELS] + 0.1 * z.mean(-1)).mean()

    for transform in (jax.jacfwd, jax.hessian, lambda f, i: jax.grad(jax.checkpoint(f), i)):
        ours, theirs = (jax.jit(transform(f, (0, 1, 2)))(*arrays) for f in (fused, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)
    stacked = tuple(jax.numpy.stack([x, 2 * x]) for x in arrays)
    ours, theirs = (jax.vmap(jax.grad(f, (0, 1, 2)))(*stacked) for f in (fused, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), ours, theirs)


@pytest.mark.parametrize(("argument", "products"), [(0, 2), (1, 2), ((0, 1), 3)])
def test_jax_forms_only_the_gradients_that_are_asked_for(argument, products):
    """The logits, and one matrix product a gradient; the last, shorter block has its own."""
    require_backend("jax")
    import jax

    arrays = tuple(jax.numpy.asarray(x) for x in head())
    gradient = jax.grad(lambda *a: linear_softmax_cross_entropy(LABELS, *a, block_size=3), argument)
    assert str(jax.make_jaxpr(gradient)(*arrays)).count("dot_general") == 2 * products


# TensorFlow: eager, traced with and without the number of rows, compiled.


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_tensorflow_traces_known_and_unknown_batches(jit_compile, known, reduction):
    require_backend("tensorflow")
    import tensorflow as tf

    hidden, weight, bias = head(5, (ROWS,))
    spec = tf.TensorSpec([ROWS if known else None, FEATURES], tf.float64)

    @tf.function(jit_compile=jit_compile, input_signature=[spec])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = linear_softmax_cross_entropy(
                LABELS, x, weight, bias, label_smoothing=0.1, reduction=reduction, block_size=3
            )
        return value, tape.gradient(value, x)

    value, slope = step(hidden)
    options = {"label_smoothing": 0.1, "reduction": reduction}
    expected, gradient = expected_of(LABELS, hidden, weight, bias, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    np.testing.assert_allclose(slope.numpy().ravel(), gradient[:21], rtol=1e-11, atol=1e-13)


def test_tensorflow_compiles_large_heads_and_takes_variables():
    """3000 rows of 2000 classes are on the other side of the switch to XLA."""
    require_backend("tensorflow")
    import tensorflow as tf

    rng = np.random.default_rng(6)
    hidden, weight = tf.Variable(rng.normal(size=(3000, 2))), tf.Variable(rng.normal(size=(2000, 2)))
    labels = rng.integers(0, 2000, 3000)
    with tf.GradientTape() as tape:
        value = linear_softmax_cross_entropy(labels, hidden, weight, label_smoothing=0.1, block_size=700)
    of_hidden, of_weight = tape.gradient(value, [hidden, weight])
    h, w = hidden.numpy(), weight.numpy()
    expected, slope = reference.softmax_cross_entropy(labels, h @ w.T, label_smoothing=0.1)
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    np.testing.assert_allclose(of_hidden, slope @ w, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(of_weight, slope.T @ h, rtol=1e-9, atol=1e-13)
