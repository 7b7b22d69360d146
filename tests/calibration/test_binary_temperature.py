"""Facts about temperatures of labels that are each true or not: the likelihood of two classes, logits (0, z)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close
from likelihood import TEMPERATURES, best_temperature

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling


def drawn(shape: tuple[int, ...] = (100, 4), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are true with the probability of their sigmoid."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.standard_normal(shape)
    return logits, (rng.random(shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)


def best(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> float:
    z = logits.astype(np.float64).ravel()
    return best_temperature(np.stack([np.zeros_like(z), z], axis=1), labels.ravel(), weight)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("true", TEMPERATURES)
def test_the_optimum_is_found_to_a_relative_error_of_1e_6(backend: Backend, memory, dtype, true):
    logits, labels = drawn()
    logits = (true * logits).astype(dtype)
    scaler = TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(labels))
    assert scaler.status_ == "converged"
    assert scaler.n_iter_ <= 12
    np.testing.assert_allclose(scaler.temperature_, best(logits, labels), rtol=1e-6)
    margin = np.where(labels == 1, 1, -1) * logits.astype(np.float64)
    np.testing.assert_allclose(scaler.nll_before_, np.logaddexp(0, -margin).mean(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(400,), (2, 20, 10), (400, 1)])
def test_labels_may_have_any_shape_and_dtype(backend: Backend, memory, shape):
    logits, labels = (x.reshape(shape) for x in drawn())
    expected = best(logits, labels)
    for given in (labels, labels.astype(bool), labels.astype("float32"), labels.astype("uint8")):
        scaler = TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(given))
        np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)


@pytest.mark.parametrize("as_float", [False, True])
def test_ignored_labels_and_weights_of_0_do_not_contribute(backend: Backend, memory, as_float):
    logits, labels = drawn()
    padded, ids = np.where(labels >= 0, logits, 0).copy(), labels.copy()
    padded[:3], ids[:3] = np.nan, -1
    given = backend.asarray(ids.astype("float64") if as_float else ids)
    scaler = TemperatureScaling(binary=True, ignore_index=-1).fit(backend.asarray(padded), given)
    np.testing.assert_allclose(scaler.temperature_, best(logits[3:], labels[3:]), rtol=1e-6)
    weight = np.ones((100, 1))
    weight[:3] = 0
    weighted = TemperatureScaling(binary=True).fit(backend.asarray(padded), given, backend.asarray(weight))
    np.testing.assert_allclose(weighted.temperature_, scaler.temperature_, rtol=1e-9)


def test_a_weighted_fit_is_the_fit_on_repeated_rows(backend: Backend, memory):
    logits, labels = drawn()
    weight = np.random.default_rng(1).integers(0, 3, 100)
    weighted = TemperatureScaling(binary=True).fit(
        backend.asarray(logits), backend.asarray(labels), backend.asarray(weight[:, None])
    )
    repeated = TemperatureScaling(binary=True).fit(
        backend.asarray(np.repeat(logits, weight, axis=0)), backend.asarray(np.repeat(labels, weight, axis=0))
    )
    for name in ("temperature_", "nll_before_", "nll_after_", "temperature_stderr_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9)


def test_a_fractional_label_is_both_labels_weighted(backend: Backend):
    logits, labels = drawn((300,))
    soft = np.where(labels == 1, 0.75, 0.25)
    scaler = TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(soft))
    both = np.concatenate([logits, logits])
    expected = best(both, np.repeat([1, 0], 300), np.concatenate([soft, 1 - soft]))
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)


def test_probabilities_are_the_sigmoid_of_their_logits(backend: Backend, memory):
    logits, labels = drawn()
    p = 1 / (1 + np.exp(-2 * logits))
    scaler = TemperatureScaling(binary=True, from_logits=False).fit(backend.asarray(p), backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best(2 * logits, labels), rtol=1e-6)
    expected = 1 / (1 + np.exp(-2 * logits / scaler.temperature_))
    assert_close(backend, scaler.transform(backend.asarray(p)), expected, "float64", factor=100)


def test_transform_divides_and_predict_proba_is_the_sigmoid(backend: Backend):
    logits, labels = drawn((50,))
    scaler = TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(labels))
    for dtype in ("float64", "float32"):
        given = backend.cast(backend.asarray(logits), dtype)
        assert_close(backend, scaler.transform(given), logits / scaler.temperature_, dtype)
        p = scaler.predict_proba(given)
        assert backend.dtype(p) == dtype
        assert_close(backend, p, 1 / (1 + np.exp(-logits / scaler.temperature_)), dtype)


def test_batches_and_shards_give_the_fit_on_all(backend: Backend):
    logits, labels = drawn()
    whole = TemperatureScaling(binary=True).fit(3 * logits, labels)
    batches = [
        (backend.asarray(3 * logits[part]), backend.asarray(labels[part])) for part in (slice(40), slice(40, 100))
    ]
    streamed = TemperatureScaling(binary=True).fit_batches(batches)
    shards = [TemperatureScaling(binary=True).partial_fit(*batch) for batch in batches]
    for scaler in (streamed, shards[0].merge_state(shards[1])):
        np.testing.assert_allclose(scaler.temperature_, whole.temperature_, rtol=1e-6)
        np.testing.assert_allclose(scaler.nll_after_, whole.nll_after_, rtol=1e-6)


def test_two_classes_are_one_binary_logit(backend: Backend):
    logits, labels = drawn((300,))
    pair = np.stack([0.3 - logits, np.full(300, 0.3)], axis=1)  # their difference is the logit
    one = TemperatureScaling(binary=True).fit(backend.asarray(logits), backend.asarray(labels))
    two = TemperatureScaling().fit(backend.asarray(pair), backend.asarray(labels))
    np.testing.assert_allclose(one.temperature_, two.temperature_, rtol=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([0.0, 1.0], [0, 2], r"labels must be class ids in 0\.\.1, got 2 at row 1"),
        ([[0.0, 1.0]], [[0.0, -0.5]], r"labels must be in \[0, 1\].*got -0.5 at row \(0, 1\)"),
        ([0.0, 1.0], [0.0, 1.5], r"labels must be in \[0, 1\].*got 1.5 at row 1"),
        ([0.0, 1.0], [0.0, math.nan], r"labels must be in \[0, 1\].*got nan at row 1"),
        ([0.0, math.nan], [0, 1], r"logits must hold no NaN.*row 1"),
        ([0.0, math.inf], [0, 1], r"logits must hold no NaN, no infinity.*row 1"),
        ([[0.0, 1.0]], [0], r"labels must have the shape of the logits, \(1, 2\), where binary=True; got \(1,\)"),
    ],
)
def test_inputs_that_cannot_be_fitted_raise_an_error(backend: Backend, memory, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        TemperatureScaling(binary=True).fit(backend.asarray(np.array(logits)), backend.asarray(np.array(labels)))
