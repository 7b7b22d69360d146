"""Facts about the calibrators of more than a temperature where every element is a label, true or not."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from kinds import MAPS, STEPS, TEMPERATURES, TWO_CLASSES

from lsmooth.backends import Backend
from lsmooth.calibration import (
    BiasCorrectedTemperatureScaling,
    HistogramBinning,
    IsotonicCalibration,
    QuadraticScaling,
    VectorScaling,
    load,
)
from lsmooth.calibration._base import Calibrator

pytest.importorskip("scipy", reason="the affine maps are fitted by it")
EVERY = {**MAPS, **STEPS, **TWO_CLASSES, "mixed": TEMPERATURES["mixed"]}


def drawn(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are true with the probability sigmoid(z / 2 - 1)."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.standard_normal(rows)
    return logits, (rng.random(rows) < sigmoid(logits / 2.0 - 1.0)).astype(np.int64)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_bias_corrected_temperatures_are_platt_scaling(backend: Backend, dtype):
    """scikit-learn's, with the targets (n + 1) / (n + 2) that Platt gives the labels."""
    calibration = pytest.importorskip("sklearn.calibration", reason="the other library")
    logits, labels = drawn()
    logits = logits.astype(dtype)
    platt = calibration._SigmoidCalibration().fit(logits.astype(np.float64), labels)
    positive = labels.sum()
    target = np.where(labels == 1, (positive + 1.0) / (positive + 2.0), 1.0 / (len(labels) - positive + 2.0))
    scaler = BiasCorrectedTemperatureScaling(binary=True, tol=1e-9)
    scaler.fit(backend.asarray(logits), backend.asarray(target))
    np.testing.assert_allclose(1.0 / scaler.temperature_, -platt.a_, rtol=1e-4)
    np.testing.assert_allclose(scaler.bias_[1] - scaler.bias_[0], -platt.b_, rtol=1e-4)
    z = np.array([-3.0, 0.0, 2.0], dtype)
    expected = sigmoid(z.astype(np.float64) / scaler.temperature_ + scaler.bias_[1] - scaler.bias_[0])
    assert_close(backend, scaler.predict_proba(backend.asarray(z)), expected, dtype)
    moved = backend.to_numpy(scaler.transform(backend.asarray(z)))
    np.testing.assert_allclose(sigmoid(moved.astype(np.float64)), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", MAPS.values(), ids=MAPS)
def test_a_binary_map_matches_two_classes(backend: Backend, kind):
    logits, labels = drawn()
    two = kind(tol=1e-9).fit(np.stack([np.zeros_like(logits), logits], axis=1), labels)
    expected = two.predict_proba(np.stack([np.zeros_like(logits), logits], axis=1))[:, 1]
    weight = np.ones(400)
    scaler = kind(binary=True, tol=1e-9).fit(backend.asarray(logits), backend.asarray(labels), backend.asarray(weight))
    assert scaler.status_ == "converged"
    assert_close(backend, scaler.predict_proba(backend.asarray(logits)), expected, "float64", 1e4)
    p = sigmoid(logits)
    both = np.stack([1.0 - p, p], axis=1)
    of_both = kind(from_logits=False, tol=1e-9).fit(both, labels).transform(both)[:, 1]
    of_one = kind(binary=True, from_logits=False, tol=1e-9).fit(backend.asarray(p), backend.asarray(labels))
    assert_close(backend, of_one.transform(backend.asarray(p)), of_both, "float64", 1e4)
    shaped = scaler.predict_proba(backend.asarray(logits.reshape(2, 20, 10)))
    np.testing.assert_allclose(backend.to_numpy(shaped).ravel(), expected, rtol=1e-6)


def test_probabilities_of_0_and_1_stay_what_they_are(backend: Backend):
    logits, labels = drawn()
    scaler = BiasCorrectedTemperatureScaling(binary=True, from_logits=False).fit(sigmoid(logits), labels)
    assert_close(backend, scaler.transform(backend.asarray(np.array([0.0, 1.0]))), np.array([0.0, 1.0]), "float64")


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("shape", [(400,), (2, 20, 10)])
def test_isotonic_matches_scikit_learn(backend: Backend, from_logits, shape):
    isotonic = pytest.importorskip("sklearn.isotonic", reason="the other library")
    logits, labels = drawn()
    weight = np.random.default_rng(1).integers(0, 3, 400).astype(np.float64)
    p = sigmoid(logits)
    given = (logits if from_logits else p).reshape(shape)
    scaler = IsotonicCalibration(binary=True, from_logits=from_logits)
    scaler.fit(backend.asarray(given), backend.asarray(labels.reshape(shape)), backend.asarray(weight.reshape(shape)))
    kept = weight > 0
    peer = isotonic.IsotonicRegression(out_of_bounds="clip", y_min=0.0, y_max=1.0)
    peer.fit(p[kept], labels[kept], weight[kept])
    got = backend.to_numpy(scaler.predict_proba(backend.asarray(given)))
    assert got.shape == shape
    np.testing.assert_allclose(got.ravel(), peer.predict(p), atol=1e-9)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_a_bin_gives_the_frequency_of_true_labels(backend: Backend, binning):
    logits, labels = drawn()
    p = sigmoid(logits)
    edges = np.arange(5) / 4
    if binning == "equal_mass":
        edges[1:-1] = np.sort(p)[[99, 199, 299]]
    index = np.searchsorted(edges[1:-1], p)
    expected = np.array([labels[index == b].mean() for b in range(4)])[index]
    scaler = HistogramBinning(n_bins=4, binning=binning, binary=True)
    scaler.fit(backend.asarray(logits), backend.asarray(labels))
    assert_close(backend, scaler.predict_proba(backend.asarray(logits)), expected, "float64")


@pytest.mark.parametrize("kind", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("as_float", [False, True])
def test_labels_of_any_dtype_some_ignored(backend: Backend, kind, as_float):
    logits, labels = drawn()
    padded, ids = logits.copy(), labels.copy()
    padded[:5], ids[:5] = np.nan, -1
    given = backend.asarray(ids.astype("float64") if as_float else ids)
    got = kind(binary=True, ignore_index=-1).fit(backend.asarray(padded), given).predict_proba(logits)
    expected = kind(binary=True).fit(logits[5:], labels[5:].astype(bool)).predict_proba(logits)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", EVERY.values(), ids=EVERY)
def test_the_scaler_is_saved_and_loaded(kind, tmp_path):
    logits, labels = drawn()
    scaler: Calibrator = kind(binary=True).fit(logits, labels)
    scaler.save(tmp_path / "scaler.json")
    again = load(tmp_path / "scaler.json")
    assert again.get_params() == scaler.get_params()
    np.testing.assert_array_equal(again.predict_proba(logits), scaler.predict_proba(logits))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", EVERY.values(), ids=EVERY)
def test_arguments_of_the_wrong_shape_are_refused(kind):
    with pytest.raises(ValueError, match=r"labels must have the shape of the logits, .* where binary=True"):
        kind(binary=True).fit(np.zeros((3, 2)), [0, 1, 1])
    with pytest.raises(TypeError, match="binary must be of type bool, got 1"):
        kind(binary=1).fit(np.zeros(3), [0, 1, 1])
    with pytest.raises(ValueError, match="labels"):
        kind(binary=True).fit(np.zeros(3), [0, 1, 2])


def test_binary_vectors_have_the_slope_of_a_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 2.0, 800)
    for slope in (0.5, -0.3):
        labels = (rng.random(800) < 1 / (1 + np.exp(-slope * logits - 0.4))).astype(int)
        scaler = VectorScaling(binary=True).fit(logits, labels)
        model = linear_model.LogisticRegression(C=1e12, tol=1e-10).fit(logits[:, None], labels)
        np.testing.assert_allclose(scaler.weight_[1], model.coef_[0, 0], atol=1e-5)
        np.testing.assert_allclose(scaler.bias_[1] - scaler.bias_[0], model.intercept_[0], atol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_parabola_is_the_logistic_regression_on_the_logit_and_its_square(backend: Backend, from_logits):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    logits, labels = drawn()
    weight = np.random.default_rng(1).integers(0, 3, 400).astype(float)
    model = linear_model.LogisticRegression(C=1e12, tol=1e-12, solver="newton-cholesky")
    model.fit(np.stack([logits, logits**2], axis=1), labels, weight)
    given = logits if from_logits else sigmoid(logits)
    scaler = QuadraticScaling(binary=True, from_logits=from_logits)
    scaler.fit(backend.asarray(given), backend.asarray(labels), backend.asarray(weight))
    np.testing.assert_allclose(scaler.coefficients_, [model.intercept_[0], *model.coef_[0]], rtol=1e-4)
    expected = model.predict_proba(np.stack([logits, logits**2], axis=1))
    assert_close(backend, scaler.predict_proba(backend.asarray(given)), expected[:, 1], "float64", 1e8)
    two = np.stack([0 * logits, logits] if from_logits else [1 - given, given], axis=0)
    pair = QuadraticScaling(axis=0, from_logits=from_logits).fit(two, labels, weight)
    assert_close(backend, pair.predict_proba(backend.asarray(two)), expected.T, "float64", 1e8)
    if from_logits:
        moved = backend.to_numpy(pair.transform(backend.asarray(two)))
        np.testing.assert_allclose(sigmoid(moved[1] - moved[0]), expected[:, 1], rtol=1e-4)
        alone = backend.to_numpy(scaler.transform(backend.asarray(given)))
        np.testing.assert_allclose(sigmoid(alone), expected[:, 1], rtol=1e-4)


def test_a_parabola_needs_two_classes_and_says_where_there_is_no_optimum():
    with pytest.raises(ValueError, match="QuadraticScaling is for two classes, got logits of 3"):
        QuadraticScaling().fit(np.zeros((3, 3)), [0, 1, 2])
    with pytest.warns(UserWarning, match="separable"):
        scaler = QuadraticScaling(binary=True).fit([-1.0, -2.0, 1.0, 2.0], [0, 0, 1, 1])
    assert scaler.status_ == "separable"
    assert np.isfinite(scaler.predict_proba([-1e30, 1e30])).all()
