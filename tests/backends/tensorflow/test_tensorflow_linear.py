"""Linear heads on TensorFlow: unwatched tensors need no products, and all ways to differentiate agree."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.distillation import distillation_loss, linear_distillation_loss
from lsmooth.losses import linear_softmax_cross_entropy, softmax_cross_entropy

ROWS, FEATURES, CLASSES = 7, 3, 5
LABELS = np.array([0, 2, 4, 2, 1, 3, 2])
WAYS = ("eager", "function", "unknown rows", "XLA")


@pytest.fixture(params=["blocks", "blocks that XLA compiles"])
def linear(request, monkeypatch):
    """The module, on either side of its switch to XLA."""
    require_backend("tensorflow")
    from lsmooth.backends.tensorflow import linear, thresholds

    if request.param != "blocks":
        monkeypatch.setattr(thresholds, "XLA_ELEMENTS", 0)
        monkeypatch.setattr(thresholds, "COMPILE_AFTER", 0)
    linear._xla.cache_clear()
    return linear


def arrays():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    return {
        name: tf.constant(rng.normal(size=shape))
        for name, shape in {"hidden": (ROWS, FEATURES), "weight": (CLASSES, FEATURES), "bias": (CLASSES,)}.items()
    }


def fused(hidden, weight, bias=None, *, block_size=3, **options):
    return linear_softmax_cross_entropy(
        LABELS, hidden, weight, bias, block_size=block_size, **{"label_smoothing": 0.1} | options
    )


def plain(hidden, weight, bias=None, **options):
    import tensorflow as tf

    logits = tf.matmul(hidden, weight, transpose_b=True) + (0.0 if bias is None else bias)
    return softmax_cross_entropy(LABELS, logits, **{"label_smoothing": 0.1} | options)


def gradients(loss, given, names, way="eager"):
    """The loss's gradients with respect to the arrays named, all others being held fast."""
    import tensorflow as tf

    def step(given):
        with tf.GradientTape() as tape:
            tape.watch([given[name] for name in names])
            value = loss(**given)
        return value, tape.gradient(value, [given[name] for name in names])

    if way == "unknown rows":
        rows = {"hidden", "teacher_hidden", "student_hidden", "temperature"}
        spec = {
            name: tf.TensorSpec([None, *x.shape[1:]] if name in rows else x.shape, x.dtype) for name, x in given.items()
        }
        step = tf.function(step, input_signature=[spec])
    elif way != "eager":
        step = tf.function(step, jit_compile=way == "XLA")
    return step(given)


def assert_same(ours, theirs):
    import tensorflow as tf

    for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        np.testing.assert_allclose(*map(tf.convert_to_tensor, (a, b)), rtol=1e-10, atol=1e-12)


def products(function, *given):
    """The matrix products in the graph of a function, including the functions that it calls."""
    definition = function.get_concrete_function(*given).graph.as_graph_def()
    bodies = [definition.node, *(body.node_def for body in definition.library.function)]
    return sum(node.op == "MatMul" for nodes in bodies for node in nodes)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "names", [("hidden",), ("weight",), ("bias",), ("hidden", "bias"), ("hidden", "weight", "bias"), ("temperature",)]
)
def test_only_watched_tensors_get_gradients(linear, way, names):
    import tensorflow as tf

    given = arrays() | {"temperature": tf.constant(np.linspace(0.5, 2.0, ROWS))}
    assert_same(gradients(fused, given, names, way), gradients(plain, given, names))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("teacher_moves", [False, True])
def test_gradients_of_two_heads(linear, way, teacher_moves):
    import tensorflow as tf

    student = arrays()
    given = {f"student_{name}": x for name, x in student.items()}
    given |= {"teacher_hidden": student["hidden"][:, :2] + 1.0, "teacher_weight": student["weight"][:, 1:] * 2.0}

    def whole(teacher_hidden, teacher_weight, student_hidden, student_weight, student_bias):
        teacher = tf.matmul(teacher_hidden, teacher_weight, transpose_b=True)
        logits = tf.matmul(student_hidden, student_weight, transpose_b=True) + student_bias
        return distillation_loss(teacher, logits, temperature=2.0, stop_teacher_gradient=not teacher_moves)

    def ours(**given):
        options = {"temperature": 2.0, "stop_teacher_gradient": not teacher_moves, "block_size": 3}
        return linear_distillation_loss(**given, **options)

    for names in (("student_hidden",), ("student_weight", "student_bias"), tuple(given) if teacher_moves else ()):
        assert_same(gradients(ours, given, names, way), gradients(whole, given, names))


def test_a_constant_teacher_gets_no_gradient(linear):
    import tensorflow as tf

    given = [arrays()[name] for name in ("hidden", "weight")]
    heads = [*given, *map(tf.identity, given)]
    with tf.GradientTape() as tape:
        tape.watch(heads)
        value = linear_distillation_loss(*heads, block_size=3)
    assert [x is None for x in tape.gradient(value, heads)] == [True, True, False, False]


@pytest.mark.parametrize("teacher", ["float32", "float64"])
def test_numbers_of_a_teacher_have_its_precision(linear, teacher):
    import tensorflow as tf

    student = "float32" if teacher == "float64" else "float64"
    given = [arrays()[name] for name in ("hidden", "weight")]
    heads = [tf.cast(x, dtype) for dtype in (teacher, student) for x in given]
    options = {"teacher_logit_scale": 1.5, "teacher_logit_softcap": 2.0, "block_size": 3}
    exact = linear_distillation_loss(*(x.numpy() for x in given * 2), **options)
    np.testing.assert_allclose(linear_distillation_loss(*heads, **options), exact, rtol=1e-5)


@pytest.mark.parametrize("way", ["function", "XLA"])
def test_frozen_heads_need_no_product_in_a_graph(linear, way):
    """Of each block: the logits, and a product for each gradient."""
    import tensorflow as tf

    given = arrays()

    def traced(*names):
        @tf.function(jit_compile=way == "XLA")
        def step(hidden, weight):
            with tf.GradientTape() as tape:
                followed = [x for name, x in (("hidden", hidden), ("weight", weight)) if name in names]
                tape.watch(followed)
                value = fused(hidden, weight)
            return value, tape.gradient(value, followed)

        return step

    heads = given["hidden"], given["weight"]
    counts = [products(traced(*names), *heads) for names in (("hidden", "weight"), ("hidden",), ("weight",))]
    assert counts == [3, 2, 2]
    if way == "XLA":
        text = traced("hidden").experimental_get_compiler_ir(*heads)(stage="hlo")
        assert len(re.findall(r" dot\(", text)) == 2


def test_frozen_heads_need_no_product_in_eager_mode(linear, monkeypatch):
    import tensorflow as tf

    given = arrays()
    expected = gradients(plain, given, ("hidden",))

    def never(*args, **options):
        raise AssertionError("a gradient of the weight")

    monkeypatch.setattr(tf, "matmul", never)
    weight = tf.Variable(given["weight"], trainable=False)
    for held in (given["weight"], tf.stop_gradient(given["weight"]), weight):
        assert_same(gradients(fused, given | {"weight": held}, ("hidden",)), expected)
    with pytest.raises(AssertionError, match="a gradient of the weight"):
        gradients(fused, given, ("weight",))


def test_all_gradients_are_computed_if_tapes_are_unknown(linear, monkeypatch):
    monkeypatch.setattr("lsmooth.backends.tensorflow.tapes.PossibleTapeGradientTypes", None)
    given = arrays()
    for names in (("hidden",), ("weight", "bias")):
        for way in ("eager", "function"):
            assert_same(gradients(fused, given, names, way), gradients(plain, given, names))


def eager_and_traced(transform):
    def both(loss):
        import tensorflow as tf

        return transform(loss), tf.function(lambda: transform(loss), autograph=False)()

    return both


def second_derivative(outer, inner):
    @eager_and_traced
    def transform(loss):
        import tensorflow as tf

        given = arrays()
        with tf.GradientTape() as second:
            second.watch([given[name] for name in outer])
            with tf.GradientTape() as first:
                first.watch([given[name] for name in inner])
                value = loss(**given)
            slopes = first.gradient(value, [given[name] for name in inner])
            total = sum(tf.reduce_sum(tf.sin(x)) for x in slopes)
        return second.gradient(total, [given[name] for name in outer])

    return transform


@eager_and_traced
def a_tape_asked_twice(loss):
    import tensorflow as tf

    given = arrays()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(given)
        value = loss(**given)
    return [tape.gradient(value, given[name]) for name in given] + [tape.gradient(value, list(given.values()))]


@eager_and_traced
def a_jacobian(loss):
    import tensorflow as tf

    given = arrays()
    with tf.GradientTape() as tape:
        tape.watch(given["hidden"])
        value = loss(**given, reduction="none")
    return tape.jacobian(value, given["hidden"])


@eager_and_traced
def what_is_followed_after_it_was_stopped(loss):
    import tensorflow as tf

    given = arrays()
    with tf.GradientTape() as tape:
        weight = tf.stop_gradient(given["weight"])
        tape.watch(weight)
        value = loss(given["hidden"], weight)
    return tape.gradient(value, weight)


@eager_and_traced
def recomputed(loss):
    import tensorflow as tf

    given = arrays()
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = tf.recompute_grad(lambda *given: loss(*given))(*given.values())
    return tape.gradient(value, list(given.values()))


def a_tape_around_a_function_that_has_its_own(loss):
    import tensorflow as tf

    given = arrays()

    @tf.function
    def step(hidden, weight):
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            value = loss(hidden, weight)
        return value, tf.stop_gradient(tape.gradient(value, hidden))

    with tf.GradientTape() as tape:
        tape.watch(given)
        value, slope = step(given["hidden"], given["weight"])
    return slope, tape.gradient(value, [given["hidden"], given["weight"]])


def gradients_of_a_graph(loss):
    import tensorflow as tf

    @tf.function
    def step(hidden, weight, bias):
        weight = tf.stop_gradient(weight)
        return tf.gradients(loss(hidden, weight, bias), [hidden, weight, bias])

    return step(**arrays())


def a_branch_and_a_loop(loss):
    import tensorflow as tf

    given = arrays()

    @tf.function
    def step(hidden, weight, chosen):
        with tf.GradientTape() as tape:
            tape.watch([hidden, weight])
            value = tf.cond(chosen, lambda: loss(hidden, weight, given["bias"]), lambda: tf.constant(0.0, hidden.dtype))
            _, more = tf.while_loop(
                lambda i, _: i < 2,
                lambda i, x: (i + 1, x + loss(hidden, weight, given["bias"])),
                (0, tf.zeros((), hidden.dtype)),
            )
        return value, more, tape.gradient([value, more], [hidden, weight])

    return step(given["hidden"], given["weight"], tf.constant(True))


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(second_derivative(("hidden", "weight", "bias"), ("hidden",)), id="second derivative"),
        pytest.param(second_derivative(("weight",), ("hidden",)), id="mixed derivative"),
        pytest.param(second_derivative(("hidden",), ("weight", "bias")), id="mixed derivative, of the weight"),
        a_tape_asked_twice,
        a_jacobian,
        what_is_followed_after_it_was_stopped,
        recomputed,
        a_tape_around_a_function_that_has_its_own,
        gradients_of_a_graph,
        a_branch_and_a_loop,
    ],
    ids=lambda transform: getattr(transform, "__name__", None),
)
def test_every_way_to_differentiate_agrees(linear, transform):
    assert_same(transform(fused), transform(plain))


def test_forward_mode_over_a_gradient(linear):
    import tensorflow as tf

    given = arrays()

    def product(loss):
        with tf.autodiff.ForwardAccumulator(given["weight"], tf.sin(given["weight"])) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(given["hidden"])
                value = loss(**given)
            slope = tape.gradient(value, given["hidden"])
        return accumulator.jvp(slope)

    assert_same(product(fused), product(plain))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 6, 7])
def test_blocks_and_rows_repeated_to_fill_the_last(linear, way, block_size):
    """Each row has its own weight, so that sums would show a row that is counted twice or left out."""
    import tensorflow as tf

    given = arrays()
    options = {"sample_weight": tf.constant(3.0 ** np.arange(ROWS)), "reduction": "sum", "ignore_index": 4}
    ours = functools.partial(fused, block_size=block_size, **options)
    names = ("hidden", "weight", "bias")
    assert_same(gradients(ours, given, names, way), gradients(functools.partial(plain, **options), given, names))


@pytest.mark.parametrize("way", WAYS)
def test_masked_classes(linear, way):
    given = arrays()
    given["bias"] = given["bias"] + np.array([0.0, 0.0, 0.0, 0.0, -np.inf])
    options = {"sample_weight": (LABELS != 4).astype(float), "ignore_index": 4}
    ours, theirs = (functools.partial(loss, **options) for loss in (fused, plain))
    for names in (("hidden",), ("hidden", "weight")):
        assert_same(gradients(ours, given, names, way), gradients(theirs, given, names))
