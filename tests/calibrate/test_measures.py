"""Measures over blocks are those of all rows together; their intervals are as wide as theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lsmooth import metrics
from lsmooth.calibrate.measures import Measures, bootstrap

RNG = np.random.default_rng(0)


def rows(classes: int, n: int = 900, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    logits = RNG.normal(0, 2, (n, classes))
    labels = (logits + RNG.gumbel(size=logits.shape)).argmax(-1)
    return labels, scale * logits


def measured(labels, logits, kept=1.0, convention="guo", from_logits=True) -> Measures:
    measures = Measures(15, convention)
    rng = np.random.default_rng(1)
    for start in range(0, len(labels), 128):
        block = slice(start, start + 128)
        y = labels[block]
        keep = rng.random(len(y)) < kept
        example = start + np.arange(len(y))
        measures.update(y, logits[block], keep, np.ones(len(y), bool), example, from_logits=from_logits)
    return measures


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("convention", ["guo", "torchmetrics", "netcal", "tfp", "sklearn", "relplot"])
def test_measures_over_blocks_are_those_of_the_library(classes, convention):
    labels, logits = rows(classes)
    got = measured(labels, logits, convention=convention).results()
    options = {"from_logits": True}
    expected = {
        "accuracy": metrics.top_k_accuracy(labels, logits),
        "ece": metrics.expected_calibration_error(labels, logits, convention=convention, **options),
        "classwise_ece": metrics.classwise_calibration_error(labels, logits, **options),
        "smooth_ece": metrics.smooth_calibration_error(labels, logits, **options),
        "nll": metrics.negative_log_likelihood(labels, logits, **options),
        "brier": metrics.brier_score(labels, logits, **options),
        "aurc": metrics.area_under_risk_coverage(labels, logits, **options),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(float(value), rel=1e-9), name


def test_probabilities_and_logits_give_the_same_metrics():
    labels, logits = rows(5)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    got, expected = measured(labels, p, from_logits=False).results(), measured(labels, logits).results()
    assert got == pytest.approx(expected, rel=1e-9)


def test_the_diagram_of_aggregated_rows_matches_all_rows():
    labels, logits = rows(5)
    proxy_labels, proxies, weight = measured(labels, logits).diagram()
    got = metrics.reliability_curve(proxy_labels, proxies, sample_weight=weight)
    expected = metrics.reliability_curve(labels, logits, from_logits=True)
    for name in ("confidence", "accuracy", "weight"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-12)


@pytest.mark.parametrize("kept", [1.0, 0.25])
def test_interval_widths_match_theory(kept):
    labels, logits = rows(4, 8000)
    before, after = measured(labels, logits, kept), measured(labels, logits / 2, kept)
    values = before.results(), after.results()
    samples = before.sample(), after.sample()
    intervals = bootstrap(*samples, values, 8000, 300, 0, lambda *_: None)
    z = logits - logits.max(-1, keepdims=True)
    losses = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, labels[:, None], -1)[:, 0]
    for interval, value, spread in (
        (intervals["nll"][0], losses.mean(), losses.std()),
        (intervals["accuracy"][1], (logits.argmax(-1) == labels).mean(), math.sqrt(0.2)),
    ):
        assert interval.value == pytest.approx(value)
        assert interval.low < interval.value < interval.high
        if interval is intervals["nll"][0]:
            assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread / math.sqrt(8000), rel=0.2)
    assert intervals["accuracy"][2] == (0, 0, 0)
    assert intervals["nll"][2].high < 0
    assert intervals["ece"][2].high < 0


def test_intervals_hold_95_percent():
    labels, logits = rows(4, 500)
    measures = measured(labels, logits)
    values, sample = measures.results(), measures.sample()
    _, low, high = bootstrap(sample, sample, (values, values), 500, 1000, 0, lambda *_: None)["accuracy"][0]
    right = (logits.argmax(-1) == labels).mean()
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(right * (1 - right) / 500), rel=0.08)


def test_positions_of_one_example_are_drawn_together():
    labels, logits = rows(3, 50)
    repeated = np.repeat(labels, 20), np.repeat(logits, 20, axis=0)
    widths = []
    for example, examples in ((np.repeat(np.arange(50), 20), 50), (np.arange(1000), 1000)):
        measures = Measures(15, "guo")
        all_rows = np.ones(1000, bool)
        measures.update(*repeated, all_rows, all_rows, example, from_logits=True)
        values, sample = measures.results(), measures.sample()
        low, high = bootstrap(sample, sample, (values, values), examples, 200, 0, lambda *_: None)["nll"][0][1:]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(20), rel=0.3)
