"""Linear heads on JAX: blocks in parts, written over in place, and sums in float32."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402
from conftest import require_backend  # noqa: E402

from lsmooth.backends.jax import linear, thresholds  # noqa: E402
from lsmooth.distillation import distillation_loss, linear_distillation_loss  # noqa: E402
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

# Blocks of 16 rows go in parts of 4, the last block as a whole; the weight's gradient in two halves that overlap.
ROWS, FEATURES, CLASSES, BLOCK = 37, 32, 70001, 16
RNG = np.random.default_rng(0)
LABELS = RNG.integers(1, CLASSES, ROWS)


@pytest.fixture(autouse=True)
def _needs_jax():
    require_backend("jax")


def head(seed=1, dtype="float64"):
    rng = np.random.default_rng(seed)
    shapes = ((1.0, (ROWS, FEATURES)), (0.3, (CLASSES, FEATURES)), (1.0, (CLASSES,)))
    return [jnp.asarray(scale * rng.standard_normal(shape), dtype) for scale, shape in shapes]


def close(actual, expected, tolerance):
    """Each array to its largest entry."""

    def one(a, b):
        assert a.dtype == b.dtype or b.dtype == "float64"
        b = np.asarray(b, np.float64)
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * np.abs(b).max())

    jax.tree.map(one, actual, expected)


def test_the_tested_sizes_are_split_into_parts():
    assert linear._part_rows(BLOCK, CLASSES) == 4
    assert linear._part_rows(ROWS % BLOCK, CLASSES) == 5
    assert thresholds.WEIGHT_GRADIENT_ELEMENTS < CLASSES * FEATURES < 2 * thresholds.WEIGHT_GRADIENT_ELEMENTS


OPTIONS = {
    "plain": {"label_smoothing": 0.1},
    "ignored": {"label_smoothing": 0.1, "ignore_index": int(LABELS[3])},
    "distributions": {"label_smoothing": 0.1, "labels": True},
    "traced": {
        "label_smoothing": jnp.linspace(0.0, 1.0, ROWS),
        "temperature": jnp.linspace(0.5, 2.0, ROWS),
        "sample_weight": jnp.linspace(-1.0, 2.0, ROWS),
        "class_weight": jnp.linspace(0.5, 2.0, CLASSES),
        "smoothing_prior": jnp.linspace(1.0, 2.0, CLASSES) / (1.5 * CLASSES),
    },
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-5)])
def test_values_and_gradients_in_parts(options, dtype, tolerance):
    """Gradients of options too; masked classes and ignored rows of any value do not contribute."""
    options = dict(options)
    labels = jnp.asarray(LABELS)
    if options.pop("labels", False):
        labels = jax.nn.softmax(jnp.asarray(RNG.standard_normal((ROWS, CLASSES))))
    hidden, weight, bias = head(dtype=dtype)
    bias = bias.at[0].set(-jnp.inf)
    if options.get("ignore_index") is not None:
        hidden = hidden.at[3].set(1e3)
    else:
        labels = labels.at[..., 0].set(0.0) if labels.ndim == 2 else labels

    def fused(arrays, options):
        return linear_softmax_cross_entropy(labels, *arrays, block_size=BLOCK, **options)

    def plain(arrays, options):
        hidden, weight, bias = (x.astype("float64") for x in arrays)
        return softmax_cross_entropy(labels, hidden @ weight.T + bias, **options)

    traced = {k: v for k, v in options.items() if isinstance(v, jax.Array)}
    fixed = {k: v for k, v in options.items() if k not in traced}
    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda arrays, given, f=f: f(arrays, given | fixed), (0, 1)))(
            (hidden, weight, bias), traced
        )
        for f in (fused, plain)
    )
    close(ours, theirs, tolerance)
    close(jax.jit(lambda *arrays: fused(arrays, options))(hidden, weight, bias), theirs[0], tolerance)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize("stop", [True, False])
def test_two_heads_in_parts(divergence, stop):
    (th, tw, tb), (sh, sw, sb) = head(1), head(2)
    options = {"temperature": 2.0, "divergence": divergence, "stop_teacher_gradient": stop}

    def fused(th, tw, sh, sw, tb, sb):
        return linear_distillation_loss(
            th, tw, sh, sw, labels=LABELS, alpha=0.7, teacher_bias=tb, student_bias=sb, block_size=BLOCK, **options
        )

    def plain(th, tw, sh, sw, tb, sb):
        teacher, student = th @ tw.T + tb, sh @ sw.T + sb
        hard = softmax_cross_entropy(LABELS, student)
        return 0.3 * hard + 0.7 * distillation_loss(teacher, student, **options)

    ours, theirs = (jax.jit(jax.value_and_grad(f, (0, 1, 2, 3, 4, 5)))(th, tw, sh, sw, tb, sb) for f in (fused, plain))
    close(ours, theirs, 1e-10)


def test_second_derivatives_in_parts():
    arrays = head()
    directions = head(3)

    def fused(*arrays):
        return linear_softmax_cross_entropy(LABELS, *arrays, label_smoothing=0.1, block_size=BLOCK)

    def plain(hidden, weight, bias):
        return softmax_cross_entropy(LABELS, hidden @ weight.T + bias, label_smoothing=0.1)

    def product(f):
        return jax.jit(lambda *a: jax.jvp(jax.grad(f, (0, 1, 2)), a, tuple(directions)))(*arrays)

    def twice(f):
        return jax.jit(jax.grad(lambda x: jnp.sum(jax.grad(f)(x, *arrays[1:]) * directions[0])))(arrays[0])

    close(product(fused), product(plain), 1e-10)
    close(twice(fused), twice(plain), 1e-10)


@pytest.mark.parametrize("case", ["cross-entropy", "a temperature that moves", "two heads", "no gradient"])
def test_memory_of_large_heads(case):
    """The results and one block of each head's logits, over which the gradient is written; the rest is small."""
    rows, features, classes = 4096, 512, 32000
    hidden, weight, row = (
        jax.ShapeDtypeStruct(shape, "float32") for shape in ((rows, features), (classes, features), (rows,))
    )

    def loss(hidden, weight, row):
        options = {"temperature": row} if case == "a temperature that moves" else {}
        labels = row.astype(int)
        return linear_softmax_cross_entropy(labels, hidden, weight, label_smoothing=0.1, **options)

    def distilled(hidden, weight, th, tw):
        return linear_distillation_loss(th, tw, hidden, weight, temperature=2.0)

    if case == "two heads":
        step, arrays = jax.grad(distilled, (0, 1)), (hidden, weight, hidden, weight)
    elif case == "no gradient":
        step, arrays = loss, (hidden, weight, row)
    else:
        step, arrays = jax.grad(loss, (0, 1, 2) if "moves" in case else (0, 1)), (hidden, weight, row)
    with jax.enable_x64(False):
        memory = jax.jit(step).lower(*arrays).compile().memory_analysis()
    used = (memory.temp_size_in_bytes + memory.output_size_in_bytes) / (4 * rows * classes)
    assert used < 0.31


@pytest.mark.parametrize(("dtype", "eps"), [("bfloat16", 2.0**-8), ("float16", 2.0**-11)])
def test_half_precision_is_summed_in_float32(dtype, eps):
    """Over 512 blocks; a sum in half precision would stop growing long before the last one."""
    rows, features, classes = 4096, 3, 5
    rng = np.random.default_rng(4)
    shapes = ((rows, features), (classes, features), (classes,))
    arrays = [jnp.asarray(rng.uniform(0.5, 1.5, shape), dtype) for shape in shapes]
    labels = rng.integers(0, 2, rows)
    options = {"label_smoothing": 0.1, "reduction": "sum"}

    def loss(*arrays):
        return linear_softmax_cross_entropy(labels, *arrays, block_size=8, **options)

    value, (of_hidden, of_weight, of_bias) = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*arrays)
    assert (value.dtype, of_hidden.dtype, of_weight.dtype, of_bias.dtype) == ("float32", dtype, dtype, dtype)
    hidden, weight, bias = (np.asarray(x, np.float64) for x in arrays)
    expected, slope = reference.softmax_cross_entropy(labels, hidden @ weight.T + bias, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # The logits' gradient is rounded once, and so is each result.
    for result, a, b in ((of_hidden, slope, weight), (of_weight, slope.T, hidden)):
        bound = 1.01 * eps * (abs(a) @ abs(b) + abs(a @ b))
        assert (abs(np.asarray(result, np.float64) - a @ b) <= bound).all()
    np.testing.assert_allclose(np.asarray(of_bias, np.float64), slope.sum(0), rtol=1.01 * eps)
    np.testing.assert_allclose(jax.jit(loss)(*arrays), expected, rtol=1e-5)


@pytest.mark.parametrize(("num_rows", "most", "block"), [(4096, 512, 512), (5000, 500, 416), (99, 99, 99), (9, 5, 5)])
def test_blocks_leave_few_rows_over(num_rows, most, block):
    assert linear._even_rows(num_rows, most) == block
