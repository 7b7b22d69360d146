"""Facts about the NumPy backend's reductions along a short axis, which go column by column."""

from __future__ import annotations

import numpy as np
import pytest

from lsmooth.backends import load_backend


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "bool"])
@pytest.mark.parametrize("shape", [(5, 2), (3, 4, 7), (4, 1), (4, 0), (3,), (0, 3), (6, 9)])
def test_reductions_match_numpy(dtype, shape):
    xp, x = load_backend("numpy"), (np.random.default_rng(0).standard_normal(shape) * 9).astype(dtype)
    if dtype == "float64" and x.size > 4:
        x.flat[1], x.flat[3] = np.nan, -np.inf
    for axis in range(-1, x.ndim):
        expected, got = np.sum(x, axis=axis), xp.sum(x, axis=axis)
        assert np.asarray(got).dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
        if x.shape[axis]:
            np.testing.assert_array_equal(xp.max(x, axis=axis), np.max(x, axis=axis))
            assert not np.shares_memory(xp.max(x, axis=axis), x)
    np.testing.assert_array_equal(xp.sum(x), np.sum(x))
