"""Facts about which rows are taken for distributions."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth._probabilities import check_distributions, sums_to_one

P = np.random.default_rng(0).dirichlet(np.ones(10), 500)


@pytest.mark.parametrize("digits", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rounded_rows_are_distributions(digits, classes, dtype):
    p = np.random.default_rng(classes).dirichlet(np.ones(classes), 50)
    assert sums_to_one(np.round(p, digits).astype(dtype)).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("carrier", ["float16", "float32", "float64"])
def test_rows_of_any_dtype_are_distributions(dtype, carrier):
    assert sums_to_one(P.astype(dtype).astype(carrier)).all()


def test_rows_of_bfloat16_are_distributions():
    bits = P.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    assert sums_to_one(bits.view(np.float32)).all()


def test_tree_votes_are_distributions():
    votes = np.random.default_rng(0).multinomial(7, P) / 7
    assert sums_to_one(votes).all()
    assert sums_to_one(votes.astype(np.float32)).all()


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99, 1.01, 1.1, 2.0])
def test_rows_with_other_sums_are_not_probabilities(factor):
    assert not sums_to_one(P * factor).any()
    assert not sums_to_one((P * factor).astype(np.float32)).any()


def test_rounding_explains_no_more_than_half_a_digit_of_each_entry():
    assert sums_to_one(np.array([0.33, 0.33, 0.33]))
    assert not sums_to_one(np.array([0.32, 0.33, 0.33]))
    assert not sums_to_one(np.array([0.34, 0.34, 0.34, 0.0]))
    assert not sums_to_one(np.array([1.0, 1.0]))
    assert not sums_to_one(np.array([0.0, 0.0]))


def test_the_invalid_row_is_named():
    p = np.full((2, 3, 2), 0.5)
    p[1, 2] = [0.25, 0.25]
    with pytest.raises(ValueError, match=r"labels must sum to 1 .* a sum of 0.5 at row \(1, 2\)"):
        check_distributions("labels", p)
    p[1, 2] = [1.5, -0.5]
    with pytest.raises(ValueError, match=r"labels must be probabilities in \[0, 1\], got 1.5 at index \(1, 2, 0\)"):
        check_distributions("labels", p)
