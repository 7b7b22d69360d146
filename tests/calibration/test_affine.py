"""Facts about calibrators of more than one parameter, held to the gradient of the plain likelihood."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.backends import Backend
from lsmooth.calibration import (
    BiasCorrectedTemperatureScaling,
    ConvergenceWarning,
    DirichletCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from lsmooth.calibration._moments import Rows

pytest.importorskip("scipy", reason="scipy is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.* weights and .* rows:UserWarning")

KINDS = [BiasCorrectedTemperatureScaling, VectorScaling, MatrixScaling, DirichletCalibration]
CLASSES = 4


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def drawn(rows: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a softmax, and logits that are it after a factor and a shift."""
    rng = np.random.default_rng(seed)
    true = 1.5 * rng.standard_normal((rows, CLASSES))
    labels = (softmax(true).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return 3.0 * true + np.array([1.0, -1.0, 0.5, 0.0]), labels


def slopes(scaler, logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The likelihood's gradient by the parameters of the scaler, at its fitted values."""
    z = np.log(softmax(logits)) if isinstance(scaler, DirichletCalibration) else logits
    residual = scaler.predict_proba(logits) - np.eye(CLASSES)[labels]
    residual *= (np.ones(len(z)) if weight is None else weight)[:, None] / (len(z) if weight is None else weight.sum())
    product = residual.T @ z
    if isinstance(scaler, BiasCorrectedTemperatureScaling):
        product = np.trace(product)
    elif isinstance(scaler, VectorScaling):
        product = np.diag(product)
    return np.concatenate([np.ravel(product), residual.sum(axis=0)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_at_the_fit_is_zero(backend: Backend, kind):
    logits, labels = drawn()
    weight = np.random.default_rng(1).random(len(labels))
    scaler = kind().fit(backend.asarray(logits), backend.asarray(labels), backend.asarray(weight))
    assert scaler.status_ == "converged"
    np.testing.assert_allclose(slopes(scaler, logits, labels, weight), 0.0, atol=1e-5)
    p = scaler.predict_proba(logits)
    expected = np.average(-np.log(p[np.arange(len(p)), labels]), weights=weight)
    np.testing.assert_allclose(scaler.nll_after_, expected, rtol=1e-9)
    best = TemperatureScaling().fit(logits, labels, weight)
    assert scaler.nll_after_ < best.nll_after_
    np.testing.assert_allclose(scaler.nll_before_, best.nll_before_, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_transform_is_the_map_in_the_framework(backend: Backend, kind):
    logits, labels = drawn(rows=400)
    scaler = kind(axis=0).fit(logits.T, labels)
    z = np.log(softmax(logits)) if kind is DirichletCalibration else logits
    if kind is BiasCorrectedTemperatureScaling:
        expected = z / scaler.temperature_ + scaler.bias_
    elif kind is VectorScaling:
        expected = z * scaler.weight_ + scaler.bias_
    else:
        expected = z @ scaler.weight_.T + scaler.bias_
    for dtype in ("float64", "float32"):
        got = scaler.transform(backend.cast(backend.asarray(logits.T), dtype))
        assert backend.is_array(got)
        assert backend.dtype(got) == dtype
        assert_close(backend, got, expected.T, dtype, factor=10)
    assert_close(backend, scaler.predict_proba(backend.asarray(logits.T)), softmax(expected).T, "float64", factor=10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weighted_fit_is_the_fit_on_repeated_rows(kind):
    logits, labels = drawn()
    weight = np.random.default_rng(1).integers(0, 3, len(labels))
    weighted = kind().fit(logits, labels, weight).predict_proba(logits)
    repeated = kind().fit(np.repeat(logits, weight, axis=0), np.repeat(labels, weight)).predict_proba(logits)
    np.testing.assert_allclose(weighted, repeated, atol=1e-5)


def test_one_hot_labels_match_class_ids_and_ignored_rows_do_not_contribute():
    logits, labels = drawn()
    hard = VectorScaling().fit(logits, labels)
    soft = VectorScaling().fit(logits, np.eye(CLASSES)[labels])
    np.testing.assert_allclose(soft.weight_, hard.weight_, atol=1e-5)
    junk = np.concatenate([logits, np.full((2, CLASSES), np.nan)])
    ignoring = VectorScaling(ignore_index=-1).fit(junk, np.concatenate([labels, [-1, -1]]))
    np.testing.assert_allclose(ignoring.weight_, hard.weight_, atol=1e-5)


def test_masked_classes_stay_masked():
    logits, labels = drawn()
    logits[:, 3] = -np.inf
    labels = np.where(labels == 3, 0, labels)
    scaler = VectorScaling().fit(logits, labels)
    assert scaler.status_ == "converged"
    p = scaler.predict_proba(logits)
    assert (p[:, 3] == 0).all()
    assert np.isfinite(p).all()


def test_the_penalties_match_odir():
    logits, labels = drawn()
    scaler = MatrixScaling(off_diagonal=0.1, intercept=0.3).fit(logits, labels)
    mixing = scaler.weight_ * (1 - np.eye(CLASSES))
    expected = np.concatenate(
        [(2 * 0.1 / (CLASSES * (CLASSES - 1)) * mixing).ravel(), 2 * 0.3 / CLASSES * scaler.bias_]
    )
    np.testing.assert_allclose(slopes(scaler, logits, labels) + expected, 0.0, atol=1e-5)
    strict = MatrixScaling(off_diagonal=1e6).fit(logits, labels)
    np.testing.assert_allclose(strict.weight_ * (1 - np.eye(CLASSES)), 0.0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_prepared_once_where_they_fit_into_memory(monkeypatch, kind):
    visits, blocks = [], Rows.blocks
    monkeypatch.setattr(Rows, "blocks", lambda rows: visits.append(1) or blocks(rows))
    logits, labels = drawn()
    logits[::7, 2] = np.where(labels[::7] == 2, logits[::7, 2], -np.inf)
    kept = kind().fit(logits, np.eye(CLASSES)[labels])
    assert len(visits) == 1
    monkeypatch.setattr("lsmooth.calibration._affine._MOST_KEPT_BYTES", 0)
    streamed = kind().fit(logits, np.eye(CLASSES)[labels])
    assert len(visits) > 5
    np.testing.assert_array_equal(streamed.predict_proba(logits), kept.predict_proba(logits))
    hard = kind().fit(logits, labels)
    np.testing.assert_allclose(hard.predict_proba(logits), kept.predict_proba(logits), atol=1e-5)


def test_too_few_rows_for_a_matrix_are_a_warning():
    with pytest.warns(UserWarning, match="16 weights and 300 rows.*below 320 rows"):
        MatrixScaling().fit(*drawn(rows=300))


@pytest.mark.parametrize("kind", [BiasCorrectedTemperatureScaling, VectorScaling])
def test_separable_labels_are_reported(kind):
    logits, _ = drawn()
    with pytest.warns(ConvergenceWarning, match=r"separable"):
        scaler = kind().fit(logits, logits.argmax(axis=1))
    assert scaler.status_ == "separable"
    assert np.isfinite(scaler.predict_proba(logits)).all()


def test_too_few_iterations_are_reported():
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        assert VectorScaling(max_iter=1).fit(*drawn()).status_ == "max_iter"


def test_classes_of_transform_are_those_of_fit():
    with pytest.raises(ValueError, match="logits must have 4 classes, as in fit; got 3"):
        VectorScaling().fit(*drawn()).transform(np.zeros((2, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_calibrators_load_unchanged(tmp_path, kind):
    logits, labels = drawn()
    scaler = kind().fit(logits, labels)
    scaler.save(tmp_path / "c.json")
    loaded = kind.load(tmp_path / "c.json")
    np.testing.assert_array_equal(loaded.predict_proba(logits), scaler.predict_proba(logits))
    content = json.loads((tmp_path / "c.json").read_text())
    content["fitted"]["bias_"] = [0.0] if "weight_" in content["fitted"] else ["x"]
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"do not fit each other|must be a rectangular|finite numbers"):
        kind.load(tmp_path / "c.json")


@pytest.mark.parametrize("options", [{"tol": 0.0}, {"max_iter": 0}])
def test_options_are_checked_in_fit(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        VectorScaling(**options).fit(*drawn(rows=10))
    with pytest.raises(ValueError, match="must be a finite number of at least 0"):
        MatrixScaling(off_diagonal=-1.0).fit(*drawn(rows=10))


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
@pytest.mark.parametrize("options", [{"tol": 1e-18}, {"tol": 1e-9, "max_iter": 3}, {"tol": 1e-3}])
def test_a_fit_has_converged_where_its_gradient_is_near_the_tolerance(options):
    logits, labels = drawn()
    scaler = VectorScaling(**options).fit(logits, labels)
    near = np.abs(slopes(scaler, logits, labels)).max() <= 1e3 * options["tol"]  # the fit's unit is that of its columns
    assert scaler.status_ == ("converged" if near else "max_iter")
