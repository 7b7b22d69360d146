"""`tf.debugging.enable_check_numerics` accepts ordinary calls, and `where` with infinities."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import require_backend

TESTS = pathlib.Path(__file__).parents[2]


@pytest.fixture
def xp():
    return require_backend("tensorflow")


def test_public_calls_and_their_gradients_pass_eagerly_and_in_tf_function(xp):
    """In a separate process, because functions traced in this mode keep it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, str(TESTS / "public_calls_tensorflow.py"), "check_numerics"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout or done.stderr[-2000:]


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_where_accepts_non_finite_values(xp, number, dtype):
    x = np.array([1.5, np.inf, -np.inf, np.nan, -0.25])
    chosen = np.array([True, True, False, False, False])
    values = xp.asarray(x, dtype)
    np.testing.assert_array_equal(xp.to_numpy(xp.where(chosen, values, number)), np.where(chosen, x, number))
    np.testing.assert_array_equal(xp.to_numpy(xp.where(chosen, number, values)), np.where(chosen, number, x))
    np.testing.assert_array_equal(xp.to_numpy(xp.equal(values, number)), np.equal(x, number))


def test_the_gradient_passes_where_a_number_that_is_not_finite_is_not_chosen(xp):
    chosen = np.array([True, False])
    for number in (float("inf"), float("-inf"), float("nan")):
        gradient = xp.value_and_grad(
            lambda x, number=number: xp.sum(2.0 * xp.where(chosen, x, number)), xp.asarray([1.0, 3.0], "float64")
        )[1]
        np.testing.assert_array_equal(xp.to_numpy(gradient), [2.0, 0.0])
