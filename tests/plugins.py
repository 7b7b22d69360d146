"""Checks of every plug-in under ``backends/``, called by its test."""

from __future__ import annotations

import subprocess
import sys

import public_calls
import pytest

from lsmooth.backends import installed_backends, load_backend
from lsmooth.testing import check_backend

# Some calibrators say on small data that they will overfit, and some losses that no row counts.
QUIET = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def is_found(name: str, module: str, make: str) -> None:
    """The entry point loads the backend for a call with an array of the framework."""
    assert name in installed_backends()
    script = (
        f"import {module}, lsmooth.backends\nx = {make}\nassert lsmooth.backends.backend_of(logits=x).name == {name!r}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def conforms(name: str) -> None:
    """It passes `lsmooth.testing.check_backend`."""
    check_backend(load_backend(name))


def gives_the_numbers_of_numpy(name: str, row: str, floats: str) -> None:
    """A public call on arrays of the framework gives the numbers that NumPy gives."""
    xp = load_backend(name)
    result = public_calls.call(row, public_calls.converted(xp, row, floats))
    public_calls.check(xp, row, result, floats)
