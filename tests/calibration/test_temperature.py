"""Facts about TemperatureScaling's optimum, held to a bisection of the plain likelihood's slope."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import assert_close
from likelihood import TEMPERATURES, best_temperature, drawn, mean_nll

from lsmooth.backends import Backend
from lsmooth.calibration import (
    ConvergenceWarning,
    MixedTemperatureScaling,
    QuadraticScaling,
    TemperatureScaling,
    VectorScaling,
)
from lsmooth.metrics import expected_calibration_error

ROWS = (*TEMPERATURES, "separable", "against")
CHANGES = {"as drawn": (1.0, 0.0), "shifted": (1.0, 1e6), "small": (1e-4, 0.0)}


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("row", ROWS)
def test_every_fit_is_at_the_optimum_or_says_that_there_is_none(backend: Backend, dtype, change, row):
    logits, labels = drawn()
    factor, shift = CHANGES[change]
    logits = (logits * (row if isinstance(row, float) else 1.0) * factor + shift).astype(dtype)
    if row == "separable":
        labels = logits.argmax(axis=1)
    elif row == "against":
        labels = logits.argmin(axis=1)
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    assert scaler.n_iter_ <= 12
    assert 0 < scaler.temperature_ < 1e8
    total = len(labels) * scaler.nll_after_
    if isinstance(row, float):
        assert scaler.status_ == "converged"
        np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    elif row == "separable":  # about one standard error from the supremum of the total log-likelihood
        assert scaler.status_ == "separable"
        ties = (logits == logits.max(axis=1, keepdims=True)).sum(axis=1)
        assert 0.15 < total - np.log(ties).sum() < 1.2
    else:  # and of that of uniform predictions
        assert scaler.status_ == "uninformative"
        assert total - len(labels) * math.log(10) <= 0.55


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("true", TEMPERATURES)
def test_the_optimum_is_found_on_host_and_device(backend: Backend, memory, dtype, true):
    logits, labels = drawn()
    logits = (logits * true).astype(dtype)
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    expected = best_temperature(logits, labels)
    assert type(scaler.temperature_) is float
    np.testing.assert_allclose(scaler.temperature_, expected, rtol=1e-6)
    np.testing.assert_allclose(scaler.nll_before_, mean_nll(logits, labels, 1.0), rtol=1e-6)
    np.testing.assert_allclose(scaler.nll_after_, mean_nll(logits, labels, expected), rtol=1e-6)


def test_separable_labels_are_reported(backend: Backend, memory):
    logits, _ = drawn()
    with pytest.warns(ConvergenceWarning, match=r"separable"):
        scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(logits.argmax(axis=1)))
    assert 0 < scaler.temperature_ < 1
    assert math.isnan(scaler.temperature_stderr_)


def test_labels_opposed_to_the_logits_are_reported_as_uninformative(backend: Backend, memory):
    logits, _ = drawn()
    with pytest.warns(ConvergenceWarning, match=r"uninformative"):
        scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(logits.argmin(axis=1)))
    assert 1 < scaler.temperature_ < math.inf
    np.testing.assert_allclose(len(logits) * (scaler.nll_after_ - math.log(10)), 0.5, atol=0.06)


def test_constant_logits_leave_the_temperature_at_one():
    with pytest.warns(ConvergenceWarning, match="uninformative"):
        scaler = TemperatureScaling().fit(np.ones((5, 3)), np.array([0, 1, 2, 0, 1]))
    assert scaler.temperature_ == 1.0


def test_an_optimum_beyond_the_bounds_is_at_the_bound():
    logits, labels = drawn()
    with pytest.warns(ConvergenceWarning, match="at_bound.*bounds 0.5 and 1.5"):
        scaler = TemperatureScaling(bounds=(0.5, 1.5)).fit(3.0 * logits, labels)
    assert scaler.status_ == "at_bound"
    np.testing.assert_allclose(scaler.temperature_, 1.5)
    with pytest.warns(ConvergenceWarning, match="at_bound"):
        scaler = TemperatureScaling(bounds=(0.5, 1.5)).fit(0.1 * logits, labels)
    np.testing.assert_allclose(scaler.temperature_, 0.5)


def test_too_few_passes_are_reported():
    logits, labels = drawn()
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        assert TemperatureScaling(max_iter=3).fit(100.0 * logits, labels).status_ == "max_iter"


def test_adding_a_constant_to_a_row_changes_nothing(backend: Backend):
    logits, labels = drawn()
    logits = (np.round(logits * 4) / 4).astype("float32")  # exact in float32 when 1e6 is added
    shifted = (logits + 1e6).astype("float32")
    fits = [TemperatureScaling().fit(backend.asarray(z), backend.asarray(labels)) for z in (logits, shifted)]
    assert fits[0].temperature_ == fits[1].temperature_


def test_fits_of_large_data_start_from_a_subset(backend: Backend, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**10)
    logits, labels = drawn(rows=2000)
    order = np.argsort(labels, kind="stable")  # the part is not like the whole
    logits, labels = 4.0 * logits[order], labels[order]
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    assert scaler.n_iter_ <= 6


def test_a_weighted_fit_is_the_fit_on_repeated_rows(backend: Backend, memory):
    logits, labels = drawn(rows=200)
    weight = np.random.default_rng(1).integers(0, 4, 200)
    weighted = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels), backend.asarray(weight))
    repeated = TemperatureScaling().fit(
        backend.asarray(np.repeat(logits, weight, axis=0)), backend.asarray(np.repeat(labels, weight))
    )
    for name in ("temperature_", "nll_before_", "nll_after_", "temperature_stderr_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9)


def test_the_standard_error_is_the_curvature_of_the_likelihood():
    logits, labels = drawn()
    scaler = TemperatureScaling().fit(logits, labels)
    h = 1e-4
    u = math.log(scaler.temperature_)
    at = [len(labels) * mean_nll(logits, labels, math.exp(u + s)) for s in (-h, 0, h)]
    curvature = (at[0] - 2 * at[1] + at[2]) / h**2
    np.testing.assert_allclose(scaler.temperature_stderr_, scaler.temperature_ / math.sqrt(curvature), rtol=1e-4)


def test_scaling_lowers_the_calibration_error_of_other_data(backend: Backend):
    logits, labels = (backend.asarray(x) for x in drawn(rows=1000))
    others, their_labels = drawn(rows=1000, seed=1)
    for true in TEMPERATURES:
        given = backend.asarray(true * others)
        scaler = TemperatureScaling().fit(true * logits, labels)
        before, after = (
            float(backend.to_numpy(expected_calibration_error(their_labels, z, from_logits=True)))
            for z in (given, scaler.transform(given))
        )
        assert after < 0.06 < 0.1 < before


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
@pytest.mark.parametrize("factor", [1e5, 1e30])
def test_saturated_logits_give_finite_losses(backend: Backend, memory, factor):
    logits, labels = drawn()
    logits = (factor * logits).astype("float32")
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    if factor == 1e5:
        np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)
    else:
        assert scaler.status_ == "at_bound"
    assert math.isfinite(scaler.nll_before_)
    p = backend.to_numpy(scaler.predict_proba(backend.asarray(logits)))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)


def test_probabilities_of_0_and_1_give_finite_results(backend: Backend, memory):
    p = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.2, 0.2]])
    scaler = TemperatureScaling(from_logits=False).fit(backend.asarray(p), backend.asarray(np.array([0, 1, 0, 0, 1])))
    assert scaler.status_ == "converged"
    calibrated = backend.to_numpy(scaler.transform(backend.asarray(p)))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0)
    np.testing.assert_array_equal(calibrated == 0, p == 0)


def test_float32_logits_are_overwritten(backend: Backend):
    logits, labels = drawn()
    logits = (3.0 * logits).astype("float32")
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    scaled = scaler.transform(backend.asarray(logits))
    assert backend.dtype(scaled) == "float32"
    assert_close(backend, scaled, logits / scaler.temperature_, "float32")
    assert scaler.temperature_ > 2


def test_logits_that_look_like_probabilities_are_treated_as_logits(backend: Backend):
    rng = np.random.default_rng(0)
    logits = rng.dirichlet(np.ones(4), 300)
    labels = (3.0 * logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    scaler = TemperatureScaling().fit(backend.asarray(logits), backend.asarray(labels))
    np.testing.assert_allclose(scaler.temperature_, best_temperature(logits, labels), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda z, y: TemperatureScaling().fit(z, y),
        lambda z, y: TemperatureScaling().fit_batches([(z, y)]),
        lambda z, y: TemperatureScaling().fit_batches([(z, y)], once=True),
        lambda z, y: TemperatureScaling().partial_fit(z, y),
        lambda z, y: MixedTemperatureScaling().fit(z, y),
        lambda z, y: VectorScaling(max_iter=5).fit(z, y),
        lambda z, y: QuadraticScaling().fit(z, y),
    ],
    ids=["fit", "fit_batches", "once", "partial_fit", "mixed", "vector", "quadratic"],
)
def test_warnings_point_at_the_call(call):
    pytest.importorskip("scipy", reason="affine calibrators need SciPy")
    with pytest.warns(ConvergenceWarning) as caught:
        call(np.array([[2.0, 0.0], [0.0, 2.0]]), [0, 1])
    assert {warning.filename for warning in caught} == {__file__}
