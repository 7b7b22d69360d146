"""Facts about classwise reliability curves and consistency bands."""

from __future__ import annotations

import math

import metric_reference as reference
import numpy as np
import pytest
from conftest import assert_close, require_backend

from lsmooth.backends import Backend
from lsmooth.metrics import classwise_reliability_curve, consistency_band, reliability_curve


def drawn(rows: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.integers(0, classes, rows), reference.softmax(2 * rng.standard_normal((rows, classes)))


def test_the_curve_of_a_class_uses_its_own_probability(backend: Backend, memory):
    labels, p = drawn()
    weight = np.random.default_rng(4).integers(0, 3, len(labels)).astype(float)
    curve = classwise_reliability_curve(
        backend.asarray(labels), backend.asarray(p), n_bins=4, sample_weight=backend.asarray(weight)
    )
    for k in range(3):
        table = np.array(reference.bins_of(p[:, k], (labels == k).astype(float), weight, 4))
        empty = table[:, 0] == 0
        for got, expected in zip((curve.weight, curve.confidence, curve.accuracy), table.T, strict=True):
            expected = expected if got is curve.weight else np.where(empty, np.nan, expected)
            assert_close(backend, got[k], expected, "float64")
    assert_close(backend, curve.edges, np.arange(5) / 4, "float64")


@pytest.mark.parametrize("n_bins", [4, 15, 200])
@pytest.mark.parametrize("ties", [False, True])
def test_bins_of_equal_mass_lie_between_their_edges(backend: Backend, memory, ties, n_bins):
    labels, p = drawn()
    p = np.round(p, 1) if ties else p
    weight = np.random.default_rng(4).integers(0, 3, len(labels)).astype(float)
    options = {"n_bins": n_bins, "binning": "equal_mass", "sample_weight": backend.asarray(weight)}
    given = backend.asarray(labels), backend.asarray(p)
    edges, confidence, accuracy, held = (backend.to_numpy(part) for part in reliability_curve(*given, **options))
    stated, right = reference.top_label(labels, p)
    table = np.array(reference.equal_mass_bins(stated, right, weight, n_bins))
    np.testing.assert_allclose(np.stack([held, confidence, accuracy], 1), table, rtol=1e-12)
    assert (edges[0], edges[-1], len(edges)) == (0, 1, n_bins + 1)
    for b in range(n_bins):
        inside = (stated > edges[b]) & (stated <= edges[b + 1])
        assert weight[inside].sum() == held[b]
    low, high = (backend.to_numpy(end) for end in consistency_band(*given, n_resamples=20, **options))
    np.testing.assert_array_equal(np.isnan(low), held == 0)
    assert (low <= high)[held > 0].all()
    nothing = reliability_curve(*given, n_bins=3, binning="equal_mass", sample_weight=backend.asarray(0 * weight))
    assert (backend.to_numpy(nothing.weight) == 0).all()


def test_bins_of_no_rows_are_of_equal_width():
    curve = reliability_curve(np.zeros(0, int), np.zeros((0, 2)), n_bins=2, binning="equal_mass")
    np.testing.assert_array_equal(curve.edges, [0, 0.5, 1])


def binomial_quantile(rows: int, p: float, level: float) -> int:
    below = np.cumsum([math.comb(rows, i) * p**i * (1 - p) ** (rows - i) for i in range(rows + 1)])
    return int(np.searchsorted(below, level))


def test_the_band_of_equal_confidences_is_binomial(backend: Backend, memory):
    p = np.concatenate([np.tile([0.75, 0.25], (80, 1)), np.tile([0.45, 0.55], (40, 1))])
    labels = np.zeros(120, np.int64)
    low, high = (
        backend.to_numpy(end)
        for end in consistency_band(
            backend.asarray(labels), backend.asarray(p), n_bins=5, confidence_level=0.9, n_resamples=2000
        )
    )
    for b, rows, confidence in ((2, 40, 0.55), (3, 80, 0.75)):
        for end, level in ((low, 0.05), (high, 0.95)):
            assert end[b] == pytest.approx(binomial_quantile(rows, confidence, level) / rows, abs=1.01 / rows)
    assert np.isnan([*low[[0, 1, 4]], *high[[0, 1, 4]]]).all()


def test_ninety_percent_of_calibrated_bins_lie_within_their_band():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((20000, 3))
    p = reference.softmax(logits)
    low, high = consistency_band(np.zeros(20000, int), p, n_bins=100, confidence_level=0.9, n_resamples=300)
    confidence, _ = reference.top_label(np.zeros(20000, int), p)
    correct = rng.random(20000) < confidence
    table = np.array(reference.bins_of(confidence, correct.astype(float), np.ones(20000), 100))
    filled = table[:, 0] > 30
    within = ((table[:, 2] >= low) & (table[:, 2] <= high))[filled]
    assert 0.8 < within.mean() < 0.98


def test_the_band_uses_weights_logits_and_ignored_rows():
    labels, p = drawn()
    weight = np.ones(60)
    weight[30:] = 0.0
    expected = consistency_band(labels[:30], p[:30], n_bins=3)
    heavier = consistency_band(labels, np.log(p), from_logits=True, n_bins=3, sample_weight=weight)
    ignored = consistency_band(np.where(weight > 0, labels, -1), p, n_bins=3, ignore_index=-1)
    for band in (heavier, ignored):  # the same rows count, with other draws
        np.testing.assert_allclose(band, expected, atol=0.12)


def test_bad_options_of_the_band_are_refused_and_so_is_tracing():
    labels, p = drawn()
    with pytest.raises(ValueError, match="confidence_level must be between 0 and 1, got 0"):
        consistency_band(labels, p, confidence_level=0.0)
    with pytest.raises(ValueError, match="n_resamples must be an integer of at least 1, got 0"):
        consistency_band(labels, p, n_resamples=0)
    require_backend("jax")
    import jax

    with pytest.raises(TypeError, match="outside tracing"):
        jax.jit(lambda x: consistency_band(labels, x).low)(p)
