"""The Keras-named functions match Keras on every backend; and the options of lsmooth."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from conftest import assert_close

from lsmooth import losses, validate
from lsmooth.backends import load_backend

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 3.0, (4, 3, 5))
ONE_HOT = np.eye(5)[RNG.integers(0, 5, (4, 3))]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
UNSCALED = RNG.gamma(1.0, 1.0, (4, 3, 5))
SATURATED = np.concatenate([np.eye(5)[:4, None], PROBABILITIES[:, 1:]], 1)
IDS = ONE_HOT.argmax(-1)
VOID = np.where(RNG.random((4, 3)) < 0.4, -1, IDS)
QUESTIONS = RNG.random((4, 3, 5))

CASES = [
    (name, y_true, y_pred, {**options, **smoothing})
    for smoothing in ({}, {"label_smoothing": 0.1})
    for name, y_true, y_pred, options in [
        ("categorical_crossentropy", ONE_HOT, LOGITS, {"from_logits": True}),
        ("categorical_crossentropy", PROBABILITIES[::-1], LOGITS, {"from_logits": True}),
        ("categorical_crossentropy", ONE_HOT, UNSCALED, {}),
        ("categorical_crossentropy", ONE_HOT, SATURATED, {}),
        ("categorical_focal_crossentropy", ONE_HOT, LOGITS, {"from_logits": True}),
        ("categorical_focal_crossentropy", ONE_HOT, UNSCALED, {"gamma": 1.5, "alpha": [0.125, 0.25, 0.5, 0.75, 1.0]}),
        ("categorical_focal_crossentropy", ONE_HOT, SATURATED, {"gamma": 0.0, "alpha": 1.0}),
        ("binary_crossentropy", ONE_HOT, LOGITS, {"from_logits": True}),
        ("binary_crossentropy", QUESTIONS, UNSCALED / 8, {"axis": 1}),
        ("binary_crossentropy", ONE_HOT, SATURATED, {}),
        ("binary_focal_crossentropy", ONE_HOT, LOGITS, {"from_logits": True}),
        ("binary_focal_crossentropy", QUESTIONS, PROBABILITIES, {"gamma": 1.5, "axis": 0}),
        ("binary_focal_crossentropy", ONE_HOT, LOGITS, {"apply_class_balancing": True, "from_logits": True}),
        ("binary_focal_crossentropy", ONE_HOT, PROBABILITIES, {"apply_class_balancing": True, "alpha": 0.7}),
    ]
] + [
    ("categorical_crossentropy", ONE_HOT.swapaxes(1, 2), LOGITS.swapaxes(1, 2), {"from_logits": True, "axis": 1}),
    ("categorical_crossentropy", ONE_HOT.swapaxes(1, 2), UNSCALED.swapaxes(1, 2), {"axis": 1}),
    ("sparse_categorical_crossentropy", IDS, LOGITS, {"from_logits": True}),
    ("sparse_categorical_crossentropy", IDS[..., None], PROBABILITIES, {}),
    ("sparse_categorical_crossentropy", VOID, LOGITS, {"from_logits": True, "ignore_class": -1}),
    ("kl_divergence", PROBABILITIES[::-1], SATURATED, {}),
    ("kl_divergence", ONE_HOT, UNSCALED, {}),
]


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras", reason="keras is not installed")


@pytest.fixture(scope="module")
def bar(keras):
    """The dtype of the comparison: on its other backends Keras rounds to float32 in places."""
    return "float64" if keras.backend.backend() == "tensorflow" else "float32"


def of_keras(keras, name, y_true, y_pred, options):
    """Keras' losses in float64, and their gradient where its backend has gradients."""
    xp = load_backend(keras.backend.backend())
    y_true = xp.asarray(y_true, "float64" if y_true.dtype.kind == "f" else "int64")

    def loss(y_pred):
        return getattr(keras.losses, name)(y_true, y_pred, **options)

    y_pred = xp.asarray(y_pred, "float64")
    values = xp.to_numpy(xp.asarray(loss(y_pred)))
    if xp.name == "numpy":
        return values, None
    return values, xp.to_numpy(xp.value_and_grad(lambda x: xp.sum(loss(x)), y_pred)[1])


@pytest.mark.parametrize(("name", "y_true", "y_pred", "options"), CASES)
def test_values_and_gradients_match_keras(keras, bar, backend, name, y_true, y_pred, options):
    expected, gradient = of_keras(keras, name, y_true, y_pred, options)
    labels = backend.asarray(y_true)

    def loss(y_pred):
        return getattr(losses, name)(labels, y_pred, **options)

    y_pred = backend.asarray(y_pred, "float64")
    assert_close(backend, loss(y_pred), expected, bar, factor=20)
    if backend.name != "numpy" and gradient is not None:
        got = backend.to_numpy(backend.value_and_grad(lambda x: backend.sum(loss(x)), y_pred)[1])
        if name == "kl_divergence" and backend.name != keras.backend.backend():
            # At the clipping bound, JAX gives half the gradient, and TensorFlow and PyTorch all of it.
            got, gradient = (np.where(backend.to_numpy(y_pred) == 1.0, 0.0, x) for x in (got, gradient))
        assert_close(backend, got, gradient, bar, factor=100)


def test_every_argument_and_default_matches_keras(keras):
    for name in losses.__all__:
        theirs = getattr(keras.losses, name, None)
        if theirs is None or name in ("get", "serialize", "deserialize", "Loss"):
            continue
        ours = inspect.signature(getattr(losses, name)).parameters
        theirs = inspect.signature(theirs).parameters
        added = {"label_smoothing"} if name.lower().startswith("sparse") else set()
        assert [(each.name, each.default) for each in theirs.values()] == [
            (each.name, each.default) for each in ours.values() if each.name not in added
        ], name


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_class_ids_match_one_hot_rows_with_smoothing(backend, from_logits, axis):
    y_pred = np.moveaxis(LOGITS if from_logits else SATURATED, -1, axis)
    options = {"from_logits": from_logits, "label_smoothing": 0.2, "axis": axis}

    def sparse(x):
        return losses.sparse_categorical_crossentropy(IDS, x, **options)

    def dense(x):
        return losses.categorical_crossentropy(np.moveaxis(ONE_HOT, -1, axis), x, **options)

    x = backend.asarray(y_pred, "float64")
    assert_close(backend, sparse(x), backend.to_numpy(dense(x)), "float64", factor=10)
    if backend.name != "numpy":
        gradients = [
            backend.value_and_grad(lambda x, loss=loss: backend.sum(loss(x)), x)[1] for loss in (sparse, dense)
        ]
        assert_close(backend, gradients[0], backend.to_numpy(gradients[1]), "float64", factor=10)


def test_smoothing_and_alpha_go_along_the_axis_of_the_classes(backend):
    alpha = np.arange(1.0, 6.0)
    for name, options in (("categorical_crossentropy", {}), ("categorical_focal_crossentropy", {"alpha": alpha})):
        loss = getattr(losses, name)
        for y_pred, from_logits in ((LOGITS, True), (PROBABILITIES, False)):
            options |= {"from_logits": from_logits, "label_smoothing": 0.2}
            last = loss(ONE_HOT, backend.asarray(y_pred), **options)
            first = loss(np.moveaxis(ONE_HOT, -1, 0), backend.asarray(np.moveaxis(y_pred, -1, 0)), axis=0, **options)
            assert_close(backend, first, backend.to_numpy(last), "float64", factor=10)


@pytest.mark.parametrize("from_logits", [True, False])
def test_an_id_out_of_range_makes_its_row_nan_and_is_an_error_under_validate(backend, from_logits):
    y_pred = backend.asarray(PROBABILITIES[:, 0])
    ids = backend.asarray(np.array([0, 5, -1, 2]))
    rows = backend.to_numpy(losses.sparse_categorical_crossentropy(ids, y_pred, from_logits=from_logits))
    assert np.isnan(rows).tolist() == [False, True, True, False]
    with validate(), pytest.raises(ValueError, match=r"labels must be class ids in 0..4, got 5 at index \(1,\)"):
        losses.sparse_categorical_crossentropy(ids, y_pred, from_logits=from_logits)


def test_nan_predictions_are_an_error_under_validate(backend):
    y_pred = backend.asarray(np.array([[np.nan, 0.5]]))
    for name in ("categorical_crossentropy", "binary_crossentropy", "kl_divergence"):
        with validate(), pytest.raises(ValueError, match=r"y_pred must hold no NaN, got nan at index \(0, 0\)"):
            getattr(losses, name)(np.array([[1.0, 0.0]]), y_pred)


def test_ignored_rows_have_zero_loss_and_gradient(differentiable_backend):
    xp = differentiable_backend
    y_pred = np.where((VOID == -1)[..., None], np.nan, PROBABILITIES)

    def loss(x):
        return xp.sum(losses.sparse_categorical_crossentropy(VOID, x, ignore_class=-1, label_smoothing=0.1))

    value, gradient = xp.value_and_grad(loss, xp.asarray(y_pred))
    assert np.isfinite(xp.to_numpy(value))
    assert not xp.to_numpy(gradient)[VOID == -1].any()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_probabilities_of_exactly_0_and_1_have_finite_gradients(differentiable_backend, gamma):
    xp = differentiable_backend
    for name, options in (
        ("categorical_focal_crossentropy", {"gamma": gamma}),
        ("binary_focal_crossentropy", {"gamma": gamma}),
        ("categorical_crossentropy", {}),
        ("binary_crossentropy", {}),
        ("kl_divergence", {}),
    ):
        loss = getattr(losses, name)
        x = xp.asarray(np.eye(5), "float32")
        _, gradient = xp.value_and_grad(lambda x, loss=loss, options=options: xp.sum(loss(np.eye(5), x, **options)), x)
        assert np.isfinite(xp.to_numpy(gradient)).all(), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_summed_in_float32_and_keeps_its_dtype(backend, dtype):
    if (backend.name, dtype) == ("numpy", "bfloat16"):
        pytest.skip("NumPy alone has no bfloat16")
    for name in ("categorical_crossentropy", "binary_crossentropy", "kl_divergence"):
        loss = getattr(losses, name)
        y_pred = backend.cast(backend.asarray(PROBABILITIES), dtype)
        exact = loss(ONE_HOT, np.asarray(backend.to_numpy(y_pred), np.float64))
        got = loss(ONE_HOT, y_pred)
        assert backend.dtype(got) == dtype
        assert_close(backend, got, exact, dtype, factor=2)


def test_integer_predictions_are_probabilities(backend):
    rows = losses.categorical_crossentropy(ONE_HOT, backend.asarray(ONE_HOT.astype(np.int32)))
    np.testing.assert_allclose(backend.to_numpy(rows), np.zeros((4, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "y_true", "options", "error"),
    [
        ("categorical_crossentropy", ONE_HOT[..., :1], {}, "y_true and y_pred must have the same shape"),
        ("binary_crossentropy", ONE_HOT[0], {}, "y_true and y_pred must have the same shape"),
        ("sparse_categorical_crossentropy", IDS[0], {}, r"y_true must have shape \(4, 3\), or a 1 at axis -1"),
        ("categorical_crossentropy", ONE_HOT, {"axis": True}, "axis must be an integer in"),
        ("categorical_crossentropy", ONE_HOT, {"axis": 3}, "axis must be an integer in"),
        (
            "categorical_crossentropy",
            ONE_HOT,
            {"label_smoothing": 1.5},
            "label_smoothing must be in .0, 1., got 1.5",
        ),
        ("binary_crossentropy", ONE_HOT, {"label_smoothing": -0.1}, "label_smoothing must be in .0, 1., got -0.1"),
        ("categorical_focal_crossentropy", ONE_HOT, {"gamma": -1.0}, "gamma must be"),
    ],
)
def test_wrong_shapes_raise_a_clear_error(backend, name, y_true, options, error):
    with pytest.raises(ValueError, match=error):
        getattr(losses, name)(y_true, backend.asarray(LOGITS), **options)


def test_one_class_gets_a_warning():
    with pytest.warns(SyntaxWarning, match="use binary_crossentropy for binary labels"):
        losses.categorical_crossentropy([[1.0]], np.array([[0.7]]))


def test_works_under_jit():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    for loss in (losses.sparse_categorical_crossentropy, losses.SparseCategoricalCrossentropy(ignore_class=-1)):
        compiled = jax.jit(lambda ids, p, loss=loss: loss(ids, p))
        np.testing.assert_allclose(compiled(IDS, PROBABILITIES), loss(IDS, PROBABILITIES), rtol=1e-6)


def test_works_in_a_tf_function_whose_batch_size_is_unknown():
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    for loss in (
        losses.sparse_categorical_crossentropy,
        losses.SparseCategoricalCrossentropy(ignore_class=2, label_smoothing=0.1),
        lambda ids, p: losses.BinaryFocalCrossentropy(axis=0)(tf.one_hot(ids, 5), p),
    ):
        compiled = tf.function(
            loss, input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 5], tf.float32)]
        )
        ids, p = tf.constant(IDS[:, 0]), tf.constant(PROBABILITIES[:, 0], tf.float32)
        np.testing.assert_allclose(compiled(ids, p), loss(ids, p), rtol=1e-5)


def test_compiles_in_torch_without_a_graph_break():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for loss in (
        losses.sparse_categorical_crossentropy,
        losses.SparseCategoricalCrossentropy(label_smoothing=0.1, ignore_class=2),
        losses.SparseCategoricalCrossentropy(from_logits=True),
    ):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        ids, p = torch.tensor(IDS), torch.tensor(PROBABILITIES)
        torch.testing.assert_close(compiled(ids, p), loss(ids, p))
