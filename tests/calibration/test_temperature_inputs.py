"""Inputs that TemperatureScaling accepts and refuses."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from likelihood import best_temperature, drawn

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling


def test_masked_classes_do_not_contribute(backend: Backend, memory):
    logits, labels = drawn()
    masked = np.full((len(logits), 4), -np.inf)
    both = np.concatenate([masked[:, :2], 3.0 * logits, masked[:, 2:]], axis=1)
    scaler = TemperatureScaling().fit(backend.asarray(both), backend.asarray(labels + 2))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(3.0 * logits, labels), rtol=1e-6)


def test_ignored_rows_may_hold_any_value(backend: Backend, memory):
    logits, labels = drawn()
    junk = np.concatenate([logits, np.full((3, 10), np.nan)])
    scaler = TemperatureScaling(ignore_index=-100).fit(
        backend.asarray(junk), backend.asarray(np.concatenate([labels, [-100, -100, -100]]))
    )
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    weight = np.concatenate([np.ones(400), np.zeros(3)])
    weighted = TemperatureScaling().fit(
        backend.asarray(junk), backend.asarray(np.concatenate([labels, [0, 99, -1]])), backend.asarray(weight)
    )
    assert weighted.temperature_ == scaler.temperature_


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_classes_may_be_on_any_axis(backend: Backend, memory, axis, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**11)
    logits, labels = drawn()
    maps = np.moveaxis(logits.reshape(20, 20, 10), -1, axis)
    scaler = TemperatureScaling(axis=axis).fit(backend.asarray(maps), backend.asarray(labels.reshape(20, 20)))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)


def test_one_hot_labels_match_class_ids(backend: Backend, memory):
    logits, labels = drawn()
    hard = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    soft = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(np.eye(10)[labels]))
    np.testing.assert_allclose(soft.temperature_, hard.temperature_, rtol=1e-9)


def test_soft_labels_are_rows_weighted_by_their_parts(backend: Backend):
    logits, labels = drawn()
    other = (labels + 1) % 10
    soft = 0.75 * np.eye(10)[labels] + 0.25 * np.eye(10)[other]
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(soft))
    weight = np.repeat([0.75, 0.25], len(logits))
    expected = best_temperature(np.concatenate([logits, logits]), np.concatenate([labels, other]), weight)
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)


def test_half_precision_is_fitted_in_float32(backend: Backend):
    logits, labels = drawn()
    half = backend.cast(backend.asarray(logits.astype("float32")), "float16")
    scaler = TemperatureScaling().fit(half, backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits.astype("float16"), labels), rtol=1e-6)


def test_probabilities_and_their_logarithms_agree(backend: Backend, memory):
    logits, labels = drawn()
    p = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    scaler = TemperatureScaling(from_logits=False).fit(backend.asarray(p), backend.asarray(labels))
    expected = best_temperature(2 * logits, labels)
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)
    calibrated = np.exp(2 * logits / scaler.temperature_)
    calibrated /= calibrated.sum(axis=1, keepdims=True)
    assert_close(backend, scaler.transform(backend.asarray(p)), calibrated, "float64", factor=10)


@pytest.mark.parametrize(
    ("logits", "labels", "weight", "message"),
    [
        ([[0.0, 1.0]], [2], None, r"labels must be class ids in 0\.\.1, got 2 at row 0.*ignore_index"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, -100], None, r"got -100 at row 1"),
        ([[0.0, 1.0], [np.nan, 1.0]], [0, 0], None, r"logits must hold no NaN.*row 1"),
        ([[0.0, np.inf]], [0], None, r"logits must hold no NaN, no infinity"),
        ([[-np.inf, -np.inf]], [0], None, r"a class that is not masked"),
        ([[0.0, -np.inf]], [1], None, r"class 1 of probability 0 at row 0"),
        ([[0.0, 1.0]], [0], [-1.0], r"sample_weight must be finite numbers of at least 0, got -1"),
        ([[0.0, 1.0]], [0], [0.0], r"No row to fit on"),
        (np.zeros((0, 3)), np.zeros(0, np.int64), None, r"No row to fit on"),
        ([[0.0, 1.0]], [[0]], None, r"labels must have shape"),
        ([[0.0, 1.0]], [0], [1.0, 1.0], r"sample_weight must be a scalar or have shape"),
    ],
)
def test_inputs_that_cannot_be_fitted_raise_an_error(backend: Backend, memory, logits, labels, weight, message):
    arrays = [None if x is None else backend.asarray(np.asarray(x)) for x in (logits, labels, weight)]
    with pytest.raises(ValueError, match=message):
        TemperatureScaling().fit(*arrays)


def test_the_invalid_row_is_named_by_its_position_in_a_map():
    labels = np.zeros((2, 3, 4), np.int64)
    labels[1, 2, 3] = 7
    with pytest.raises(ValueError, match=r"got 7 at row \(1, 2, 3\)"):
        TemperatureScaling(axis=1).fit(np.zeros((2, 5, 3, 4)), labels)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"axis": "last"}, TypeError, "axis must be of type int"),
        ({"from_logits": 1}, TypeError, "from_logits must be of type bool"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be None or of type int"),
        ({"max_iter": 2}, ValueError, "max_iter must be at least 3"),
        ({"bounds": (2.0, 1.0)}, ValueError, "bounds must be two temperatures"),
        ({"bounds": 1.0}, ValueError, "bounds must be two temperatures"),
    ],
)
def test_options_are_checked_in_fit(options, error, message):
    scaler = TemperatureScaling(**options)
    with pytest.raises(error, match=message):
        scaler.fit(*drawn(rows=10))


def test_a_traced_fit_is_refused():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with pytest.raises(TypeError, match="reads the values of logits"):
        jax.jit(lambda z: TemperatureScaling().fit(z, [0]).temperature_)(np.zeros((1, 2)))
