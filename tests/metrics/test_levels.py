"""Intervals and bands hold 95% where no level is given, as wide as the normal distribution says."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth import metrics

RNG = np.random.default_rng(0)


def test_an_interval_reaches_two_standard_errors():
    p = RNG.dirichlet(np.ones(3), 500)
    labels = (p.cumsum(1) > RNG.random((500, 1))).argmax(1)
    losses = -np.log(p[np.arange(500), labels])
    _, low, high = metrics.metric_interval(metrics.negative_log_likelihood, labels, p, n_resamples=1000)
    assert (high - low) / 2 == pytest.approx(1.96 * losses.std() / 500**0.5, rel=0.08)


def test_a_band_reaches_two_standard_errors():
    p = np.tile([0.7, 0.3], (1000, 1))
    band = metrics.consistency_band(np.zeros(1000, int), p, n_bins=10, n_resamples=1000)
    bin_of_all = np.isfinite(np.asarray(band.high)) & (np.asarray(band.high) > np.asarray(band.low))
    half = (np.asarray(band.high) - np.asarray(band.low))[bin_of_all] / 2
    assert half == pytest.approx([1.96 * (0.21 / 1000) ** 0.5], rel=0.08)
