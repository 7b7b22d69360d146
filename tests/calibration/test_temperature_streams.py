"""Facts about temperatures of data that are never together."""

from __future__ import annotations

import numpy as np
import pytest
from likelihood import TEMPERATURES, drawn

from lsmooth.backends import Backend
from lsmooth.calibration import TemperatureScaling


@pytest.mark.parametrize("true", TEMPERATURES)
def test_batches_give_the_fit_on_all_of_them(backend: Backend, true):
    logits, labels = drawn(rows=500)
    weight = np.random.default_rng(2).random(500)
    whole = TemperatureScaling().fit(true * logits, labels, weight)
    parts = [slice(0, 200), slice(200, 201), slice(201, 500)]
    batches = [tuple(backend.asarray(x[part]) for x in (true * logits, labels, weight)) for part in parts]
    scaler = TemperatureScaling().fit_batches(batches)
    assert scaler.status_ == "converged"
    assert scaler.n_iter_ <= 6
    for name in ("temperature_", "nll_before_", "nll_after_"):
        np.testing.assert_allclose(getattr(scaler, name), getattr(whole, name), rtol=1e-6)
    np.testing.assert_allclose(scaler.temperature_stderr_, whole.temperature_stderr_, rtol=1e-4)


def test_batches_that_can_be_read_once_are_refused():
    with pytest.raises(TypeError, match="must be readable more than once, got a generator"):
        TemperatureScaling().fit_batches(batch for batch in [drawn()])
    with pytest.raises(ValueError, match="No row to fit on"):
        TemperatureScaling().fit_batches([])
    with pytest.raises(ValueError, match=r"A batch must be \(logits, labels\).*got 1 parts"):
        TemperatureScaling().fit_batches([(np.zeros((1, 2)),)])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("true", [1.0, 2.042, 20.42, 0.05105])
def test_shards_seen_once_merge_into_the_fit_on_all(backend: Backend, dtype, true):
    logits, labels = drawn()
    logits = (true * logits).astype(dtype)
    shards = []
    for part in (slice(0, 100), slice(100, 400)):
        shard = TemperatureScaling()
        for batch in np.array_split(np.arange(400)[part], 2):
            shard.partial_fit(backend.asarray(logits[batch]), backend.asarray(labels[batch]))
        shards.append(shard)
    scaler = shards[0].merge_state(shards[1])
    whole = TemperatureScaling().fit(logits, labels)
    assert scaler.status_ == "converged"
    for name in ("temperature_", "nll_before_", "nll_after_"):
        np.testing.assert_allclose(getattr(scaler, name), getattr(whole, name), rtol=1e-6)
    np.testing.assert_allclose(scaler.temperature_stderr_, whole.temperature_stderr_, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::lsmooth.calibration.ConvergenceWarning")
def test_partial_fits_raise_the_errors_of_fits():
    logits, labels = drawn()
    assert TemperatureScaling().partial_fit(logits, logits.argmax(axis=1)).status_ == "separable"
    assert TemperatureScaling().partial_fit(logits, logits.argmin(axis=1)).status_ == "uninformative"
    assert TemperatureScaling().partial_fit(200 * logits, labels).status_ == "at_bound"


def test_only_partial_fits_of_the_same_parameters_merge():
    one = TemperatureScaling().partial_fit(*drawn())
    with pytest.raises(ValueError, match="merge_state needs calibrators of the same parameters"):
        one.merge_state(TemperatureScaling(ignore_index=0))
    with pytest.raises(ValueError, match="taken in batches by partial_fit"):
        one.merge_state(TemperatureScaling().fit(*drawn()))


def test_mapped_files_and_arrays_give_the_same_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("lsmooth.calibration._moments.HOST_BLOCK_BYTES", 2**12)
    monkeypatch.setattr("lsmooth.calibration._moments._MOST_MAPPED_BYTES", 2**13)
    logits, labels = drawn(rows=2000)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    scaler = TemperatureScaling().fit(mapped, labels)
    assert scaler.temperature_ == TemperatureScaling().fit(logits, labels).temperature_


def test_a_generator_is_read_once(backend: Backend):
    logits, labels = drawn()
    weight = np.random.default_rng(1).random(400)
    parts = np.array_split(np.arange(400), 3)
    batches = (tuple(backend.asarray(x[part]) for x in (3 * logits, labels, weight)) for part in parts)
    scaler = TemperatureScaling().fit_batches(batches, once=True)
    whole = TemperatureScaling().fit(3 * logits, labels, weight)
    np.testing.assert_allclose(scaler.temperature_, whole.temperature_, rtol=1e-6)
    again = TemperatureScaling().partial_fit(3 * logits, labels, weight)
    np.testing.assert_allclose(again.merge_state(scaler).temperature_, whole.temperature_, rtol=1e-6)
