"""Keras models under a strategy of two replicas, compared with one device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import require_backend


@pytest.fixture(scope="module")
def seen():
    """The output of keras_replicas.py."""
    require_backend("tensorflow")
    pytest.importorskip("keras", reason="keras is not installed")
    script = str(Path(__file__).with_name("keras_replicas.py"))
    process = subprocess.run(
        [sys.executable, "-W", "ignore", script],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("loss", ["sparse", "categorical", "binary", "focal"])
def test_training_over_replicas_is_training_on_one_device(seen, loss):
    assert seen[loss] < 1e-12


def test_replicas_that_ignore_different_numbers_of_rows_weigh_as_in_keras(seen):
    assert seen["ignored rows, beside Keras"] < 1e-12
    assert seen["ignored rows, beside one device"] > 1e-3


def test_a_sum_over_the_rows_that_count_on_all_replicas_is_the_mean_on_one_device(seen):
    assert seen["ignored rows, mean of all"] < 1e-12
