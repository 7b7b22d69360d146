"""`lsmooth.compat.torch` on every backend, held to the installed ``torch.nn``."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import need_dtype

import lsmooth
from lsmooth.compat import torch as compat

torch = pytest.importorskip("torch", reason="the numbers to match are PyTorch's")

LOGITS = 3 * np.random.default_rng(1).normal(size=(5, 4))
IDS = np.array([0, 3, 2, 2, 1])
CLASSES = 4
SHAPES = {"one row": (4,), "a batch": (5, 4), "a map": (2, 4, 2, 3)}
WEIGHT = np.array([0.5, 0.0, 2.0, 1.3])


def case(shape, soft):
    rng = np.random.default_rng(2)
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    target = rng.dirichlet(np.ones(CLASSES), size=rows) if soft else rng.integers(CLASSES, size=rows)
    return 3 * rng.normal(size=shape), np.moveaxis(target, -1, min(1, len(rows))) if soft else target


def expected(logits, target, dtype="float64", **options):
    x = torch.tensor(logits, dtype=getattr(torch, dtype), requires_grad=True)
    target = torch.as_tensor(target)
    if target.is_floating_point():
        target = target.to(x.dtype)
    if options.get("weight") is not None:
        options = options | {"weight": torch.tensor(options["weight"], dtype=x.dtype)}
    value = torch.nn.functional.cross_entropy(x, target, **options)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach().double().numpy(), gradient.double().numpy()


def assert_same_as_torch(backend, logits, target, dtype="float64", factor=4.0, **options):
    value, gradient = expected(logits, target, dtype, **options)
    x, labels = backend.asarray(logits, dtype), backend.asarray(target)
    actual = compat.cross_entropy(x, labels, **options)
    assert backend.dtype(actual) == dtype
    assert backend.shape(actual) == value.shape
    assert_close(backend, actual, value, dtype, factor)
    if backend.name != "numpy":
        got = backend.value_and_grad(lambda x: backend.sum(compat.cross_entropy(x, labels, **options)), x)[1]
        assert_close(backend, got, gradient, dtype, factor)


@pytest.mark.parametrize("soft", [False, True], ids=["class ids", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_option_matches_torch(backend, shape, soft):
    logits, target = case(SHAPES[shape], soft)
    for weight in (None, WEIGHT):
        for label_smoothing in (0.0, 0.1, 1.0):
            for reduction in ("none", "mean", "sum"):
                options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": reduction}
                assert_same_as_torch(backend, logits, target, **options)


@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_ignored_rows_match_torch_and_give_nan_if_all_are_ignored(backend, ignore_index):
    logits, target = case(SHAPES["a map"], soft=False)
    target[0, 0] = ignore_index
    for weight in (None, WEIGHT):
        for label_smoothing in (0.0, 0.1):
            for reduction in ("none", "mean", "sum"):
                options = {
                    "weight": weight,
                    "label_smoothing": label_smoothing,
                    "reduction": reduction,
                    "ignore_index": ignore_index,
                }
                assert_same_as_torch(backend, logits, target, **options)
    everything = np.full_like(target, ignore_index)
    for label_smoothing in (0.0, 0.1):
        options = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
        assert np.isnan(expected(logits, everything, **options)[0])
        assert_same_as_torch(backend, logits, everything, **options)
        assert_same_as_torch(backend, logits, everything, reduction="sum", **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_result_keeps_the_dtype_of_the_input(backend, dtype):
    need_dtype(backend, dtype)
    for soft in (False, True):
        logits, target = case(SHAPES["a batch"], soft)
        assert_same_as_torch(backend, logits, target, dtype, 8.0, label_smoothing=0.1, weight=WEIGHT)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, [1.0, 1.0, 0.0]])
def test_a_masked_class_matches_the_original(backend, weight, label_smoothing):
    logits = np.array([[1.0, 2.0, -np.inf]])
    for target in ([0], [2], np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 0.0, 0.5]])):
        options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": "none"}
        value = expected(logits, np.asarray(target), **options)[0]
        assert_close(backend, compat.cross_entropy(backend.asarray(logits), target, **options), value, "float64")


def test_a_mean_over_an_empty_batch_is_nan_and_its_sum_0(backend):
    logits, target = np.zeros((0, 4)), np.zeros(0, int)
    assert_same_as_torch(backend, logits, target)
    assert_same_as_torch(backend, logits, target, reduction="sum", label_smoothing=0.1)


@pytest.mark.parametrize(
    "shape", [(5, 0), (0, 4), (0, 0), (0,), (1,), (2, 1), (0, 4, 2), (2, 4, 0), (2, 0, 3), (0, 0, 2)]
)
@pytest.mark.parametrize("kind", ["class ids", "ignored ids", "probabilities"])
def test_empty_shapes_match_torch(backend, shape, kind):
    rows, classes = (shape[:1] + shape[2:], shape[1]) if len(shape) > 1 else ((), shape[0])
    if kind != "probabilities" and classes == 0 and (len(shape) > 2 or kind == "class ids"):
        pytest.skip("torch has no answer")
    target = {
        "class ids": np.zeros(rows, int),
        "ignored ids": np.full(rows, -100),
        "probabilities": np.full(shape, 1.0 / max(classes, 1)),
    }[kind]
    for weight in (None, np.ones(classes)):
        for label_smoothing in (0.0, 0.1):
            for reduction in ("none", "mean", "sum"):
                options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": reduction}
                assert_same_as_torch(backend, np.zeros(shape), target, **options)


def test_a_mean_over_rows_of_weight_0_is_nan(backend):
    for label_smoothing in (0.0, 0.1, 1.0):
        assert_same_as_torch(backend, LOGITS[0], np.asarray(1), weight=WEIGHT, label_smoothing=label_smoothing)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_calls_match_torch(backend, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16), "seed"))
    scale = data.draw(st.sampled_from([1.0, 1e4]), "scale")
    logits = rng.normal(size=(3, CLASSES, 2)) * scale
    target = rng.integers(-1, CLASSES, size=(3, 2))
    assert_same_as_torch(
        backend,
        logits,
        target,
        ignore_index=-1,
        weight=data.draw(st.sampled_from([None, rng.uniform(size=CLASSES)]), "weight"),
        label_smoothing=data.draw(st.floats(0.0, 1.0), "label_smoothing"),
        reduction=data.draw(st.sampled_from(["none", "mean", "sum"]), "reduction"),
    )


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1.5"),
        ({"reduction": "avg"}, ValueError, "reduction must be one of none, mean, sum; got 'avg'"),
        ({"reduction": None}, ValueError, "reduction must be one of"),
        ({"weight": np.ones(3)}, ValueError, r"weight must have shape \(4,\), one number per class; got \(3,\)"),
        ({"target": np.zeros(4, int)}, ValueError, r"target must have shape \(5,\)"),
        ({"target": np.zeros((5, 3), int)}, ValueError, r"target must have shape \(5,\)"),
        ({"target": np.zeros(5)}, TypeError, "target must be integer class ids, got float64"),
        ({"target": np.zeros((5, 4), int)}, TypeError, "target must be floating point, got int64"),
        ({"target": np.full((5, 4), 0.25), "ignore_index": 1}, ValueError, "ignore_index must be below 0"),
        ({"input": np.zeros((5, 4), int)}, TypeError, "input must be floating point"),
    ],
)
def test_arguments_that_torch_refuses_are_refused_and_named(backend, change, error, match):
    arguments = {"input": LOGITS, "target": IDS} | change
    theirs = {name: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for name, x in arguments.items()}
    with pytest.raises((RuntimeError, ValueError, NotImplementedError)):
        torch.nn.functional.cross_entropy(**theirs)
    ours = {name: backend.asarray(x) if isinstance(x, np.ndarray) else x for name, x in arguments.items()}
    with pytest.raises(error, match=match):
        compat.cross_entropy(**ours)


def test_an_id_out_of_range_is_nan_and_an_error_under_validate(backend):
    logits = backend.asarray(LOGITS[:3])
    rows = compat.cross_entropy(logits, backend.asarray([0, 4, -1]), reduction="none", label_smoothing=0.1)
    np.testing.assert_array_equal(np.isnan(backend.to_numpy(rows)), [False, True, True])
    with lsmooth.validate(), pytest.raises(ValueError, match="got 4 at index"):
        compat.cross_entropy(logits, backend.asarray([0, 4, -100]))


@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_deprecated_arguments_choose_the_reduction(size_average, reduce):
    logits, target = (torch.tensor(x) for x in case(SHAPES["a batch"], soft=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = torch.nn.functional.cross_entropy(logits, target, size_average=size_average, reduce=reduce)
        actual = compat.cross_entropy(logits, target, size_average=size_average, reduce=reduce)
        module = compat.CrossEntropyLoss(size_average=size_average, reduce=reduce)(logits, target)
    torch.testing.assert_close(actual, value)
    torch.testing.assert_close(module, value)


@pytest.mark.parametrize("size_average", [None, True, False])
def test_deprecated_positional_arguments_are_not_misread(size_average):
    logits, target = case(SHAPES["a batch"], soft=False)
    with pytest.raises(TypeError, match="size_average and reduce by keyword"):
        compat.cross_entropy(logits, target, None, size_average)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = compat.CrossEntropyLoss(None, size_average, 1, None, "mean", 0.1)
        theirs = torch.nn.CrossEntropyLoss(None, size_average, 1, None, "mean", 0.1)
    torch.testing.assert_close(
        torch.as_tensor(module(logits, target)), theirs(torch.tensor(logits), torch.tensor(target))
    )


def test_the_module_keeps_its_options(backend):
    logits, target = case(SHAPES["a batch"], soft=False)
    options = {"weight": WEIGHT, "ignore_index": 2, "reduction": "sum", "label_smoothing": 0.2}
    theirs = torch.nn.CrossEntropyLoss(**options | {"weight": torch.tensor(WEIGHT)})
    value = theirs(torch.tensor(logits), torch.tensor(target)).numpy()
    ours = compat.CrossEntropyLoss(**options)
    assert_close(backend, ours(backend.asarray(logits), backend.asarray(target)), value, "float64")
    for name in ("ignore_index", "reduction", "label_smoothing"):
        assert getattr(ours, name) == getattr(theirs, name)
