"""Facts about the calibrators that treat one class at a time."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.calibration import HistogramBinning, IsotonicCalibration, MatrixScaling, VectorScaling
from lsmooth.calibration._binning import interpolated


def drawn(rows: int = 300, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(classes), rows)
    return np.round(p / p.sum(axis=1, keepdims=True), 2), rng.integers(0, classes, rows)


def renormalized(mapped: np.ndarray, p: np.ndarray) -> np.ndarray:
    total = mapped.sum(axis=1, keepdims=True)
    return np.where(total > 0, mapped / np.where(total > 0, total, 1), p)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_a_bin_gives_its_frequency(backend: Backend, binning):
    p, labels = drawn()
    p = np.where(p == 0, 0.01, p)
    p /= p.sum(axis=1, keepdims=True)
    weight = np.random.default_rng(1).integers(1, 3, 300)
    scaler = HistogramBinning(n_bins=4, binning=binning, from_logits=False)
    scaler.fit(backend.asarray(p), backend.asarray(labels), backend.asarray(weight))
    mapped = np.empty_like(p)
    for k in range(3):
        edges = np.arange(5) / 4
        if binning == "equal_mass":
            repeated = np.sort(np.repeat(p[:, k], weight))
            edges[1:-1] = [repeated[int(np.ceil(i * len(repeated) / 4)) - 1] for i in (1, 2, 3)]
        for b in range(4):
            rows = (p[:, k] > edges[b]) & (p[:, k] <= edges[b + 1])
            if rows.any():
                mapped[rows, k] = np.average(labels[rows] == k, weights=weight[rows])
    assert_close(backend, scaler.transform(backend.asarray(p)), renormalized(mapped, p), "float64", factor=10)


def test_an_empty_bin_gives_its_middle():
    scaler = HistogramBinning(n_bins=4, from_logits=False).fit([[0.9, 0.1]], [0])
    np.testing.assert_allclose(scaler.values_, [[0.125, 0.375, 0.625, 1.0], [0.0, 0.375, 0.625, 0.875]])


def test_isotonic_matches_scikit_learn(backend: Backend):
    isotonic = pytest.importorskip("sklearn.isotonic", reason="scikit-learn is not installed")
    _, labels = drawn()
    p = np.repeat(np.random.default_rng(3).dirichlet(np.ones(3), 150), 2, axis=0)  # every value twice
    weight = np.random.default_rng(1).random(300)
    scaler = IsotonicCalibration(from_logits=False)
    scaler.fit(backend.asarray(p), backend.asarray(labels), backend.asarray(weight))
    new = np.random.default_rng(2).dirichlet(np.ones(3), 50)
    mapped = np.empty_like(new)
    for k in range(3):
        one = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p[:, k], labels == k, weight)
        mapped[:, k] = one.predict(new[:, k])
    assert_close(backend, scaler.predict_proba(backend.asarray(new)), renormalized(mapped, new), "float64", factor=10)


@pytest.mark.parametrize("kind", [IsotonicCalibration, MatrixScaling, VectorScaling])
def test_a_missing_scipy_is_an_error_that_names_the_extra(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"need SciPy.*pip install 'lsmooth\[calibrate\]'"):
        kind().fit(np.tile([[1.0, 0.0], [0.0, 1.0]], (40, 1)), [0, 1] * 40)


def test_isotonic_pools_soft_labels_and_repeated_probabilities():
    rng = np.random.default_rng(4)
    p, target, weight = rng.integers(0, 6, 40) / 5, rng.random(40), rng.random(40)
    points = IsotonicCalibration(binary=True, from_logits=False).fit(p, target, weight).points_
    means = np.array([np.average(target[p == x], weights=weight[p == x]) for x in np.unique(p)])
    held = np.array([weight[p == x].sum() for x in np.unique(p)])
    # The greatest of the least means of the ranges that hold a value is its level.
    expected = [
        max(min(np.average(means[i : j + 1], weights=held[i : j + 1]) for j in range(k, 6)) for i in range(k + 1))
        for k in range(6)
    ]
    np.testing.assert_allclose(np.interp(np.unique(p), points[:, 1], points[:, 2]), expected)


@pytest.mark.parametrize("kind", [HistogramBinning, IsotonicCalibration])
def test_logits_maps_and_ignored_rows(backend: Backend, kind):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((60, 3)), rng.integers(0, 3, 60)
    plain = kind().fit(logits, labels).predict_proba(logits)
    np.testing.assert_allclose(plain.sum(axis=1), 1.0)
    junk = np.concatenate([logits, np.full((4, 3), np.nan)]).reshape(8, 8, 3)
    ids = np.concatenate([labels, [-1] * 4]).reshape(8, 8)
    scaler = kind(axis=1, ignore_index=-1).fit(backend.asarray(np.moveaxis(junk, -1, 1)), backend.asarray(ids))
    got = scaler.transform(backend.asarray(logits.T[None]))
    assert_close(backend, got, plain.T[None], "float64", factor=10)


@pytest.mark.parametrize("kind", [HistogramBinning, IsotonicCalibration])
def test_saved_calibrators_load_unchanged(tmp_path, kind):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((60, 3)), rng.integers(0, 3, 60)
    scaler = kind().fit(logits, labels)
    scaler.save(tmp_path / "c.json")
    np.testing.assert_array_equal(kind.load(tmp_path / "c.json").transform(logits), scaler.transform(logits))
    content = json.loads((tmp_path / "c.json").read_text())
    name = "values_" if kind is HistogramBinning else "points_"
    content["fitted"][name] = [[2.0]]
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"do not fit each other|must have shape \(points, 3\)"):
        kind.load(tmp_path / "c.json")


def test_bad_arguments_are_errors():
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        HistogramBinning(n_bins=0).fit([[0.0, 1.0]], [0])
    with pytest.raises(ValueError, match="binning must be one of"):
        HistogramBinning(binning="equal").fit([[0.0, 1.0]], [0])
    with pytest.raises(ValueError, match="as in fit; got 3"):
        IsotonicCalibration().fit([[0.0, 1.0]], [0]).transform([[0.0, 1.0, 2.0]])
    with pytest.raises(ValueError, match="not fitted yet"):
        HistogramBinning().transform([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0.0, 0.5], [1e18, 0.0, 0.5]], "must name the classes"),
        ([[0, 0.0, 0.5], [2, 0.0, 0.5]], "must name the classes"),
        ([[1, 0.0, 0.5]], "must name the classes"),
        ([[0, 0.5, 0.5], [0, 0.2, 0.6]], "must not decrease"),
        ([[0, 0.2, 0.5], [0, 0.5, 0.4]], "must not decrease"),
        ([[0, 0.2, 0.5], [0, 0.5, 1.4]], r"map \[0, 1\] to \[0, 1\]"),
    ],
)
def test_fits_that_would_not_move_are_refused(tmp_path, points, message):
    IsotonicCalibration(from_logits=False).fit([[0.9, 0.1], [0.2, 0.8]], [0, 1]).save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    content["fitted"]["points_"] = points
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        IsotonicCalibration.load(tmp_path / "c.json")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("power", [-738.0, -700.0, -90.0, -30.0])
def test_isotonic_values_are_finite_and_between_their_neighbours(backend: Backend, dtype, power):
    # The slope between probabilities as small as these is beyond the largest float.
    points = np.array([power, power * 0.98, -5.0, 0.0, 5.0]).astype(dtype)
    scaler = IsotonicCalibration(binary=True).fit(backend.asarray(points), backend.asarray(np.array([0, 1, 0, 1, 1])))
    at = np.sort(np.concatenate([points, np.linspace(1.1 * power, 8.0, 500)])).astype(dtype)
    got = backend.to_numpy(scaler.predict_proba(backend.asarray(at)))
    assert np.isfinite(got).all()
    assert (np.diff(got) >= 0).all()
    assert ((got >= 0) & (got <= 1)).all()
    known = np.minimum(np.searchsorted(points, at), 4)
    of_points = backend.to_numpy(scaler.predict_proba(backend.asarray(points)))
    assert (got <= of_points[known] + 1e-6).all()


def test_the_curve_is_linear_between_points():
    x, y = np.array([0.0, 5e-324, 1e-310, 0.25, 0.75, 1.0]), np.array([0.0, 0.1, 0.2, 0.4, 0.9, 0.9])
    at = np.array([-1.0, 0.0, 5e-324, 1e-310, 0.25, 0.5, 0.75, 0.9, 2.0])
    np.testing.assert_allclose(interpolated(at, x, y), [0.0, 0.0, 0.1, 0.2, 0.4, 0.65, 0.9, 0.9, 0.9])
    assert np.isnan(interpolated(np.array([np.nan]), x, y)).all()
    np.testing.assert_array_equal(interpolated(np.array([0.1, 0.9]), x[:1], y[1:2]), [0.1, 0.1])
    rng = np.random.default_rng(0)
    x, y, at = np.sort(rng.random(20)), np.sort(rng.random(20)), rng.random(100)
    np.testing.assert_allclose(interpolated(at, x, y), np.interp(at, x, y), rtol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", [HistogramBinning, IsotonicCalibration])
def test_top_versus_all_maps_the_confidence_and_shares_the_rest(backend: Backend, kind, soft):
    p, labels = drawn(classes=5)
    p = np.where(p == 0, 0.01, p) / np.where(p == 0, 0.01, p).sum(axis=1, keepdims=True)
    top = p.argmax(axis=1)
    alone = kind(binary=True, from_logits=False).fit(p.max(axis=1), (labels == top).astype(int))
    scaler = kind(from_logits=False, strategy="top_versus_all")
    scaler.fit(backend.asarray(p), backend.asarray(np.eye(5)[labels] if soft else labels))
    got = backend.to_numpy(scaler.predict_proba(backend.asarray(p)))
    confidence = alone.predict_proba(p.max(axis=1))
    np.testing.assert_allclose(got[np.arange(300), top], confidence)
    others = p.copy()
    others[np.arange(300), top] = 0.0
    others *= ((1 - confidence) / others.sum(axis=1))[:, None]
    others[np.arange(300), top] = confidence
    np.testing.assert_allclose(got, others, rtol=1e-9)
    sure = scaler.predict_proba(np.array([[0.0, 1.0, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(sure.sum(), 1.0)
    with pytest.raises(ValueError, match="strategy must be one of one_vs_rest, top_versus_all; got 'top'"):
        kind(strategy="top").fit(p, labels)
