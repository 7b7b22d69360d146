"""`lsmooth.compat.tf_losses` on every backend, held to ``tf.compat.v1.losses`` of the installed TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lsmooth
from lsmooth.compat import tf_losses
from lsmooth.compat.tf_losses import Reduction

tf = pytest.importorskip("tensorflow", reason="the numbers to match are TensorFlow's")
peer = tf.compat.v1.losses

RNG = np.random.default_rng(0)
ROWS, CLASSES = (3, 4), 5
LOGITS = RNG.normal(size=(*ROWS, CLASSES)) * 3
ONEHOT = np.eye(CLASSES)[RNG.integers(CLASSES, size=ROWS)]
IDS = ONEHOT.argmax(-1)
SPARSE_WEIGHT = RNG.uniform(0.5, 2.0, size=ROWS) * (RNG.random(ROWS) > 0.4)
WEIGHTS = {
    "one": 1.0,
    "a scalar": 2.5,
    "zero": 0.0,
    "a scalar array": np.asarray(0.5),
    "per row": RNG.normal(size=(3, 1)),
    "per column": RNG.normal(size=(1, 4)),
    "broadcast from one": np.full((1, 1), 3.0),
    "some zero": SPARSE_WEIGHT,
    "all zero": np.zeros(ROWS),
    "integers": np.arange(12).reshape(ROWS),
    "of sum zero": np.tile([1.0, -1.0], 6).reshape(ROWS),
}
CALLS = {
    "softmax_cross_entropy": (ONEHOT, LOGITS),
    "sigmoid_cross_entropy": (ONEHOT[..., 0], LOGITS[..., 0]),
    "sparse_softmax_cross_entropy": (IDS, LOGITS),
}


def tf_value_and_gradient(name, labels, logits, dtype="float32", **options):
    logits = tf.cast(tf.convert_to_tensor(logits), dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = getattr(peer, name)(labels, logits, **options)
    as_numpy = lambda x: tf.cast(x, "float64").numpy()  # noqa: E731
    return value, as_numpy(value), as_numpy(tape.gradient(value, logits))


def assert_same_as_tf(backend, name, labels, logits, dtype="float32", factor=4.0, **options):
    value, expected, gradient = tf_value_and_gradient(name, labels, logits, dtype, **options)
    function = getattr(tf_losses, name)
    x = backend.asarray(logits, dtype)
    actual = function(backend.asarray(labels), x, **options)
    assert backend.is_array(actual)
    assert backend.dtype(actual) == value.dtype.name
    assert backend.shape(actual) == tuple(value.shape)
    bar = "float32" if dtype == "float64" else dtype  # TensorFlow reduces in float32
    assert_close(backend, actual, expected, bar, factor)
    if backend.name != "numpy":
        total = lambda x: backend.sum(function(backend.asarray(labels), x, **options))  # noqa: E731
        got = backend.value_and_grad(total, x)[1]
        assert backend.dtype(got) == dtype
        assert_close(backend, got, gradient, bar, factor)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CALLS)
def test_every_reduction_with_every_kind_of_weight_matches_tensorflow(backend, name, weights):
    for reduction in Reduction.all():
        assert_same_as_tf(backend, name, *CALLS[name], weights=WEIGHTS[weights], reduction=reduction)


@pytest.mark.parametrize("label_smoothing", [0, 1e-3, 0.1, 0.5, 1, 1.5, -0.1])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_out_of_range_smoothing_matches_tensorflow(backend, name, label_smoothing):
    for reduction in (Reduction.NONE, Reduction.SUM_BY_NONZERO_WEIGHTS):
        options = {"weights": SPARSE_WEIGHT, "label_smoothing": label_smoothing, "reduction": reduction}
        assert_same_as_tf(backend, name, *CALLS[name], **options)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", CALLS)
def test_the_result_keeps_the_dtype_of_the_input(backend, name, dtype):
    for reduction in Reduction.all():
        options = {"weights": SPARSE_WEIGHT, "reduction": reduction}
        if name != "sparse_softmax_cross_entropy":
            options["label_smoothing"] = 0.1
        assert_same_as_tf(backend, name, *CALLS[name], dtype=dtype, factor=8.0, **options)


def test_defaults_and_argument_order_match_tensorflow(backend):
    labels, logits = backend.asarray(ONEHOT), backend.asarray(LOGITS, "float32")
    plain = peer.softmax_cross_entropy(ONEHOT, LOGITS.astype("float32"))
    assert_close(backend, tf_losses.softmax_cross_entropy(labels, logits), plain, "float32", 4.0)
    arguments = (SPARSE_WEIGHT, 0.1, "scope", None, Reduction.MEAN)
    expected = peer.softmax_cross_entropy(ONEHOT, LOGITS.astype("float32"), *arguments)
    assert_close(backend, tf_losses.softmax_cross_entropy(labels, logits, *arguments), expected, "float32", 4.0)


def test_the_constants_match_tensorflow():
    for name in ("NONE", "SUM", "MEAN", "SUM_OVER_BATCH_SIZE", "SUM_OVER_NONZERO_WEIGHTS", "SUM_BY_NONZERO_WEIGHTS"):
        assert getattr(Reduction, name) == getattr(peer.Reduction, name)
    assert set(Reduction.all()) == set(peer.Reduction.all())


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_calls_match_tensorflow(backend, data):
    # Few shapes, because JAX compiles every operation for each.
    rows = data.draw(st.sampled_from([(), (0,), (4,), (2, 3)]), "rows")
    classes = data.draw(st.sampled_from([1, 4]), "classes")
    scale = data.draw(st.sampled_from([1.0, 30.0, 1e4]), "scale")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    logits = rng.normal(size=(*rows, classes)) * scale
    labels = np.eye(classes)[rng.integers(classes, size=rows)]
    if data.draw(st.booleans(), "labels are no distributions"):
        labels = labels + rng.uniform(-0.5, 1.0, size=labels.shape)
    shape = data.draw(st.sampled_from([(), rows, tuple(1 for _ in rows)]), "shape of the weights")
    options = {
        "weights": rng.integers(-1, 3, size=shape) * 0.5,
        "label_smoothing": data.draw(st.sampled_from([0, 0.1, 0.73, 1.0]), "label_smoothing"),
        "reduction": data.draw(st.sampled_from(Reduction.all()), "reduction"),
    }
    for name in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        if name == "sigmoid_cross_entropy" and options["weights"].ndim:
            options["weights"] = options["weights"][..., None]
        assert_same_as_tf(backend, name, labels, logits, **options)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
@pytest.mark.parametrize("label_smoothing", [0, 0.1])
def test_infinite_logits_match_the_original(backend, name, label_smoothing):
    options = {"label_smoothing": label_smoothing, "reduction": Reduction.NONE}
    labels = np.eye(3)[[0, 2]]
    assert_same_as_tf(backend, name, labels, np.array([[1.0, 2.0, -np.inf]] * 2), **options)
    for logits in (np.array([[1.0, np.inf, 2.0]] * 2), np.array([[np.nan, 0.0, 0.0]] * 2)):
        expected = tf_value_and_gradient(name, labels, logits, **options)[1]
        x = backend.asarray(logits, "float32")
        assert_close(backend, getattr(tf_losses, name)(backend.asarray(labels), x, **options), expected, "float32")
        # If the divisor is 0, TensorFlow returns 0 even for NaN.
        value = getattr(tf_losses, name)(backend.asarray(labels), x, weights=0.0)
        assert float(value) == float(getattr(peer, name)(labels, np.float32(logits), weights=0.0)) == 0.0


def test_the_labels_have_a_gradient_in_the_sigmoid_form_alone(differentiable_backend):
    xp = differentiable_backend
    labels = xp.asarray(np.full((2, 3), 0.4), "float32")
    logits = xp.asarray(LOGITS[0, :2, :3], "float32")
    softmax = xp.value_and_grad(lambda x: tf_losses.softmax_cross_entropy(x, logits) + 0 * xp.sum(x), labels)[1]
    sigmoid = xp.value_and_grad(lambda x: tf_losses.sigmoid_cross_entropy(x, logits), labels)[1]
    np.testing.assert_array_equal(xp.to_numpy(softmax), 0.0)
    assert_close(xp, sigmoid, -LOGITS[0, :2, :3] / 6, "float32")


@pytest.mark.parametrize("reduction", Reduction.all())
def test_gradients_of_weights_match_tensorflow(differentiable_backend, reduction):
    xp = differentiable_backend

    def loss(module, labels, logits, weights):
        return module.softmax_cross_entropy(labels, logits, weights, reduction=reduction)

    with tf.GradientTape() as tape:
        weights = tf.constant(SPARSE_WEIGHT, "float32")
        tape.watch(weights)
        value = loss(peer, ONEHOT, LOGITS.astype("float32"), weights)
    expected = tape.gradient(value, weights).numpy()
    labels, logits = xp.asarray(ONEHOT), xp.asarray(LOGITS, "float32")
    got = xp.value_and_grad(lambda w: xp.sum(loss(tf_losses, labels, logits, w)), xp.asarray(SPARSE_WEIGHT, "float32"))[
        1
    ]
    assert_close(xp, got, expected, "float32", 4.0)


def test_sparse_labels_logits_and_weights_lose_a_last_dimension_of_one(backend):
    two = LOGITS[0]
    for labels, logits, weights in [
        (IDS[0][:, None], two, 1.0),
        (IDS[0], two[..., None], 1.0),
        (IDS[0], two, SPARSE_WEIGHT[0][:, None]),
        (IDS[0][:, None], two, SPARSE_WEIGHT[0][:, None]),
        (IDS[0, 0], two[0], [2.0]),
    ]:
        assert_same_as_tf(backend, "sparse_softmax_cross_entropy", labels, logits, weights=weights)


def test_a_class_id_out_of_range_is_nan_and_an_error_under_validate(backend):
    logits = backend.asarray(LOGITS[0], "float32")
    labels = backend.asarray([0, 1, 5, -1])
    rows = tf_losses.sparse_softmax_cross_entropy(labels, logits, reduction=Reduction.NONE)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(rows)), [False, False, True, True])
    with lsmooth.validate(), pytest.raises(ValueError, match=r"labels must be class ids in 0\.\.4, got 5 at index"):
        tf_losses.sparse_softmax_cross_entropy(labels, logits)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "shape", [(3,), (4,), (3, 4, 1), (1, 3, 4), (2, 4), (3, 2), (1, 1, 1), (3, 4, 5), (4, 3), (1, 5), (1,), (3, 4, 2)]
)
def test_weights_that_tensorflow_does_not_broadcast_are_refused(backend, name, shape):
    labels, logits = CALLS[name]
    weights = np.ones(shape)
    try:
        expected = getattr(peer, name)(labels, logits.astype("float32"), weights)
    except (ValueError, tf.errors.InvalidArgumentError):
        with pytest.raises(ValueError, match="weights"):
            getattr(tf_losses, name)(backend.asarray(labels), backend.asarray(logits, "float32"), weights)
    else:
        actual = getattr(tf_losses, name)(backend.asarray(labels), backend.asarray(logits, "float32"), weights)
        assert_close(backend, actual, expected, "float32", 4.0)


@pytest.mark.parametrize(
    ("labels", "logits", "options", "error", "match"),
    [
        (ONEHOT[:2], LOGITS, {}, ValueError, r"onehot_labels must have the shape of the logits, \(3, 4, 5\); got"),
        (ONEHOT[..., :1], LOGITS, {}, ValueError, "onehot_labels must have the shape of the logits"),
        (IDS, LOGITS, {}, ValueError, "onehot_labels must have the shape of the logits"),
        (None, LOGITS, {}, ValueError, "onehot_labels must not be None"),
        (ONEHOT, None, {}, ValueError, "logits must not be None"),
        (ONEHOT, LOGITS, {"weights": None}, ValueError, "weights must not be None"),
        (
            ONEHOT,
            LOGITS,
            {"reduction": "mean"},
            ValueError,
            "reduction must be one of none, weighted_sum, .* got 'mean'",
        ),
        (ONEHOT, LOGITS, {"reduction": None}, ValueError, "reduction must be one of"),
        (ONEHOT, LOGITS.astype(int), {}, TypeError, "logits must be floating point, got int"),
        (1.0, 1.0, {}, ValueError, "logits must have at least one axis"),
    ],
)
def test_arguments_that_tensorflow_refuses_are_refused_and_named(backend, labels, logits, options, error, match):
    with pytest.raises((ValueError, TypeError, tf.errors.InvalidArgumentError)):
        peer.softmax_cross_entropy(labels, logits, **options)
    convert = lambda x: None if x is None else backend.asarray(x)  # noqa: E731
    with pytest.raises(error, match=match):
        tf_losses.softmax_cross_entropy(convert(labels), convert(logits), **options)


def test_python_numbers_are_float32():
    arguments = [[0, 1.0], [1.0, 0]], [[1, 2.5], [0.5, 0]]
    for name in ("softmax_cross_entropy", "sigmoid_cross_entropy"):
        actual = getattr(tf_losses, name)(*arguments)
        assert actual.dtype == "float32"
        np.testing.assert_allclose(actual, getattr(peer, name)(*arguments), rtol=4e-6)


def test_one_tf_function_serves_every_batch_size():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), tf.TensorSpec([None, 3]), tf.TensorSpec([None])])
    def loss(labels, logits, weights):
        traces.append(1)
        return tf_losses.softmax_cross_entropy(labels, logits, weights, label_smoothing=0.1)

    for rows in (4, 2, 1):
        arguments = (
            tf.constant(ONEHOT[0, :rows, :3], "float32"),
            tf.constant(LOGITS[0, :rows, :3], "float32"),
            tf.ones(rows),
        )
        expected = peer.softmax_cross_entropy(*arguments, label_smoothing=0.1)
        np.testing.assert_allclose(loss(*arguments), expected, rtol=4e-6)
    assert len(traces) == 1


@pytest.mark.parametrize("name", CALLS)
def test_in_a_graph_the_loss_joins_its_collection_under_its_scope(name):
    labels, logits = CALLS[name]
    with tf.Graph().as_default():
        fed = tf.compat.v1.placeholder("float32", [None] * (logits.ndim - 1) + [logits.shape[-1]])
        loss = getattr(tf_losses, name)(labels, fed, SPARSE_WEIGHT, scope="mine")
        getattr(tf_losses, name)(labels, fed, loss_collection=None)
        assert peer.get_losses() == [loss]
        assert loss.name.startswith("mine/")
        theirs = getattr(peer, name)(labels, fed, SPARSE_WEIGHT)
        gradients = tf.gradients(loss, fed)[0], tf.gradients(theirs, fed)[0]
        with tf.compat.v1.Session() as session:
            got = session.run([loss, gradients[0], theirs, gradients[1]], {fed: logits})
    np.testing.assert_allclose(got[0], got[2], rtol=4e-6)
    np.testing.assert_allclose(got[1], got[3], rtol=4e-6, atol=4e-6)


def test_traced_calls_agree_with_eager_ones():
    jax = pytest.importorskip("jax", reason="traces with JAX")
    torch = pytest.importorskip("torch", reason="compiles with PyTorch")
    expected = peer.softmax_cross_entropy(ONEHOT, LOGITS.astype("float32"), SPARSE_WEIGHT, 0.1)

    def loss(logits):
        return tf_losses.softmax_cross_entropy(ONEHOT, logits, SPARSE_WEIGHT, 0.1)

    np.testing.assert_allclose(jax.jit(loss)(LOGITS.astype("float32")), expected, rtol=4e-6)
    logits, labels, weights = (torch.tensor(x, dtype=torch.float32) for x in (LOGITS, ONEHOT, SPARSE_WEIGHT))
    compiled = torch.compile(tf_losses.softmax_cross_entropy, fullgraph=True, backend="eager")
    np.testing.assert_allclose(compiled(labels, logits, weights, 0.1), expected, rtol=4e-6)
