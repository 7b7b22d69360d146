"""Facts about the division by a temperature."""

from __future__ import annotations

import numpy as np
from conftest import assert_close
from likelihood import drawn

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling, apply_temperature


def test_transform_and_predict_proba_stay_in_the_framework(backend: Backend):
    logits, labels = drawn()
    scaler = TemperatureScaling(axis=0).fit(backend.asarray(logits.T), backend.asarray(labels))
    scaled = scaler.transform(backend.asarray(logits.T))
    assert backend.is_array(scaled)
    assert_close(backend, scaled, logits.T / scaler.temperature_, "float64")
    p = np.exp(logits / scaler.temperature_)
    p /= p.sum(axis=1, keepdims=True)
    assert_close(backend, scaler.predict_proba(backend.asarray(logits.T)), p.T, "float64")


def test_apply_temperature_is_differentiable_in_the_temperature(differentiable_backend: Backend):
    xp = differentiable_backend
    logits = xp.asarray(np.array([[1.0, 2.0], [3.0, 5.0]]))
    temperature = xp.asarray(np.array([2.0, 4.0]))
    value, gradient = xp.value_and_grad(lambda t: xp.sum(apply_temperature(logits, t)), temperature)
    assert_close(xp, value, 3.5, "float64")
    assert_close(xp, gradient, [-3 / 4, -8 / 16], "float64")


def test_a_temperature_may_differ_between_rows_around_the_class_axis(backend: Backend):
    logits = np.arange(2 * 5 * 3, dtype=np.float64).reshape(2, 5, 3)
    temperature = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    for t, expected in ((temperature, temperature[:, None, :]), (temperature[0], temperature[0])):
        got = apply_temperature(backend.asarray(logits), backend.asarray(t), axis=1)
        assert_close(backend, got, logits / expected, "float64")
