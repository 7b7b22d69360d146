"""Softmax cross-entropy under TensorFlow's transformations, and on tensors of every kind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from conftest import require_backend  # noqa: E402
from loss_parity import distributions, float32_exact  # noqa: E402

from lsmooth.losses import sigmoid_cross_entropy, softmax_cross_entropy  # noqa: E402
from lsmooth.testing import reference  # noqa: E402

RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 2])
LOGITS = float32_exact(RNG, (4, 3))
SOFT = distributions(RNG, (4, 3))
EPS, TEMPERATURE = 0.2, 2.0
OPTIONS = {
    "plain": {},
    "smoothed": {"label_smoothing": EPS},
    "ignore_index": {"label_smoothing": EPS, "ignore_index": 2},
    "prior, class_weight": {
        "label_smoothing": EPS,
        "smoothing_prior": np.array([0.2, 0.3, 0.5]),
        "class_weight": np.array([0.5, 2.0, 1.0]),
    },
    "temperature, z_loss, softcap": {
        "label_smoothing": EPS,
        "temperature": TEMPERATURE,
        "z_loss": 0.1,
        "logit_softcap": 5.0,
    },
}
COMPILED = pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
# Rows and classes on both sides of a kernel's switches.
SIZES = [(3, 2), (40, 10), (300, 400)]


@pytest.fixture(autouse=True)
def _needs_tensorflow():
    require_backend("tensorflow")


def close(actual, expected, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


def example(shape, axis=-1, seed=0):
    rng = np.random.default_rng(seed)
    logits = float32_exact(rng, shape)
    return rng.integers(0, shape[axis], np.delete(shape, axis)), logits


def value_and_gradient(loss, logits):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    return value, tape.gradient(value, logits)


@COMPILED
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "sum_over_batch_size", "sum_by_nonzero_weights"])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_trace_serves_every_batch_size(jit_compile, reduction, weighted):
    traces = []
    options = {"label_smoothing": EPS, "reduction": reduction}

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 3], tf.float64),
            tf.TensorSpec([None], tf.float64),
        ],
    )
    def step(labels, logits, weight):
        traces.append(1)
        weights = {"sample_weight": weight} if weighted else {}
        return value_and_gradient(lambda z: softmax_cross_entropy(labels, z, **weights, **options), logits)

    for rows in (4, 1, 40) if jit_compile else (4, 1, 40, 0, 300):
        labels, logits = example((rows, 3), seed=rows)
        weight = np.linspace(0.0, 2.0, rows)
        value, gradient = step(labels.astype(np.int32), logits, weight)
        weights = {"sample_weight": weight} if weighted else {}
        expected, expected_gradient = reference.softmax_cross_entropy(labels, logits, **weights, **options)
        close(value, expected)
        close(gradient, expected_gradient)
    assert len(traces) == 1


@COMPILED
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_unknown_batches(options, soft, jit_compile):
    if soft and "ignore_index" in options:
        pytest.skip("distributions have no id to ignore")
    labels = SOFT if soft else LABELS

    @tf.function(jit_compile=jit_compile)
    def step(labels, logits):
        return value_and_gradient(lambda z: softmax_cross_entropy(labels, z, **options), logits)

    spec = tf.TensorSpec([None, 3] if soft else [None], labels.dtype)
    value, gradient = step.get_concrete_function(spec, tf.TensorSpec([None, 3], tf.float64))(labels, LOGITS)
    expected, expected_gradient = reference.softmax_cross_entropy(labels, LOGITS, **options)
    close(value, expected)
    close(gradient, expected_gradient)


def test_autograph_does_not_convert_lsmooth(monkeypatch):
    """Rewriting a function takes longer than tracing it, and none of lsmooth's needs it."""
    seen, kernel = set(), type(require_backend("tensorflow")).softmax_cross_entropy

    def spy(*args, **options):
        seen.update(frame.name for frame in traceback.extract_stack())
        return kernel(*args, **options)

    monkeypatch.setattr(type(require_backend("tensorflow")), "softmax_cross_entropy", spy)

    def caller(labels, logits):
        return softmax_cross_entropy(labels, logits, label_smoothing=EPS)

    tf.function(caller).get_concrete_function(LABELS, LOGITS)
    assert "tf__caller" in seen
    assert "softmax_cross_entropy" in seen
    assert "tf__softmax_cross_entropy" not in seen


def test_images_of_unknown_size():
    traces = []

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None], tf.int64), tf.TensorSpec([None, 3, None, None], tf.float64)]
    )
    def step(labels, logits):
        traces.append(1)
        return value_and_gradient(
            lambda z: softmax_cross_entropy(labels, z, axis=1, ignore_index=0, label_smoothing=EPS), logits
        )

    for shape in [(2, 3, 4, 5), (1, 3, 1, 7)]:
        labels, logits = example(shape, axis=1)
        value, gradient = step(labels, logits)
        expected, expected_gradient = reference.softmax_cross_entropy(
            labels, logits, axis=1, ignore_index=0, label_smoothing=EPS
        )
        close(value, expected)
        close(gradient, expected_gradient)
    assert len(traces) == 1


def test_a_retracing_function_of_unknown_options():
    """label_smoothing and temperature may change from step to step without a new trace."""
    traces = []

    @tf.function(reduce_retracing=True)
    def loss(labels, logits, eps, temperature):
        traces.append(1)
        return softmax_cross_entropy(labels, logits, label_smoothing=eps, temperature=temperature)

    for eps in (0.0, 0.1, 1.0):
        value = loss(LABELS, LOGITS, tf.constant(eps, tf.float64), tf.constant(1.0 + eps, tf.float64))
        close(value, reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=eps, temperature=1.0 + eps)[0])
    assert len(traces) == 1


@COMPILED
def test_labels_out_of_range_are_nan_in_padded_logits(jit_compile):
    """Neither an error of the gather nor a zero gradient."""

    @tf.function(jit_compile=jit_compile)
    def loss(labels, logits):
        return softmax_cross_entropy(labels, logits, label_smoothing=EPS, reduction="none")

    np.testing.assert_array_equal(np.isnan(loss(np.array([0, -1, 3, 2]), LOGITS)), [False, True, True, False])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_second_derivatives(soft, masked):
    """The Hessian of a row is (diag(p) - p p^T) / T^2, also where a class is masked."""
    logits = LOGITS.copy()
    if masked:
        logits[0, 1] = -np.inf
    labels = np.eye(3)[LABELS] if soft else LABELS
    z = tf.constant(logits)
    with tf.GradientTape() as outer:
        outer.watch(z)
        _, gradient = value_and_gradient(
            lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS, temperature=TEMPERATURE, reduction="sum"),
            z,
        )
    hessian = outer.batch_jacobian(gradient, z)
    p = np.exp(logits / TEMPERATURE)
    p = p / p.sum(-1, keepdims=True)
    close(hessian, (np.einsum("ik,kl->ikl", p, np.eye(3)) - np.einsum("ik,il->ikl", p, p)) / TEMPERATURE**2)


def test_third_derivatives_are_finite_where_a_class_is_masked():
    """They are those of the classes that are left."""

    def third(logits, direction):
        z = tf.constant(logits[None])
        with tf.GradientTape() as outer:
            outer.watch(z)
            with tf.GradientTape() as inner:
                inner.watch(z)
                _, gradient = value_and_gradient(
                    lambda z: softmax_cross_entropy([0], z, label_smoothing=EPS, temperature=TEMPERATURE), z
                )
                slope = tf.reduce_sum(gradient * direction)
            curve = tf.reduce_sum(inner.gradient(slope, z) * direction**2)
        return outer.gradient(curve, z)[0]

    left, direction = np.array([0, 2, 3]), np.array([1.0, -2.0, 3.0, 0.5])
    logits = np.array([0.5, -np.inf, 2.0, -1.0])
    of_all, of_those_left = third(logits, direction), third(logits[left], direction[left])
    close(of_all, np.insert(of_those_left, 1, 0.0))
    assert np.abs(of_those_left).max() > 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_the_gradient_at_every_size(size):
    labels, logits = example(size)
    z, one_hot = tf.constant(logits), tf.one_hot(labels, size[1], dtype=tf.float64)

    def penalty(loss):
        with tf.GradientTape() as outer:
            outer.watch(z)
            _, gradient = value_and_gradient(loss, z)
            squared = tf.reduce_sum(gradient**2)
        return outer.gradient(squared, z)

    ours = penalty(lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS))
    smoothed = one_hot * (1.0 - EPS) + EPS / size[1]
    theirs = penalty(lambda z: tf.reduce_mean(-tf.reduce_sum(smoothed * tf.nn.log_softmax(z), -1)))
    close(ours, theirs, 1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["eager", "graph", "XLA", "unknown batch", "unknown batch, XLA"])
@pytest.mark.parametrize("eps", [0.0, EPS])
def test_masked_classes_and_rows_without_a_class_at_every_size(size, mode, eps):
    labels, logits = example(size)
    labels[:3] = [1, -1, 0]
    logits[0, 0] = -np.inf  # a class masked in one row
    logits[2, 1] = np.nan  # of an ignored row
    options = {"label_smoothing": eps, "temperature": TEMPERATURE, "ignore_index": 0, "reduction": "sum"}

    def step(labels, logits):
        return value_and_gradient(lambda z: softmax_cross_entropy(labels, z, **options), logits)

    if mode != "eager":
        rows = None if "unknown" in mode else size[0]
        specs = [tf.TensorSpec([rows], tf.int64), tf.TensorSpec([rows, size[1]], tf.float64)]
        step = tf.function(step, input_signature=specs, jit_compile="XLA" in mode)
    value, gradient = step(tf.constant(labels), tf.constant(logits))
    assert np.isnan(value)
    assert np.isnan(gradient[1]).all()
    labels[1] = 1
    value, gradient = step(tf.constant(labels), tf.constant(logits))
    expected, expected_gradient = reference.softmax_cross_entropy(labels, logits, **options)
    close(value, expected)
    close(gradient, expected_gradient)


def test_a_persistent_tape_gives_equal_gradients_twice():
    z = tf.constant(LOGITS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        value = softmax_cross_entropy(LABELS, z, label_smoothing=EPS)
        double = 2.0 * value
    expected = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS)[1]
    close(tape.gradient(value, z), expected)
    close(tape.gradient(double, z), 2.0 * expected)
    close(tape.gradient(value, z), expected)


def test_the_jacobian_of_rows():
    z = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(z)
        rows = softmax_cross_entropy(LABELS, z, label_smoothing=EPS, reduction="none")
    each = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="none")[1]
    jacobian = tape.jacobian(rows, z)
    close(jacobian, np.einsum("ij,ik->ijk", np.eye(4), each))


def test_vectorized_map():
    labels, logits = tf.constant(LABELS), tf.constant(LOGITS)
    each = tf.vectorized_map(lambda x: softmax_cross_entropy(x[0], x[1], label_smoothing=EPS), (labels, logits))
    close(each, reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS, reduction="none")[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_mixed_precision(size, dtype):
    """Half-precision logits: the loss is float32, their gradient in their dtype."""
    labels, logits = example(size)
    z = tf.cast(logits, dtype)
    value, gradient = value_and_gradient(lambda z: softmax_cross_entropy(labels, z, label_smoothing=EPS), z)
    assert (value.dtype, gradient.dtype) == (tf.float32, dtype)
    exact = tf.cast(z, tf.float64).numpy()
    expected, expected_gradient = reference.softmax_cross_entropy(labels, exact, label_smoothing=EPS)
    close(value, expected, 1e-5)
    close(tf.cast(gradient, tf.float64), expected_gradient, 2.0**-8)


def test_variables():
    logits, labels = tf.Variable(LOGITS), tf.Variable(LABELS)
    with tf.GradientTape() as tape:
        value = softmax_cross_entropy(labels, logits, label_smoothing=EPS)
    expected, expected_gradient = reference.softmax_cross_entropy(LABELS, LOGITS, label_smoothing=EPS)
    close(value, expected)
    close(tape.gradient(value, logits), expected_gradient)
    close(sigmoid_cross_entropy(tf.Variable(SOFT), logits), reference.sigmoid_cross_entropy(SOFT, LOGITS)[0])


@COMPILED
def test_sigmoid_cross_entropy_of_unknown_batches(jit_compile):
    @tf.function(jit_compile=jit_compile)
    def step(labels, logits):
        return value_and_gradient(lambda z: sigmoid_cross_entropy(labels, z, label_smoothing=EPS), logits)

    spec = tf.TensorSpec([None, 3], tf.float64)
    value, gradient = step.get_concrete_function(spec, spec)(SOFT, LOGITS)
    expected, expected_gradient = reference.sigmoid_cross_entropy(SOFT, LOGITS, label_smoothing=EPS)
    close(value, expected)
    close(gradient, expected_gradient)


def test_the_loss_trains_a_keras_model():
    keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(optimizer="sgd", loss=lambda y, z: softmax_cross_entropy(y, z, label_smoothing=EPS, reduction=None))
    history = model.fit(LOGITS.astype(np.float32), np.eye(3, dtype=np.float32)[LABELS], epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_a_first_call_inside_a_function_emits_no_warning():
    """AutoGraph does not warn about the function that finds the backend."""
    code = """
        import tensorflow as tf
        from lsmooth.losses import softmax_cross_entropy
        loss = tf.function(lambda y, z: softmax_cross_entropy(y, z, label_smoothing=0.1))
        print(float(loss(tf.constant([0]), tf.zeros([1, 3]))))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert abs(float(done.stdout) - np.log(3.0)) < 1e-6
    assert "AutoGraph" not in done.stderr
