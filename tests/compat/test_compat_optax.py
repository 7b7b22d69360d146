"""`lsmooth.compat.optax` on every backend, held to the installed Optax, and put through Optax' own tests."""

from __future__ import annotations

import functools
import importlib
import unittest
import warnings

import numpy as np
import pytest
from conftest import assert_close

import lsmooth
from lsmooth.compat import optax as compat

jax = pytest.importorskip("jax", reason="Optax is JAX's")
optax = pytest.importorskip("optax", reason="the numbers to match are Optax'")
losses = importlib.import_module("optax.losses")

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 5)
LOGITS = 3 * RNG.normal(size=SHAPE)
SOFT = RNG.dirichlet(np.ones(5), size=SHAPE[:2])
LOG_P = np.log(RNG.dirichlet(np.ones(5), size=SHAPE[:2]))
KEPT = RNG.random(SHAPE) > 0.4
KEPT[0, 0] = False
AXES = [-1, 0, (2, 0)]


def assert_same_as_optax(backend, name, *arrays, dtype="float64", factor=4.0, by=0, **options):
    """Values, and the gradient of their sum by one of the arrays."""

    def cast(x):
        return x.astype(dtype) if x.dtype.kind == "f" else x

    arrays = [cast(x) for x in arrays]
    theirs, ours = getattr(losses, name), getattr(compat, name)
    value = theirs(*map(jax.numpy.asarray, arrays), **options)
    converted = [backend.asarray(x) for x in arrays]
    masks = {key: backend.asarray(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
    actual = ours(*converted, **masks)
    assert backend.dtype(actual) == str(value.dtype)
    assert backend.shape(actual) == value.shape
    assert_close(backend, actual, np.asarray(value, np.float64), dtype, factor)
    if backend.name == "numpy":
        return
    summed = lambda x: theirs(*[x if i == by else a for i, a in enumerate(arrays)], **options).sum()  # noqa: E731
    gradient = np.asarray(jax.grad(summed)(jax.numpy.asarray(arrays[by])), np.float64)
    total = lambda x: backend.sum(ours(*[x if i == by else a for i, a in enumerate(converted)], **masks))  # noqa: E731
    assert_close(backend, backend.value_and_grad(total, converted[by])[1], gradient, dtype, factor)


@pytest.mark.parametrize("axis", [*AXES, None], ids=str)
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "poly_loss_cross_entropy"])
def test_losses_of_distributions_match_optax(backend, name, axis):
    for where in (None, KEPT):
        assert_same_as_optax(backend, name, LOGITS, SOFT, axis=axis, where=where)
    assert_same_as_optax(backend, name, LOGITS, SOFT, axis=axis, by=1)


@pytest.mark.parametrize("axis", [*AXES, (0, 2)], ids=str)
def test_losses_of_class_ids_match_optax(backend, axis):
    axes = axis if isinstance(axis, tuple) else (axis % 3,)
    rows = [size for a, size in enumerate(SHAPE) if a not in axes]
    ids = RNG.integers(np.prod([SHAPE[a] for a in axes]), size=rows)
    for where in (None, KEPT):
        assert_same_as_optax(backend, "softmax_cross_entropy_with_integer_labels", LOGITS, ids, axis=axis, where=where)


@pytest.mark.parametrize("name", ["kl_divergence", "kl_divergence_with_log_targets", "generalized_kl_divergence"])
def test_divergences_match_optax(backend, name):
    targets = LOG_P if "log" in name else SOFT
    for axis in (-1, (0, 2)):
        for where in (None, KEPT):
            assert_same_as_optax(backend, name, LOGITS, targets, axis=axis, where=where)
    assert_same_as_optax(backend, name, LOGITS, targets, by=1)


@pytest.mark.parametrize("name", ["sigmoid_binary_cross_entropy", "sigmoid_focal_loss"])
def test_binary_losses_match_optax(backend, name):
    for labels in (SOFT, (SOFT > 0.3).astype(int)):
        assert_same_as_optax(backend, name, LOGITS, labels)
    if name == "sigmoid_focal_loss":
        assert_same_as_optax(backend, name, LOGITS, SOFT, alpha=0.25, gamma=1.5)


@pytest.mark.parametrize("axis", [-1, 1, (0, 2), None], ids=str)
def test_smoothed_labels_match_optax(backend, axis):
    for alpha in (0.0, 0.1, 1.0):
        for where in (None, KEPT[:1, :, 1:2] | True, KEPT):
            if where is not None and not where.any(axis).all():
                continue  # alpha / 0
            theirs = losses.smooth_labels(SOFT, alpha, axis=axis, where=where)
            ours = compat.smooth_labels(backend.asarray(SOFT), alpha, axis=axis, where=where)
            assert_close(backend, ours, theirs, "float64")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_result_keeps_the_dtype_of_the_input(backend, dtype):
    factor = 4.0 if dtype == "float32" else 16.0
    for name in ("softmax_cross_entropy", "sigmoid_binary_cross_entropy", "kl_divergence"):
        options = {"dtype": dtype, "factor": factor}
        if dtype == "bfloat16":
            # Theirs adds up in half precision; ours is the float64 number, rounded.
            value = getattr(compat, name)(backend.asarray(LOG_P, dtype), backend.asarray(SOFT, dtype))
            assert backend.dtype(value) == dtype
            assert_close(backend, value, getattr(losses, name)(LOG_P, SOFT), dtype, factor)
        else:
            assert_same_as_optax(backend, name, LOG_P, SOFT, **options)


def test_labels_are_broadcast_and_may_be_integers(backend):
    assert_same_as_optax(backend, "softmax_cross_entropy", LOGITS, SOFT[0, 0])
    assert_same_as_optax(backend, "softmax_cross_entropy", LOGITS, np.eye(5, dtype=int)[:4])
    assert_same_as_optax(backend, "kl_divergence", LOGITS, SOFT[0, 0])


def test_a_mask_of_rows_removes_whole_rows(backend):
    where = KEPT[..., 0]
    assert_same_as_optax(backend, "softmax_cross_entropy", LOGITS, SOFT, where=where)
    ids = SOFT.argmax(-1)
    assert_same_as_optax(backend, "softmax_cross_entropy_with_integer_labels", LOGITS, ids, where=where)


def test_masked_classes_match_the_original(backend):
    logits = np.array([[-np.inf, 0.0, 1.0]] * 3)
    labels = np.array([[0.0, 0.5, 0.5], [0.4, 0.3, 0.3], [0.0, 1.0, 0.0]])
    for name in ("softmax_cross_entropy", "safe_softmax_cross_entropy"):
        value = np.asarray(getattr(losses, name)(logits, labels))
        with np.errstate(invalid="ignore"):
            actual = getattr(compat, name)(backend.asarray(logits), backend.asarray(labels))
        assert_close(backend, actual, value, "float64")
    assert_same_as_optax(backend, "safe_softmax_cross_entropy", logits[[0, 2]], labels[[0, 2]])
    assert_same_as_optax(backend, "safe_softmax_cross_entropy", LOGITS, SOFT, by=1)


def test_a_class_id_counts_from_the_end_below_0_and_is_nan_when_too_large(backend):
    ids = np.array([0, -1, -5, 5])
    assert_close(
        backend,
        compat.softmax_cross_entropy_with_integer_labels(backend.asarray(LOGITS[0]), backend.asarray(ids)),
        losses.softmax_cross_entropy_with_integer_labels(LOGITS[0], ids),
        "float64",
    )
    with lsmooth.validate(), pytest.raises(ValueError, match="got 5 at index"):
        compat.softmax_cross_entropy_with_integer_labels(backend.asarray(LOGITS[0]), backend.asarray(ids))


def test_arguments_that_optax_refuses_are_refused_and_named(backend):
    logits, ids = backend.asarray(LOGITS), backend.asarray(SOFT.argmax(-1))
    integers = backend.asarray(LOGITS.astype(int))
    with pytest.raises(TypeError, match="logits must be floating point, got int"):
        compat.softmax_cross_entropy(integers, logits)
    with pytest.raises(TypeError, match="labels must be integer class ids"):
        compat.softmax_cross_entropy_with_integer_labels(logits, logits[..., 0])
    with pytest.raises(TypeError, match="targets must be floating point"):
        compat.kl_divergence(logits, integers)
    with pytest.raises(TypeError, match="labels must be floating point"):
        compat.smooth_labels(integers, 0.1)
    with pytest.raises(ValueError, match=r"axis must be in \[-3, 2\], got 3"):
        compat.softmax_cross_entropy(logits, logits, axis=3)
    with pytest.raises(ValueError, match="axis must be an int or a tuple of ints, got None"):
        compat.softmax_cross_entropy_with_integer_labels(logits, ids, axis=None)


# Optax' test classes for the functions offered here; its other functions stay its own.
OWN_TESTS = {
    "_smoothing_test": ["SmoothLabelsTest"],
    "_classification_test": [
        "SoftmaxCrossEntropyTest",
        "SafeSoftmaxCrossEntropyTest",
        "SoftmaxCrossEntropyWithIntegerLabelsTest",
        "SigmoidCrossEntropyTest",
        "PolyLossTest",
        "GeneralizedKLDivergenceTest",
        "KLDivergenceTest",
        "KLDivergenceWithLogTargetsTest",
        "SigmoidFocalLossTest",
    ],
}


def counted(function, calls):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(("module", "case"), [(module, case) for module, cases in OWN_TESTS.items() for case in cases])
def test_the_loss_tests_of_optax_pass(module, case, monkeypatch):
    pytest.importorskip("absl.testing.absltest", reason="Optax' tests are written with absl-py")
    tests = importlib.import_module(f"optax.losses.{module}")
    target = importlib.import_module(f"optax.losses.{module.removesuffix('_test')}")
    calls = []
    for name in compat.__all__:
        if hasattr(target, name):
            monkeypatch.setattr(target, name, counted(getattr(compat, name), calls))
    np.random.seed(0)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(tests, case))
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        suite.run(result)
    assert result.testsRun > 0
    assert not [trace for _, trace in result.failures + result.errors]
    assert calls
