"""The objectives of the networks match the formula on every framework."""

import numpy as np
from conftest import assert_close

from lsmooth.study.objectives import smoothed_labels, teachers_logits

Z, TEACHER = np.random.default_rng(0).normal(0.0, 2.0, (2, 5, 3))
LABELS = np.array([0, 2, 1, 1, 0])


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def test_labels_are_smoothed_towards_the_uniform_distribution(backend):
    targets = 0.7 * np.eye(3)[LABELS] + 0.1
    expected = -(targets * log_softmax(Z)).sum(-1).mean()
    assert_close(backend, smoothed_labels(backend.asarray(LABELS), backend.asarray(Z), 0.3), expected, "float64")


def test_the_divergence_uses_the_temperature(backend):
    for temperature in (1.0, 4.0):
        teacher, student = log_softmax(TEACHER / temperature), log_softmax(Z / temperature)
        expected = temperature**2 * (np.exp(teacher) * (teacher - student)).sum(-1).mean()
        got = teachers_logits(backend.asarray(TEACHER), backend.asarray(Z), temperature)
        assert_close(backend, got, expected, "float64")
