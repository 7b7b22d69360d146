"""The plug-in for ``array_api_strict``, which has nothing that the array API standard does not name."""

import plugins
import public_calls
import pytest

NAME = "array_api_strict"


def test_its_arrays_find_it():
    plugins.is_found(NAME, "array_api_strict", "array_api_strict.asarray([0.0])")


@plugins.QUIET
def test_it_conforms():
    plugins.conforms(NAME)


@plugins.QUIET
@pytest.mark.parametrize("row", sorted(public_calls.CALLS))
def test_public_calls_give_the_numbers_of_numpy(row):
    plugins.gives_the_numbers_of_numpy(NAME, row, "float64")
