"""`Backend.top`: the maximum of a row, and whether an entry is its first position."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require_backend

from lsmooth.backends import Backend

ABOVE = np.nextafter(np.float32([0.5, 1e-35]), np.float32(1))
ROWS = np.array(
    [
        [0.1, 0.7, 0.2],
        [0.4, 0.4, 0.2],  # shared
        [0.5, ABOVE[0], 0.0],  # all but shared
        [-np.inf, -np.inf, -np.inf],
        [np.inf, 0.0, np.inf],
        [1e-35, ABOVE[1], 0.0],  # by a subnormal difference, which XLA flushes to 0
    ],
    np.float32,
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_only_the_first_of_equal_entries_is_the_top(backend: Backend, index: int, dtype: str):
    x = ROWS.astype(dtype)
    # One row at a time too: the fast path for rows without ties must not depend on other rows.
    for rows in (x, *(row[None] for row in x)):
        highest, hit = backend.top(backend.asarray(rows), backend.asarray(np.full(len(rows), index)))
        np.testing.assert_array_equal(backend.to_numpy(highest), rows.max(-1))
        np.testing.assert_array_equal(backend.to_numpy(hit), rows.argmax(-1) == index)


@pytest.mark.parametrize("classes", [2**14, 2**14 + 1])
def test_long_rows_have_their_first_top_too(backend: Backend, classes: int):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3000, (8, classes)).astype(np.float32)  # several equals in each row
    first = x.argmax(-1)
    later = classes - 1 - x[:, ::-1].argmax(-1)
    assert (later > first).any()
    for index in (first, later):
        highest, hit = backend.top(backend.asarray(x), backend.asarray(index))
        np.testing.assert_array_equal(backend.to_numpy(highest), x.max(-1))
        np.testing.assert_array_equal(backend.to_numpy(hit), index == first)


def test_the_maximum_of_a_row_with_nan_is_nan(backend: Backend):
    x = backend.asarray(np.array([[0.5, np.nan], [np.nan, 0.5], [0.5, 0.25]]))
    highest, _ = backend.top(x, backend.asarray(np.zeros(3, np.int64)))
    np.testing.assert_array_equal(backend.to_numpy(highest), [np.nan, np.nan, 0.5])


def test_top_can_be_vmapped_in_jax():
    backend = require_backend("jax")
    import jax

    x = np.stack([ROWS[:3], ROWS[3:]])
    _, hit = jax.jit(jax.vmap(backend.top))(x, np.ones((2, 3), np.int32))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(hit, x.argmax(-1) == 1)
