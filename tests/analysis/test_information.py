"""Mutual information between an example and the network's answer."""

import numpy as np
import pytest
from conftest import assert_close

from lsmooth.analysis import mutual_information

RNG = np.random.default_rng(0)


def reference(d):
    """The formula, term by term."""
    mu = d.mean(1)
    variance = np.mean((d - mu[:, None]) ** 2)
    total = 0.0
    for x in range(d.shape[0]):
        for draw in d[x]:
            own = -((draw - mu[x]) ** 2) / (2 * variance)
            total += own - np.log(np.mean(np.exp(-((draw - mu) ** 2) / (2 * variance))))
    return total / d.size


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_estimate_matches_the_paper(backend, dtype):
    d = RNG.normal(size=(6, 4)) + RNG.normal(size=(6, 1))
    assert_close(backend, mutual_information(backend.asarray(d, dtype)), reference(d), dtype, factor=30)


def test_distant_examples_carry_full_information(backend):
    d = 100.0 * np.arange(8)[:, None] + RNG.normal(size=(8, 5))
    assert_close(backend, mutual_information(backend.asarray(d)), np.log(8), "float64")


def test_two_groups_carry_one_bit(backend):
    d = np.sign(np.arange(64) - 31.5)[:, None] * 100 + RNG.normal(size=(64, 200))
    assert float(mutual_information(backend.asarray(d))) == pytest.approx(np.log(2), abs=0.01)


def test_identical_draws_give_the_limit(backend):
    assert float(mutual_information(backend.asarray([[1.0, 1.0], [1.0, 1.0]]))) == pytest.approx(0.0)
    assert float(mutual_information(backend.asarray([[1.0, 1.0], [2.0, 2.0]]))) == pytest.approx(np.log(2))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"differences must have shape \(examples, draws\), got \(3,\)"):
        mutual_information([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="differences must be floating point"):
        mutual_information([[1, 2]])
