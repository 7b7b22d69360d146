"""Facts about the binned calibration error and the reliability curve, held to a literal loop over bins."""

from __future__ import annotations

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close

import lsmooth
from lsmooth.backends import Backend, load_backend
from lsmooth.metrics import _calibration_error as calibration_error
from lsmooth.metrics import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    reliability_curve,
)


def drawn(rows: int = 300, classes: int = 7, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    p = reference.softmax(2 * rng.standard_normal((rows, classes))).astype(dtype)
    return rng.integers(0, classes, rows), p


def two_classes(confidence, dtype: str = "float64") -> np.ndarray:
    confidence = np.asarray(confidence, dtype)
    return np.stack([confidence, 1 - confidence], axis=1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("n_bins", [1, 15, 1000])
def test_the_error_matches_a_loop_over_bins(backend: Backend, memory, dtype, norm, n_bins):
    labels, p = drawn(dtype=dtype)
    got = expected_calibration_error(backend.asarray(labels), backend.asarray(p), n_bins=n_bins, norm=norm)
    assert backend.is_array(got)
    assert backend.dtype(got) == dtype
    assert_close(backend, got, reference.expected_calibration_error(labels, p, n_bins, norm), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_logits_are_their_softmax(backend: Backend, memory, dtype):
    if dtype == "bfloat16" and backend.name == "numpy":
        pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16 of its own")
    labels, p = drawn()
    logits = backend.cast(backend.asarray(np.log(p)), dtype)
    wide = "float64" if dtype == "float64" else "float32"
    p = reference.softmax(backend.to_numpy(logits).astype(np.float64))
    got = expected_calibration_error(backend.asarray(labels), logits, from_logits=True)
    assert backend.dtype(got) == wide
    assert_close(backend, got, reference.expected_calibration_error(labels, p), wide)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_bins", [3, 10, 15, 100])
def test_a_confidence_on_an_edge_is_in_the_bin_below_it(backend: Backend, memory, dtype, n_bins):
    edges = (np.arange(n_bins + 1) / n_bins).astype(dtype)
    near = np.concatenate([edges, np.nextafter(edges, np.array(2, dtype)), np.nextafter(edges, np.array(-1, dtype))])
    near = near[(near >= 0) & (near <= 1)]
    # Several classes, so that any confidence can be that of a top label; the other classes have 0.
    p = np.stack([near, np.zeros_like(near)], axis=1)
    curve = reliability_curve(backend.asarray(np.zeros(len(near), np.int64)), backend.asarray(p), n_bins=n_bins)
    table = reference.bins_of(near, np.ones(len(near)), np.ones(len(near)), n_bins)
    np.testing.assert_array_equal(backend.to_numpy(curve.weight), [row[0] for row in table])
    np.testing.assert_array_equal(backend.to_numpy(curve.edges), edges)


def test_a_confidence_of_one_half_is_in_the_lower_of_two_bins(backend: Backend, memory):
    # [lo, hi) would give 0.125.
    p, y = [0.5, 0.5, 0.3, 0.8], [1, 1, 0, 1]
    top = np.stack([p, np.zeros(4)], axis=1)
    got = expected_calibration_error(backend.asarray(np.array([1 - v for v in y])), backend.asarray(top), n_bins=2)
    assert_close(backend, got, abs(2 - 1.3) / 4 + 0.2 / 4, "float64")


def test_a_confidence_of_one_is_in_the_last_bin(backend: Backend, memory):
    p = two_classes([0.95, 1.0, 1.0])
    p = np.concatenate([p, [[0.2, 0.0]]])
    got = expected_calibration_error(backend.asarray(np.array([0, 1, 0, 1])), backend.asarray(p), n_bins=10)
    assert_close(backend, got, 0.2875, "float64")


def test_ties_go_to_the_first_class(backend: Backend, memory):
    got = expected_calibration_error(backend.asarray(np.array([0, 1])), backend.asarray(np.full((2, 2), 0.5)))
    assert_close(backend, got, 0.0, "float64")


def test_the_curve_matches_a_loop_over_bins(backend: Backend, memory):
    labels, p = drawn()
    weight = np.random.default_rng(0).random(len(labels))
    curve = reliability_curve(
        backend.asarray(labels), backend.asarray(p), n_bins=10, sample_weight=backend.asarray(weight)
    )
    table = np.array(reference.bins_of(*reference.top_label(labels, p), weight, 10))
    for got, expected in zip((curve.weight, curve.confidence, curve.accuracy), table.T, strict=True):
        assert_close(backend, got, expected, "float64")
    assert np.isnan(table[0, 1])  # an empty bin


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("n_bins", [4, 500])
def test_bins_of_equal_mass_keep_equal_values_together(backend: Backend, memory, norm, n_bins):
    labels, p = drawn()
    p = np.round(p, 1)  # many ties
    weight = np.random.default_rng(0).integers(0, 3, len(labels)).astype(float)
    got = expected_calibration_error(
        backend.asarray(labels),
        backend.asarray(p),
        binning="equal_mass",
        norm=norm,
        n_bins=n_bins,
        sample_weight=backend.asarray(weight),
    )
    table = reference.equal_mass_bins(*reference.top_label(labels, p), weight, n_bins)
    assert_close(backend, got, reference.error_of_bins(table, norm), "float64")


@pytest.mark.parametrize("equal_mass", [False, True])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_classwise_is_the_mean_over_classes(backend: Backend, memory, norm, equal_mass):
    labels, p = drawn()
    weight = np.random.default_rng(0).random(len(labels))
    function = adaptive_calibration_error if equal_mass else classwise_calibration_error
    got = function(
        backend.asarray(labels), backend.asarray(p), n_bins=5, norm=norm, sample_weight=backend.asarray(weight)
    )
    expected = reference.classwise_calibration_error(labels, p, 5, norm, weight, equal_mass)
    assert_close(backend, got, expected, "float64")


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_the_error_of_each_class_uses_its_own_probability(backend: Backend, memory, norm, binning):
    labels, p = drawn()
    weight = np.random.default_rng(0).random(len(labels))
    options = {"n_bins": 5, "binning": binning, "norm": norm, "sample_weight": backend.asarray(weight)}
    got = classwise_calibration_error(backend.asarray(labels), backend.asarray(p), reduction="none", **options)
    bins = reference.equal_mass_bins if binning == "equal_mass" else reference.bins_of
    tables = [bins(p[:, k], (labels == k).astype(float), weight, 5) for k in range(p.shape[1])]
    assert_close(backend, got, np.array([reference.error_of_bins(table, norm) for table in tables]), "float64")
    with pytest.raises(ValueError, match="reduction must be mean or none, got 'sum'"):
        classwise_calibration_error(labels, p, reduction="sum")


@pytest.mark.parametrize("function", [adaptive_calibration_error, classwise_calibration_error])
def test_classwise_errors_sort_and_sum_all_classes_at_once(monkeypatch, function):
    numpy, calls = load_backend("numpy"), []
    for name in ("argsort", "bincount", "where"):
        original = getattr(numpy, name)
        monkeypatch.setattr(numpy, name, lambda *x, f=original, name=name: calls.append(name) or f(*x))
    counts = []
    for classes in (2, 40):
        function(np.zeros(10, int), np.random.default_rng(0).dirichlet(np.ones(classes), 10))
        counts.append(len(calls))
        calls.clear()
    assert counts[0] == counts[1] > 0


def test_debiasing_subtracts_the_variance_of_each_bins_labels(backend: Backend, memory):
    p = two_classes([0.75] * 4 + [0.9])
    labels = np.array([0, 0, 0, 1, 1])
    got = expected_calibration_error(backend.asarray(labels), backend.asarray(p), norm="l2", debias=True, n_bins=10)
    # The first bin is 0.0 off, and 0.75 * 0.25 / 3 of that is chance: no less than 0. The second has one row.
    assert_close(backend, got, 0.0, "float64")
    labels = np.array([1, 1, 1, 0, 1])
    got = expected_calibration_error(backend.asarray(labels), backend.asarray(p), norm="l2", debias=True, n_bins=10)
    assert_close(backend, got, np.sqrt(0.8 * (0.5**2 - 0.75 * 0.25 / 3)), "float64")


def test_the_maximum_is_of_the_norm_max(backend: Backend, memory):
    labels, p = drawn()
    got = maximum_calibration_error(backend.asarray(labels), backend.asarray(p))
    assert_close(backend, got, reference.expected_calibration_error(labels, p, norm="max"), "float64")


@pytest.mark.parametrize("from_logits", [True, False])
def test_binary_labels_are_two_classes(backend: Backend, memory, from_logits):
    labels, p = drawn(classes=2)
    given = np.log(p[:, 1] / p[:, 0]) if from_logits else p[:, 1]
    got = expected_calibration_error(
        backend.asarray(labels), backend.asarray(given), binary=True, from_logits=from_logits
    )
    assert_close(backend, got, reference.expected_calibration_error(labels, p), "float64")


@pytest.mark.parametrize("axis", [0, 1])
def test_maps_are_rows(backend: Backend, memory, axis):
    labels, p = drawn()
    maps = np.moveaxis(p.reshape(20, 15, 7), -1, axis)
    got = expected_calibration_error(backend.asarray(labels.reshape(20, 15)), backend.asarray(maps), axis=axis)
    assert_close(backend, got, reference.expected_calibration_error(labels, p), "float64")


def test_ignored_rows_may_hold_any_value(backend: Backend, memory):
    labels, p = drawn()
    junk = np.concatenate([p, np.full((2, 7), np.nan)])
    ids = backend.asarray(np.concatenate([labels, [-100, -100]]))
    expected = reference.expected_calibration_error(labels, p)
    assert_close(
        backend, expected_calibration_error(ids, backend.asarray(junk), ignore_index=-100), expected, "float64"
    )
    weight = backend.asarray(np.concatenate([np.ones(len(labels)), [0.0, 0.0]]))
    ids = backend.asarray(np.concatenate([labels, [0, 0]]))
    assert_close(
        backend, expected_calibration_error(ids, backend.asarray(junk), sample_weight=weight), expected, "float64"
    )


def test_weights_are_repeated_rows(backend: Backend, memory):
    labels, p = drawn()
    weight = np.random.default_rng(1).integers(0, 4, len(labels))
    weighted = expected_calibration_error(
        backend.asarray(labels), backend.asarray(p), sample_weight=backend.asarray(weight)
    )
    expected = reference.expected_calibration_error(np.repeat(labels, weight), np.repeat(p, weight, axis=0))
    assert_close(backend, weighted, expected, "float64")


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_no_rows_have_no_error(backend: Backend, memory, norm):
    ids = backend.asarray(np.zeros(0, np.int64))
    p = backend.asarray(np.zeros((0, 3)))
    assert_close(backend, expected_calibration_error(ids, p, norm=norm), 0.0, "float64")
    ids, p = backend.asarray(np.array([5])), backend.asarray(np.ones((1, 3)))
    assert_close(backend, expected_calibration_error(ids, p, norm=norm, ignore_index=5), 0.0, "float64")
    assert np.isnan(backend.to_numpy(reliability_curve(ids, p, ignore_index=5).accuracy)).all()


def test_labels_out_of_range_give_nan(backend: Backend, memory):
    labels, p = backend.asarray(np.array([0, 3])), backend.asarray(np.full((2, 3), 0.3))
    assert np.isnan(backend.to_numpy(expected_calibration_error(labels, p)))
    with lsmooth.validate(), pytest.raises(ValueError, match="labels must be class ids"):
        expected_calibration_error(labels, p)


def test_nan_predictions_give_nan(backend: Backend, memory):
    p = np.array([[np.nan, 0.5], [0.5, 0.5]])
    assert np.isnan(backend.to_numpy(expected_calibration_error(backend.asarray(np.array([0, 1])), backend.asarray(p))))


def test_integer_labels_of_any_width(backend: Backend, memory):
    labels, p = drawn()
    for dtype in ("int8", "uint8", "int32", "int64"):
        got = expected_calibration_error(backend.cast(backend.asarray(labels), dtype), backend.asarray(p))
        assert_close(backend, got, reference.expected_calibration_error(labels, p), "float64")


@pytest.mark.parametrize(
    ("labels", "predictions", "options", "error", "message"),
    [
        ([0], [[0.5, 0.5]], {"n_bins": 0}, ValueError, "n_bins must be an integer of at least 1, got 0"),
        ([0], [[0.5, 0.5]], {"n_bins": 2.0}, ValueError, "n_bins must be an integer of at least 1, got 2.0"),
        ([0], [[0.5, 0.5]], {"norm": "l3"}, ValueError, "norm must be one of l1, l2, max; got 'l3'"),
        ([0], [[0.5, 0.5]], {"debias": True}, ValueError, "debias=True is for norm='l2', got norm='l1'"),
        ([0], [[0.5, 0.5]], {"binning": "equal"}, ValueError, "binning must be one of equal_width, equal_mass"),
        ([0], [[0.5, 0.5]], {"convention": "timm"}, ValueError, "convention must be one of guo, torchmetrics"),
        ([0], [[0.5, 0.5]], {"convention": "tfp", "binning": "equal_mass"}, ValueError, "is one of equal widths"),
        ([0], [[0.5, 0.5]], {"binary": True}, ValueError, "labels must have the shape of the predictions"),
        ([0, 1], [[0.5, 0.5]], {}, ValueError, "labels must have shape .* for predictions of shape"),
        ([0.0], [[0.5, 0.5]], {}, TypeError, "must be integers"),
        ([[0, 1]], [[0.5, 0.5]], {}, ValueError, "labels must be class ids of shape .* take the argmax"),
        ([0], [[1, 0]], {}, TypeError, "predictions must be floating point"),
        ([0], [[0.5, 0.5]], {"sample_weight": [1.0, 2.0]}, ValueError, "sample_weight must be a scalar"),
        ([0], [[0.5, 0.5]], {"axis": 2}, ValueError, "axis must be an integer in"),
    ],
)
def test_bad_arguments_are_errors(labels, predictions, options, error, message):
    with pytest.raises(error, match=message):
        expected_calibration_error(np.array(labels), np.array(predictions), **options)


def test_the_error_runs_under_jit_and_vmap():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    labels, p = drawn()
    expected = reference.expected_calibration_error(labels, p)
    np.testing.assert_allclose(jax.jit(expected_calibration_error)(labels, p), expected, rtol=1e-12)
    many = jax.vmap(expected_calibration_error)(np.stack([labels, labels]), np.stack([p, p]))
    np.testing.assert_allclose(many, [expected, expected], rtol=1e-12)
    curve = jax.jit(reliability_curve)(labels, p)
    assert float(curve.weight.sum()) == len(labels)


def test_the_error_runs_in_a_tf_function_with_unknown_batch_size():
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    labels, p = drawn()
    traces = []

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 7], tf.float64)], jit_compile=False
    )
    def error(labels, p):
        traces.append(1)
        return expected_calibration_error(labels, p)

    for n in (300, 100):
        expected = reference.expected_calibration_error(labels[:n], p[:n])
        np.testing.assert_allclose(error(labels[:n], p[:n]).numpy(), expected, rtol=1e-12)
    assert len(traces) == 1


def test_the_error_compiles_without_graph_breaks_in_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    labels, p = drawn()
    expected_calibration_error(torch.from_numpy(labels), torch.from_numpy(p))  # a backend is loaded outside tracing
    compiled = torch.compile(expected_calibration_error, fullgraph=True, backend="eager")
    got = compiled(torch.from_numpy(labels), torch.from_numpy(p))
    np.testing.assert_allclose(got, reference.expected_calibration_error(labels, p), rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_blocks_of_rows_add_up(backend: Backend, monkeypatch, binary, weighted):
    rng = np.random.default_rng(0)
    p = reference.softmax(2 * rng.standard_normal((500, 2)))
    labels, weight = rng.integers(0, 2, 500), rng.integers(0, 3, 500).astype(float) if weighted else None
    labels[7], p = 9, p[:, 1] if binary else p
    given = [None if x is None else backend.asarray(x) for x in (labels, p, weight)]
    options = {"binary": binary, "ignore_index": 9, "sample_weight": given[2]}
    whole = expected_calibration_error(*given[:2], **options)
    rows = []
    monkeypatch.setattr("lsmooth.metrics._inputs.BLOCK", 64)
    prepared = calibration_error.prepare
    monkeypatch.setattr(calibration_error, "prepare", lambda *a: rows.append(len(a[0])) or prepared(*a))
    blocks = expected_calibration_error(*given[:2], **options)
    assert backend.is_array(blocks)
    assert_close(backend, blocks, backend.to_numpy(whole), "float64")
    assert sum(rows) == 500
    assert len(rows) > 5
    expected_calibration_error(*given[:2], **options, binning="equal_mass")
    assert rows[-1] == 500
