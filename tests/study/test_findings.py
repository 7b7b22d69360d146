"""Verdicts follow from the numbers."""

import numpy as np
import pytest

from lsmooth.study.config import Plan
from lsmooth.study.findings import AGREES, DISAGREES, NOISE, findings
from lsmooth.study.measures import Measured
from lsmooth.study.run import Results
from lsmooth.study.statistics import sign, stderr

pytest.importorskip("scipy", reason="scikit-learn brings it")
SEEDS = 4


def results(hard, smoothed):
    """Results whose seeds scatter by 1% around the given numbers."""

    def nets(numbers):
        base = {"temperature": 1.0, "validation_ece": 0.1, "nll": 1.0, "nll_scaled": 1.0} | numbers
        return [
            Measured({name: v * (1 + 0.01 * seed) for name, v in base.items()}, None, np.zeros((1, 2)))
            for seed in range(SEEDS)
        ]

    plan = Plan(alphas=(0.0, 0.1), seeds=tuple(range(SEEDS)))
    return Results("torch", {}, None, plan, {0.0: nets(hard), 0.1: nets(smoothed)})


HARD = {"error": 0.05, "confidence": 0.99, "ece": 0.04, "ece_scaled": 0.01}


def test_the_papers_effects_are_called_agreement():
    smoothed = {"error": 0.04, "confidence": 0.97, "ece": 0.02, "ece_scaled": 0.01}
    assert [finding.verdict for finding in findings(results(HARD, smoothed))] == [AGREES] * 4


def test_the_opposite_is_called_disagreement_and_said():
    smoothed = {"error": 0.06, "confidence": 0.80, "ece": 0.14, "ece_scaled": 0.01}
    found = findings(results(HARD, smoothed))
    assert [finding.verdict for finding in found] == [DISAGREES, AGREES, AGREES, DISAGREES]
    assert "The smoothed networks are underconfident" in found[-1].found
    assert "ECE 0.041 ± 0.000 with hard labels, 0.142 ± 0.001 with smoothing of 0.1." in found[-1].found


def test_equal_numbers_are_inside_the_noise():
    found = findings(results(HARD, HARD))
    assert found[0].verdict == found[3].verdict == NOISE


def test_one_network_decides_nothing():
    assert sign([3.0]) == 0
    assert np.isnan(stderr([3.0]))


def test_the_interval_is_students():
    # t(0.975, 2) = 4.303: mean 1 and standard error 0.25 exclude 0, 0.2325 is the border.
    spread = np.array([-1.0, 0.0, 1.0])
    assert stderr(1 + 0.4 * spread) == pytest.approx(0.4 / 3**0.5)
    assert sign(1 + 0.40 * spread) == 1
    assert sign(-1 - 0.40 * spread) == -1
    assert sign(1 + 0.41 * spread) == 0
