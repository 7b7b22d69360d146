"""Verdicts follow from the numbers."""

import numpy as np
import pytest

from lsmooth.study.config import Plan
from lsmooth.study.findings import AGREES, DISAGREES, NOISE, findings
from lsmooth.study.measures import Measured
from lsmooth.study.run import Results, Students
from lsmooth.study.statistics import sign, stderr

pytest.importorskip("scipy", reason="scikit-learn brings it")
SEEDS = 4


def results(hard, smoothed):
    """Results with a spread of 1% between seeds around the given numbers."""

    def nets(numbers):
        base = {
            "tightness_train": 0.1,
            "tightness_validation": 0.2,
            "temperature": 1.0,
            "validation_ece": 0.1,
            "nll": 1.0,
            "nll_scaled": 1.0,
        } | numbers
        return [
            Measured({name: v * (1 + 0.01 * seed) for name, v in base.items()}, None, np.zeros((1, 2)))
            for seed in range(SEEDS)
        ]

    plan = Plan(alphas=(0.0, 0.1), seeds=tuple(range(SEEDS)))
    scatter = 1 + 0.01 * np.arange(SEEDS)

    def students(teacher, setting, error):
        return Students(teacher, setting, scatter, error * scatter, scatter, error * scatter)

    found = Results("torch", {}, None, plan, {0.0: nets(hard), 0.1: nets(smoothed)})
    found.projections = {0.0: {"train": None}}
    found.information = {0.0: 1.4 * scatter[:, None], 0.1: 0.7 * scatter[:, None]}
    found.students = [students(None, 0.0, 0.08), students(0.0, 1.0, 0.09), students(0.0, 4.0, 0.07)]
    found.students.append(students(0.1, 1.0, 0.10))
    return found


HARD = {"error": 0.05, "confidence": 0.99, "ece": 0.04, "ece_scaled": 0.01}


def test_effects_of_the_paper_are_reported_as_agreement():
    smoothed = {"error": 0.04, "confidence": 0.97, "ece": 0.02, "ece_scaled": 0.01}
    assert [finding.verdict for finding in findings(results(HARD, smoothed))][:4] == [AGREES] * 4


def test_opposite_effects_are_reported_as_disagreement():
    smoothed = {"error": 0.06, "confidence": 0.80, "ece": 0.14, "ece_scaled": 0.01}
    found = findings(results(HARD, smoothed))
    assert [finding.verdict for finding in found[:4]] == [DISAGREES, AGREES, AGREES, DISAGREES]
    assert "The smoothed networks are underconfident" in found[3].found
    assert "ECE 0.041 ± 0.000 with hard labels, 0.142 ± 0.001 with smoothing of 0.1." in found[3].found


def test_equal_numbers_are_within_the_noise():
    found = findings(results(HARD, HARD))
    assert found[0].verdict == found[3].verdict == NOISE


def test_one_network_is_not_enough_to_decide():
    assert sign([3.0]) == 0
    assert np.isnan(stderr([3.0]))


def test_the_interval_uses_the_t_distribution():
    # t(0.975, 2) = 4.303: mean 1 and standard error 0.25 exclude 0, 0.2325 is the border.
    spread = np.array([-1.0, 0.0, 1.0])
    assert stderr(1 + 0.4 * spread) == pytest.approx(0.4 / 3**0.5)
    assert sign(1 + 0.40 * spread) == 1
    assert sign(-1 - 0.40 * spread) == -1
    assert sign(1 + 0.41 * spread) == 0


def test_the_report_rates_the_layer_the_students_and_the_information():
    train, validation, taught, smoothed, information = findings(results(HARD, HARD))[4:]
    assert (train.verdict, validation.verdict) == (NOISE, NOISE)
    assert taught.verdict == smoothed.verdict == information.verdict == AGREES
    assert "7.11 ± 0.05% with the teacher at T = 4, chosen on validation" in taught.found
    assert "Test error 10.15 ± 0.06% of the students of teachers with smoothing of 0.1" in smoothed.found
