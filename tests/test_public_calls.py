"""What holds of every public call: it is in the table, and gives the same numbers everywhere."""

from __future__ import annotations

import public_calls
import pytest

from lsmooth.backends import Backend

ROWS = sorted(public_calls.CALLS)


def test_every_public_name_has_a_row_or_a_reason():
    names, rows = set(public_calls.public_names()), {public_calls.public_name(row) for row in ROWS}
    assert names - rows - set(public_calls.WITHOUT_A_ROW) == set()
    assert (rows | set(public_calls.WITHOUT_A_ROW)) - names == set()
    assert not rows & set(public_calls.WITHOUT_A_ROW)


def test_every_row_takes_arrays_of_the_table():
    for row in ROWS:
        assert set(public_calls.input_names(row)) <= set(public_calls.INPUTS), row


@pytest.mark.parametrize("row", ROWS)
def test_public_calls_give_the_same_numbers_on_every_backend(backend: Backend, row: str):
    public_calls.check(backend, row, public_calls.call(row, public_calls.converted(backend, row)))
