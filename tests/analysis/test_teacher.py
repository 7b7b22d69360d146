"""A teacher's mass on wrong classes, its entropy, and the temperature for a given mass."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.analysis import match_temperature, teacher_entropy, teacher_wrong_class_mass

RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(6, 5)), RNG.integers(0, 5, 6)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gamma(logits, labels, temperature=1.0):
    wrong = 1 - np.eye(logits.shape[-1])[labels]
    return (wrong * softmax(logits / temperature)).sum(-1).mean() * logits.shape[-1] / (logits.shape[-1] - 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_mass_and_entropy_follow_their_formulas(backend, dtype, temperature):
    logits = backend.asarray(LOGITS, dtype)
    mass = teacher_wrong_class_mass(backend.asarray(LABELS), logits, temperature=temperature)
    assert_close(backend, mass, gamma(LOGITS, LABELS, temperature), dtype, factor=4)
    p = softmax(LOGITS / temperature)
    entropy = teacher_entropy(logits, temperature=temperature)
    assert_close(backend, entropy, -(p * np.log(p)).sum(-1).mean(), dtype, factor=4)


def test_the_uniform_teacher_has_mass_one_and_full_entropy(backend):
    flat = backend.asarray(np.zeros((2, 3, 4)))
    assert_close(backend, teacher_wrong_class_mass(np.ones((2, 4), int), flat, axis=1), 1.0, "float64")
    assert_close(backend, teacher_entropy(flat, axis=1), np.log(3), "float64")


def test_a_tiny_mass_is_not_rounded_away(backend):
    logits = backend.asarray([[40.0, 0.0]], "float32")
    assert float(teacher_wrong_class_mass([0], logits)) == pytest.approx(2 * np.exp(-40), rel=1e-5)


def test_masked_classes_take_no_probability(backend):
    logits = backend.asarray(np.array([[1.0, 0.0, -np.inf]]))
    assert_close(backend, teacher_entropy(logits), np.log(1 + np.e) - np.e / (1 + np.e), "float64", factor=10)
    assert_close(backend, teacher_wrong_class_mass([0], logits), 1.5 / (1 + np.e), "float64")


def test_each_row_uses_its_own_temperature(backend):
    mass = teacher_wrong_class_mass(LABELS, backend.asarray(LOGITS), temperature=backend.asarray([1.0, 2, 3, 4, 5, 6]))
    scaled = LOGITS / np.arange(1.0, 7.0)[:, None]
    assert_close(backend, mass, gamma(scaled, LABELS), "float64", factor=4)


@pytest.mark.parametrize("wanted", [0.3, 0.6, 0.9])
def test_the_matching_temperature_gives_the_mass(backend, wanted):
    labels = LOGITS.argmax(-1)
    logits = backend.asarray(LOGITS)
    temperature = match_temperature(labels, logits, wanted)
    assert gamma(LOGITS, labels, temperature) == pytest.approx(wanted, abs=1e-6)


def test_a_mass_out_of_reach_is_refused():
    with pytest.raises(ValueError, match=r"gamma must be between 0 and 0.999.* got 1\.5"):
        match_temperature([0, 1], [[2.0, 0.0], [0.0, 2.0]], 1.5)


def test_labels_out_of_range_give_nan(backend):
    assert np.isnan(float(teacher_wrong_class_mass([0, 7], backend.asarray(LOGITS[:2]))))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="labels must be class ids"):
        teacher_wrong_class_mass(np.eye(5)[LABELS], LOGITS)
    with pytest.raises(ValueError, match="at least two classes along axis, got 1"):
        teacher_wrong_class_mass([0], [[1.0]])
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
        teacher_entropy(LOGITS, temperature=0.0)
